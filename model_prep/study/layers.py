# SPDX-License-Identifier: Apache-2.0
"""Section 8: sensitivity of layers, and quantization techniques compared (004, tables 3 to 6).

L2 is the distance of the output from the float network's, averaged over images and divided by the
float output's own norm.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from nuq.formats.arithmetic import at_frac, largest_frac
from nuq.formats.quantizer import Quantizer
from nuq.model_prep.allocate.cache import Choice
from nuq.model_prep.allocate.measure import Measure, measuring
from nuq.model_prep.footprint import saved_percent
from nuq.model_prep.quantize.fake_quant import floats
from nuq.model_prep.quantize.fracs import network_fracs, uniform_codes
from nuq.model_prep.quantize.score import inverse_sqnr
from nuq.model_prep.study import papers
from nuq.model_prep.study.context import Study
from nuq.model_prep.study.plots import Figure, Panel, Series, label
from nuq.model_prep.study.results import Section, Table

TECHNIQUES = ("dynamic", "linear", "gaussian", "kmeans")
_SENSITIVITY = (8, 6, 4, 3)
_WEIGHT_WIDTHS = (10, 8, 6, 4, 3)
_CODE_WIDTHS = (8, 6, 4, 3)
_WHOLE_BITS = (8, 6)
_STANDARD_BITS = 12
_IMAGES = 50
_MANY = 12  # layers, above which fewer widths are measured

Distance = Callable[[Mapping[str, tuple[str, int]], Mapping[str, Quantizer]], float]


def codes_in(study: Study, technique: str, bits: int) -> Mapping[str, Quantizer]:
    """All activations in a technique; k-means is KNQ."""
    scheme = "knq" if technique == "kmeans" else technique
    return study.choice(scheme, bits, "none").quantizers


def _standard(study: Study, bits: int) -> Choice:
    """One format for all weights and one for all activations (004, section 5.2.1)."""
    largest = max(float(np.abs(values).max()) for values in study.weights.values())
    frac = largest_frac(largest, (1 << (bits - 1)) - 1)
    weights = {
        name: floats(at_frac(values, bits, frac), frac) for name, values in study.weights.items()
    }
    common = largest_frac(max(study.calibration.maxima.values()), (1 << bits) - 1)
    signed = study.plan("knq").signed
    codes = uniform_codes(bits, network_fracs(study.elements, common, signed), signed)
    return Choice(codes, weights, dict.fromkeys(weights, ("standard", bits)))


def output_distance(study: Study, measure: Measure) -> Distance:
    """Normalised L2 of the output (004, equation 1) of variants of the float network."""
    base = study.variants.base
    exact = measure.sample.logits.astype(np.float64)
    norm = np.sqrt(np.square(exact).sum(axis=1)).mean()

    def distance(
        weights: Mapping[str, tuple[str, int]], quantizers: Mapping[str, Quantizer]
    ) -> float:
        outputs = measure.outputs(study.variants.choice(weights, quantizers), base)
        return float(np.sqrt(np.square(outputs - exact).sum(axis=1)).mean() / norm)

    return distance


def _single(study: Study, distance: Distance, widths: Sequence[int]) -> dict[str, Any]:
    """One variable of one layer at a time: L2 by layer and width, the last layer first."""
    codes = {bits: codes_in(study, "dynamic", bits) for bits in widths}
    by_kind: dict[str, dict[str, list[float]]] = {"weights": {}, "activations": {}}
    for layer in tqdm(study.graph.layers[::-1], desc="layers", disable=None, leave=False):
        name = layer.name
        if name in study.elements:
            by_kind["activations"][name] = [
                distance({}, {name: codes[bits][name]}) for bits in widths
            ]
        if layer.has_weights:
            by_kind["weights"][name] = [distance({name: ("dynamic", bits)}, {}) for bits in widths]
    return by_kind


def _techniques(study: Study, distance: Distance, layer: str) -> dict[str, Any]:
    """L2 by technique and width, of the weights of one layer and of all activations."""
    by_kind: dict[str, Any] = {
        "weights": {"widths": study.pick(_WEIGHT_WIDTHS, (6, 4))},
        "activations": {"widths": study.pick(_CODE_WIDTHS, (6, 4))},
    }
    for technique in tqdm(TECHNIQUES, desc="techniques", disable=None, leave=False):
        by_kind["weights"][technique] = [
            distance({layer: (technique, bits)}, {}) for bits in by_kind["weights"]["widths"]
        ]
        by_kind["activations"][technique] = [
            distance({}, codes_in(study, technique, bits))
            for bits in by_kind["activations"]["widths"]
        ]
    return by_kind


def largest_fc(study: Study) -> str:
    """The fully connected layer with most weights; without one, the largest layer."""
    weighted = [layer for layer in study.graph.layers if layer.has_weights]
    full = [layer for layer in weighted if layer.kind == "fc"]
    return max(full or weighted, key=lambda layer: layer.weight.size).name


def _whole(study: Study) -> Table:
    """The whole network in each technique: savings, L2 by output SQNR, losses on test images."""
    exact = study.exact
    rows: list[list[Any]] = []
    cases = [("standard fixed point", _STANDARD_BITS, _standard(study, _STANDARD_BITS))]
    for bits in study.pick(_WHOLE_BITS, (4,)):
        for technique in TECHNIQUES:
            weights = dict.fromkeys(study.weights, (technique, bits))
            choice = study.variants.choice(weights, codes_in(study, technique, bits))
            cases.append((technique, bits, choice))
    for technique, bits, choice in cases:
        score = study.score(choice)
        noise = score["sqnr_db"]
        rows.append([
            label(technique), bits, saved_percent(bits),
            None if noise is None else inverse_sqnr(noise) ** 0.5, exact["good"] - score["good"],
            None if score["top5"] is None else exact["top5"] - score["top5"],
        ])  # fmt: skip
    return Table(
        "The whole network, one width for weights and for activations, test images",
        ["technique", "bits", "saved, weights and activations, %", "L2",
         f"loss in {study.judge}, points", "top-5 loss, points"], rows,
        note="L2 here is root of noise over signal of all outputs together.",
    )  # fmt: skip


def sensitivity(study: Study) -> Section:
    """Layers one at a time, techniques side by side."""
    few = len(study.graph.layers) <= _MANY
    widths = study.pick(_SENSITIVITY if few else (6, 4), (6, 4))
    fc = largest_fc(study)

    def run() -> dict[str, Any]:
        few = study.few(_IMAGES)
        with measuring(study.problem("uniform"), few, "sqnr") as measure:
            distance = output_distance(study, measure)
            return {"images": len(few.pixels), "single": _single(study, distance, widths),
                    "techniques": _techniques(study, distance, fc)}  # fmt: skip

    result = study.store.remember(f"sensitivity {widths} {study.quick}", run)
    single, techniques = result["single"], result["techniques"]
    columns = [f"{bits} bits" for bits in widths]
    names = [layer.name for layer in study.graph.layers]
    empty = [None] * len(widths)
    by_layer = {kind: [single[kind].get(name, empty) for name in names] for kind in single}
    titles = {"weights": f"Weights of {fc} alone", "activations": "All activations, weights float"}
    tables = [
        *papers.quoted("fc6", "alexnet", "vgg16", "ristretto"),
        Table(f"One layer at a time, dynamic fixed point, all else float: L2 of the output, "
              f"{result['images']} images",
              ["layer", *(f"{kind} {width}" for kind in by_layer for width in columns)],
              [[name, *one, *other] for name, one, other in
               zip(names, *by_layer.values(), strict=True)], digits=3),
        *(Table(f"{title}: L2 of the output",
                ["technique", *[f"{bits} bits" for bits in techniques[kind]["widths"]]],
                [[label(name), *techniques[kind][name]] for name in TECHNIQUES], digits=3)
          for kind, title in titles.items()),
        _whole(study),
    ]  # fmt: skip
    worst = max(single["weights"], key=lambda name: single["weights"][name][-1])
    codes = techniques["activations"]
    best = min(TECHNIQUES, key=lambda technique: codes[technique][-1])
    lead = (
        f"Weights of {worst} are the most sensitive at {widths[-1]} bits. For activations at "
        f"{codes['widths'][-1]} bits {label(best)} is nearest to float."
    )
    heat = [
        Panel([Series(name, widths, row) for name, row in zip(names, rows, strict=True)],
              kind, kind="heat", names=columns)
        for kind, rows in by_layer.items()
    ]  # fmt: skip
    caption = (
        "Distance of the output from float (L2, 0 is identical) with one variable of one layer "
        "quantized; dark layers are sensitive."
    )
    figure = Figure(caption, heat, (8.6, 0.9 + 0.27 * len(names)))
    return Section(lead, tables, [figure, _technique_figure(techniques, fc)])


def _technique_figure(techniques: Mapping[str, Any], layer: str) -> Figure:
    panels = [
        Panel([Series(key, by_technique["widths"], by_technique[key]) for key in TECHNIQUES],
              f"weights of {layer}" if kind == "weights" else kind, "bits", "L2 of the output",
              logarithmic="y", legend=int(kind == "activations"))
        for kind, by_technique in techniques.items()
    ]  # fmt: skip
    caption = "Techniques by width, logarithmic: lower is nearer to float."
    return Figure(caption, panels, (9.2, 3.3))
