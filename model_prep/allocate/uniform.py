# SPDX-License-Identifier: Apache-2.0
"""The uniform search of papers 000/001: F for a given qm, and the smallest qm with A -
A' <= delta.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Set
from dataclasses import dataclass

from formats.arithmetic import largest_frac
from formats.errors import UserError
from formats.quantizer import QM_RANGE, Quantizer
from model_prep.quantize.fake_quant import Evaluator
from model_prep.quantize.plan import AUTO, Plan

_FINER = 4  # candidates for F: the one that clips nothing, and finer ones that clip ever more
ACTIVATION_FRAC = 24  # F is at most this, which a network of tiny activations would exceed


@dataclass(frozen=True)
class UniformFormat:
    """The qm-bit uniform network that nonuniform codes are derived from and compared with.

    Attributes:
        qm: width of an activation.
        fracs: F by layer name.
        score: percent or dB as the evaluator has it.
        sqnr_db: output SQNR, which decides between equal scores.
    """

    qm: int
    fracs: Mapping[str, int]
    score: float
    sqnr_db: float


def layer_fracs(
    maxima: Mapping[str, float], qm: int, signed: Set[str] = frozenset()
) -> dict[str, int]:
    """F per layer: the largest that does not clip the layer's largest activation.

    >>> layer_fracs({"a": 4095.0, "b": 1.0}, 12)
    {'a': 0, 'b': 11}
    """
    return {
        name: largest_frac(value, (1 << (qm - (name in signed))) - 1, ACTIVATION_FRAC)
        for name, value in maxima.items()
    }


def shared_fracs(fracs: Mapping[str, int], plan: Plan) -> dict[str, int]:
    """F per layer, the smallest one for layers that share a quantizer."""
    owners = {layer.name: layer.owner for layer in plan.layers}
    least: dict[str, int] = {}
    for name, frac in fracs.items():
        owner = owners.get(name, name)
        least[owner] = min(frac, least.get(owner, frac))
    return {name: least[owners.get(name, name)] for name in fracs}


def network_fracs(maxima: Mapping[str, float], frac: int, signed: Set[str]) -> dict[str, int]:
    """One F for the network; signed maps have one place less, so that their range is the same.

    >>> network_fracs({"a": 1.0, "b": 1.0}, 5, {"b"})
    {'a': 5, 'b': 4}
    """
    return {name: frac - (name in signed) for name in maxima}


def evaluate(
    evaluator: Evaluator, qm: int, fracs: Mapping[str, int], signed: Set[str] = frozenset()
) -> UniformFormat:
    """Run the uniform network with these formats."""
    quantizers = {
        name: Quantizer("uniform", qm, qm, frac, signed=name in signed)
        for name, frac in fracs.items()
    }
    return UniformFormat(qm, dict(fracs), *evaluator.score(quantizers))


def best_fracs(
    evaluator: Evaluator, maxima: Mapping[str, float], qm: int, plan: Plan
) -> UniformFormat:
    """The uniform network of width qm with the best F.

    With one F for the network, tried are the largest F that clips nothing and the next finer ones,
    which trade clipping for smaller steps; the search stops when the score falls, as it has one
    peak. With an F per layer it is the largest that clips nothing. Mode "best" tries both.

    Args:
        evaluator: scores a choice of quantizers.
        maxima: largest activation by layer name.
        qm: width of an activation.
        plan: says whether F is given, one for the network, or one per layer.
    """
    signed = plan.signed

    def whole(frac: int) -> UniformFormat:
        return evaluate(evaluator, qm, network_fracs(maxima, frac, signed), signed)

    if plan.frac is not None:
        return whole(plan.frac)
    fitting = shared_fracs(layer_fracs(maxima, qm, signed), plan)
    if plan.frac_mode in ("layer", "error"):
        return evaluate(evaluator, qm, fitting, signed)
    coarsest = min((frac + (name in signed) for name, frac in fitting.items()), default=0)
    best = whole(coarsest)
    for frac in range(coarsest + 1, coarsest + _FINER):
        trial = whole(frac)
        if (trial.score, trial.sqnr_db) <= (best.score, best.sqnr_db):
            break
        best = trial
    if plan.frac_mode == "best":
        trial = evaluate(evaluator, qm, fitting, signed)
        if (trial.score, trial.sqnr_db) > (best.score, best.sqnr_db):
            best = trial
    return best


def find(
    evaluator: Evaluator, maxima: Mapping[str, float], plan: Plan, delta: float
) -> UniformFormat:
    """The uniform network of the plan's qm, or with QM=auto of the smallest qm within `delta`.

    The loss is against the float network's accuracy; without labels against the output SQNR of
    the widest uniform network, as float has no noise to compare with.

    Raises:
        UserError: no width is good enough.
    """
    if plan.qm != AUTO:
        return best_fracs(evaluator, maxima, plan.qm, plan)
    low, high = QM_RANGE
    if evaluator.labels is None:
        goal = best_fracs(evaluator, maxima, high, plan).score - delta
    else:
        goal = evaluator.float_score - delta
    most = -math.inf
    for qm in range(low, high + 1):
        trial = best_fracs(evaluator, maxima, qm, plan)
        if trial.score >= goal:
            return trial
        most = max(most, trial.score)
    raise UserError(
        f"QM=auto must reach {goal:.2f} {evaluator.unit}, not {most:.2f}; raise DELTA or set QM"
    )


def with_fixed(
    evaluator: Evaluator, maxima: Mapping[str, float], plan: Plan, delta: float
) -> UniformFormat:
    """As `find`, but layers whose F the plan fixes have that F; without a search if all have."""
    fixed: dict[str, int] = {}
    for layer in plan.layers:
        if layer.frac is not None and plan.qm != AUTO:
            narrow = layer.scheme == "uniform" and layer.bits is not None
            fixed[layer.name] = layer.frac + (plan.qm - (layer.bits or 0) if narrow else 0)
    if plan.qm == AUTO or not fixed:
        return find(evaluator, maxima, plan, delta)
    if not maxima.keys() <= fixed.keys():
        fixed = {**find(evaluator, maxima, plan, delta).fracs, **fixed}
    return evaluate(evaluator, plan.qm, fixed, plan.signed)
