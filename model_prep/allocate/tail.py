# SPDX-License-Identifier: Apache-2.0
"""The widths of the last groups, searched together: what the activation cache makes cheap.

A descent one group at a time stops where every single step fails, even if one group's bit more
would let two others have one less. Behind the last groups there is little work, so all products of
their widths near the descent's can be searched by branch and bound.
"""

from collections.abc import Callable, Sequence

from model_prep.allocate.problem import Problem, Widths

_SHARE = 1 / 3  # of the network's MACs: no more lies behind a group of the tail
_REACH = 2  # bits that a width may move from the descent's
_LEAST_WORK = 0.01  # of a trial, in runs of the whole network: the last group has nothing behind

# (widths to try, widths that the cache is kept for, number of the group that differs)
Judge = Callable[[Widths, Widths, int], bool]


def first_of_tail(problem: Problem) -> int:
    """Where the last stretch of groups with at most a third of the work behind them begins."""
    heavy = [number for number, share in enumerate(problem.behind) if share > _SHARE]
    return heavy[-1] + 1 if heavy else 0


class Tail:
    """Branch and bound over the tail's widths, the other groups' staying as they are.

    A node fixes the widths up to a group and has the widest that it may have behind it. As in the
    descent, narrower codes are taken to only add noise: what is nowhere wider than widths that
    failed has failed, what is nowhere narrower than widths that were good is good, without a trial.
    The answer itself always was tried.

    Attributes:
        best: the widths of least NB so far that reached the goal.
    """

    def __init__(
        self, problem: Problem, judge: Judge, widths: Widths, budget: float,
        failed: Sequence[Widths] = (),
    ) -> None:  # fmt: skip
        """
        Args:
            problem: the groups.
            judge: whether widths reach the goal.
            widths: reach the goal; the descent's result.
            budget: work allowed, counted behind the group that a trial changes; 1 is a run of the
                whole network.
            failed: widths that are known not to reach the goal.
        """
        self._problem, self._judge, self._budget = problem, judge, budget
        self._failed, self._passed = list(failed), [widths]
        self.best = widths
        self._first = first_of_tail(problem)
        groups = problem.groups
        near = [
            [bits for bits in group.widths if abs(bits - found) <= _REACH]
            for group, found in zip(groups, widths, strict=True)
        ]
        self._near = near
        self._low = tuple(allowed[0] for allowed in near)
        self._start = (*widths[: self._first], *(allowed[-1] for allowed in near[self._first :]))

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

    def _least(self, widths: Widths, number: int) -> int:
        """NB of the narrowest widths that agree with these up to a group, it included."""
        return self._problem.nb((*widths[: number + 1], *self._low[number + 1 :]))

    def _visit(self, widths: Widths, number: int) -> None:
        """The best of all widths that agree with these up to a group, without it."""
        good = [widths]  # from wide to narrow
        for bits in reversed([bits for bits in self._near[number] if bits < widths[number]]):
            trial = (*widths[:number], bits, *widths[number + 1 :])
            if self._budget <= 0 or not self._good(trial, good[-1], number):
                break
            good.append(trial)
        if number == len(widths) - 1:
            return
        for trial in reversed(good):
            if self._least(trial, number) >= self._problem.nb(self.best):
                return
            self._visit(trial, number + 1)


def _within(one: Widths, other: Widths) -> bool:
    """Whether no group is wider in the one than in the other."""
    return all(mine <= theirs for mine, theirs in zip(one, other, strict=True))
