# SPDX-License-Identifier: Apache-2.0
"""Section 6: SQNR predicted and measured by layer (002, table 6), and 002's tables 1, 3 and 5."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from formats.quantizer import Quantizer
from model_prep.allocate import filling, sqnr
from model_prep.quantize.calibrate import float_maps
from model_prep.quantize.fake_quant import FakeQuantized
from model_prep.quantize.plan import Plan
from model_prep.quantize.quantizers import optimal_step
from model_prep.quantize.score import layer_sqnr_db
from model_prep.study import papers, plots
from model_prep.study.context import Study
from model_prep.study.plots import Figure
from model_prep.study.results import BOTH, Section, Table

_TARGETS = (25.0, 15.0)  # dB of all weights together
_LIMITS = (4, 16)


def _steps(
    study: Study, plan: Plan, quantizers: Mapping[str, Quantizer]
) -> tuple[dict[str, float], dict[str, float]]:
    """Measured SQNR of weights, and of activations in their codes, by layer name."""
    codes = filling.code_steps(quantizers, study.fine)
    return filling.weight_steps(study.graph, plan), codes


def _measured(study: Study, plan: Plan, quantizers: Mapping[str, Quantizer]) -> dict[str, float]:
    """SQNR of every layer's stored output on test images."""
    network = FakeQuantized(study.graph, study.subject.input, plan.layers)
    maps = float_maps(study.graph, study.measured_pixels, study.to_float)
    return layer_sqnr_db(network, maps, quantizers)


def prediction(study: Study) -> Section:
    """Two examples with weight widths by water-filling."""
    quantizers = study.choice("uniform", study.qm).quantizers
    rows: dict[str, list[Any]] = {
        layer.name: [layer.name] for layer in study.graph.layers if layer.has_weights
    }
    data: dict[str, Any] = {"layers": list(rows)}
    gaps = []
    for number, target in enumerate(_TARGETS, 1):
        base = study.plan("uniform", study.qm)
        weight_bits = filling.of_weights(study.graph, base).widths(target)
        plan = _with_floor(base.with_values("weight_bits", weight_bits))
        widths = {layer.name: layer.weight_bits for layer in plan.layers}
        paper, _ = filling.predict(
            study.graph, {name: sqnr.KAPPA * widths[name] for name in rows},
            {name: sqnr.KAPPA * study.qm for name in quantizers},
        )  # fmt: skip
        ours, _ = filling.predict(study.graph, *_steps(study, plan, quantizers))
        got = study.store.remember(
            f"layer SQNR {sorted(widths.items())}", partial(_measured, study, plan, quantizers)
        )
        for name, row in rows.items():
            row += [widths[name], paper[name], ours[name], got[name]]
            if got[name] is not None:
                gaps.append(abs(ours[name] - got[name]))
        data[f"example{number}"] = [[paper[n], ours[n], got[n]] for n in rows]
    columns = ["layer"]
    for number in (1, 2):
        columns += [f"{number}: weight bits", f"{number}: kappa 3, dB",
                    f"{number}: measured steps, dB", f"{number}: measured, dB"]  # fmt: skip
    table = Table(
        f"SQNR of layers, activations {study.qm} bits uniform, weights by water-filling for "
        f"{_TARGETS[0]:g} and {_TARGETS[1]:g} dB; {len(study.measured_pixels)} test images",
        columns, list(rows.values()),
        note="'kappa 3' predicts from widths alone, as the paper does; 'measured steps' adds up "
        "the measured noise of each quantizer. Fused max pools and ReLU change noise, too.",
    )  # fmt: skip
    lead = (
        "Noise of all quantizers before a layer adds up, so predictions fall along the network. "
        f"Adding up each quantizer's own noise is off by {np.mean(gaps):.1f} dB on average."
    )
    return Section(lead, [papers.sqnr(), table, _table_6(), *_step_tables()], data)


def _with_floor(plan: Plan) -> Plan:
    """Widths of weights within what the examples are about."""
    low, high = _LIMITS
    return plan.each(lambda layer: {"weight_bits": min(max(layer.weight_bits, low), high)})


def _table_6() -> Table:
    """002's predictions computed again from widths alone."""
    known = papers.figures()
    offsets = [0, *known["cifar10_offsets"].values()]
    again = {
        name: sqnr.predicted_sqnr_db([first + offset for offset in offsets], [16] * 6)[1:]
        for name, first in (("example1", 13), ("example2", 12))
    }
    rows = [
        [layer, *[value for name in again
                  for value in (known["sqnr_db"][name]["predicted"][index], again[name][index])]]
        for index, layer in enumerate(known["sqnr_db"]["layer"])
    ]  # fmt: skip
    return Table(
        "002, table 6: predictions printed and computed, dB",
        ["layer", "1: printed", "1: computed", "2: printed", "2: computed"], rows, BOTH,
        "Activations 16 bits, table 3's widths with conv0 at 13 and 12 bits. Conv4 of example 1 is "
        "a misprint (docs/papers.md).",
    )  # fmt: skip


def _step_tables() -> list[Table]:
    """002's tables 1, 3 and 5 computed."""
    known = papers.figures()
    steps = [
        [density, bits, printed, optimal_step.computed_step(density, bits)]
        for density, row in known["optimal_step"].items()
        for bits, printed in enumerate(row, 1)
    ]
    tables = [
        Table("002, table 1: optimal step of a symmetric uniform quantizer, variance 1",
              ["density", "bits", "printed", "computed"], steps, BOTH, digits=3)
    ]  # fmt: skip
    for number, title, key, first in (
        (3, "CIFAR-10 network", "cifar10", "conv0"),
        (5, "AlexNet-like network", "alexnet", "conv1"),
    ):  # fmt: skip
        params, printed = known[f"{key}_params_millions"], known[f"{key}_offsets"]
        rows = [
            [layer, params[layer], offset, round(sqnr.offset_bits(params[layer], params[first]))]
            for layer, offset in printed.items()
        ]
        tables.append(
            Table(f"002, table {number}: {title}, bits of weights more than {first}, kappa 3",
                  ["layer", "parameters, millions", "printed", "computed"], rows, BOTH, digits=3)
        )  # fmt: skip
    return tables


def prediction_figures(data: dict[str, Any]) -> list[Figure]:
    """Predicted and measured SQNR along the network."""
    names = data["layers"]
    with plots.drawing("sqnr", 1, 2, (10.2, 3.4), share=True) as (axes, done):
        for axis, number in zip(axes[0], (1, 2), strict=True):
            values = np.array(data[f"example{number}"], np.float64)
            for index, (key, name) in enumerate(
                (("uniform", "predicted, kappa 3"), ("predicted", "predicted, measured steps"),
                 ("measured", "measured"))
            ):  # fmt: skip
                plots.line(axis, key, range(len(names)), values[:, index], label=name)
            plots.name_ticks(axis, names)
            axis.set_title(f"example {number}", loc="left")
        axes[0, 0].set_ylabel("SQNR of the layer, dB")
        axes[0, 1].legend(fontsize=8)
    return [Figure(done[0], "SQNR of each layer with weights, predicted and measured.")]
