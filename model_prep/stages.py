# SPDX-License-Identifier: Apache-2.0
"""`Subject`, what a command works on, and the stages of `quantize` in the order in which they run.

Images, calibration with formats and fits, integers, reference.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from nuq.formats.basis import calibration_text
from nuq.formats.build import digest, program_files
from nuq.formats.ending import class_values, decides, ending_of
from nuq.formats.errors import UserError
from nuq.formats.images import ImageSet, percent_correct, tops
from nuq.formats.network import InputFormat, Network
from nuq.formats.quantizer import QM_RANGE, Quantizer
from nuq.model_prep import data, run
from nuq.model_prep.graph import Graph
from nuq.model_prep.networks.spec import NetworkSpec
from nuq.model_prep.parallel import ordered
from nuq.model_prep.quantize import fracs, part_ranges
from nuq.model_prep.quantize.calibrate import Calibration, Formats, ToFloat, batches
from nuq.model_prep.quantize.fake_quant import FakeQuantized
from nuq.model_prep.quantize.integers import network_input, quantize_layers
from nuq.model_prep.quantize.plan import AUTO, Plan
from nuq.model_prep.quantize.reference import Reference
from nuq.model_prep.quantize.refine import equalise, pipeline
from nuq.model_prep.quantize.score import Evaluator, Sample, check_codes, stored_layers
from nuq.model_prep.source import Source
from nuq.model_prep.weights import WeightsResult

_LOAD_LIMIT = 5000  # images read of a large data set
_CALIBRATION_VALUES = 10_000_000  # input values calibrated on, as far as there are images
_CALIBRATION_IMAGES = (64, 2000)  # but at least and at most so many images
_SEARCH_IMAGES = {True: 256, False: 8}  # a search runs on, with and without labels


@dataclass(frozen=True)
class Images:
    """What is calibrated on, and what goes into vectors.npz."""

    everything: ImageSet  # all images that were read
    calibration: ImageSet
    test: ImageSet
    overlap: bool  # calibration includes the test images, as there were too few
    given: bool  # they are the user's

    @property
    def calibration_text(self) -> str:
        """What is calibrated on, in words."""
        one = self.calibration
        return calibration_text({
            "source": one.source, "images": len(one), "labels": one.labelled,
            "includes_test_images": self.overlap,
        })  # fmt: skip

    def held_out(self, number: int | None, labels: bool = True) -> ImageSet:
        """Images to measure on that were not calibrated on.

        Args:
            number: IMAGES, or None for all that are left.
            labels: whether they must have some.

        Raises:
            UserError: images without labels, or fewer than `number` left.
        """
        name = self.everything.source
        if labels and not self.test.labelled:
            raise UserError(
                f"DATA must have labels to measure accuracy, not {name}; give a folder of class "
                "folders or an .npz file with `label`"
            )
        if self.overlap:
            raise UserError(
                f"DATA must hold images to calibrate on besides those to test, not {name}"
            )
        total, calibrated = len(self.everything), len(self.calibration)
        most = total - calibrated
        wanted = most if number is None else number
        if not 1 <= wanted <= most:
            raise UserError(
                f"IMAGES must be 1..{most}, the {total} images less {calibrated} for "
                f"calibration, not {wanted}"
            )
        test = divide(self.everything, self.given, wanted).test
        seen = {image.tobytes() for image in self.calibration.pixels}
        if any(image.tobytes() in seen for image in test.pixels):
            raise UserError(f"DATA {name} must not hold an image twice; remove copies")
        return test


def choose_images(spec: NetworkSpec, source: str | None, number: int) -> Images:
    """Load the images and divide them.

    Raises:
        UserError: no image, fewer than `number`, or some that the network was trained on.
    """
    if source is None and spec.in_shape[0] not in (1, 3):
        raise UserError(
            f"DATA must be given for an input of {spec.in_shape[0]} channels, as the sample "
            "photographs have 3"
        )
    if source is None and spec.default_data == "digits" and number > data.DIGITS_TEST:
        raise UserError(
            f"IMAGES must be 1..{data.DIGITS_TEST}, the digits that {spec.name} was not trained "
            f"on, not {number}; DATA= takes others"
        )
    return divide(data.load(spec, source, _LOAD_LIMIT), source is not None, number)


def divide(images: ImageSet, given: bool, number: int) -> Images:
    """Calibration and test images; with labels by a fixed shuffle, else the first are the test.

    As far as there are enough, what is calibrated on does not depend on the number of tests. Sample
    photographs, which no accuracy is measured on, are all calibrated on but the first.

    Args:
        images: all of them.
        given: whether they are the user's.
        number: test images.

    Raises:
        UserError: fewer than `number`.
    """
    if not 1 <= number <= len(images):
        raise UserError(f"IMAGES must be 1..{len(images)} for {images.source}, not {number}")
    least, most = _CALIBRATION_IMAGES
    wanted = min(most, max(least, _CALIBRATION_VALUES // images.pixels[0].size))
    if images.labelled:
        held_out = number if given else data.DIGITS_TEST
        rest, test = data.split(images, max(number, min(held_out, len(images))))
        test = test.take(slice(number))
        if given:
            wanted = min(wanted, max(1, len(images) // 2))  # the others may be tested on
        calibration = rest.take(slice(wanted))
    else:
        test = images.take(slice(number))
        first = number if given else 1
        calibration = images.take(slice(max(first, len(images) - wanted), None))
    overlap = len(calibration) == 0 or (
        not images.labelled and number > len(images) - len(calibration)
    )
    if len(calibration) == 0:
        calibration = images.take(slice(wanted))
    return Images(images, calibration, test, overlap, given)


@dataclass(frozen=True)
class Subject:
    """What a command works on: a network with its weights, its plan and its images."""

    source: Source
    plan: Plan
    images: Images
    loaded: WeightsResult

    @property
    def spec(self) -> NetworkSpec:
        """Name, input shape and recipe of the network."""
        return self.source.spec

    @property
    def graph(self) -> Graph:
        """The float network with the parts of its concatenations in one range."""
        return self._balanced[0]

    @property
    def scales(self) -> Mapping[str, np.ndarray]:
        """Factors of `graph`'s stored channels against those that were loaded, by layer name."""
        return self._balanced[1]

    @cached_property
    def _balanced(self) -> tuple[Graph, Mapping[str, np.ndarray]]:
        pixels = self.images.calibration.pixels
        return part_ranges.balanced(self.loaded.graph, self.plan, pixels, self.to_float)

    @cached_property
    def input(self) -> InputFormat:
        """The network's input format."""
        return network_input(self.spec)

    @property
    def labels(self) -> np.ndarray | None:
        """Labels of the calibration images, or None where they may not judge."""
        calibration = self.images.calibration
        graph = self.loaded.graph
        judge = calibration.labelled and self.loaded.origin != "seeded" and graph.classifies
        if decides(ending_of(self.spec.results), graph.layers[-1].out_shape[0]):
            judge = False  # one value, whose sign is the answer, is no list of classes
        return calibration.labels if judge else None

    def to_float(self, pixels: np.ndarray) -> torch.Tensor:
        """Network inputs float32 [N, C, H, W] of uint8 pixels."""
        return data.to_float(self.spec, pixels)

    def settings_sha256(self, test: ImageSet | None = None) -> str:
        """Hash of all that results depend on: plan, network, recipe, images, and this program.

        Args:
            test: instead of the test images.
        """
        network = self.loaded
        settings: list[Any] = [
            asdict(self.plan), network.origin, network.sha256, asdict(self.spec.preprocessing),
            repr(self.spec.input_codes),
            _structure(network.graph), [asdict(output) for output in self.spec.results],
        ]  # fmt: skip
        for part in (self.images.calibration, test or self.images.test):
            arrays = (np.ascontiguousarray(array).data for array in (part.pixels, part.labels))
            hashes = [hashlib.sha256(array).hexdigest() for array in arrays]
            settings.append([part.source, part.classes, part.pixels.shape, hashes])
        return digest(settings, program_files("model_prep"))


def _structure(graph: Graph) -> list[Any]:
    """All about a graph but its weights, for a hash."""
    layers = [
        [repr(getattr(layer, field.name)) for field in fields(layer)
         if field.name not in ("weight", "bias")]
        for layer in graph.layers
    ]  # fmt: skip
    return [graph.name, graph.in_shape, layers, graph.concats, graph.heads]


@dataclass(frozen=True)
class Quantization:
    """How a network is quantized: what the searches come to; mappings are by layer name."""

    plan: Plan  # with every width fixed
    qm: int  # width of a decoded activation
    quantizers: Mapping[str, Quantizer]
    sqnr_db: Mapping[str, float]  # fake-quantized against float on the search images
    uniform_score: float  # of the qm-bit uniform network
    score: float  # of the result
    unit: str  # of both scores
    goal: str  # of a search for the width, for people; empty where none was asked for
    network: FakeQuantized  # with the weights to quantize
    scales: Mapping[str, np.ndarray]  # of the stored channels against the network's

    @property
    def graph(self) -> Graph:
        """The network with the weights to quantize."""
        return self.network.graph


def search_images(labels: np.ndarray | None, images: int) -> int:
    """How many of the calibration images a search runs on unless IMAGES says otherwise."""
    return min(images, _SEARCH_IMAGES[labels is not None])


def calibrate(
    graph: Graph, source: InputFormat, plan: Plan, pixels: np.ndarray, labels: np.ndarray | None,
    to_float: ToFloat, few: int,
) -> tuple[Calibration, Evaluator, Formats]:  # fmt: skip
    """(the pass over the images, what judged the search for F, the formats that it came to).

    Args:
        graph: the float network.
        source: its input format.
        plan: what is asked for.
        pixels: calibration images, uint8 [N, C, H, W].
        labels: int [N], or None where they may not judge a search.
        to_float: from pixels to network inputs.
        few: how many of the images searches run on.
    """
    qm = QM_RANGE[1] if plan.qm == AUTO else plan.qm
    calibration = Calibration(graph, pixels, to_float, qm, few)
    evaluator = Evaluator(Sample.of(calibration, FakeQuantized(graph, source, plan.layers), labels))
    formats = fracs.choose(calibration, plan, evaluator, evaluator.delta(plan.delta))
    return calibration, evaluator, formats


def quantization(
    graph: Graph, source: InputFormat, plan: Plan, pixels: np.ndarray, labels: np.ndarray | None,
    to_float: ToFloat,
) -> Quantization:  # fmt: skip
    """Calibrate, search F (and qm), fit the quantizers (and search their width).

    Args:
        graph, source, plan, pixels, labels, to_float: as for `calibrate`; refinement never reads
            the labels.
    """
    labels = None if plan.refine else labels
    few = search_images(labels, len(pixels))
    calibration, evaluator, formats = calibrate(
        graph, source, plan, pixels, labels, to_float, few
    )  # fmt: skip
    plan = replace(plan, qm=formats.qm)
    text = ""
    if plan.searches_bits:
        goal = formats.score - evaluator.delta(plan.delta)
        text = evaluator.goal_text(goal, plan.delta, formats.qm)
        plan = fracs.smallest_width(plan, formats, evaluator, goal)
    scales: Mapping[str, np.ndarray] = {}
    outputs: np.ndarray | None = None
    if plan.refine:
        measured = pipeline.measure(graph, plan, formats.qm, pixels, to_float)
        refined = pipeline.refine(measured, plan, source, pixels, to_float)
        quantizers, scales = refined.quantizers, refined.scales
        network = FakeQuantized(refined.graph, source, plan.layers)
        evaluator = Evaluator(replace(evaluator.sample, network=network))
        calibration = Calibration(refined.exact, pixels, to_float, formats.qm, few)
    else:
        formats, outputs = fracs.measured(formats, plan, evaluator)
        quantizers = formats.fit(plan)
        network = evaluator.sample.network
    stored = stored_layers(network, calibration.maps(), quantizers)
    check_codes(calibration, plan, quantizers, {name: one.alike for name, one in stored.items()})
    score = evaluator.score(quantizers) if outputs is None else evaluator.rate(outputs)
    return Quantization(
        plan, formats.qm, quantizers, {name: one.sqnr_db for name, one in stored.items()},
        formats.score, score[0], evaluator.unit, text, network, scales,
    )  # fmt: skip


def run_reference(subject: Subject, network: Network) -> dict[str, np.ndarray]:
    """The contents of vectors.npz: every layer's integers for the test images."""
    test = subject.images.test
    codes = network.input.encode(test.pixels)
    vectors = {"images": test.pixels, "labels": test.labels, "input": codes}
    reference = Reference(network)
    parts = list(ordered(lambda part: dict(reference.run(part)), batches(codes)))
    vectors.update({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
    inputs = map(subject.to_float, batches(test.pixels))
    vectors["float_logits"] = run.float_logits(subject.graph, inputs)
    return vectors


def accuracy(
    vectors: Mapping[str, np.ndarray], network: Network, labelled: bool
) -> dict[str, Any] | None:
    """The manifest's `accuracy` of the test images; None without labels, and without classes."""
    if not labelled or not network.classifies:
        return None
    labels = vectors["labels"]
    last = network.layers[-1]
    logits = last.outputs(vectors[last.name]).reshape(len(labels), -1)
    ending = ending_of(network.outputs)
    exact = class_values(ending, vectors["float_logits"])
    return scores(exact, class_values(ending, logits), labels)


def scores(exact: np.ndarray, integer: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Percentages of outputs [N, classes] of the float and the integer network, as in 1.1."""
    entry: dict[str, Any] = {"images": len(labels)}
    for name, logits in (("float", exact), ("integer", integer)):
        entry[f"{name}_top1"] = percent_correct(logits, labels)
        wide = 5 in tops(logits.shape[1])
        entry[f"{name}_top5"] = percent_correct(logits, labels, 5) if wide else None
    entry["agreement"] = percent_correct(integer, exact.argmax(axis=1))
    return entry


def build(subject: Subject, settings: str) -> tuple[Network, Quantization]:
    """The network in integers, and what the searches come to.

    Args:
        subject: the network and its images.
        settings: hash to store with it.
    """
    images, loaded, source = subject.images, subject.loaded, subject.input
    done = quantization(
        subject.graph, source, subject.plan, images.calibration.pixels, subject.labels,
        subject.to_float,
    )  # fmt: skip
    quantizers = [done.quantizers.get(layer.name) for layer in done.graph.layers]
    scales = equalise.product(subject.scales, done.scales)
    layers = [
        replace(layer, sqnr_db=finite(done.sqnr_db[layer.name]), scale=scales.get(layer.name))
        for layer in quantize_layers(
            done.graph, source, done.plan.layers, quantizers, done.network.stored
        )
    ]
    network = Network(
        name=subject.spec.name, weights=loaded.origin, weights_sha256=loaded.sha256, qm=done.qm,
        input=source, layers=tuple(layers), outputs=subject.spec.results,
        classes=images.test.classes,
        calibration={
            "source": images.calibration.source, "images": len(images.calibration),
            "labels": images.calibration.labelled, "includes_test_images": images.overlap,
            "refine": list(done.plan.refine),
        },
        settings_sha256=settings, concats=dict(subject.graph.concats),
    )  # fmt: skip
    return network, done


def finite(value: float) -> float | None:
    """A number that JSON can hold; None for an infinite ratio."""
    return value if math.isfinite(value) else None
