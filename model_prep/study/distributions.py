# SPDX-License-Identifier: Apache-2.0
"""Distributions that the papers draw: weights (002, Fig. 2a), activations before the ReLU (001,
Fig. 1; 002, Fig. 2b), the values of ENQ's and KNQ's codes (001, Fig. 2), and the SQNR that a
uniform quantizer has of a density (002, Fig. 1).
"""

import math
from typing import Any

import numpy as np
import torch

from nuq.model_prep import run
from nuq.model_prep.allocate import sqnr
from nuq.model_prep.graph import Layer
from nuq.model_prep.quantize.calibrate import batches
from nuq.model_prep.quantize.quantizers import optimal_step
from nuq.model_prep.quantize.score import sqnr_db
from nuq.model_prep.study.context import Study, fixed
from nuq.model_prep.study.plots import Figure, Panel, Series, short
from nuq.model_prep.study.results import Section, Table

_BINS = 96
_SHOWN = 8  # layers drawn
_BITS = 5  # of the codes drawn, as in table IV of 000
_WIDTHS = range(1, 9)  # of the densities
_LINE = (3, 4, 5, 6, 7, 8)  # widths that a layer's line is fitted to
_DEVIATIONS = 6.0  # drawn on either side


def _facts(values: np.ndarray) -> dict[str, Any]:
    """Moments of values and their histogram within six deviations of the mean."""
    exact = values.astype(np.float64).ravel()
    mean, deviation = float(exact.mean()), float(exact.std())
    middle = (exact - mean) / (deviation or 1.0)
    reach = (mean - _DEVIATIONS * (deviation or 1.0), mean + _DEVIATIONS * (deviation or 1.0))
    counts, edges = np.histogram(exact, _BINS, reach)
    return {"mean": mean, "deviation": deviation, "kurtosis": float((middle**4).mean()),
            "skew": float((middle**3).mean()), "shares": 100 * counts / exact.size,
            "edges": edges}  # fmt: skip


def _before_relu(study: Study) -> dict[str, Any]:
    """Of what each layer with weights computes, before its ReLU and pool: the first images."""
    found: dict[str, Any] = {}

    def operation(layer: Layer, inputs: list[torch.Tensor]) -> torch.Tensor:
        raw = run.operate(layer, inputs)
        if layer.has_weights and not layer.fixed:
            found[layer.name] = _facts(raw.numpy())
        return run.finish(layer, raw)

    first = next(batches(study.subject.images.calibration.pixels))
    for _ in run.run(study.graph, study.to_float(first), operation):
        pass
    return {"images": len(first), "layers": found}


def optimal_sqnr_db(density: str, bits: int) -> float:
    """SQNR of the symmetric uniform quantizer with the step of least error (002, Fig. 1).

    >>> round(optimal_sqnr_db("uniform", 4), 2), round(optimal_sqnr_db("gaussian", 1), 2)
    (24.08, 4.4)
    """
    if density == "uniform":
        return 20 * bits * math.log10(2)
    step = optimal_step.computed_step(density, bits)
    return sqnr_db(1.0, optimal_step.squared_error(density, bits, step))


def _slopes(study: Study) -> dict[str, float]:
    """kappa, dB a bit, of each layer's weights in fixed point with the F of least error."""
    found = {}
    for name, weight in study.weights.items():
        if study.graph.layer(name).fixed:
            continue
        signal = float(np.square(weight.astype(np.float64)).sum())
        points = {bits: sqnr_db(signal, float(np.square(fixed(weight, bits) - weight).sum()))
                  for bits in _LINE}  # fmt: skip
        found[name] = sqnr.fit_efficiency(points).kappa
    return found


def _panels(facts: dict[str, Any], x_label: str) -> list[Panel]:
    step = -(-len(facts) // _SHOWN)
    return [
        Panel([Series(name, one["edges"], one["shares"]), Series("knq", (), ())], short(name),
              x_label, "% of values", "histogram", logarithmic="y")
        for name, one in list(facts.items())[::step]
    ]  # fmt: skip


def _codes(study: Study) -> Figure:
    """What the codes of ENQ and KNQ stand for, the first layers."""
    forms = {scheme: study.choice(scheme, _BITS).quantizers for scheme in ("enq", "knq")}
    names = list(forms["knq"])
    step = -(-len(names) // 4)
    panels = []
    for number, name in enumerate(names[::step]):
        lines = []
        for scheme, quantizers in forms.items():
            one = quantizers[name]
            table = one.decode_table * 2.0**-one.frac
            if one.signed and scheme == "enq":
                table = np.sort(table)
            lines.append(Series(scheme, np.arange(len(table)), table))
        panels.append(Panel(lines, short(name), "code", "value", legend=int(number == 0)))
    caption = f"Values of the {1 << _BITS} codes of ENQ (equal steps) and KNQ (001, Fig. 2)."
    return Figure(caption, panels, (10.2, 2.9))


def distributions(study: Study) -> Section:
    """Moments and histograms, and SQNR by density."""
    before = study.store.remember("before ReLU", lambda: _before_relu(study))
    weights = {name: _facts(values) for name, values in study.weights.items()
               if not study.graph.layer(name).fixed}  # fmt: skip
    moments: list[list[Any]] = [
        [name, *(one[key] for one in (weights[name], before["layers"][name])
                 for key in ("mean", "deviation", "skew", "kurtosis"))]
        for name in weights
    ]  # fmt: skip
    slopes = _slopes(study)
    lines = {density: [optimal_sqnr_db(density, bits) for bits in _WIDTHS]
             for density in ("uniform", "gaussian", "laplacian", "gamma")}  # fmt: skip
    kappa: list[list[Any]] = [
        [density, *values, float(np.polyfit(list(_WIDTHS), values, 1)[0])]
        for density, values in lines.items()
    ]
    names = ("mean", "deviation", "skew", "kurtosis")
    low, high = min(slopes.values()), max(slopes.values())
    tables = [
        Table(f"Moments; activations before the ReLU of {before['images']} calibration images. A "
              "Gaussian has skew 0 and kurtosis 3",
              ["layer", *[f"weights: {name}" for name in names],
               *[f"activations: {name}" for name in names]], moments, digits=3),
        Table("SQNR of the best symmetric uniform quantizer, dB (002, Fig. 1)",
              ["density", *[f"{bits} bits" for bits in _WIDTHS], "kappa, dB a bit"], kappa,
              note="kappa is the slope of a line through all of them. 002 says 6 for a uniform "
              "density, about 5 for a Gaussian, 2 to 4 for its network."),
        Table("kappa of the weights here, fixed point with the F of least error, 3 to 8 bits",
              ["layer", "dB a bit"], [[name, slope] for name, slope in slopes.items()]),
    ]  # fmt: skip
    tails = sum(one["kurtosis"] > 3 for one in before["layers"].values())
    lead = (
        f"Before the ReLU {tails} of {len(moments)} layers have longer tails than a Gaussian, "
        f"their weights {sum(one['kurtosis'] > 3 for one in weights.values())}. Weights gain "
        f"{low:.1f} to {high:.1f} dB a bit."
    )
    keys = {"uniform": "uniform", "gaussian": "gaussian", "laplacian": "linear", "gamma": "kmeans"}
    density = Panel(
        [Series(keys[name], list(_WIDTHS), values, name) for name, values in lines.items()],
        x_label="bits", y_label="SQNR, dB", integers="x", legend=1,
    )  # fmt: skip

    def shape(panels: list[Panel]) -> tuple[tuple[float, float], int]:
        return (10.2, 0.5 + 1.9 * -(-len(panels) // 4)), min(4, len(panels))

    drawn, raw = _panels(weights, "weight"), _panels(before["layers"], "before ReLU")
    return Section(lead, tables, [
        Figure("Weights by layer (002, Fig. 2a), logarithmic.", drawn, *shape(drawn)),
        Figure("Activations before the ReLU by layer (001, Fig. 1), logarithmic.", raw,
               *shape(raw)),
        _codes(study),
        Figure("SQNR by bits and density (002, Fig. 1).", [density], (5.4, 3.2)),
    ])  # fmt: skip
