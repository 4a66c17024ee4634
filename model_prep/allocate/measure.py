# SPDX-License-Identifier: Apache-2.0
"""`Measure`: scores candidates through a pool, with or without the activation cache.

Scores are those of `fake_quant.Evaluator` on the same images in the same order, bit for bit at
the same number of torch threads. `reaches` stops as soon as a candidate's fate is sealed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from formats.errors import UserError
from formats.quantizer import Quantizer
from model_prep.allocate.cache import Choice
from model_prep.allocate.scheduler import Pool
from model_prep.graph import Graph
from model_prep.quantize.calibrate import ToFloat, batches
from model_prep.quantize.fake_quant import Evaluator, FakeQuantized
from model_prep.run import float_logits

METRICS = ("accuracy", "agreement", "sqnr")
_ROUNDING = 1e-9  # partial sums of noise may round otherwise than their total


def hardest_first(
    graph: Graph, pixels: np.ndarray, labels: np.ndarray | None, to_float: ToFloat
) -> np.ndarray:
    """The order of images (int [N]) that settles a candidate's fate soonest.

    First those that even the float network gets wrong, then by its margin between the two largest
    outputs: small margins turn first under noise.
    """
    logits = float_logits(graph, (to_float(batch) for batch in batches(pixels, "float network")))
    if logits.shape[1] < 2:
        return np.arange(len(logits))
    top = np.sort(logits, axis=1)
    margin = top[:, -1] - top[:, -2]
    if labels is not None:
        margin = np.where(logits.argmax(1) == labels, margin, -np.inf)
    return np.argsort(margin, kind="stable")


class Measure(Evaluator):
    """An Evaluator whose candidates are choices that differ little from a base.

    Attributes:
        metric: "accuracy" (top-1 against labels), "agreement" (with the float network's top-1) or
            "sqnr" (of the output, in dB).
        evaluations: candidates scored or judged so far.
    """

    def __init__(
        self, network: FakeQuantized, pixels: np.ndarray, labels: np.ndarray | None,
        to_float: ToFloat, pool: Pool, metric: str, cached: bool = True,
    ) -> None:  # fmt: skip
        """Run the float network once.

        Args:
            network, pixels, labels, to_float: as for Evaluator.
            pool: made for `batches(pixels)`.
            metric: one of METRICS.
            cached: whether to use the pool's cache.

        Raises:
            UserError: accuracy without labels.
        """
        if metric == "accuracy" and labels is None:
            raise UserError(
                "METRIC must be agreement or sqnr for images without labels or seeded weights, "
                "not accuracy"
            )
        super().__init__(network, pixels, labels if metric == "accuracy" else None, to_float)
        if metric == "agreement":
            self.labels = self.float_logits.argmax(axis=1)
        self.metric = metric
        self.evaluations = 0
        self._pool, self._cached = pool, cached
        sizes = [len(batch) for batch in batches(pixels)]
        ends = np.cumsum(sizes)
        self._spans = [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
        self._order: Sequence[int] = range(len(sizes))
        self._signal = float((self.float_logits.astype(np.float64) ** 2).sum())

    @property
    def unit(self) -> str:
        """What scores are measured in."""
        return "% agreement with float" if self.metric == "agreement" else super().unit

    def _hits(self, span: slice, logits: np.ndarray) -> int:
        """Images of a batch whose first largest output is the label."""
        assert self.labels is not None  # noqa: S101 (for the type checker)
        best = np.argsort(-logits, axis=1, kind="stable")[:, 0]
        return int((best == self.labels[span]).sum())

    def _noise(self, span: slice, logits: np.ndarray) -> float:
        return float(((logits - self.float_logits[span]).astype(np.float64) ** 2).sum())

    def score(
        self, quantizers: Mapping[str, Quantizer] | Choice, base: Choice | None = None
    ) -> tuple[float, float]:
        """(score, output SQNR in dB): greater is better, the second decides between equals.

        Args:
            quantizers: by layer name, or a choice with weights.
            base: a choice that this one differs little from; default: itself.
        """
        return self.rate(self.outputs(quantizers, base))

    def outputs(
        self, quantizers: Mapping[str, Quantizer] | Choice, base: Choice | None = None
    ) -> np.ndarray:
        """The outputs of a choice for all images, float32 [N, classes]."""
        choice = quantizers if isinstance(quantizers, Choice) else Choice(quantizers)
        self.evaluations += 1
        logits = np.empty_like(self.float_logits)

        def consume(number: int, part: np.ndarray) -> bool:
            logits[self._spans[number]] = part
            return True

        self._run(base or choice, choice, consume)
        self._sort(logits)
        return logits

    def _run(self, base: Choice, choice: Choice, consume: object) -> None:
        self._pool.run(base if self._cached else None, choice, self._order, consume)  # type: ignore[arg-type]

    def _sort(self, logits: np.ndarray) -> None:
        """Let later candidates start with the batches that do worst."""
        if self.labels is None:
            worst = [-self._noise(span, logits[span]) for span in self._spans]
        else:
            worst = [self._hits(span, logits[span]) for span in self._spans]
        self._order = np.argsort(worst, kind="stable").tolist()

    def reaches(self, choice: Choice, base: Choice, goal: float) -> bool:
        """Whether score(choice) >= goal, found on as few batches as decide it."""
        self.evaluations += 1
        judge = self._judge_hits(goal) if self.labels is not None else self._judge_noise(goal)
        self._run(base, choice, judge.consume)
        return judge.verdict()

    def _judge_hits(self, goal: float) -> _Hits:
        total = len(self.pixels)
        needed = next((n for n in range(total + 1) if 100 * (n / total) >= goal), total + 1)
        return _Hits(self, needed, total)

    def _judge_noise(self, goal: float) -> _Noise:
        return _Noise(self, goal)


class _Hits:
    """Counts right answers until there are enough, or too few can come."""

    def __init__(self, measure: Measure, needed: int, total: int) -> None:
        self._measure, self._needed, self._left, self._hits = measure, needed, total, 0

    def consume(self, number: int, part: np.ndarray) -> bool:
        """One batch; False: decided."""
        self._left -= len(part)
        self._hits += self._measure._hits(self._measure._spans[number], part)
        return self._hits < self._needed <= self._hits + self._left

    def verdict(self) -> bool:
        """Whether the goal was reached."""
        return self._hits >= self._needed


class _Noise:
    """Sums noise until it is too much; a verdict otherwise needs the last batch."""

    def __init__(self, measure: Measure, goal: float) -> None:
        self._measure, self._goal, self._noise = measure, goal, 0.0
        self._logits = np.empty_like(measure.float_logits)
        self._most = math.inf if goal == -math.inf else measure._signal / 10 ** (goal / 10)
        self._failed = False

    def consume(self, number: int, part: np.ndarray) -> bool:
        """One batch; False: decided."""
        span = self._measure._spans[number]
        self._logits[span] = part
        self._noise += self._measure._noise(span, part)
        self._failed = self._noise > self._most * (1 + _ROUNDING)
        return not self._failed

    def verdict(self) -> bool:
        """Whether the goal was reached."""
        return not self._failed and self._measure.rate(self._logits)[0] >= self._goal


def inverse_sqnr(db: float) -> float:
    """Noise over signal of a ratio in dB, which adds up over independent quantizers (paper 002).

    >>> inverse_sqnr(20.0), inverse_sqnr(float("inf"))
    (0.01, 0.0)
    """
    return 0.0 if db == math.inf else 10 ** (-db / 10)
