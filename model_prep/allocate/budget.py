# SPDX-License-Identifier: Apache-2.0
"""Least loss for a number of bits, and the whole front of loss against NB.

Marginal analysis: every group is measured at every width with all others at full width; inverse
SQNR adds up over quantizers (paper 002), so the sum predicts any combination; dynamic programming
finds the exact optimum of the prediction; swaps of measured gain improve it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from formats.errors import UserError
from model_prep.allocate.measure import Measure
from model_prep.allocate.problem import Problem, Widths
from model_prep.quantize.score import inverse_sqnr

_MOST_STATES = 100_000  # of the dynamic programme; beyond, NB is divided into so many cells


@dataclass(frozen=True)
class Sensitivity:
    """The table of single-group losses.

    Attributes:
        groups: names of their first layers.
        widths: by group, the widths measured.
        scores: by group and width, the score with all other groups at full width, in `unit`.
        sqnr_db: the same as output SQNR.
        full_score, full_sqnr_db: of the qm-bit uniform network.
        unit: what scores are measured in.
    """

    groups: tuple[str, ...]
    widths: tuple[tuple[int, ...], ...]
    scores: tuple[tuple[float, ...], ...]
    sqnr_db: tuple[tuple[float, ...], ...]
    full_score: float
    full_sqnr_db: float
    unit: str

    def noise(self, number: int) -> np.ndarray:
        """Inverse output SQNR that a group adds at each of its widths, float64, never below 0."""
        floor = inverse_sqnr(self.full_sqnr_db)
        found = np.array([inverse_sqnr(db) for db in self.sqnr_db[number]])
        return np.maximum(found - floor, 0.0)


@dataclass(frozen=True)
class Point:
    """One point of the front.

    Attributes:
        nb: bits of all activations of one image.
        widths: one per group; `layers` has them by layer name.
        predicted_db: output SQNR that the table predicts.
        measured: score of the whole choice, in the measure's unit; `measured_db` its output SQNR.
        swaps: measured improvements since the prediction's optimum.
    """

    nb: int
    widths: Widths
    layers: dict[str, int]
    predicted_db: float
    measured: float
    measured_db: float
    swaps: int = 0


def sensitivity(problem: Problem, measure: Measure) -> Sensitivity:
    """Measure every group at every width, the last group first, with all others at full width."""
    base = problem.full_width()
    full_score, full_sqnr = measure.score(base)
    scores: list[tuple[float, ...]] = []
    ratios: list[tuple[float, ...]] = []
    total = sum(len(group.widths) for group in problem.groups)
    with tqdm(total=total, desc="sensitivity", unit="width", disable=None, leave=False) as bar:
        for number in reversed(range(len(problem.groups))):
            row = []
            for bits in problem.groups[number].widths:
                row.append(measure.score(problem.with_group(base, number, bits), base))
                bar.update()
            scores.insert(0, tuple(score for score, _ in row))
            ratios.insert(0, tuple(sqnr for _, sqnr in row))
    return Sensitivity(
        tuple(group.name for group in problem.groups),
        tuple(group.widths for group in problem.groups),
        tuple(scores), tuple(ratios), full_score, full_sqnr, measure.unit,
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
        best = _undominated(cost, noise)
        costs, noises = cost[best], noise[best]
        before, option = np.divmod(best, len(options))
        chosen = np.column_stack([chosen[before], options[option].astype(np.int8)])
    return [tuple(int(bits) for bits in row) for row in chosen]


def _undominated(cost: np.ndarray, noise: np.ndarray) -> np.ndarray:
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


def best_for(
    problem: Problem, measure: Measure, table: Sensitivity, nb: int, swaps: int = 20,
    candidates: Sequence[Widths] | None = None,
) -> Point:  # fmt: skip
    """The least loss for at most `nb` bits.

    Args:
        problem, measure, table: the groups, the judge and the measured table.
        nb: bits of all activations of one image.
        swaps: candidates to try for measured improvements.
        candidates: from `predicted_front`, if it is at hand.

    Raises:
        UserError: not even the narrowest codes are small enough.
    """
    front = predicted_front(problem, table) if candidates is None else candidates
    fitting = [widths for widths in front if problem.nb(widths) <= nb]
    if not fitting:
        raise UserError(
            f"NB must be at least {problem.nb(front[0])} bits, the narrowest codes, not {nb}"
        )
    widths = fitting[-1]
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
        found = measure.score(problem.choice(trial), problem.choice(widths))
        if found > best:
            widths, best, done = trial, found, done + 1
            trials = _swaps(problem, table, widths, nb)
    return Point(
        problem.nb(widths), widths, problem.by_name(widths), predicted_db(table, widths), *best,
        done,
    )  # fmt: skip


def _swaps(problem: Problem, table: Sensitivity, widths: Widths, nb: int) -> list[Widths]:
    """Neighbours within `nb`, the best prediction first: one group wider, none or one narrower."""
    found = []
    for wider in range(len(widths)):
        for narrower in [None, *range(len(widths))]:
            trial = list(widths)
            moves = [(wider, 1)] if narrower in (None, wider) else [(wider, 1), (narrower, -1)]
            for number, step in moves:
                trial[number] += step
            allowed = all(trial[n] in problem.groups[n].widths for n, _ in moves)
            if allowed and problem.nb(tuple(trial)) <= nb:
                found.append(tuple(trial))
    unique = sorted(set(found))
    return sorted(unique, key=lambda trial: -predicted_db(table, trial))


def front(
    problem: Problem, measure: Measure, table: Sensitivity | None = None, points: int = 12,
    swaps: int = 4,
) -> list[Point]:  # fmt: skip
    """The front of loss against NB, by rising NB, measured.

    Args:
        problem, measure: the groups and the judge.
        table: from `sensitivity`; None measures it.
        points: how many budgets, in equal ratios between the narrowest and the widest codes.
        swaps: candidates to try at each for measured improvements.

    Returns:
        Points none of which beats another in both NB and measured loss.
    """
    table = sensitivity(problem, measure) if table is None else table
    candidates = predicted_front(problem, table)
    low, high = problem.nb(candidates[0]), problem.nb(candidates[-1])
    found: list[Point] = []
    budgets = np.geomspace(low, high, points).round().astype(np.int64).tolist()
    for nb in tqdm(budgets, desc="front", unit="point", disable=None, leave=False):
        point = best_for(problem, measure, table, max(nb, low), swaps, candidates)
        if all(point.widths != other.widths for other in found):
            found.append(point)
    found.sort(key=lambda point: (point.nb, -point.measured, -point.measured_db))
    kept: list[Point] = []
    for point in found:
        if not kept or (point.measured, point.measured_db) > (
            kept[-1].measured, kept[-1].measured_db
        ):  # fmt: skip
            kept.append(point)
    return kept
