# SPDX-License-Identifier: Apache-2.0
"""Quantizers fitted to weighted histograms, with the range as a free choice where channels scale.

KNQ stays an exact problem: the weights become integers and the dynamic programme of
`quantize.kmeans` minimises the weighted error, 0 kept exact. Codes with equal steps have steps of
a power of two; a factor on all channels of the layer makes any step possible, hence the clipping of
least error.
"""

from collections.abc import Collection, Mapping

import numpy as np

from formats.arithmetic import lowest
from formats.quantizer import Quantizer
from model_prep.quantize import quantizers
from model_prep.quantize.kmeans import exact_kmeans
from model_prep.quantize.plan import LayerPlan, Plan
from model_prep.quantize.quantizers.codebook import table_quantizer
from model_prep.quantize.quantizers.histogram import signal_and_noise

_TOTAL = 1 << 36  # weights are scaled to integers of this sum, which the k-means holds exactly
_SMOOTH = 0.02  # part of the average weight that every value gets
_STEPS = 8  # candidates for a step per octave


def smoothed(counts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weights with a part of the layer's average added, so that no value that occurs weighs 0.

    Args:
        counts: int64 [2^qm], how often each y occurs.
        weights: float64 [2^qm], summed over its occurrences.
    """
    total, weight = float(counts.sum()), float(weights.sum())
    if not total or not weight > 0:
        return counts.astype(np.float64)
    return weights * (1 - _SMOOTH) + counts * (weight / total * _SMOOTH)


def weighted_error(
    quantizer: Quantizer, weights: np.ndarray, qm: int, frac: int, factor: float = 1.0
) -> float:
    """Sum of weight * squared error, in units of float values: see `signal_and_noise`."""
    first = lowest(qm, quantizer.signed)
    return signal_and_noise(weights, first, frac, quantizer, factor)[1]


def _knq(plan: LayerPlan, weights: np.ndarray, bits: int, qm: int, frac: int) -> Quantizer:
    """The table of least weighted error."""
    scaled = np.rint(weights * (_TOTAL / weights.sum())).astype(np.int64)
    scaled[(weights > 0) & (scaled == 0)] = 1
    if not plan.signed:
        scaled[0] = max(scaled[0], 1)
    centroid = exact_kmeans(scaled, 1 << bits, zero_first=not plan.signed)
    centroid += lowest(qm, plan.signed)
    return table_quantizer(centroid, qm, frac, plan.signed, **plan.options)


def fit_one(
    plan: LayerPlan, weights: np.ndarray, bits: int, qm: int, frac: int, free: bool = False
) -> tuple[Quantizer, float]:
    """(quantizer of least weighted error, factor for the layer's values).

    Args:
        plan: scheme, options and sign.
        weights: float64 [2^qm] of the integers y from the smallest up.
        bits: width of a code.
        qm, frac: width and F of y.
        free: whether the layer's values may be multiplied by a factor; else it is 1.
    """
    if plan.scheme == "knq":
        return _knq(plan, weights, bits, qm, frac), 1.0
    if plan.scheme not in ("uniform", "enq"):  # its own rule, from weights in place of counts
        counts = np.rint(weights * (_TOTAL / weights.sum())).astype(np.int64)
        found = quantizers.fit(
            str(plan.scheme), counts, bits, qm, frac, signed=plan.signed, **plan.options
        )
        return found, 1.0
    factors = 2.0 ** (np.arange(_STEPS) / _STEPS) if free else np.ones(1)
    best: tuple[float, Quantizer, float] | None = None
    for finer in range(-(qm - bits) - 1, qm + 1):  # finer steps clip more
        if plan.scheme == "uniform":
            # F of the code, not of a qm-bit integer: coarsest where the range is that of y
            trial = Quantizer("uniform", bits, bits, frac + finer, signed=plan.signed)
        elif finer < -1 or finer > bits:
            continue
        else:
            trial = Quantizer("enq", bits, qm, frac + finer, signed=plan.signed, **plan.options)
        for factor in factors:
            error = weighted_error(trial, weights, qm, frac, float(factor))
            if best is None or error < best[0]:
                best = error, trial, float(factor)
    if best is None:
        raise ValueError(f"layer {plan.name}: no step to try for {bits} of {qm} bits")
    return best[1], best[2]


def fit_all(
    plan: Plan, weights: Mapping[str, np.ndarray], qm: int, fracs: Mapping[str, int],
    scalable: Collection[str] = (),
) -> tuple[dict[str, Quantizer], dict[str, float]]:  # fmt: skip
    """(every layer's quantizer, the factor of the values of each owner of a quantizer).

    Args:
        plan: with every width fixed.
        weights: by owner's name.
        qm, fracs: width and F of y by layer name.
        scalable: layers whose channels may be scaled.
    """
    fitted: dict[str, Quantizer] = {}
    factors: dict[str, float] = {}
    free = free_owners(plan, scalable)
    for layer in plan.layers:
        if layer.scheme is None or layer.bits is None:
            continue
        if layer.owner not in factors:
            fitted[layer.owner], factors[layer.owner] = fit_one(
                layer, weights[layer.owner], layer.bits, qm, fracs[layer.owner],
                layer.owner in free,
            )  # fmt: skip
        fitted[layer.name] = fitted[layer.owner]
    return fitted, factors


def free_owners(plan: Plan, scalable: Collection[str]) -> frozenset[str]:
    """Owners of quantizers all of whose layers with a format of their own may be scaled."""
    return frozenset(
        owner
        for owner, layers in plan.by_owner.items()
        if all(layer.name in scalable for layer in layers)
    )
