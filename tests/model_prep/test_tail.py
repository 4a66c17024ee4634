# SPDX-License-Identifier: Apache-2.0
"""The joint search of the last groups against all products, with noise that adds up."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nuq.model_prep.allocate.problem import Group, Problem, Widths
from nuq.model_prep.allocate.search import Tail, first_of_tail


@dataclass
class Groups:
    """What the tail needs of a Problem, and a noise of 4^-bits times a factor for each group."""

    elements: Sequence[int]
    behind: Sequence[float]
    factors: Sequence[float] = ()
    most: int = 8

    @property
    def groups(self) -> list[Group]:
        widths = tuple(range(1, self.most + 1))
        return [Group(f"g{i}", (f"g{i}",), size, widths) for i, size in enumerate(self.elements)]

    def nb(self, widths: Widths) -> int:
        return sum(size * bits for size, bits in zip(self.elements, widths, strict=True))

    def noise(self, widths: Widths) -> float:
        return sum(factor * 4.0**-bits for factor, bits in zip(self.factors, widths, strict=True))

    def search(
        self, widths: Widths, good: Callable[[Widths], bool], budget: float = 1e9,
        failed: Sequence[Widths] = (),
    ) -> tuple[Widths, list[tuple[Widths, int]]]:  # fmt: skip
        """(the answer, the widths tried with the group that differs from what was kept)."""
        trials: list[tuple[Widths, int]] = []

        def judge(trial: Widths, base: Widths, number: int) -> bool:
            trials.append((trial, number))
            assert trial[:number] == base[:number]  # the cache needs nothing before the change
            return good(trial)

        return Tail(cast(Problem, self), judge, widths, budget, failed).run(), trials


@st.composite
def cases(draw: st.DrawFn) -> tuple[Groups, Widths, float]:
    """(groups, widths that reach the goal, the most noise allowed)."""
    each = range(draw(st.integers(1, 5)))
    problem = Groups(
        [draw(st.integers(1, 1000)) for _ in each],
        sorted((draw(st.floats(0, 0.8)) for _ in each), reverse=True),
        [draw(st.floats(0.1, 100)) for _ in each],
    )
    widths = tuple(draw(st.integers(2, 8)) for _ in each)
    return problem, widths, problem.noise(widths) * draw(st.floats(1, 3))


@given(cases(), st.floats(0, 2))
def test_the_best_of_all_products_near_and_a_good_one_with_little_work(
    case: tuple[Groups, Widths, float], budget: float
) -> None:
    problem, widths, limit = case

    def good(trial: Widths) -> bool:
        return problem.noise(trial) <= limit

    best, trials = problem.search(widths, good)
    first = first_of_tail(cast(Problem, problem))
    near = [[one for one in range(1, 9) if abs(one - bits) <= 2] for bits in widths[first:]]
    every = ((*widths[:first], *rest) for rest in itertools.product(*near))
    assert good(best) and problem.nb(best) == min(problem.nb(one) for one in every if good(one))
    assert len(trials) == len({trial for trial, _ in trials})
    quick, trials = problem.search(widths, good, budget)
    assert good(quick) and problem.nb(quick) <= problem.nb(widths)
    assert sum(problem.behind[number] for _, number in trials[:-1]) <= budget


@given(cases(), st.randoms(use_true_random=False))
def test_the_answer_was_tried_whatever_the_judge_says(
    case: tuple[Groups, Widths, float], random: Random
) -> None:
    """Accuracy on a few images may rise with fewer bits."""
    problem, widths, _ = case
    passed = [widths]

    def good(trial: Widths) -> bool:
        if random.random() < 0.5:
            passed.append(trial)
        return passed[-1] == trial

    best, _ = problem.search(widths, good)
    assert best in passed
    assert problem.nb(best) == min(map(problem.nb, passed))


@pytest.mark.parametrize(
    ("behind", "first"),
    [((0.9, 0.3, 0.5, 0.1), 3), ((0.3, 0.2, 0.1, 0.0), 0), ((0.9, 0.8, 0.7, 0.6), 4)],
)
def test_the_tail_begins_behind_the_last_group_with_much_work_behind_it(
    behind: tuple[float, ...], first: int
) -> None:
    assert first_of_tail(cast(Problem, Groups((1,) * 4, behind))) == first


def test_known_failures_are_not_tried() -> None:
    best, trials = Groups((1, 1), (0.0, 0.0), most=3).search((2, 2), lambda _: True, 1.0, [(3, 1)])
    assert best == (1, 2)
    assert not any(trial[1] == 1 for trial, _ in trials)
