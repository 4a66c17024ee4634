# SPDX-License-Identifier: Apache-2.0
"""Smallest widths within delta of A': the search of papers 000/001 for E_i and T_i.

`coordinate` lowers one group at a time from the smallest uniform width, then searches the last
groups together (`Tail`); `exhaustive` tries all products of widths that could need fewer bits. All
minimise NB.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from tqdm import tqdm

from nuq.formats.errors import UserError
from nuq.model_prep.allocate.measure import Measure
from nuq.model_prep.allocate.problem import Problem, Widths, with_width
from nuq.model_prep.quantize.plan import Plan

_SLACK = 2  # bits lent to small groups at first
_USUAL = 4  # bits of all groups that are tried first
_MOST_PRODUCTS = 200_000
_SHARE = 1 / 3  # of the network's MACs: no more lies behind a group of the tail
_REACH = 2  # bits that a width of the tail may move from the descent's
_LEAST_WORK = 0.01  # of a trial, in runs of the whole network: the last group has nothing behind

# (widths to try, widths that the cache is kept for, number of the group that differs)
Judge = Callable[[Widths, Widths, int], bool]


@dataclass(frozen=True)
class Step:
    """One candidate of the descent or of the tail."""

    group: str
    bits: int
    accepted: bool
    nb: int


@dataclass(frozen=True)
class SearchResult:
    """What a search comes to."""

    widths: dict[str, int]  # by layer name
    plan: Plan  # with all widths fixed
    nb: int  # bits of all activations of one image
    score: float
    sqnr_db: float
    goal: float  # the least score allowed
    unit: str  # of the scores
    start_bits: int  # the smallest single width that reaches the goal
    start_nb: int
    descent_nb: int  # before the last groups were searched together
    evaluations: int  # candidates run
    steps: list[Step] = field(default_factory=list)


def smallest_uniform(problem: Problem, measure: Measure, goal: float) -> int:
    """The single width that reaches the goal where one bit less does not.

    Every trial runs the whole network, so none is made far from where the answer usually is.

    Raises:
        UserError: not even the widest codes do.
    """
    low, high = min(problem.narrowest), max(problem.widest)
    base = problem.choice(problem.widest)

    def good(bits: int) -> bool:
        return measure.reaches(problem.choice(problem.uniform(bits)), base, goal)

    first = min(max(_USUAL, low), high)
    if good(first):
        while first > low and good(first - 1):
            first -= 1
        return first
    for bits in range(first + 1, high + 1):
        if good(bits):
            return bits
    score, _ = measure.score(base)
    raise UserError(
        f"METHOD=search must reach {goal:.2f} {measure.unit}, not {score:.2f} with the widest "
        "codes; raise DELTA"
    )


def coordinate(
    problem: Problem, measure: Measure, goal: float, order: str = "size"
) -> SearchResult:
    """Coordinate descent from the smallest uniform width, then the last groups together.

    A pass lowers every group by one bit where the goal is still reached. A group that fails is
    left alone from then on: narrower codes elsewhere only add noise. The widths of the groups with
    little work behind them are then searched together (`Tail`), with at most as much work behind
    the groups that trials change as the passes had.

    A pass takes groups by `order`: "size" (most activations first), "backward" (last layer first,
    so that what is accepted never spoils the cache of what comes next) or "forward".
    """
    before = measure.evaluations
    start = smallest_uniform(problem, measure, goal)
    uniform = problem.uniform(start)
    steps, failed = list[Step](), list[Widths]()
    with tqdm(desc="width search", unit="candidate", disable=None, leave=False) as bar:

        def judge(trial: Widths, base: Widths, number: int) -> bool:
            good = measure.reaches(problem.choice(trial), problem.choice(base), goal)
            steps.append(Step(problem.groups[number].name, trial[number], good, problem.nb(trial)))
            bar.update()
            if not good:
                failed.append(trial)
            return good

        descent, work = _descend(problem, judge, _with_slack(problem, uniform), order)
        widths = Tail(problem, judge, descent, work, failed).run()
    if problem.nb(widths) > problem.nb(uniform):  # the slack was not needed
        widths = uniform
    score, sqnr = measure.score(problem.choice(widths))
    return SearchResult(
        problem.by_name(widths), problem.plan(widths), problem.nb(widths), score, sqnr, goal,
        measure.unit, start, problem.nb(uniform), problem.nb(descent),
        measure.evaluations - before, steps,
    )  # fmt: skip


def _descend(
    problem: Problem, judge: Judge, widths: Widths, order: str
) -> tuple[Widths, float]:  # fmt: skip
    """(where no group can be lowered, the work of all trials in runs of the whole network)."""
    alive, work = list(range(len(widths))), 0.0
    if order == "size":
        alive.sort(key=lambda number: -problem.groups[number].elements)
    elif order == "backward":
        alive.reverse()
    while alive:
        left = []
        for number in alive:
            if widths[number] == problem.groups[number].widths[0]:
                continue
            trial = with_width(widths, number, widths[number] - 1)
            work += problem.behind[number]
            if judge(trial, widths, number):
                widths = trial
                left.append(number)
        alive = left
    return widths, work


def _with_slack(problem: Problem, widths: Widths) -> Widths:
    """The widths with _SLACK bits more, if there are, in groups smaller than average."""
    average = sum(group.elements for group in problem.groups) / len(problem.groups)
    return tuple(
        min(bits + _SLACK, group.widths[-1]) if group.elements < average else bits
        for group, bits in zip(problem.groups, widths, strict=True)
    )


class Tail:
    """The widths of the last groups, searched together: what the activation cache makes cheap.

    A descent one group at a time stops where every single step fails, even if one group's bit more
    would let two others have one less. Behind the last groups there is little work, so all products
    of their widths near the descent's can be searched by branch and bound, the other groups'
    staying as they are.

    A node fixes the widths up to a group and has the widest that it may have behind it. As in the
    descent, narrower codes are taken to only add noise: what is nowhere wider than widths that
    failed has failed, what is nowhere narrower than widths that were good is good, without a trial.
    The answer itself always was tried.
    """

    def __init__(
        self, problem: Problem, judge: Judge, widths: Widths, budget: float,
        failed: Sequence[Widths] = (),
    ) -> None:  # fmt: skip
        """
        Args:
            problem, judge: the groups, and whether widths reach the goal.
            widths: the descent's result, which does.
            budget: work allowed, counted behind the group that a trial changes; 1 is a run of the
                whole network.
            failed: widths that are known not to reach the goal.
        """
        self._problem, self._judge, self._budget = problem, judge, budget
        self._failed, self._passed = list(failed), [widths]
        self.best = widths  # of least NB so far that reached the goal
        self._first = first_of_tail(problem)
        self._near = [
            [bits for bits in group.widths if abs(bits - own) <= _REACH]
            for group, own in zip(problem.groups, widths, strict=True)
        ]
        self._low = tuple(near[0] for near in self._near)
        self._start = widths[: self._first] + tuple(near[-1] for near in self._near[self._first :])

    def run(self) -> Widths:
        """The widths of least NB that were found within the budget."""
        if self._first < len(self._start) and self._good(self._start, self.best, self._first):
            self._visit(self._start, self._first)
        return self.best

    def _good(self, widths: Widths, base: Widths, number: int) -> bool:
        """Whether widths reach the goal; without a trial where others tell."""
        if any(_within(widths, failed) for failed in self._failed):
            return False
        if any(_within(passed, widths) for passed in self._passed):
            return True
        self._budget -= max(_LEAST_WORK, self._problem.behind[number])
        good = self._judge(widths, base, number)
        (self._passed if good else self._failed).append(widths)
        if good:
            self.best = min(self.best, widths, key=self._problem.nb)
        return good

    def _visit(self, widths: Widths, number: int) -> None:
        """The best of all widths that agree with these up to a group, without it."""
        good = [widths]  # from wide to narrow
        for bits in reversed([bits for bits in self._near[number] if bits < widths[number]]):
            trial = with_width(widths, number, bits)
            if self._budget <= 0 or not self._good(trial, good[-1], number):
                break
            good.append(trial)
        behind = number + 1
        if behind == len(widths):
            return
        for trial in reversed(good):
            least = self._problem.nb(trial[:behind] + self._low[behind:])
            if least >= self._problem.nb(self.best):
                return
            self._visit(trial, behind)


def first_of_tail(problem: Problem) -> int:
    """Where the last stretch of groups with at most a third of the work behind them begins."""
    heavy = [number for number, share in enumerate(problem.behind) if share > _SHARE]
    return heavy[-1] + 1 if heavy else 0


def _within(one: Widths, other: Widths) -> bool:
    """Whether no group is wider in the one than in the other."""
    return all(mine <= theirs for mine, theirs in zip(one, other, strict=True))


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
    start = coordinate(problem, measure, goal)
    best: list[Widths] = [tuple(start.widths[group.name] for group in problem.groups)]
    narrowest = problem.narrowest
    with tqdm(desc="exhaustive search", unit="candidate", disable=None, leave=False) as bar:

        def visit(head: Widths) -> None:
            rest = narrowest[len(head) :]
            if problem.nb(head + rest) >= problem.nb(best[-1]):
                return
            if rest:
                for bits in problem.groups[len(head)].widths:
                    visit((*head, bits))
                return
            bar.update()
            base = problem.choice((*head[:-1], narrowest[-1]))
            if measure.reaches(problem.choice(head), base, goal):
                best.append(head)

        visit(())
    score, sqnr = measure.score(problem.choice(best[-1]))
    return replace(
        start, widths=problem.by_name(best[-1]), plan=problem.plan(best[-1]),
        nb=problem.nb(best[-1]), score=score, sqnr_db=sqnr,
        evaluations=measure.evaluations - before,
    )  # fmt: skip
