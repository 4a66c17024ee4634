# SPDX-License-Identifier: Apache-2.0
"""QUENN with a technique for each layer (004, tables 4 and 5), and one layer's noise (Fig. 6).

Each variable of each layer is quantized alone in every technique, and keeps the one that leaves the
output nearest to float's. Saved memory counts the tables of codebooks (section 4.2: 2^n * width).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from tqdm import tqdm

from nuq.formats.arithmetic import ENTRY_BITS
from nuq.formats.quantizer import Quantizer
from nuq.model_prep.allocate.measure import measuring
from nuq.model_prep.allocate.quenn import saved
from nuq.model_prep.quantize.calibrate import float_maps
from nuq.model_prep.quantize.score import layer_pairs
from nuq.model_prep.study import papers
from nuq.model_prep.study.context import Study
from nuq.model_prep.study.layers import TECHNIQUES, codes_in, largest_fc, output_distance
from nuq.model_prep.study.plots import Figure, Panel, Series, label
from nuq.model_prep.study.results import Section, Table

BITS = (6, 4)
_IMAGES = 50
_MIXED = "best by layer"
_PROFILE_BITS = 6  # of the layer that Fig. 6 quantizes

Chosen = Mapping[str, str]  # technique by layer name


def _alone(study: Study, bits: int) -> dict[str, dict[str, dict[str, float]]]:
    """L2 of the output by variable, layer and technique, all else float."""
    found: dict[str, dict[str, dict[str, float]]] = {"weights": {}, "activations": {}}
    codes = {technique: codes_in(study, technique, bits) for technique in TECHNIQUES}
    with measuring(study.problem("uniform"), study.few(_IMAGES), "sqnr") as measure:
        distance = output_distance(study, measure)
        bar = tqdm(study.graph.layers[::-1], desc="layers", disable=None, leave=False)
        for layer in bar:
            name = layer.name
            if name in study.elements:
                found["activations"][name] = {
                    technique: distance({}, {name: codes[technique][name]})
                    for technique in TECHNIQUES
                }
            if layer.has_weights and not layer.fixed:
                found["weights"][name] = {
                    technique: distance({name: (technique, bits)}, {}) for technique in TECHNIQUES
                }
    return found


def best(alone: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    """The technique of least distance by layer; of equal ones the first of TECHNIQUES.

    >>> best({"a": {"dynamic": 0.2, "linear": 0.1, "gaussian": 0.1, "kmeans": 0.3}})
    {'a': 'linear'}
    """
    return {name: min(TECHNIQUES, key=lambda one: by_one[one]) for name, by_one in alone.items()}  # noqa: B023


def _whole(
    study: Study, bits: int, weights: Chosen, activations: Chosen
) -> tuple[dict[str, Any], float, float]:
    """(score on the test images, percent saved of weights, of activations)."""
    codes = {technique: codes_in(study, technique, bits) for technique in TECHNIQUES}
    quantizers: dict[str, Quantizer] = {
        name: codes[technique][name] for name, technique in activations.items()
    }
    choice = study.variants.choice(
        {name: (technique, bits) for name, technique in weights.items()}, quantizers
    )
    tables = {name: ENTRY_BITS for name, technique in weights.items() if technique != "dynamic"}
    sizes = {name: study.weights[name].size for name in weights}
    maps = {name: study.qm for name, technique in activations.items() if technique != "dynamic"}
    return (
        study.score(choice), saved(dict.fromkeys(weights, bits), sizes, tables),
        saved(dict.fromkeys(activations, bits), study.elements, maps),
    )  # fmt: skip


def profile(study: Study, layer: str) -> dict[str, float]:
    """L2 of every layer's map over float's own, with the codes of one layer quantized (Fig. 6)."""
    form = codes_in(study, "dynamic", _PROFILE_BITS)[layer]
    pixels = study.test.pixels[:_IMAGES]
    sums = {one.name: np.zeros(2) for one in study.graph.layers}
    pairs = layer_pairs(
        study.network, float_maps(study.graph, pixels, study.to_float), {layer: form},
        study.variants.base.weights,
    )  # fmt: skip
    for name, exact, got in pairs:
        parts = ((exact - got).double(), exact.double())
        norms = (part.square().flatten(1).sum(dim=1).sqrt().sum() for part in parts)
        sums[name] += [float(norm) for norm in norms]
    return {name: float(gap / exact) if exact else 0.0 for name, (gap, exact) in sums.items()}


def techniques(study: Study) -> Section:
    """Each technique everywhere, and the best for each layer; one layer's noise through the net."""
    rows: list[list[Any]] = []
    chosen_rows: list[list[Any]] = []
    gains = []
    for bits in study.pick(BITS, BITS[1:]):
        alone = study.store.remember(f"alone {bits}", lambda: _alone(study, bits))  # noqa: B023
        picks = {kind: best(by_layer) for kind, by_layer in alone.items()}
        kept = {}
        for technique in (*TECHNIQUES, _MIXED):
            weights, activations = (
                picks[kind] if technique == _MIXED else dict.fromkeys(picks[kind], technique)
                for kind in ("weights", "activations")
            )
            score, *percents = _whole(study, bits, weights, activations)
            kept[technique] = score
            rows.append([label(technique), bits, *percents, score["good"], score["agreement"],
                         score["divergence"]["mean"], score["sqnr_db"]])  # fmt: skip
        single = min(TECHNIQUES, key=lambda one: kept[one]["divergence"]["mean"])
        gains.append((bits, single, study.paired(kept[single], kept[_MIXED])))
        chosen_rows += [
            [bits, layer.name, *(label(picks[kind].get(layer.name, "")) for kind in picks)]
            for layer in study.graph.layers if any(layer.name in pick for pick in picks.values())
        ]  # fmt: skip
    named = [next(iter(study.elements)), largest_fc(study)]
    profiles = {
        name: study.store.remember(f"profile {name}", lambda: profile(study, name))  # noqa: B023
        for name in named if name in study.elements
    }  # fmt: skip
    tables = [
        *papers.quoted("alexnet", "vgg16"),
        Table("Weights and activations of all layers at one width, test images",
              ["technique", "bits", "saved, weights, %", "saved, activations, %", study.goodness,
               "agreement with float, %", "KL, nats", "output SQNR, dB"], rows, digits=3,
              note="Saved is against 32-bit floats and counts tables: 2^bits entries of "
              f"{ENTRY_BITS} bits for a layer's weights, of {study.qm} bits for its activations."),
        Table("The technique of least output distance, one variable of one layer at a time",
              ["bits", "layer", "weights", "activations"], chosen_rows),
        Table(f"Codes of one layer in {_PROFILE_BITS} bits, dynamic, all else float: L2 of every "
              "layer's map over its own norm (004, Fig. 6)",
              ["layer", *profiles],
              [[one.name, *(values[one.name] for values in profiles.values())]
               for one in study.graph.layers], digits=4),
    ]  # fmt: skip
    lead = " ".join(
        f"At {bits} bits a technique for each layer is {gain.difference:+.2f} points "
        f"({gain.low:+.2f} to {gain.high:+.2f}) against {label(single)} everywhere, the best one."
        for bits, single, gain in gains
    )
    names = [one.name for one in study.graph.layers]
    keys = ("knq", "enq")
    panel = Panel(
        [Series(keys[number], range(len(names)), [values[name] for name in names], layer)
         for number, (layer, values) in enumerate(profiles.items())],
        y_label="L2 over the map's norm", names=names, legend=2,
    )  # fmt: skip
    caption = f"Noise of one layer's codes ({_PROFILE_BITS} bits) along the network (004, Fig. 6)."
    return Section(lead, tables, [Figure(caption, [panel], (9.2, 3.0))])
