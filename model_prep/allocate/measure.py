# SPDX-License-Identifier: Apache-2.0
"""`Measure`: scores candidates through a pool, with or without the activation cache.

Scores are those of `score.Evaluator` on the same images in the same order, bit for bit at
the same number of torch threads. `reaches` stops as soon as a candidate's fate is sealed.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np

from nuq.formats.quantizer import Quantizer
from nuq.model_prep.allocate.cache import Choice, cache_bytes, layers_to_keep
from nuq.model_prep.allocate.problem import Problem
from nuq.model_prep.allocate.scheduler import Consume, Pool, open_pool
from nuq.model_prep.quantize.calibrate import batches
from nuq.model_prep.quantize.score import Evaluator, Sample

_ROUNDING = 1e-9  # partial sums of losses may round otherwise than their total


class Measure(Evaluator):
    """An Evaluator whose candidates are choices that differ little from a base."""

    def __init__(
        self, sample: Sample, pool: Pool, metric: str | None = None, cached: bool = True
    ) -> None:
        """As for `Evaluator`; `pool` is made for `batches` of the pixels."""
        super().__init__(sample, metric)
        self.evaluations = 0  # candidates scored or judged so far
        self._pool, self._cached = pool, cached
        ends = np.cumsum([len(batch) for batch in batches(sample.pixels)]).tolist()
        self._spans = [slice(*ends) for ends in itertools.pairwise([0, *ends])]
        self._order: Sequence[int] = range(len(ends))

    def loss(self, number: int, logits: np.ndarray) -> float:
        """What the outputs of a batch lose."""
        span = self._spans[number]
        return self.metric.loss(logits, self.sample.logits[span], self.truth[span])

    def score(
        self, quantizers: Mapping[str, Quantizer] | Choice, base: Choice | None = None
    ) -> tuple[float, float]:
        """(score, output SQNR in dB) as `Evaluator.score`, or of a choice with weights.

        `base` is a choice that this one differs little from; default: itself.
        """
        choice = quantizers if isinstance(quantizers, Choice) else Choice(quantizers)
        return self.rate(self.outputs(choice, base))

    def outputs(self, choice: Choice, base: Choice | None = None) -> np.ndarray:
        """The outputs of a choice for all images, float32 [N, classes]."""
        self.evaluations += 1
        logits = np.empty_like(self.sample.logits)

        def consume(number: int, part: np.ndarray) -> bool:
            logits[self._spans[number]] = part
            return True

        self._run(base or choice, choice, consume)
        losses = [-self.loss(number, logits[span]) for number, span in enumerate(self._spans)]
        self._order = np.argsort(losses, kind="stable").tolist()  # the worst batches first
        return logits

    def _run(self, base: Choice, choice: Choice, consume: Consume) -> None:
        self._pool.run(base if self._cached else None, choice, self._order, consume)

    def reaches(self, choice: Choice, base: Choice, goal: float) -> bool:
        """Whether score(choice) >= goal, found on as few batches as decide it."""
        self.evaluations += 1
        logits = np.empty_like(self.sample.logits)
        left, lost = len(logits), 0.0

        def passes(loss: float) -> bool:
            return loss < math.inf and self.metric.score(loss, len(logits), self.signal) >= goal

        def sure() -> bool:
            return left > 0 and passes(lost + left * self.metric.worst)

        def consume(number: int, part: np.ndarray) -> bool:
            nonlocal left, lost
            logits[self._spans[number]] = part
            left -= len(part)
            lost += self.loss(number, part)
            return passes(lost * (1 - _ROUNDING)) and not sure()

        self._run(base, choice, consume)
        return sure() if left else self.rate(logits)[0] >= goal


@contextmanager
def measuring(
    problem: Problem | None, sample: Sample, metric: str | None = None,
    scheduler: str | None = None,
    cache_gb: float | None = None, cached: bool = True, floats: bool = True,
) -> Iterator[Measure]:  # fmt: skip
    """A Measure of a network, its pool closed at the end.

    Args:
        problem: its open widths; None where `floats`.
        sample: images to search on.
        metric: a key of `score.METRICS`; default: accuracy with labels, else sqnr.
        scheduler: address of a Dask scheduler; None: the cores of this machine.
        cache_gb: size of the activation cache; None: a quarter of the free memory.
        cached: False evaluates every candidate from the pixels on.
        floats: whether bases hold uniform or float layers, whose cache is twice as large.
    """
    Evaluator(sample, metric)  # refuses before anything is sent
    typical = {} if floats or problem is None else problem.choice(problem.widest).quantizers
    limit = cache_bytes(cache_gb)
    keep = layers_to_keep(sample.network.graph, typical, len(sample.pixels), limit)
    with open_pool(scheduler, sample.network, list(batches(sample.pixels)), keep) as pool:
        yield Measure(sample, pool, metric, cached)


def goal_of(problem: Problem, measure: Measure) -> float:
    """The least score: A' (of the qm-bit uniform network) less delta."""
    return measure.score(problem.full_width())[0] - measure.delta(problem.open_plan.delta)
