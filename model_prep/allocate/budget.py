# SPDX-License-Identifier: Apache-2.0
"""Least loss for a number of bits, measured or expected, and the whole front of loss against NB.

Marginal analysis: every group is measured at every width with all others at full width; inverse
SQNR adds up over quantizers (paper 002), so the sum predicts any combination; dynamic programming
finds the exact optimum of the prediction; swaps of measured gain improve it.

Expected loss needs no labels and no trial: the weighted error of a layer's best table is, to second
order, twice its part of the expected Kullback-Leibler divergence (`refine.sensitivity`); bits go
where they lower it most per stored bit (greedy on the convex hull, as in rate-distortion theory).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from tqdm import tqdm

from nuq.formats.errors import UserError
from nuq.model_prep.allocate.measure import Measure
from nuq.model_prep.allocate.problem import Problem, Widths, with_width
from nuq.model_prep.graph import Graph
from nuq.model_prep.quantize.plan import LayerPlan, Plan
from nuq.model_prep.quantize.quantizers import SCHEMES
from nuq.model_prep.quantize.refine import pipeline
from nuq.model_prep.quantize.score import inverse_sqnr

EXPECTED_WIDTHS = (2, 8)  # from which widths by expected loss are chosen
_MOST_STATES = 100_000  # of the dynamic programme; beyond, NB is divided into so many cells

Losses = Mapping[str, Mapping[int, float]]  # by owner of a quantizer and by width


@dataclass(frozen=True)
class Sensitivity:
    """The table of single-group losses."""

    groups: tuple[str, ...]  # names of their first layers
    widths: tuple[Widths, ...]  # by group, those measured
    # by group and width, with all other groups at full width, in `unit`
    scores: tuple[tuple[float, ...], ...]
    sqnr_db: tuple[tuple[float, ...], ...]  # the same as output SQNR
    full_score: float  # of the qm-bit uniform network
    full_sqnr_db: float
    unit: str

    def noise(self, number: int) -> np.ndarray:
        """Inverse output SQNR that a group adds at each of its widths, float64, never below 0."""
        floor = inverse_sqnr(self.full_sqnr_db)
        noise = np.array([inverse_sqnr(db) for db in self.sqnr_db[number]])
        return np.maximum(noise - floor, 0.0)


@dataclass(frozen=True)
class Point:
    """One point of the front."""

    nb: int  # bits of all activations of one image
    widths: Widths  # one per group
    layers: dict[str, int]  # the same by layer name
    predicted_db: float  # output SQNR that the table predicts
    measured: float  # score of the whole choice, in the measure's unit
    measured_db: float  # its output SQNR
    swaps: int = 0  # measured improvements since the prediction's optimum


def sensitivity(problem: Problem, measure: Measure) -> Sensitivity:
    """Measure every group at every width, the last group first, with all others at full width."""
    base = problem.full_width()
    full = measure.score(base)
    table: list[list[tuple[float, float]]] = []
    total = sum(len(group.widths) for group in problem.groups)
    with tqdm(total=total, desc="sensitivity", unit="width", disable=None, leave=False) as bar:
        for number in reversed(range(len(problem.groups))):
            row = []
            for bits in problem.groups[number].widths:
                row.append(measure.score(problem.with_group(base, number, bits), base))
                bar.update()
            table.insert(0, row)
    scores, ratios = (tuple(tuple(one[i] for one in row) for row in table) for i in (0, 1))
    return Sensitivity(
        tuple(group.name for group in problem.groups),
        tuple(group.widths for group in problem.groups), scores, ratios, *full, measure.unit,
    )  # fmt: skip


def predicted_db(table: Sensitivity, widths: Sequence[int]) -> float:
    """Output SQNR of a combination: inverse SQNRs add up."""
    total = inverse_sqnr(table.full_sqnr_db) + sum(
        float(table.noise(i)[table.widths[i].index(bits)]) for i, bits in enumerate(widths)
    )
    return float("inf") if total == 0 else float(-10 * np.log10(total))


def predicted_front(problem: Problem, table: Sensitivity) -> list[Widths]:
    """All combinations that no other beats in both NB and predicted noise, by rising NB.

    Dynamic programming over the groups: combinations of the first groups that are worse in both
    than others of them can be dropped, whatever follows. Exact up to _MOST_STATES of them; beyond,
    the best of every cell of NB is kept.
    """
    costs, noises = np.zeros(1, np.int64), np.zeros(1)
    chosen = np.zeros((1, 0), np.int8)
    for number, group in enumerate(problem.groups):
        added = table.noise(number)
        options = np.array(group.widths)
        cost = (costs[:, None] + group.elements * options).ravel()
        noise = (noises[:, None] + added).ravel()
        best = undominated(cost, noise)
        costs, noises = cost[best], noise[best]
        before, option = np.divmod(best, len(options))
        chosen = np.column_stack([chosen[before], options[option].astype(np.int8)])
    return [tuple(int(bits) for bits in row) for row in chosen]


def undominated(cost: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Positions of the points that no other beats, by rising cost."""
    order = np.lexsort((noise, cost))
    best = np.minimum.accumulate(noise[order])
    first = np.ones(len(order), bool)
    first[1:] = best[1:] < best[:-1]
    kept = order[first]
    if len(kept) > _MOST_STATES:  # the last of a cell has the least noise
        cells = (cost[kept] - cost[kept[0]]) * _MOST_STATES // (cost[kept[-1]] - cost[kept[0]] + 1)
        kept = kept[np.append(cells[1:] != cells[:-1], True)]
    return kept


def check_nb(problem: Problem, nb: int) -> None:
    """Refuse, by UserError, a number of bits that not even the narrowest codes keep."""
    least = problem.nb(problem.narrowest)
    if nb < least:
        raise UserError(f"NB must be at least {least} bits, the narrowest codes, not {nb}")


def best_for(
    problem: Problem, measure: Measure, table: Sensitivity, nb: int, swaps: int = 20,
    candidates: Sequence[Widths] | None = None,
) -> Point:  # fmt: skip
    """The least loss for at most `nb` bits (see `check_nb`) of all activations of one image.

    Tries `swaps` candidates for measured improvements of the best of `candidates`, which are from
    `predicted_front` and computed if they are not at hand.
    """
    check_nb(problem, nb)
    candidates = predicted_front(problem, table) if candidates is None else candidates
    fitting = [widths for widths in candidates if problem.nb(widths) <= nb]
    widths = fitting[-1] if fitting else problem.narrowest
    best = measure.score(problem.choice(widths))
    done = 0
    trials = _swaps(problem, table, widths, nb)
    tried = {widths}
    while trials and swaps > 0:
        trial = trials.pop(0)
        if trial in tried:
            continue
        tried.add(trial)
        swaps -= 1
        score = measure.score(problem.choice(trial), problem.choice(widths))
        if score > best:
            widths, best, done = trial, score, done + 1
            trials = _swaps(problem, table, widths, nb)
    return Point(
        problem.nb(widths), widths, problem.by_name(widths), predicted_db(table, widths), *best,
        done,
    )  # fmt: skip


def _swaps(problem: Problem, table: Sensitivity, widths: Widths, nb: int) -> list[Widths]:
    """Neighbours within `nb`, the best prediction first: one group wider, none or one narrower."""
    trials = set[Widths]()
    numbers = range(len(widths))
    for wider in numbers:
        more = with_width(widths, wider, widths[wider] + 1)
        trials.add(more)
        trials.update(with_width(more, n, more[n] - 1) for n in numbers if n != wider)
    allowed = [
        trial
        for trial in sorted(trials)
        if all(bits in group.widths for bits, group in zip(trial, problem.groups, strict=True))
        and problem.nb(trial) <= nb
    ]
    return sorted(allowed, key=lambda trial: -predicted_db(table, trial))


def front(
    problem: Problem, measure: Measure, table: Sensitivity | None = None, points: int = 12,
    swaps: int = 4,
) -> list[Point]:  # fmt: skip
    """The measured front of loss against NB, by rising NB: none beats another in both.

    Budgets, as many as `points`, are in equal ratios between the narrowest and the widest codes;
    at each, `swaps` candidates are tried. Without a `table` `sensitivity` measures it.
    """
    table = sensitivity(problem, measure) if table is None else table
    candidates = predicted_front(problem, table)
    low, high = problem.nb(candidates[0]), problem.nb(candidates[-1])
    budgets = np.geomspace(low, high, points).round().astype(np.int64).tolist()
    best = dict[Widths, Point]()
    for nb in tqdm(budgets, desc="front", unit="point", disable=None, leave=False):
        point = best_for(problem, measure, table, max(nb, low), swaps, candidates)
        best.setdefault(point.widths, point)
    kept: list[Point] = []
    for point in sorted(best.values(), key=lambda one: (one.nb, -one.measured, -one.measured_db)):
        quality = point.measured, point.measured_db
        if not kept or quality > (kept[-1].measured, kept[-1].measured_db):
            kept.append(point)
    return kept


def _loss_behind(layers: Sequence[LayerPlan], measured: pipeline.Measured, bits: int) -> float:
    """Weighted error of layers that share a codebook with an activation in it."""
    qm, fracs = measured.qm, measured.fracs
    wide = [replace(layer, bits=bits) for layer in layers]
    made = pipeline.fit_behind(wide, measured.weights, qm, fracs)
    return sum(
        pipeline.weighted_error(
            made[layer.name], measured.weights[layer.name], qm, fracs[layer.name],
            activation=layer.activation,
        )
        for layer in layers if layer.counted
    )  # fmt: skip


def expected_losses(plan: Plan, measured: pipeline.Measured) -> Losses:
    """Weighted error of every quantizer at every width; the plan's own are not looked at."""
    qm = measured.qm
    table: dict[str, dict[int, float]] = {}
    for owner, (layer, *others) in plan.by_owner.items():
        most = layer.qm or qm
        low, high = SCHEMES[str(layer.scheme)].widths(most)
        table[owner] = {}
        for bits in range(max(EXPECTED_WIDTHS[0], low), min(EXPECTED_WIDTHS[1], high, most) + 1):
            if any(one.activation for one in (layer, *others)):
                table[owner][bits] = _loss_behind((layer, *others), measured, bits)
                continue
            weights, frac = measured.weights[owner], measured.fracs[owner]
            one, factor = pipeline.fit_one(layer, weights, bits, qm, frac, owner in measured.free)
            table[owner][bits] = pipeline.weighted_error(one, weights, qm, frac, factor)
    return table


def for_average(plan: Plan, graph: Graph, table: Losses, average: float) -> Plan:
    """The plan with the widths of least total loss (a table of `expected_losses`).

    NB is at most `average` bits a stored activation; UserError where the smallest widths take more.
    """
    sharing = plan.by_owner
    sizes = {owner: sum(graph.elements[one.name] for one in sharing[owner]) for owner in table}
    bits = {owner: min(by_width) for owner, by_width in table.items()}
    used = sum(bits[owner] * sizes[owner] for owner in bits)
    budget = average * sum(sizes.values())
    if used > budget:
        least = used / sum(sizes.values())
        raise UserError(f"the average width must be {least:.2f} bits or more, not {average}")
    while True:
        best: tuple[float, str, int] | None = None
        for owner, by_width in table.items():
            for width in range(bits[owner] + 1, max(by_width) + 1):
                cost = (width - bits[owner]) * sizes[owner]
                if used + cost > budget:
                    break
                gain = (by_width[bits[owner]] - by_width[width]) / cost
                if gain > 0 and (best is None or gain > best[0]):
                    best = gain, owner, width
        if best is None:
            return plan.each(lambda layer: {"bits": bits[layer.owner]} if layer.scheme else {})
        _, owner, width = best
        used += (width - bits[owner]) * sizes[owner]
        bits[owner] = width
