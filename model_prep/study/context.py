# SPDX-License-Identifier: Apache-2.0
"""`Study`: the network, its images and formats, and scores of candidates on the test images.

Searches and tables come from the calibration images, every final figure from test images that are
not among them.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from nuq.formats.arithmetic import at_frac, to_fixed
from nuq.formats.errors import UserError
from nuq.formats.images import ImageSet, best_classes, percent_correct
from nuq.model_prep import run
from nuq.model_prep.allocate.cache import Choice, FloatBase
from nuq.model_prep.allocate.problem import Problem
from nuq.model_prep.allocate.scheduler import open_pool
from nuq.model_prep.footprint import megabytes
from nuq.model_prep.graph import Graph
from nuq.model_prep.quantize import fracs
from nuq.model_prep.quantize.calibrate import FINER, Calibration, Formats, batches
from nuq.model_prep.quantize.fake_quant import FakeQuantized, floats
from nuq.model_prep.quantize.plan import AUTO, NETWORK, Plan, Settings
from nuq.model_prep.quantize.plan_file import resolve
from nuq.model_prep.quantize.quantizers import WEIGHTS
from nuq.model_prep.quantize.score import Evaluator, Sample, energy, sqnr_db
from nuq.model_prep.stages import Subject
from nuq.model_prep.stats import Paired, divergences, mean_interval, paired
from nuq.model_prep.study.results import Item, Store

SEARCH_IMAGES = 256  # at most, of the calibration images
SCORES = ("good", "top5", "agreement", "sqnr_db")
_TOP5_CLASSES = 10  # fewer classes have no meaningful top-5
_FINER = 3  # bits of F that fixed-point weights may have more than fit all of them


def kilobytes(bits: float) -> float:
    """Bits as thousands of bytes."""
    return 1000 * megabytes(bits)


def fixed(weight: np.ndarray, bits: int) -> np.ndarray:
    """Weights in fixed point with the F of least squared error (float32); few may saturate."""
    exact = weight.astype(np.float64)
    _, frac = to_fixed(exact, bits)
    trials = (at_frac(exact, bits, frac + more) * 2.0 ** -(frac + more)
              for more in range(_FINER + 1))  # fmt: skip
    best = min(trials, key=lambda values: float(np.square(values - exact).sum()))
    return best.astype(np.float32)


def _stored(weight: np.ndarray, label: tuple[str, int]) -> torch.Tensor:
    """A layer's weights (float32) in a technique of WEIGHTS or "fixed", and bits."""
    technique, bits = label
    if technique == "fixed":
        return torch.from_numpy(fixed(weight, bits))
    form = WEIGHTS[technique].fit(weight, bits)
    return floats(form.values)


def _hexadecimal(flags: np.ndarray) -> str:
    """Flags (bool [N]) as hexadecimal digits, eight in two, which JSON holds."""
    return np.packbits(flags).tobytes().hex()


def check_rectified(graph: Graph) -> None:
    """Refuse, by UserError, a network that codes without a table cannot store."""
    for layer in graph.layers:
        if layer.coded:
            raise UserError(
                f"layer {layer.name}: {layer.coded} must not be in a network to study, which is "
                "stored in codes without a table, too; give a NET whose activations are ReLUs"
            )


class Study:
    """A subject, its test images, and what sections share, computed when first asked for."""

    def __init__(
        self, subject: Subject, test: ImageSet, store: Store, qm: int = 12, quick: bool = False
    ) -> None:
        """
        Args:
            subject: the network and its calibration images.
            test: images that scores are measured on; apart from those, unless there are too few.
            store: what is measured already.
            qm: width of a decoded activation.
            quick: whether fewer points are measured.
        """
        # the values as they are, which the papers' settings are about
        self.graph, self.to_float = subject.loaded.graph, subject.to_float
        check_rectified(self.graph)
        self.subject, self.test, self.store, self.qm, self.quick = subject, test, store, qm, quick
        self.labels = subject.labels is not None  # whether they may judge
        self.elements = self.graph.elements
        self.values = sum(self.elements.values())
        self.variants = FloatBase(self.graph, _stored)
        self.weights = self.variants.weights
        self.batches = list(batches(test.pixels))
        self._fits: dict[tuple[object, ...], Any] = {}  # choices and problems, which take fitting

    def pick(self, full: Sequence[Item], quick: Sequence[Item]) -> list[Item]:
        """The points to measure."""
        return list(quick if self.quick else full)

    # Words for captions.

    @property
    def judge(self) -> str:
        """What the first figure of a score is."""
        return "top-1" if self.labels else "agreement with float"

    @property
    def goodness(self) -> str:
        """The heading of that figure."""
        return f"{self.judge}, %"

    def headings(self, scores: Sequence[str] = SCORES) -> list[str]:
        """Of columns with these parts of a score."""
        names = (self.goodness, "top-5, %", "agreement with float, %", "output SQNR, dB")
        return [name for key, name in zip(SCORES, names, strict=True) if key in scores]

    def cells(self, score: Mapping[str, Any], scores: Sequence[str] = SCORES) -> list[Any]:
        """Under these headings."""
        return [score[key] for key in scores]

    @property
    def where(self) -> str:
        """On which network, weights and images figures were measured."""
        subject = self.subject
        origins = {"seeded": "seeded random weights", "file": "the file's weights"}
        weights = origins.get(subject.loaded.origin, "trained weights")
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
        """A plan of one scheme as the papers have it, and one F; without `bits` widths are open."""
        limited = AUTO if bits is None else bits
        settings = Settings(
            scheme=scheme, bits=limited, rule=rule, qm=self.qm, delta=self.subject.plan.delta,
            frac_mode=NETWORK, variant="floor",
        )  # fmt: skip
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

        def find() -> dict[str, Any]:
            maxima, plan = self.calibration.maxima, self.plan("knq")
            best = fracs.best_fracs(Evaluator(self.sample), maxima, qm, plan)
            return {"fracs": best.fracs, "score": best.score, "sqnr_db": best.sqnr_db}

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
            own = fracs.by_layer(self.calibration, plan, self.qm, squared=True).fit(plan)
            chosen = {name: one.frac + self.qm - one.qm for name, one in own.items()}
        else:
            chosen = dict(self.uniform_format(self.qm).fracs)
        if bound == "none":
            chosen = {name: min(frac, self.fitting[name]) for name, frac in chosen.items()}
        key = ("formats", *sorted(chosen.items()))
        return self.once(key, lambda: self.calibration.formats(self.qm, chosen))

    def once(self, key: tuple[object, ...], make: Callable[[], Item]) -> Item:
        """What `make` gives, made on the first call of a key."""
        if key not in self._fits:
            self._fits[key] = make()
        fit: Item = self._fits[key]
        return fit

    def choice(
        self, scheme: str, bits: int, bound: str = "network", rule: str | None = None
    ) -> Choice:
        """All layers in one scheme at one width."""

        def make() -> Choice:
            plan = self.plan(scheme, bits, rule)
            return Choice(self.formats(plan, bound).fit(plan))

        return self.once(("choice", scheme, bits, bound, rule), make)

    def problem(self, scheme: str, bits: int | None = None) -> Problem:
        """Open widths of a scheme; with `bits`, F of least error at this width.

        Scheme "clnq" is uniform codes that all have the uniform network's F: a narrower code keeps
        the step and saturates earlier (000, section II).
        """

        def make() -> Problem:
            own = "uniform" if scheme == "clnq" else scheme
            plan, bound = self.plan(own), "network" if bits is None else "error"
            formats = self.formats(self.plan(own, bits), bound)
            if scheme == "clnq":
                plan = plan.with_values("frac", formats.fracs)
            return Problem(self.graph, plan, formats)

        return self.once(("problem", scheme, bits), make)

    # Scores on the test images.

    @cached_property
    def float_logits(self) -> np.ndarray:
        """Outputs of the float network, float32 [N, classes]."""

        def make() -> np.ndarray:
            inputs = map(self.to_float, batches(self.test.pixels, "float network"))
            return run.float_logits(self.graph, inputs)

        return self.store.array("float_outputs", make)

    @cached_property
    def exact(self) -> dict[str, Any]:
        """The float network's own score."""
        return self.store.remember("float", lambda: self.rate(self.float_logits))

    def score(self, choice: Choice) -> dict[str, Any]:
        """Scores of a candidate on the test images: see `rate`; measured once."""
        key = {name: quantizer.key for name, quantizer in sorted(choice.quantizers.items())}
        text = repr((key, sorted(choice.labels.items(), key=str)))
        name = "score " + hashlib.sha256(text.encode()).hexdigest()[:24]
        return self.store.remember(name, lambda: self.rate(self.outputs(choice)))

    def outputs(self, choice: Choice, network: FakeQuantized | None = None) -> np.ndarray:
        """Outputs for the test images, float32 [N, classes], of this or another network."""
        logits = np.empty_like(self.float_logits)
        ends = np.cumsum([len(batch) for batch in self.batches])
        total = len(self.test)
        with (
            tqdm(total=total, desc="test", unit="image", disable=None, leave=False) as bar,
            open_pool(None, network or self.network, self.batches, frozenset()) as pool,
        ):

            def consume(number: int, part: np.ndarray) -> bool:
                logits[ends[number] - len(part) : ends[number]] = part
                bar.update(len(part))
                return True

            pool.run(None, choice, range(len(self.batches)), consume)
        return logits

    def rate(self, logits: np.ndarray) -> dict[str, Any]:
        """Top-1 (with labels, else agreement), top-5, agreement with float, in percent; SQNR in dB.

        `divergence` is the mean Kullback-Leibler divergence from float's probabilities (nats) with
        its 95% interval. `right` is which images were right or agreed, as hexadecimal digits;
        `right5` the same of top-5.
        """
        exact = self.float_logits
        answers = exact.argmax(axis=1)
        truth = self.test.labels if self.labels else answers
        five = self.labels and logits.shape[1] > _TOP5_CLASSES
        best = best_classes(logits, 5) == truth[:, None]
        return {
            "good": percent_correct(logits, truth),
            "top5": percent_correct(logits, truth, 5) if five else None,
            "agreement": percent_correct(logits, answers),
            "sqnr_db": sqnr_db(energy(exact), energy(logits - exact)),
            "divergence": mean_interval(divergences(exact, logits)),
            "right": _hexadecimal(best[:, 0]),
            "right5": _hexadecimal(best.any(axis=1)) if five else None,
        }

    def right(self, score: Mapping[str, Any], which: str = "right") -> np.ndarray:
        """Which test images a score had right (or, of `right5`, among its first five), bool [N]."""
        packed = np.frombuffer(bytes.fromhex(score[which]), np.uint8)
        return np.unpackbits(packed)[: len(self.test)].astype(bool)

    def paired(
        self, first: Mapping[str, Any], second: Mapping[str, Any], which: str = "right"
    ) -> Paired:
        """The second score less the first, image by image."""
        return paired(self.right(first, which), self.right(second, which))

    def nb(self, choice: Choice) -> int:
        """Bits to store all activations of one image."""
        return sum(
            self.elements[name] * quantizer.bits for name, quantizer in choice.quantizers.items()
        )
