# SPDX-License-Identifier: Apache-2.0
"""qm and F of every layer, and the smallest single code width (papers 000/001), from a Calibration.

F sets the bound M = (2^qm - 1) 2^-F, which the papers' pre-processing clips at ("with bound"). It
is one for each layer, chosen with its quantizer (`Formats.fit`), or one for the network, by score.
"""

import math
from collections.abc import Mapping, Set
from dataclasses import replace

import numpy as np

from nuq.formats.arithmetic import largest_frac
from nuq.formats.errors import UserError
from nuq.formats.quantizer import QM_RANGE, Quantizer
from nuq.model_prep.quantize import sensitivity
from nuq.model_prep.quantize.calibrate import (
    ACTIVATION_FRAC,
    CANDIDATES,
    FINER,
    Calibration,
    Formats,
    Weighted,
    batches,
)
from nuq.model_prep.quantize.plan import AUTO, LAYER, Plan
from nuq.model_prep.quantize.plan_file import check_widths
from nuq.model_prep.quantize.quantizers import SCHEMES
from nuq.model_prep.quantize.score import Evaluator
from nuq.model_prep.quantize.sensitivity import answers

SENSITIVITY_IMAGES = 64  # at most, of the calibration images


def layer_fracs(maxima: Mapping[str, float], qm: int, plan: Plan) -> dict[str, int]:
    """The largest F that clips no y, by layer name; one for layers that share, if y is alike."""
    owners: dict[str, object] = {
        layer.name: (layer.owner, layer.activation and layer.activation.key)
        for layer in plan.layers
    }
    least: dict[object, int] = {}
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
    peak. With an F per layer it is the largest that clips nothing.
    """

    def whole(frac: int) -> Formats:
        fracs = network_fracs(maxima, frac, plan.signed)
        return uniform_network(evaluator, qm, fracs, plan.signed)

    if plan.frac is not None:
        return whole(plan.frac)
    fitting = layer_fracs(maxima, qm, plan)
    if plan.frac_mode == LAYER:
        return uniform_network(evaluator, qm, fitting, plan.signed)
    coarsest = min((frac + (name in plan.signed) for name, frac in fitting.items()), default=0)
    best = whole(coarsest)
    for frac in range(coarsest + 1, coarsest + CANDIDATES):
        trial = whole(frac)
        if (trial.score, trial.sqnr_db) <= (best.score, best.sqnr_db):
            break
        best = trial
    return best


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
        if layer.encoded_frac is not None and plan.qm != AUTO:
            narrow = layer.scheme == "uniform" and layer.bits is not None
            width = layer.bits if narrow else layer.qm or plan.qm
            given[layer.name] = layer.encoded_frac + plan.qm - (width or 0)
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
    fits = not plan.refine or plan.searches_bits  # else refinement does, on its own histograms
    if plan.frac_mode == LAYER and plan.frac is None and fits:
        return replace(
            by_layer(calibration, plan, base.qm, fracs), score=base.score, sqnr_db=base.sqnr_db
        )
    if not plan.clip:
        fitting = layer_fracs(calibration.maxima, base.qm, plan)
        fracs = {name: min(frac, fitting[name]) for name, frac in fracs.items()}
    return replace(base, fracs=fracs, counts=calibration.counts(base.qm, fracs))


def by_layer(
    calibration: Calibration, plan: Plan, qm: int, fracs: Mapping[str, int] | None = None,
    squared: bool = False,
) -> Formats:  # fmt: skip
    """Formats whose F each layer's fit chooses, by the expected loss of the network's output.

    Args:
        calibration: the images.
        plan: which layers share a quantizer, and whether values may saturate.
        qm: width of y.
        fracs: F of what the plan fixes; by default and elsewhere the one that clips nothing.
        squared: choose by the layer's own squared error instead.
    """
    fitting = layer_fracs(calibration.maxima, qm, plan)
    fine = {name: frac + FINER for name, frac in fitting.items()}
    counts = calibration.counts(qm + FINER, fine)
    if squared:
        weights = counts
    else:
        few = calibration.pixels[:SENSITIVITY_IMAGES]
        inputs = (calibration.to_float(batch) for batch in batches(few, "sensitivity"))
        _, weights = sensitivity.histograms(
            calibration.graph, inputs, fine, qm + FINER, calibration.signed, plan.seed
        )
    weighted = {name: Weighted(fine[name], counts[name], weights[name]) for name in fine}
    chosen = dict(fracs or fitting)
    return Formats(
        qm, chosen, calibration.counts(qm, chosen), weighted=weighted,
        finer=tuple(range(FINER + 1 if plan.clip else 1)),
    )  # fmt: skip


def measured(
    formats: Formats, plan: Plan, evaluator: Evaluator
) -> tuple[Formats, np.ndarray | None]:
    """F by layer as expected or, where the output is then nearer to float's, as fine in all layers.

    What is expected adds up the layers' squared errors. Codes with equal steps turn all small
    values to 0, errors of one sign, which weigh more than that. The output is measured on the
    search images: its divergence from float's, of a network without classes its SQNR.

    Args:
        formats: of `choose`; those without a choice of F are returned.
        plan: with every width fixed.
        evaluator: has the images.

    Returns:
        (formats, the search images' outputs float32 [N, classes] with what they fit, or None where
        nothing was measured).
    """
    if formats.weighted is None or len(formats.finer) == 1:
        return formats, None
    sample = evaluator.sample
    judge = Evaluator(sample, "divergence" if answers(sample.network.graph) else "sqnr")
    best, outputs = formats, sample.outputs(formats.fit(plan))
    most = judge.rate(outputs)
    before = None
    for finer in formats.finer:
        trial = replace(formats, finer=(finer,))
        found = sample.outputs(trial.fit(plan))
        score = judge.rate(found)
        if score > most:
            best, outputs, most = trial, found, score
        if before is not None and score < before:  # it has one peak
            break
        before = score
    return best, outputs


def smallest_width(plan: Plan, formats: Formats, evaluator: Evaluator, goal: float) -> Plan:
    """The plan with its open widths set to the smallest one whose score reaches `goal`.

    Raises:
        UserError: not even the widest code reaches the goal.
    """
    widths = [
        SCHEMES[layer.scheme].widths(layer.qm or formats.qm)
        for layer in plan.layers
        if layer.scheme and layer.bits is None
    ]
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
