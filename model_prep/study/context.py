# SPDX-License-Identifier: Apache-2.0
"""`Study`: the network, its images and formats, and scores of candidates on the test images.

Searches and tables come from the calibration images, every final figure from test images that are
not among them.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from tqdm import tqdm

from formats.images import ImageSet, percent_correct
from formats.quantizer import Quantizer
from model_prep import run
from model_prep.allocate.cache import Choice
from model_prep.allocate.problem import Problem
from model_prep.allocate.scheduler import open_pool
from model_prep.footprint import megabytes
from model_prep.quantize import fracs
from model_prep.quantize.calibrate import (
    ACTIVATION_FRAC,
    FINER,
    Calibration,
    Formats,
    batches,
)
from model_prep.quantize.fake_quant import FakeQuantized
from model_prep.quantize.plan import AUTO, Plan, Settings
from model_prep.quantize.plan_file import resolve
from model_prep.quantize.score import Evaluator, Sample, energy, sqnr_db
from model_prep.stages import Subject
from model_prep.study.results import Store

SEARCH_IMAGES = 256  # at most, of the calibration images
BOUNDS = ("network", "none", "error")
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
        fracs = self.formats.fracs
        return {
            layer.name: Quantizer(
                "uniform", layer.bits, layer.bits, fracs[layer.name], signed=layer.signed
            )
            for layer in plan.layers
            if layer.bits is not None and layer.scheme is not None
        }


class Study:
    """A subject and its test images, with all that sections share, computed when first asked for.

    Attributes:
        subject: the network and its calibration images.
        test: images that scores are measured on; apart from those, unless there are too few.
        labels: whether labels may judge.
        store: what is measured already.
        qm: width of a decoded activation.
        quick: whether fewer points are measured.
    """

    def __init__(
        self, subject: Subject, test: ImageSet, store: Store, qm: int = 12, quick: bool = False
    ) -> None:
        self.subject, self.test, self.store, self.qm, self.quick = subject, test, store, qm, quick
        self.labels = subject.labels is not None
        self.graph, self.to_float = subject.graph, subject.to_float
        self.elements = self.graph.elements
        self.values = sum(self.elements.values())
        self._made: dict[tuple[object, ...], Any] = {}  # choices and problems, which take fitting
        self._batches = list(batches(test.pixels))

    def pick(self, full: Sequence[Item], quick: Sequence[Item]) -> list[Item]:
        """The points to measure."""
        return list(quick if self.quick else full)

    # Words for captions.

    @property
    def goodness(self) -> str:
        """What the first figure of a score is."""
        return "top-1, %" if self.labels else "agreement with float, %"

    @property
    def where(self) -> str:
        """On which network, weights and images figures were measured."""
        subject = self.subject
        known = {"seeded": "seeded random weights", "file": "the file's weights"}
        weights = known.get(subject.loaded.origin, "trained weights")
        kept = f"{len(subject.images.calibration)} others calibrate"
        if subject.images.overlap:
            kept = "the same images calibrate, as there are too few"
        return f"{subject.spec.name}, {weights}, {len(self.test)} test images ({kept})"

    # Formats.

    @cached_property
    def network(self) -> FakeQuantized:
        """Float arithmetic with 14-bit weights."""
        return FakeQuantized(self.graph, self.subject.input, self.plan("knq").layers)

    def plan(self, scheme: str, bits: int | None = None, rule: str | None = None) -> Plan:
        """A plan of one scheme; without `bits` widths are open."""
        limited = AUTO if bits is None else bits
        settings = Settings(
            scheme=scheme, bits=limited, rule=rule, qm=self.qm, delta=self.subject.plan.delta
        )
        return resolve(self.graph, settings, self.subject.source.defaults)

    @cached_property
    def calibration(self) -> Calibration:
        """The pass over the calibration images; the first of them are searched on."""
        few = SEARCH_IMAGES if self.labels else 16
        pixels = self.subject.images.calibration.pixels
        return Calibration(self.graph, pixels, self.to_float, self.qm, min(few, len(pixels)))

    @cached_property
    def sample(self) -> Sample:
        """The calibration images that candidates are judged on."""
        return Sample.of(self.calibration, self.network, self.subject.labels)

    def few(self, number: int | None = None) -> Sample:
        """The first `number` of them, the hardest first."""
        one, first = self.sample, slice(number)
        labels = None if one.labels is None else one.labels[first]
        few = replace(one, pixels=one.pixels[first], labels=labels, logits=one.logits[first])
        return few.hardest_first()

    def uniform_format(self, qm: int) -> Formats:
        """The uniform network of a width with the best F (papers 000/001)."""

        def find() -> Any:
            maxima, plan = self.calibration.maxima, self.plan("knq")
            found = fracs.best_fracs(Evaluator(self.sample), maxima, qm, plan)
            return {"fracs": found.fracs, "score": found.score, "sqnr_db": found.sqnr_db}

        return Formats(qm, counts={}, **self.store.remember(f"uniform format {qm}", find))

    @cached_property
    def fitting(self) -> dict[str, int]:
        """The largest F that clips nothing, by layer name."""
        return fracs.layer_fracs(self.calibration.maxima, self.qm, self.plan("knq"))

    @cached_property
    def fine(self) -> Formats:
        """The same activations with 4 bits more."""
        finest = {name: frac + FINER for name, frac in self.fitting.items()}
        return self.calibration.formats(self.qm + FINER, finest)

    def formats(self, plan: Plan, bound: str) -> Formats:
        """F and histograms of the calibration activations.

        Args:
            plan: schemes and widths, which "error" looks at.
            bound: where activations saturate: "network" (at M of the best uniform network),
                "none" (nowhere), "error" (where the layer's squared error is least).
        """
        if bound == "error":
            best = fracs.least_error(self.calibration, plan, self.qm, self.fitting)
            chosen = {name: min(frac, ACTIVATION_FRAC) for name, frac in best.items()}
        else:
            chosen = dict(self.uniform_format(self.qm).fracs)
        if bound == "none":
            chosen = {name: min(frac, self.fitting[name]) for name, frac in chosen.items()}
        key = ("formats", *sorted(chosen.items()))
        return self._once(key, lambda: self.calibration.formats(self.qm, chosen))

    def choice(
        self, scheme: str, bits: int, bound: str = "network", rule: str | None = None
    ) -> Choice:
        """All layers in one scheme at one width."""

        def make() -> Choice:
            plan = self.plan(scheme, bits, rule)
            return Choice(self.formats(plan, bound).fit(plan))

        return self._once(("choice", scheme, bits, bound, rule), make)

    def _once(self, key: tuple[object, ...], make: Callable[[], Item]) -> Item:
        """What `make` gives, made on the first call of a key."""
        if key not in self._made:
            self._made[key] = make()
        made: Item = self._made[key]
        return made

    def problem(self, scheme: str, bits: int | None = None) -> Problem:
        """Open widths of a scheme; with `bits`, F of least error at this width.

        Scheme "clnq" is uniform codes that all have the uniform network's F.
        """

        def make() -> Problem:
            kind, own = (OneStep, "uniform") if scheme == "clnq" else (Problem, scheme)
            plan = self.plan(own, bits)
            formats = self.formats(plan, "network" if bits is None else "error")
            return kind(self.graph, self.plan(own), formats)

        return self._once(("problem", scheme, bits), make)

    @property
    def measured_pixels(self) -> np.ndarray:
        """Test images that layers are compared on one by one, uint8 [N, C, H, W]."""
        return self.test.pixels[:_MEASURED_IMAGES]

    # Scores on the test images.

    @cached_property
    def float_logits(self) -> np.ndarray:
        """Outputs of the float network, float32 [N, classes]."""
        inputs = map(self.to_float, batches(self.test.pixels, "float network"))
        return run.float_logits(self.graph, inputs)

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
        total = len(self.test)
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
        labels, exact = self.test.labels, self.float_logits
        truth = labels if self.labels else exact.argmax(axis=1)
        best = np.argsort(-logits, axis=1, kind="stable")
        right = best[:, 0] == truth
        five = self.labels and logits.shape[1] > _TOP5_CLASSES
        return {
            "good": 100 * float(right.mean()),
            "top1": percent_correct(logits, labels) if self.labels else None,
            "top5": percent_correct(logits, labels, 5) if five else None,
            "agreement": percent_correct(logits, exact.argmax(axis=1)),
            "sqnr_db": sqnr_db(energy(exact), energy(logits - exact)),
            "right": _hexadecimal(right),
            "right5": _hexadecimal((best[:, :5] == labels[:, None]).any(axis=1)) if five else None,
        }

    def right(self, score: Mapping[str, Any], which: str = "right") -> np.ndarray:
        """Which test images a score had right (or, of `right5`, among its first five), bool [N]."""
        packed = np.frombuffer(bytes.fromhex(score[which]), np.uint8)
        return np.unpackbits(packed)[: len(self.test)].astype(bool)

    def nb(self, choice: Choice) -> int:
        """Bits to store all activations of one image."""
        return sum(
            self.elements[name] * quantizer.bits for name, quantizer in choice.quantizers.items()
        )
