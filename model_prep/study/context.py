# SPDX-License-Identifier: Apache-2.0
"""`Study`: the network, its images and formats, and scores of candidates on the test images.

Searches and tables come from the calibration images, every final figure from test images that are
not among them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, TypeVar

import numpy as np
from tqdm import tqdm

from formats.arithmetic import lowest
from formats.images import ImageSet, percent_correct
from formats.quantizer import Quantizer
from model_prep import data, run
from model_prep.allocate import clipping, command, uniform
from model_prep.allocate.cache import Choice
from model_prep.allocate.clipping import coarser
from model_prep.allocate.measure import hardest_first
from model_prep.allocate.problem import Problem
from model_prep.allocate.scheduler import open_pool
from model_prep.allocate.single import fit_all
from model_prep.allocate.uniform import ACTIVATION_FRAC, UniformFormat
from model_prep.footprint import megabytes
from model_prep.graph import Graph
from model_prep.networks.spec import NetworkSpec
from model_prep.quantize import calibrate
from model_prep.quantize.fake_quant import Evaluator, FakeQuantized, sqnr_db
from model_prep.quantize.manifest import InputFormat
from model_prep.quantize.plan import AUTO, Plan, Settings, resolve
from model_prep.study.results import Store

SEARCH_IMAGES = 256  # at most, of the calibration images
BOUNDS = ("network", "none", "error")
_FINER = 4  # fractional bits that the fine histograms have more
_TOP5_CLASSES = 10  # fewer classes have no meaningful top-5
_MEASURED_IMAGES = 50  # per-layer comparisons, as in paper 004

Item = TypeVar("Item")


def kilobytes(bits: float) -> float:
    """Bits as thousands of bytes.

    >>> kilobytes(8000)
    1.0
    """
    return 1000 * megabytes(bits)


def _hexadecimal(flags: np.ndarray) -> str:
    """Flags (bool [N]) as hexadecimal digits, eight in two, which JSON holds."""
    return np.packbits(flags).tobytes().hex()


class OneStep(Problem):
    """CLNQ with one F: a narrower code keeps the step and saturates earlier (000, section II)."""

    def _fit(self, plan: Plan) -> dict[str, Quantizer]:
        return {
            layer.name: Quantizer(
                "uniform", layer.bits, layer.bits, self.fracs[layer.name], signed=layer.signed
            )
            for layer in plan.layers
            if layer.bits is not None and layer.scheme is not None
        }


@dataclass(frozen=True)
class Subject:
    """What is studied.

    Attributes:
        spec, graph, source: the network and its input format.
        defaults: its own plan settings.
        origin: of the weights.
        calibration, test: disjoint images, unless `overlap`.
        labels: whether labels may judge.
        overlap: whether there were too few images to keep the two apart.
    """

    spec: NetworkSpec
    graph: Graph
    source: InputFormat
    defaults: Settings
    origin: str
    calibration: ImageSet
    test: ImageSet
    labels: bool
    overlap: bool = False


class Study:
    """A subject with everything that sections share, computed when it is first asked for."""

    def __init__(self, subject: Subject, store: Store, qm: int = 12, delta: float | None = None,
                 quick: bool = False) -> None:  # fmt: skip
        """`delta` is what a search may lose; `quick` measures fewer points."""
        self.subject, self.store, self.qm, self.delta, self.quick = subject, store, qm, delta, quick
        self.graph = subject.graph
        self.to_float = partial(data.to_float, subject.spec)
        self.elements = {
            layer.name: int(np.prod(layer.out_shape)) for layer in self.graph.layers[:-1]
        }
        self.values = sum(self.elements.values())
        self._counts: dict[tuple[object, ...], Mapping[str, np.ndarray]] = {}
        self._made: dict[tuple[object, ...], Any] = {}  # choices and problems, which take fitting
        self._batches = list(calibrate.batches(subject.test.pixels))

    def pick(self, full: Sequence[Item], quick: Sequence[Item]) -> list[Item]:
        """The points to measure."""
        return list(quick if self.quick else full)

    # Words for captions.

    @property
    def goodness(self) -> str:
        """What the first figure of a score is."""
        return "top-1, %" if self.subject.labels else "agreement with float, %"

    @property
    def where(self) -> str:
        """On which network, weights and images figures were measured."""
        subject = self.subject
        known = {"seeded": "seeded random weights", "file": "the file's weights"}
        weights = known.get(subject.origin, "trained weights")
        if subject.overlap:
            kept = "the same images calibrate, as there are too few"
        else:
            kept = f"{len(subject.calibration)} others calibrate"
        return f"{subject.spec.name}, {weights}, {len(subject.test)} test images ({kept})"

    # Formats.

    @cached_property
    def network(self) -> FakeQuantized:
        """Float arithmetic with 14-bit weights."""
        return FakeQuantized(self.graph, self.subject.source, self.plan("knq").layers)

    def plan(self, scheme: str, bits: int | None = None, rule: str | None = None) -> Plan:
        """A plan of one scheme; without `bits` widths are open."""
        limited = AUTO if bits is None else bits
        settings = Settings(scheme=scheme, bits=limited, rule=rule, qm=self.qm)
        return resolve(self.graph, settings, self.subject.defaults)

    @cached_property
    def search_images(self) -> ImageSet:
        """The calibration images that candidates are judged on."""
        return self.subject.calibration.take(slice(SEARCH_IMAGES if self.subject.labels else 16))

    @cached_property
    def evaluator(self) -> Evaluator:
        """Judges the uniform network's F."""
        few = self.search_images
        labels = few.labels if self.subject.labels else None
        return Evaluator(self.network, few.pixels, labels, self.to_float)

    @cached_property
    def maxima(self) -> dict[str, float]:
        """The largest activation by layer name."""
        pixels = self.subject.calibration.pixels
        found: dict[str, float] = self.store.remember(
            "maxima", lambda: calibrate.maxima(self.graph, pixels, self.to_float)
        )
        return found

    def uniform_format(self, qm: int) -> UniformFormat:
        """The uniform network of a width with the best F (papers 000/001)."""

        def find() -> Any:
            return vars(uniform.best_fracs(self.evaluator, self.maxima, qm, self.plan("knq")))

        return UniformFormat(**self.store.remember(f"uniform format {qm}", find))

    @cached_property
    def fitting(self) -> dict[str, int]:
        """The largest F that clips nothing, by layer name."""
        plan = self.plan("knq")
        return uniform.shared_fracs(uniform.layer_fracs(self.maxima, self.qm, plan.signed), plan)

    @cached_property
    def fine(self) -> Mapping[str, np.ndarray]:
        """Histograms [2^(qm + 4)] with 4 fractional bits more than `fitting`."""
        finest = {name: frac + _FINER for name, frac in self.fitting.items()}
        return calibrate.histograms(
            self.graph, self.subject.calibration.pixels, self.to_float, self.qm + _FINER, finest,
            self.plan("knq").signed,
        )  # fmt: skip

    def fracs(self, plan: Plan, bound: str) -> dict[str, int]:
        """F by layer name.

        Args:
            plan: schemes and widths, which "error" looks at.
            bound: where activations saturate: "network" (at M of the best uniform network),
                "none" (nowhere), "error" (where the layer's squared error is least).
        """
        if bound == "error":
            best = clipping.least_error(plan, self.fine, self.qm, self.fitting)
            return {name: min(frac, ACTIVATION_FRAC) for name, frac in best.items()}
        base = self.uniform_format(self.qm).fracs
        if bound == "network":
            return dict(base)
        return {name: min(frac, self.fitting[name]) for name, frac in base.items()}

    def counts(self, fracs: Mapping[str, int]) -> Mapping[str, np.ndarray]:
        """Histograms [2^qm] of the calibration activations, from the fine ones."""
        key = tuple(sorted(fracs.items()))
        if key not in self._counts:
            signed = self.plan("knq").signed
            self._counts[key] = {
                name: coarser(
                    counts, lowest(self.qm + _FINER, name in signed),
                    self.fitting[name] + _FINER - fracs[name], self.qm, name in signed,
                )
                for name, counts in self.fine.items()
            }  # fmt: skip
        return self._counts[key]

    def choice(
        self, scheme: str, bits: int, bound: str = "network", rule: str | None = None
    ) -> Choice:
        """All layers in one scheme at one width."""

        def make() -> Choice:
            plan = self.plan(scheme, bits, rule)
            fracs = self.fracs(plan, bound)
            return Choice(fit_all(plan, self.counts(fracs), self.qm, fracs))

        return self._once(("choice", scheme, bits, bound, rule), make)

    def _once(self, key: tuple[object, ...], make: Callable[[], Item]) -> Item:
        """What `make` gives, made on the first call of a key."""
        if key not in self._made:
            self._made[key] = make()
        made: Item = self._made[key]
        return made

    def problem(self, scheme: str, bits: int | None = None) -> Problem:
        """Open widths of a scheme; with `bits`, F of least error at this width."""

        def make() -> Problem:
            if bits is None:
                fracs = self.fracs(self.plan(scheme), "network")
            else:
                fracs = self.fracs(self.plan(scheme, bits), "error")
            return Problem(self.graph, self.plan(scheme), self.counts(fracs), self.qm, fracs)

        return self._once(("problem", scheme, bits), make)

    def one_step(self) -> Problem:
        """Open widths of uniform codes that all have the uniform network's F."""

        def make() -> Problem:
            plan = self.plan("uniform")
            fracs = self.fracs(plan, "network")
            return OneStep(self.graph, plan, self.counts(fracs), self.qm, fracs)

        return self._once(("one step",), make)

    def prepared(self, problem: Problem, images: int | None = None) -> command.Prepared:
        """A problem with images to search on, for `allocation.command.measuring`."""
        few = self.search_images.take(slice(images))
        labels = few.labels if self.subject.labels else None
        order = hardest_first(self.graph, few.pixels, labels, self.to_float)
        few = replace(few, pixels=few.pixels[order], labels=few.labels[order])
        return command.Prepared(problem, self.network, few, self.subject.labels, self.to_float, 0.0)

    @property
    def few(self) -> np.ndarray:
        """Test images that layers are compared on one by one, uint8 [N, C, H, W]."""
        return self.subject.test.pixels[:_MEASURED_IMAGES]

    # Scores on the test images.

    @cached_property
    def float_logits(self) -> np.ndarray:
        """Outputs of the float network, float32 [N, classes]."""
        bar = tqdm(self._batches, desc="float network", unit="batch", disable=None, leave=False)
        return run.float_logits(self.graph, map(self.to_float, bar))

    @cached_property
    def exact(self) -> dict[str, Any]:
        """The float network's own score."""
        found: dict[str, Any] = self.store.remember("float", lambda: self.rate(self.float_logits))
        return found

    def score(self, choice: Choice) -> dict[str, Any]:
        """Scores of a candidate on the test images: see `rate`; measured once."""
        key = {name: quantizer.key for name, quantizer in sorted(choice.quantizers.items())}
        text = repr((key, sorted(choice.labels.items(), key=str)))
        name = "score " + hashlib.sha256(text.encode()).hexdigest()[:24]
        found: dict[str, Any] = self.store.remember(name, lambda: self.rate(self.outputs(choice)))
        return found

    def outputs(self, choice: Choice, network: FakeQuantized | None = None) -> np.ndarray:
        """Outputs for the test images, float32 [N, classes], of this or another network."""
        logits = np.empty_like(self.float_logits)
        ends = np.cumsum([len(batch) for batch in self._batches])
        total = len(self.subject.test)
        with (
            tqdm(total=total, desc="test", unit="image", disable=None, leave=False) as bar,
            open_pool(None, network or self.network, self._batches, frozenset()) as pool,
        ):

            def consume(number: int, part: np.ndarray) -> bool:
                logits[ends[number] - len(part) : ends[number]] = part
                bar.update(len(part))
                return True

            pool.run(None, choice, range(len(self._batches)), consume)
        return logits

    def rate(self, logits: np.ndarray) -> dict[str, Any]:
        """top1 and top5 (with labels), agreement with float, all in percent; output SQNR in dB.

        `good` is the first of top1 and agreement that there is, `right` which images were right or
        agreed, as hexadecimal digits; `right5` the same of top5.
        """
        labels, exact = self.subject.test.labels, self.float_logits
        truth = labels if self.subject.labels else exact.argmax(axis=1)
        best = np.argsort(-logits, axis=1, kind="stable")
        right = best[:, 0] == truth
        five = self.subject.labels and logits.shape[1] > _TOP5_CLASSES
        noise = float(np.square((logits - exact).astype(np.float64)).sum())
        return {
            "good": 100 * float(right.mean()),
            "top1": percent_correct(logits, labels) if self.subject.labels else None,
            "top5": percent_correct(logits, labels, 5) if five else None,
            "agreement": percent_correct(logits, exact.argmax(axis=1)),
            "sqnr_db": sqnr_db(float(np.square(exact.astype(np.float64)).sum()), noise),
            "right": _hexadecimal(right),
            "right5": _hexadecimal((best[:, :5] == labels[:, None]).any(axis=1)) if five else None,
        }

    def right(self, score: Mapping[str, Any], which: str = "right") -> np.ndarray:
        """Which test images a score had right (or, of `right5`, among its first five), bool [N]."""
        packed = np.frombuffer(bytes.fromhex(score[which]), np.uint8)
        return np.unpackbits(packed)[: len(self.subject.test)].astype(bool)

    def nb(self, choice: Choice) -> int:
        """Bits to store all activations of one image."""
        return sum(
            self.elements[name] * quantizer.bits for name, quantizer in choice.quantizers.items()
        )
