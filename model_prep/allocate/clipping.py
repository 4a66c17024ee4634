# SPDX-License-Identifier: Apache-2.0
"""Where activations saturate: F by the least squared error of a layer, or so that none does.

F sets the bound M = (2^qm - 1) 2^-F of papers 000/001, which their pre-processing clips at ("with
bound").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from formats.arithmetic import lowest
from formats.quantizer import Quantizer
from model_prep.allocate.single import fit_all
from model_prep.allocate.uniform import ACTIVATION_FRAC, UniformFormat, layer_fracs, shared_fracs
from model_prep.graph import Graph
from model_prep.quantize import calibrate
from model_prep.quantize.calibrate import ToFloat
from model_prep.quantize.plan import Plan

_FINER = 4  # candidates for F: the one that clips nothing, and finer ones that clip ever more


def signal_and_noise(
    counts: np.ndarray, first: int, frac: int, quantizer: Quantizer
) -> tuple[float, float]:
    """Sums of squares of activations and of their error, in real units (paper 002, equation 4).

    Args:
        counts: of the integers first, first + 1, ...
        frac: F of these integers; it may be finer than the quantizer's.
        quantizer: what they are stored by.

    >>> signal_and_noise(np.array([0, 0, 0, 1]), 0, 1, Quantizer("uniform", 2, 2, 0))
    (2.25, 0.25)
    """
    values = np.arange(first, first + len(counts)) * 2.0**-frac
    y = np.floor(values * 2.0**quantizer.frac + 0.5)
    y = np.clip(y, quantizer.y_min, quantizer.y_max).astype(np.int64)
    stored = quantizer.round_trip()[y - quantizer.y_min] * 2.0**-quantizer.frac
    return float((counts * values**2).sum()), float((counts * (stored - values) ** 2).sum())


def coarser(counts: np.ndarray, first: int, shift: int, qm: int, signed: bool) -> np.ndarray:
    """The histogram [2^qm] of integers with `shift` fewer fractional bits: rounded, then clipped.

    >>> coarser(np.array([1, 2, 3, 4, 0, 0, 0, 9]), 0, 1, 2, signed=False)  # 1 rounds to 1, 7 to 4
    array([1, 5, 4, 9])
    """
    low = lowest(qm, signed)
    y = (np.arange(first, first + len(counts)) + ((1 << shift) >> 1)) >> shift
    y = np.clip(y, low, low + (1 << qm) - 1) - low
    return np.bincount(y, weights=counts, minlength=1 << qm).astype(np.int64)


def least_error(
    plan: Plan, counts: Mapping[str, np.ndarray], qm: int, fitting: Mapping[str, int]
) -> dict[str, int]:
    """F by layer name with the least squared error of the layer's own quantizer.

    Tried are the largest F that clips nothing and the next finer ones. Layers that share a
    quantizer are judged together; a width still to be searched counts as qm bits, uniform.

    Args:
        plan: schemes and widths.
        counts: histograms [2^(qm + 4)], of 4 fractional bits more than `fitting`.
        qm: width of y.
        fitting: the largest F that clips nothing, the same for layers that share.
    """
    known = [
        replace(
            layer, scheme="uniform", bits=qm, rule=None, variant=None, density=None, levels=None
        )
        if layer.scheme and layer.bits is None else layer
        for layer in plan.layers
    ]  # fmt: skip
    plan = replace(plan, layers=tuple(known))
    quantized = [layer for layer in plan.layers if layer.scheme]
    least: dict[str, float] = {}
    best = dict(fitting)
    for finer in range(_FINER + 1):
        histograms = {
            layer.name: coarser(
                counts[layer.name], lowest(qm + _FINER, layer.signed), _FINER - finer, qm,
                layer.signed,
            )
            for layer in quantized
        }  # fmt: skip
        fracs = {name: frac + finer for name, frac in fitting.items()}
        fitted = fit_all(plan, histograms, qm, fracs)
        errors: dict[str, float] = {}
        for layer in quantized:
            first = lowest(qm + _FINER, layer.signed)
            _, noise = signal_and_noise(
                counts[layer.name], first, fitting[layer.name] + _FINER, fitted[layer.name]
            )
            if layer.counted:
                errors[layer.owner] = errors.get(layer.owner, 0.0) + noise
        for layer in quantized:
            allowed = finer == 0 or fracs[layer.name] <= ACTIVATION_FRAC
            if allowed and errors[layer.owner] < least.get(layer.owner, np.inf):
                best[layer.name] = fracs[layer.name]
        for owner, error in errors.items():
            least[owner] = min(error, least.get(owner, np.inf))
    return best


def choose(
    graph: Graph, pixels: np.ndarray, to_float: ToFloat, base: UniformFormat,
    maxima: Mapping[str, float], plan: Plan,
) -> dict[str, int]:  # fmt: skip
    """F by layer name, as the plan's frac_mode and clip have it.

    Args:
        graph: the float network.
        pixels: calibration images, uint8 [N, C, H, W].
        to_float: from pixels to network inputs.
        base: the uniform network, whose F holds where the plan asks for nothing else.
        maxima: largest activation by layer name.
        plan: what is asked for.
    """
    fitting = shared_fracs(layer_fracs(maxima, base.qm, plan.signed), plan)
    if not plan.clip:
        return {name: min(frac, fitting[name]) for name, frac in base.fracs.items()}
    if plan.frac_mode != "error" or plan.frac is not None:
        return dict(base.fracs)
    finest = {name: frac + _FINER for name, frac in fitting.items()}
    counts = calibrate.histograms(
        graph, pixels, to_float, base.qm + _FINER, finest, plan.signed
    )  # fmt: skip
    return least_error(plan, counts, base.qm, fitting)
