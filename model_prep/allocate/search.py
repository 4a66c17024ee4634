# SPDX-License-Identifier: Apache-2.0
"""Smallest widths within delta of A': the search of papers 000/001 for E_i and T_i.

`coordinate` lowers one group at a time from the smallest uniform width, then searches the last
groups together; `exhaustive` tries all products of widths that could need fewer bits. All minimise
NB.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from tqdm import tqdm

from formats.errors import UserError
from model_prep.allocate.measure import Measure
from model_prep.allocate.problem import Problem, Widths
from model_prep.allocate.tail import Judge, Tail
from model_prep.quantize.plan import Plan

ORDERS = ("size", "backward", "forward")
_SLACK = 2  # bits lent to small groups at first
_USUAL = 4  # bits of all groups that are tried first
_MOST_PRODUCTS = 200_000


@dataclass(frozen=True)
class Step:
    """One candidate: a group's name, the width tried, whether it was good enough, NB with it."""

    group: str
    bits: int
    accepted: bool
    nb: int


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        widths: by layer name.
        plan: with all widths fixed.
        nb: bits of all activations of one image.
        score, sqnr_db: of the result; `goal` is the least score allowed, in `unit`.
        start_bits, start_nb: the smallest single width that reaches the goal, and its NB.
        descent_nb: NB before the last groups were searched together.
        evaluations: candidates run.
        steps: the candidates of the descent and of the tail.
    """

    widths: dict[str, int]
    plan: Plan
    nb: int
    score: float
    sqnr_db: float
    goal: float
    unit: str
    start_bits: int
    start_nb: int
    descent_nb: int
    evaluations: int
    steps: list[Step] = field(default_factory=list)


def smallest_uniform(problem: Problem, measure: Measure, goal: float) -> tuple[int, Widths]:
    """(bits, widths): the single width that reaches the goal where one bit less does not.

    Every trial runs the whole network, so none is made far from where the answer usually is.

    Raises:
        UserError: not even the widest codes do.
    """
    low, high = min(group.widths[0] for group in problem.groups), max(problem.widest)
    base = problem.choice(problem.widest)

    def good(bits: int) -> bool:
        return measure.reaches(problem.choice(problem.uniform(bits)), base, goal)

    first = min(max(_USUAL, low), high)
    if good(first):
        while first > low and good(first - 1):
            first -= 1
        return first, problem.uniform(first)
    for bits in range(first + 1, high + 1):
        if good(bits):
            return bits, problem.uniform(bits)
    score, _ = measure.score(base)
    raise UserError(
        f"METHOD=search must reach {goal:.2f} {measure.unit}, not {score:.2f} with the widest "
        "codes; raise DELTA"
    )


def visiting_order(problem: Problem, order: str) -> list[int]:
    """Group numbers in the order in which a pass lowers them.

    Args:
        problem: with the groups.
        order: "backward" (last layer first, so that what is accepted never spoils the cache of
            what comes next), "forward", or "size" (most activations first).
    """
    numbers = list(range(len(problem.groups)))
    if order == "backward":
        return numbers[::-1]
    if order == "size":
        return sorted(numbers, key=lambda number: -problem.groups[number].elements)
    if order != "forward":
        raise UserError(f"ORDER must be one of {', '.join(ORDERS)}, not {order}")
    return numbers


def coordinate(
    problem: Problem, measure: Measure, goal: float, order: str = ORDERS[0], slack: int = _SLACK
) -> SearchResult:
    """Coordinate descent from the smallest uniform width, then the last groups together.

    A pass lowers every group by one bit where the goal is still reached. A group that fails is
    left alone from then on: narrower codes elsewhere only add noise. The widths of the groups with
    little work behind them are then searched together (`tail`), with at most as much work behind
    the groups that trials change as the passes had.

    Args:
        problem: the groups and their quantizers.
        measure: scores and judges.
        goal: least score.
        order: see `visiting_order`.
        slack: bits more that small groups start with.
    """
    before = measure.evaluations
    start, widths = smallest_uniform(problem, measure, goal)
    start_nb, steps, failed = problem.nb(widths), list[Step](), list[Widths]()
    with tqdm(desc="width search", unit="candidate", disable=None, leave=False) as bar:

        def judge(trial: Widths, base: Widths, number: int) -> bool:
            good = measure.reaches(problem.choice(trial), problem.choice(base), goal)
            steps.append(Step(problem.groups[number].name, trial[number], good, problem.nb(trial)))
            bar.update()
            if not good:
                failed.append(trial)
            return good

        widths, work = _descend(problem, judge, _with_slack(problem, widths, slack), order)
        descent_nb = problem.nb(widths)
        widths = Tail(problem, judge, widths, work, failed).run()
    return _result(problem, measure, widths, goal, start, start_nb, descent_nb, before, steps)


def _descend(
    problem: Problem, judge: Judge, widths: Widths, order: str
) -> tuple[Widths, float]:  # fmt: skip
    """(where no group can be lowered, the work of all trials in runs of the whole network)."""
    alive, work = visiting_order(problem, order), 0.0
    while alive:
        left = []
        for number in alive:
            trial = _lower(problem, widths, number)
            if trial is None:
                continue
            work += problem.behind[number]
            if judge(trial, widths, number):
                widths = trial
                left.append(number)
        alive = left
    return widths, work


def _with_slack(problem: Problem, widths: Widths, slack: int) -> Widths:
    """The widths with `slack` bits more, if there are, in groups of fewer elements than average."""
    average = sum(group.elements for group in problem.groups) / len(problem.groups)
    return tuple(
        min(bits + slack, group.widths[-1]) if group.elements < average else bits
        for group, bits in zip(problem.groups, widths, strict=True)
    )


def _lower(problem: Problem, widths: Widths, number: int) -> Widths | None:
    """The widths with one group a step narrower; None at its narrowest."""
    allowed = problem.groups[number].widths
    place = allowed.index(widths[number])
    if place == 0:
        return None
    return (*widths[:number], allowed[place - 1], *widths[number + 1 :])


def _result(
    problem: Problem, measure: Measure, widths: Widths, goal: float, start: int, start_nb: int,
    descent_nb: int, before: int, steps: list[Step],
) -> SearchResult:  # fmt: skip
    score, sqnr = measure.score(problem.choice(widths))
    return SearchResult(
        problem.by_name(widths), problem.plan(widths), problem.nb(widths), score, sqnr, goal,
        measure.unit, start, start_nb, descent_nb, measure.evaluations - before, steps,
    )  # fmt: skip


def exhaustive(problem: Problem, measure: Measure, goal: float) -> SearchResult:
    """The least NB of all products of widths that reaches the goal, without any assumption.

    Depth first, the last group varying fastest, which is what the cache likes; a branch ends where
    even its narrowest completion needs no fewer bits than the best so far. Starts with the result
    of `coordinate`.

    Raises:
        UserError: too many products.
    """
    products = math.prod(len(group.widths) for group in problem.groups)
    if products > _MOST_PRODUCTS:
        raise UserError(
            f"an exhaustive search must have at most {_MOST_PRODUCTS} products of widths, not "
            f"{products}; fix some widths in PLAN or leave EXHAUSTIVE out"
        )
    before = measure.evaluations
    found = coordinate(problem, measure, goal)
    names = [group.name for group in problem.groups]
    best: list[Widths] = [tuple(found.widths[name] for name in names)]
    narrowest = tuple(group.widths[0] for group in problem.groups)
    with tqdm(desc="exhaustive search", unit="candidate", disable=None, leave=False) as bar:

        def visit(head: Widths) -> None:
            rest = narrowest[len(head) :]
            if problem.nb((*head, *rest)) >= problem.nb(best[0]):
                return
            if rest:
                for bits in problem.groups[len(head)].widths:
                    visit((*head, bits))
                return
            bar.update()
            base = problem.choice((*head[:-1], narrowest[-1]))
            if measure.reaches(problem.choice(head), base, goal):
                best[0] = head

        visit(())
    return _result(
        problem, measure, best[0], goal, found.start_bits, found.start_nb, found.descent_nb, before,
        found.steps,
    )  # fmt: skip


Search = Callable[[Problem, Measure, float], SearchResult]
