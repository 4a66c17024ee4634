# SPDX-License-Identifier: Apache-2.0
"""The joint search of the last groups against all products, with noise that adds up."""

import itertools
from dataclasses import dataclass
from random import Random
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from model_prep.allocate.problem import Group, Problem, Widths
from model_prep.allocate.search import Tail, first_of_tail


@dataclass
class Groups:
    """What the tail needs of a Problem, and a noise of 4^-bits times a factor for each group."""

    groups: tuple[Group, ...]
    behind: tuple[float, ...]
    factors: tuple[float, ...]

    def nb(self, widths: Widths) -> int:
        return sum(group.elements * bits for group, bits in zip(self.groups, widths, strict=True))

    def noise(self, widths: Widths) -> float:
        return sum(factor * 4.0**-bits for factor, bits in zip(self.factors, widths, strict=True))


@st.composite
def cases(draw: st.DrawFn) -> tuple[Groups, Widths, float]:
    """(groups, widths that reach the goal, the most noise allowed)."""
    number = draw(st.integers(1, 5))
    groups = tuple(
        Group(f"g{i}", (f"g{i}",), draw(st.integers(1, 1000)), tuple(range(1, 9)))
        for i in range(number)
    )
    behind = tuple(sorted((draw(st.floats(0, 0.8)) for _ in groups), reverse=True))
    factors = tuple(draw(st.floats(0.1, 100)) for _ in groups)
    problem = Groups(groups, behind, factors)
    widths = tuple(draw(st.integers(2, 8)) for _ in groups)
    return problem, widths, problem.noise(widths) * draw(st.floats(1, 3))


@given(cases())
def test_the_best_of_all_products_near(case: tuple[Groups, Widths, float]) -> None:
    problem, widths, limit = case
    trials = []

    def judge(trial: Widths, base: Widths, number: int) -> bool:
        trials.append(trial)
        assert trial[:number] == base[:number]  # the cache needs nothing in front of the change
        return problem.noise(trial) <= limit

    found = Tail(cast(Problem, problem), judge, widths, 1e9).run()
    first = first_of_tail(cast(Problem, problem))
    near = [[one for one in range(1, 9) if abs(one - bits) <= 2] for bits in widths[first:]]
    every = ((*widths[:first], *rest) for rest in itertools.product(*near))
    least = min(problem.nb(one) for one in every if problem.noise(one) <= limit)
    assert problem.nb(found) == least
    assert problem.noise(found) <= limit
    assert len(trials) == len(set(trials))


@given(cases(), st.floats(0, 2))
def test_little_work_still_gives_a_good_answer(
    case: tuple[Groups, Widths, float], budget: float
) -> None:
    problem, widths, limit = case
    spent = []

    def judge(trial: Widths, base: Widths, number: int) -> bool:
        spent.append(problem.behind[number])
        return problem.noise(trial) <= limit

    found = Tail(cast(Problem, problem), judge, widths, budget).run()
    assert problem.noise(found) <= limit
    assert problem.nb(found) <= problem.nb(widths)
    assert sum(spent[:-1]) <= budget


@given(cases(), st.randoms(use_true_random=False))
def test_the_answer_was_tried_whatever_the_judge_says(
    case: tuple[Groups, Widths, float], random: Random
) -> None:
    """Accuracy on a few images may rise with fewer bits."""
    problem, widths, _ = case
    good = [widths]

    def judge(trial: Widths, base: Widths, number: int) -> bool:
        if random.random() < 0.5:
            good.append(trial)
        return good[-1] == trial

    found = Tail(cast(Problem, problem), judge, widths, 1e9).run()
    assert found in good
    assert problem.nb(found) == min(map(problem.nb, good))


def test_the_tail_begins_behind_the_last_group_with_much_work_behind_it() -> None:
    groups = tuple(Group(f"g{i}", (f"g{i}",), 1, (1, 2)) for i in range(4))
    for behind, first in (
        ((0.9, 0.3, 0.5, 0.1), 3), ((0.3, 0.2, 0.1, 0.0), 0), ((0.9, 0.8, 0.7, 0.6), 4),
    ):  # fmt: skip
        assert first_of_tail(cast(Problem, Groups(groups, behind, (1.0,) * 4))) == first


def test_known_failures_are_not_tried() -> None:
    groups = tuple(Group(f"g{i}", (f"g{i}",), 1, (1, 2, 3)) for i in range(2))
    problem = cast(Problem, Groups(groups, (0.0, 0.0), (1.0, 1.0)))
    trials = []

    def judge(trial: Widths, base: Widths, number: int) -> bool:
        trials.append(trial)
        return True

    assert Tail(problem, judge, (2, 2), 1.0, [(3, 1)]).run() == (1, 2)
    assert not any(trial[1] == 1 for trial in trials)
