# SPDX-License-Identifier: Apache-2.0
"""qm and F of every layer, and the smallest single code width (papers 000/001), from a Calibration.

F sets the bound M = (2^qm - 1) 2^-F, which the papers' pre-processing clips at ("with bound"). It
is one for the network or one for each layer, by score or by the least squared error of a layer.
"""

import math
from collections.abc import Mapping, Set
from dataclasses import replace

import numpy as np

from formats.arithmetic import largest_frac, lowest
from formats.errors import UserError
from formats.quantizer import QM_RANGE, Quantizer
from model_prep.quantize.calibrate import (
    ACTIVATION_FRAC,
    CANDIDATES,
    FINER,
    Calibration,
    Formats,
    coarser,
)
from model_prep.quantize.plan import AUTO, Plan
from model_prep.quantize.plan_file import check_widths
from model_prep.quantize.quantizers import SCHEMES
from model_prep.quantize.quantizers.histogram import signal_and_noise
from model_prep.quantize.score import Evaluator


def layer_fracs(maxima: Mapping[str, float], qm: int, plan: Plan) -> dict[str, int]:
    """The largest F that clips no activation, by layer name; one for layers that share."""
    owners = {layer.name: layer.owner for layer in plan.layers}
    least: dict[str, int] = {}
    for name, value in maxima.items():
        frac = largest_frac(value, (1 << (qm - (name in plan.signed))) - 1, ACTIVATION_FRAC)
        owner = owners.get(name, name)
        least[owner] = min(frac, least.get(owner, frac))
    return {name: least[owners.get(name, name)] for name in maxima}


def network_fracs(maxima: Mapping[str, float], frac: int, signed: Set[str]) -> dict[str, int]:
    """One F for the network; signed maps have one place less, so that their range is the same.

    >>> network_fracs({"a": 1.0, "b": 1.0}, 5, {"b"})
    {'a': 5, 'b': 4}
    """
    return {name: frac - (name in signed) for name in maxima}


def uniform_codes(bits: int, fracs: Mapping[str, int], signed: Set[str]) -> dict[str, Quantizer]:
    """Uniform quantizers of one width with these F, by layer name."""
    return {
        name: Quantizer("uniform", bits, bits, frac, signed=name in signed)
        for name, frac in fracs.items()
    }


def uniform_network(
    evaluator: Evaluator, qm: int, fracs: Mapping[str, int], signed: Set[str] = frozenset()
) -> Formats:
    """The qm-bit uniform network with these F and its score; without histograms."""
    score = evaluator.score(uniform_codes(qm, fracs, signed))
    return Formats(qm, dict(fracs), {}, *score)


def best_fracs(evaluator: Evaluator, maxima: Mapping[str, float], qm: int, plan: Plan) -> Formats:
    """The uniform network of width qm with the best F.

    With one F for the network, tried are the largest F that clips nothing and the next finer ones,
    which trade clipping for smaller steps; the search stops when the score falls, as it has one
    peak. With an F per layer it is the largest that clips nothing. Mode "best" tries both.
    """

    def whole(frac: int) -> Formats:
        fracs = network_fracs(maxima, frac, plan.signed)
        return uniform_network(evaluator, qm, fracs, plan.signed)

    def quality(one: Formats) -> tuple[float, float]:
        return one.score, one.sqnr_db

    if plan.frac is not None:
        return whole(plan.frac)
    fitting = layer_fracs(maxima, qm, plan)
    by_layer = None
    if plan.frac_mode != "network":
        by_layer = uniform_network(evaluator, qm, fitting, plan.signed)
        if plan.frac_mode != "best":
            return by_layer
    coarsest = min((frac + (name in plan.signed) for name, frac in fitting.items()), default=0)
    best = whole(coarsest)
    for frac in range(coarsest + 1, coarsest + CANDIDATES):
        trial = whole(frac)
        if quality(trial) <= quality(best):
            break
        best = trial
    return by_layer if by_layer is not None and quality(by_layer) > quality(best) else best


def _searched(
    evaluator: Evaluator, maxima: Mapping[str, float], plan: Plan, delta: float
) -> Formats:
    """The uniform network of the plan's qm, or with QM=auto of the smallest within `delta`."""
    if plan.qm != AUTO:
        return best_fracs(evaluator, maxima, plan.qm, plan)
    low, high = QM_RANGE
    goal = evaluator.float_score - delta
    if math.isinf(goal):  # float has no noise to compare with
        goal = best_fracs(evaluator, maxima, high, plan).score - delta
    most = -math.inf
    for qm in range(low, high + 1):
        trial = best_fracs(evaluator, maxima, qm, plan)
        if trial.score >= goal:
            return trial
        most = max(most, trial.score)
    raise UserError(
        f"QM=auto must reach {goal:.2f} {evaluator.unit}, not {most:.2f}; raise DELTA or set QM"
    )


def uniform_formats(
    evaluator: Evaluator, maxima: Mapping[str, float], plan: Plan, delta: float
) -> Formats:
    """qm and F of the uniform network; layers whose F the plan fixes have it.

    What QM=auto may lose, `delta`, is against the float network's accuracy; without labels against
    the output SQNR of the widest uniform network. There is no search where the plan fixes F of all
    layers.

    Raises:
        UserError: no width is good enough.
    """
    given: dict[str, int] = {}
    for layer in plan.layers:
        if layer.frac is not None and plan.qm != AUTO:
            narrow = layer.scheme == "uniform" and layer.bits is not None
            given[layer.name] = layer.frac + (plan.qm - (layer.bits or 0) if narrow else 0)
    if plan.qm == AUTO or not given:
        return _searched(evaluator, maxima, plan, delta)
    if not maxima.keys() <= given.keys():
        given = {**_searched(evaluator, maxima, plan, delta).fracs, **given}
    return uniform_network(evaluator, plan.qm, given, plan.signed)


def choose(calibration: Calibration, plan: Plan, evaluator: Evaluator, delta: float) -> Formats:
    """qm, F and histograms as the plan's qm, frac, frac_mode and clip have them.

    `delta` is what QM=auto may lose.
    """
    base = uniform_formats(evaluator, calibration.maxima, plan, delta)
    check_widths(replace(plan, qm=base.qm))
    fracs = dict(base.fracs)
    if not plan.clip or plan.frac_mode == "error" and plan.frac is None:
        fitting = layer_fracs(calibration.maxima, base.qm, plan)
        if plan.clip:
            fracs = least_error(calibration, plan, base.qm, fitting)
        else:
            fracs = {name: min(frac, fitting[name]) for name, frac in fracs.items()}
    return replace(base, fracs=fracs, counts=calibration.counts(base.qm, fracs))


def least_error(
    calibration: Calibration, plan: Plan, qm: int, fitting: Mapping[str, int]
) -> dict[str, int]:
    """F by layer name with the least squared error of the layer's own quantizer.

    Tried are the largest F that clips nothing and the next finer ones. Layers that share a
    quantizer are judged together; a width still to be searched counts as qm bits, uniform.
    `fitting` is the largest F that clips nothing.
    """
    fine = {name: frac + FINER for name, frac in fitting.items()}
    counts = calibration.counts(qm + FINER, fine)
    plan = plan.each(
        lambda layer: {"scheme": "uniform", "bits": qm, "options": {}}
        if layer.scheme and layer.bits is None else {}
    )  # fmt: skip
    quantized = [layer for layer in plan.layers if layer.scheme]
    first = {layer.name: lowest(qm + FINER, layer.signed) for layer in quantized}
    least: dict[str, float] = {}
    best = dict(fitting)
    for finer in range(FINER + 1):
        fracs = {name: frac + finer for name, frac in fitting.items()}
        trial = Formats(qm, fracs, {
            one.name: coarser(counts[one.name], first[one.name], FINER - finer, qm, one.signed)
            for one in quantized
        })  # fmt: skip
        fitted, errors = trial.fit(plan), dict[str, float]()
        for layer in quantized:
            if layer.counted:
                name = layer.name
                _, noise = signal_and_noise(counts[name], first[name], fine[name], fitted[name])
                errors[layer.owner] = errors.get(layer.owner, 0.0) + noise
        for layer in quantized:
            allowed = finer == 0 or fracs[layer.name] <= ACTIVATION_FRAC
            if allowed and errors[layer.owner] < least.get(layer.owner, np.inf):
                best[layer.name] = fracs[layer.name]
        for owner, error in errors.items():
            least[owner] = min(error, least.get(owner, np.inf))
    return best


def smallest_width(plan: Plan, formats: Formats, evaluator: Evaluator, goal: float) -> Plan:
    """The plan with its open widths set to the smallest one whose score reaches `goal`.

    Raises:
        UserError: not even the widest code reaches the goal.
    """
    schemes = {layer.scheme for layer in plan.layers if layer.scheme and layer.bits is None}
    widths = [SCHEMES[scheme].widths(formats.qm) for scheme in schemes]
    low, high = min(low for low, _ in widths), min(high for _, high in widths)
    for bits in range(low, high + 1):
        trial = plan.with_bits(bits)
        score, _ = evaluator.score(formats.fit(trial))
        if score >= goal:
            return trial
    raise UserError(
        f"BITS=auto must reach {goal:.2f} {evaluator.unit}, not {score:.2f} at {bits} bits; "
        "raise DELTA or set BITS"
    )
