# SPDX-License-Identifier: Apache-2.0
"""Section 8: sensitivity of layers, and quantization techniques compared (004, tables 3 to 6).

L2 is the distance of the output from the float network's, averaged over images and divided by the
float output's own norm.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from formats.arithmetic import at_frac, largest_frac
from formats.quantizer import Quantizer
from model_prep.allocate.cache import Choice, FloatBase
from model_prep.allocate.measure import Measure, measuring
from model_prep.graph import Layer
from model_prep.quantize.fake_quant import floats
from model_prep.quantize.quantizers import WEIGHTS
from model_prep.study import papers, plots
from model_prep.study.context import Study
from model_prep.study.plots import Figure
from model_prep.study.results import PAPER, Section, Table

TECHNIQUES = ("dynamic", "linear", "gaussian", "kmeans")
_SENSITIVITY = (8, 6, 4, 3)
_WEIGHT_WIDTHS = (10, 8, 6, 4, 3)
_CODE_WIDTHS = (8, 6, 4, 3)
_WHOLE_BITS = (8, 6)
_STANDARD_BITS = 12
_IMAGES = 50
_MANY = 12  # layers, above which fewer widths are measured


def _stored(weight: np.ndarray, label: tuple[str, int]) -> torch.Tensor:
    stored = WEIGHTS[label[0]].fit(weight, label[1])
    return floats(stored.integers, stored.frac)


class Space(FloatBase):
    """Configurations with the float network as their base, weights by (technique, bits)."""

    def __init__(self, study: Study) -> None:
        super().__init__(study.graph, _stored)
        self.study = study

    def codes(self, technique: str, bits: int) -> dict[str, Quantizer]:
        """All activations in a technique; k-means is KNQ."""
        scheme = "knq" if technique == "kmeans" else technique
        return dict(self.study.choice(scheme, bits, "none").quantizers)

    def standard(self, bits: int) -> Choice:
        """One format for all weights and one for all activations (004, section 5.2.1)."""
        largest = max(float(np.abs(values).max()) for values in self.weights.values())
        frac = largest_frac(largest, (1 << (bits - 1)) - 1)
        made = {
            name: floats(at_frac(values, bits, frac), frac) for name, values in self.weights.items()
        }
        common = largest_frac(max(self.study.calibration.maxima.values()), (1 << bits) - 1)
        signed = self.study.plan("knq").signed
        codes = {
            name: Quantizer("uniform", bits, bits, common - (name in signed), signed=name in signed)
            for name in self.study.elements
        }
        return Choice(codes, made, dict.fromkeys(made, ("standard", bits)))


def distance(measure: Measure, choice: Choice, base: Choice) -> float:
    """Normalised L2 of the output (004, equation 1)."""
    outputs = measure.outputs(choice, base)
    exact = measure.sample.logits.astype(np.float64)
    gap = np.sqrt(np.square(outputs - exact).sum(axis=1)).mean()
    return float(gap / np.sqrt(np.square(exact).sum(axis=1)).mean())


def _sensitivity(space: Space, measure: Measure, widths: list[int]) -> dict[str, Any]:
    """One variable of one layer at a time: L2 by layer and width, the last layer first."""
    study = space.study
    codes = {bits: space.codes("dynamic", bits) for bits in widths}
    found: dict[str, Any] = {"weights": {}, "activations": {}}
    for layer in tqdm(study.graph.layers[::-1], desc="layers", disable=None, leave=False):
        name = layer.name
        if name in study.elements:
            found["activations"][name] = [
                distance(measure, space.choice({}, {name: codes[bits][name]}), space.base)
                for bits in widths
            ]
        if layer.has_weights:
            found["weights"][name] = [
                distance(measure, space.choice({name: ("dynamic", bits)}, {}), space.base)
                for bits in widths
            ]
    return found


def largest_fc(study: Study) -> Layer:
    """The fully connected layer with most weights; without one, the largest layer."""
    weighted = [layer for layer in study.graph.layers if layer.has_weights]
    full = [layer for layer in weighted if layer.kind == "fc"]
    return max(full or weighted, key=lambda layer: layer.weight.size)


def _compare(space: Space, measure: Measure) -> dict[str, Any]:
    """L2 by technique and width, of the weights of one layer and of all activations."""
    study = space.study
    name = largest_fc(study).name
    weight_widths = study.pick(_WEIGHT_WIDTHS, (6, 4))
    code_widths = study.pick(_CODE_WIDTHS, (6, 4))
    found: dict[str, Any] = {
        "weights": {}, "activations": {}, "layer": name, "weight_widths": weight_widths,
        "code_widths": code_widths,
    }  # fmt: skip
    for technique in tqdm(TECHNIQUES, desc="techniques", disable=None, leave=False):
        found["weights"][technique] = [
            distance(measure, space.choice({name: (technique, bits)}, {}), space.base)
            for bits in weight_widths
        ]
        found["activations"][technique] = [
            distance(measure, space.choice({}, space.codes(technique, bits)), space.base)
            for bits in code_widths
        ]
    return found


def _whole(space: Space) -> list[list[Any]]:
    """The whole network in each technique: savings, L2 by output SQNR, losses on test images."""
    study = space.study
    exact = study.exact
    rows: list[list[Any]] = []
    cases = [("standard fixed point", _STANDARD_BITS, space.standard(_STANDARD_BITS))]
    for bits in study.pick(_WHOLE_BITS, (4,)):
        for technique in TECHNIQUES:
            weights = dict.fromkeys(space.weights, (technique, bits))
            cases.append((technique, bits, space.choice(weights, space.codes(technique, bits))))
    for technique, bits, choice in cases:
        score = study.score(choice)
        saved = 100 * (1 - bits / 32)
        noise = score["sqnr_db"]
        rows.append([
            plots.label(technique), bits, saved, None if noise is None else 10 ** (-noise / 20),
            exact["good"] - score["good"],
            None if score["top5"] is None else exact["top5"] - score["top5"],
        ])  # fmt: skip
    return rows


def sensitivity(study: Study) -> Section:
    """Layers one at a time, techniques side by side."""
    space = Space(study)
    few = len(study.graph.layers) <= _MANY
    widths = study.pick(_SENSITIVITY if few else (6, 4), (6, 4))

    def run() -> dict[str, Any]:
        few = study.few(_IMAGES)
        with measuring(study.problem("uniform"), few, "sqnr") as measure:
            return {"images": len(few.pixels),
                    "single": _sensitivity(space, measure, widths),
                    "techniques": _compare(space, measure)}  # fmt: skip

    found = study.store.remember(f"sensitivity {widths} {study.quick}", run)
    single, techniques = found["single"], found["techniques"]
    columns = [f"{bits} bits" for bits in widths]
    names = [layer.name for layer in study.graph.layers]
    rows = [
        [name, *single["weights"].get(name, [None] * len(widths)),
         *single["activations"].get(name, [None] * len(widths))]
        for name in names
    ]  # fmt: skip
    data = {**found, "widths": widths, "layers": names}
    fc = techniques["layer"]
    tables = [
        *papers.techniques(),
        _ristretto(),
        Table(f"One layer at a time, dynamic fixed point, all else float: L2 of the output, "
              f"{found['images']} images",
              ["layer", *[f"weights {c}" for c in columns],
               *[f"activations {c}" for c in columns]], rows, digits=3),
        _techniques(f"Weights of {fc} alone", techniques["weights"], techniques["weight_widths"]),
        _techniques("All activations, weights float", techniques["activations"],
                    techniques["code_widths"]),
        Table("The whole network, one width for weights and for activations, test images",
              ["technique", "bits", "saved, weights and activations, %", "L2",
               f"loss in {study.goodness.removesuffix(', %')}, points", "top-5 loss, points"],
              _whole(space), note="L2 here is root of noise over signal of all outputs together."),
    ]  # fmt: skip
    worst = max(single["weights"].items(), key=lambda item: item[1][-1])[0]
    best = min(techniques["activations"].items(), key=lambda item: item[1][-1])[0]
    lead = (
        f"Weights of {worst} are the most sensitive at {widths[-1]} bits. For activations at "
        f"{techniques['code_widths'][-1]} bits {plots.label(best)} is nearest to float."
    )
    return Section(lead, tables, data)


def _techniques(title: str, found: Mapping[str, list[float]], widths: list[int]) -> Table:
    return Table(
        f"{title}: L2 of the output", ["technique", *[f"{bits} bits" for bits in widths]],
        [[plots.label(name), *values] for name, values in found.items()], digits=3,
    )  # fmt: skip


def _ristretto() -> Table:
    known = papers.figures()["ristretto_top1_pct"]
    return Table(
        "Paper 004, table 6: AlexNet, top-1 relative to float, %, only one kind of variable",
        ["work", "variable", *known["widths"]], known["rows"], PAPER, known["note"], 1,
    )  # fmt: skip


def sensitivity_figures(data: dict[str, Any]) -> list[Figure]:
    """Heat map of layers, and techniques over widths."""
    names, widths = data["layers"], [f"{bits} bits" for bits in data["widths"]]
    single, techniques = data["single"], data["techniques"]
    empty = [np.nan] * len(widths)
    done_all = []
    with plots.drawing("layers", 1, 2, (8.6, 0.9 + 0.27 * len(names))) as (axes, done):
        for axis, kind in zip(axes[0], ("weights", "activations"), strict=True):
            values = np.array([single[kind].get(name, empty) for name in names], np.float64)
            plots.heat(axis, values, names, widths)
            axis.set_title(kind, loc="left", fontweight="bold")
    caption = (
        "Distance of the output from float (L2, 0 is identical) with one variable of one layer "
        "quantized; dark layers are sensitive."
    )
    done_all.append(Figure(done[0], caption))
    with plots.drawing("techniques", 1, 2, (9.2, 3.3)) as (axes, done):
        for axis, kind, key in zip(axes[0], ("weights", "activations"),
                                   ("weight_widths", "code_widths"), strict=True):  # fmt: skip
            for technique, values in techniques[kind].items():
                plots.line(axis, technique, techniques[key], values)
            axis.set_yscale("log")
            axis.set_xlabel("bits")
            axis.set_title(kind if kind == "activations" else f"weights of {techniques['layer']}",
                           loc="left")  # fmt: skip
        axes[0, 0].set_ylabel("L2 of the output")
        axes[0, 1].legend()
    done_all.append(Figure(done[0], "Techniques by width, logarithmic: lower is nearer to float."))
    return done_all
