# SPDX-License-Identifier: Apache-2.0
"""BITS=auto: the smallest single code width that stays near the qm-bit uniform network."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from formats.errors import UserError
from formats.quantizer import Quantizer, thresholds
from model_prep.quantize import quantizers
from model_prep.quantize.fake_quant import Evaluator
from model_prep.quantize.plan import LayerPlan, Plan
from model_prep.quantize.quantizers import HARDWARE, PLAN_WIDTHS


def fit_all(
    plan: Plan, counts: Mapping[str, np.ndarray], qm: int, fracs: Mapping[str, int]
) -> dict[str, Quantizer]:
    """Fit every quantized layer's quantizer; UserError names the layer that cannot be fitted.

    Layers that share one get it fitted to the sum of their histograms.

    Args:
        plan: with all widths fixed.
        counts: histograms [2^qm] by layer name.
        qm: width of their integers.
        fracs: F of their integers by layer name.
    """
    summed: dict[str, np.ndarray] = {}
    for layer in plan.layers:
        if layer.scheme is not None and layer.counted:
            summed[layer.owner] = summed.get(layer.owner, 0) + counts[layer.name]
    fitted: dict[str, Quantizer] = {}
    for layer in plan.layers:
        if layer.scheme is None or layer.bits is None:
            continue
        if layer.owner in fitted:
            fitted[layer.name] = fitted[layer.owner]
            continue
        try:
            fitted[layer.name] = fitted[layer.owner] = fixed(layer, qm) or quantizers.fit(
                layer.scheme, summed[layer.owner], layer.bits, qm, fracs[layer.name],
                signed=layer.signed, **layer.options,
            )  # fmt: skip
        except UserError as error:
            raise UserError(f"layer {layer.name}: {error}") from None
    return fitted


def fixed(plan: LayerPlan, qm: int) -> Quantizer | None:
    """The quantizer that the plan gives whole: its F, and for knq its centroids; else None.

    Raises:
        UserError: centroids that leave the range of y.
    """
    if plan.scheme is None or plan.bits is None or plan.frac is None:
        return None
    if plan.scheme != "knq":
        width = plan.bits if plan.scheme == "uniform" else qm
        return Quantizer(
            plan.scheme, plan.bits, width, plan.frac, variant=plan.variant, signed=plan.signed
        )
    if plan.centroids is None or plan.rule is None:
        return None
    centroid = np.array(plan.centroids, np.int32)
    return Quantizer(
        "knq", plan.bits, qm, plan.frac, rule=plan.rule, centroid=centroid,
        threshold=thresholds(centroid, plan.rule), signed=plan.signed,
    )  # fmt: skip


def smallest_width(
    plan: Plan,
    counts: Mapping[str, np.ndarray],
    qm: int,
    fracs: Mapping[str, int],
    evaluator: Evaluator,
    goal: float,
) -> Plan:
    """The plan with its open widths set to the smallest one whose score reaches `goal`.

    Args:
        plan: with at least one open width.
        counts, qm, fracs: as for `fit_all`.
        evaluator: scores a choice of quantizers.
        goal: least score, percent or dB as the evaluator has it.

    Raises:
        UserError: not even the widest code reaches the goal.
    """
    ranges = [
        PLAN_WIDTHS[layer.scheme] for layer in plan.layers if layer.scheme and layer.bits is None
    ]
    nonuniform = any(
        layer.bits is None and layer.scheme and HARDWARE[layer.scheme] != "uniform"
        for layer in plan.layers
    )
    high = min(high for _, high in ranges)
    for bits in range(min(low for low, _ in ranges), min(high, qm if nonuniform else high) + 1):
        trial = plan.with_bits(bits)
        score, _ = evaluator.score(fit_all(trial, counts, qm, fracs))
        if score >= goal:
            return trial
    raise UserError(
        f"BITS=auto must reach {goal:.2f} {evaluator.unit}, not {score:.2f} at {bits} bits; "
        "raise DELTA or set BITS"
    )
