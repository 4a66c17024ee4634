# SPDX-License-Identifier: Apache-2.0
"""The stages of `quantize` in the order in which they run: images, formats, integers, reference.

Each is a function of plain values; `prepare` joins them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from formats.build import digest, program_files, sha256_file
from formats.errors import UserError
from formats.images import ImageSet, percent_correct
from formats.quantizer import Quantizer
from model_prep import data, run, weights
from model_prep.allocate import clipping, single, uniform
from model_prep.graph import Graph
from model_prep.networks.spec import NetworkSpec
from model_prep.quantize import calibrate, manifest
from model_prep.quantize.fake_quant import Evaluator, FakeQuantized
from model_prep.quantize.integers import network_input, quantize_layers
from model_prep.quantize.manifest import InputFormat, QuantizedNetwork
from model_prep.quantize.plan import Plan, check_widths
from model_prep.quantize.reference import Reference
from model_prep.quantize.refine import pipeline

_LOAD_LIMIT = 5000  # images read of a large data set
_CALIBRATION_VALUES = 10_000_000  # input values calibrated on, as far as there are images
_CALIBRATION_IMAGES = (64, 2000)  # but at least and at most so many images
_SEARCH_IMAGES = {True: 256, False: 8}  # a search runs on, with and without labels
_DELTA = {True: 1.0, False: 30.0}  # points of top-1 with labels, dB without
_TOP5_CLASSES = 10  # fewer classes have no meaningful top-5


@dataclass(frozen=True)
class Images:
    """What is calibrated on, and what goes into vectors.npz.

    Attributes:
        calibration, test: the two sets.
        overlap: whether calibration includes the test images, as there were too few.
        total: number of images that there are.
    """

    calibration: ImageSet
    test: ImageSet
    overlap: bool
    total: int


def choose_images(spec: NetworkSpec, source: str | None, number: int) -> Images:
    """Load the images and divide them; with labels by a fixed shuffle, else the first are the test.

    Raises:
        UserError: no image, or fewer than `number`.
    """
    if source is None and spec.in_shape[0] not in (1, 3):
        raise UserError(
            f"DATA must be given for an input of {spec.in_shape[0]} channels, as the sample "
            "photographs have 3"
        )
    images = data.load(spec, source, _LOAD_LIMIT)
    if not 1 <= number <= len(images):
        raise UserError(f"IMAGES must be 1..{len(images)} for {images.source}, not {number}")
    if images.labelled:
        held_out = data.DIGITS_TEST if source is None else number
        rest, test = data.split(images, max(number, min(held_out, len(images))))
        test = test.take(slice(number))
    else:
        rest, test = images.take(slice(number, None)), images.take(slice(number))
    least, most = _CALIBRATION_IMAGES
    wanted = min(most, max(least, _CALIBRATION_VALUES // math.prod(spec.in_shape)))
    if images.labelled and source is not None:
        wanted = min(wanted, max(1, len(images) // 2))  # the others may be tested on
    overlap = len(rest) == 0
    calibration = (images if overlap else rest).take(slice(wanted))
    return Images(calibration, test, overlap, len(images))


def settings_sha256(
    spec: NetworkSpec, plan: Plan, images: Images, network: weights.WeightsResult
) -> str:
    """Hash of all that the folder depends on: plan, network, recipe, images, and this program."""
    settings: list[Any] = [asdict(plan), network.origin, network.sha256, asdict(spec.preprocessing)]
    settings.append(_structure(network.graph))
    for part in (images.calibration, images.test):
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
    return [graph.name, graph.in_shape, layers, graph.concats]


def is_current(folder: Path, settings: str) -> bool:
    """Whether the folder is complete and was made from the same settings."""
    try:
        entry = manifest.read_manifest(folder)
        return (
            entry["settings_sha256"] == settings
            and (folder / "vectors.npz").is_file()
            and sha256_file(folder / "arrays.npz") == entry["arrays_sha256"]
        )
    except (UserError, OSError):
        return False


@dataclass(frozen=True)
class Formats:
    """What the searches found.

    Attributes:
        plan: with every width fixed.
        qm: width of a decoded activation.
        quantizers: by layer name.
        sqnr_db: by layer name, fake-quantized against float on the search images.
        uniform_score, score: of the qm-bit uniform network and of the result, in `unit`.
        unit: what scores are measured in.
        graph: with the weights to quantize.
        scales: factors of the stored channels against the network's, by layer name.
    """

    plan: Plan
    qm: int
    quantizers: Mapping[str, Quantizer]
    sqnr_db: Mapping[str, float]
    uniform_score: float
    score: float
    unit: str
    graph: Graph
    scales: Mapping[str, np.ndarray]


def find_formats(
    spec: NetworkSpec, graph: Graph, source: InputFormat, plan: Plan, images: ImageSet, labels: bool
) -> Formats:
    """Calibrate, search F (and qm), fit the quantizers (and search their width).

    Args:
        spec, graph: the network.
        source: its input format.
        plan: what is asked for.
        images: the calibration images.
        labels: whether their labels may judge a search; refinement never reads them.
    """
    labels = labels and not plan.refine
    to_float = partial(data.to_float, spec)
    few = images.take(slice(_SEARCH_IMAGES[labels]))
    fake = FakeQuantized(graph, source, plan.layers)
    evaluator = Evaluator(fake, few.pixels, few.labels if labels else None, to_float)
    delta = _DELTA[labels] if plan.delta is None else plan.delta
    maxima = calibrate.maxima(graph, images.pixels, to_float)
    base = uniform.with_fixed(evaluator, maxima, plan, delta)
    plan = replace(plan, qm=base.qm)
    check_widths(plan)
    fracs = clipping.choose(graph, images.pixels, to_float, base, maxima, plan)
    counts = calibrate.histograms(graph, images.pixels, to_float, base.qm, fracs, plan.signed)
    if plan.searches_bits:
        goal = base.score - delta
        plan = single.smallest_width(plan, counts, base.qm, fracs, evaluator, goal)
    if not plan.refine:
        quantizers = single.fit_all(plan, counts, base.qm, fracs)
        return Formats(
            plan, base.qm, quantizers, fake.layer_sqnr_db(few.pixels, to_float, quantizers),
            base.score, evaluator.score(quantizers)[0], evaluator.unit, graph, {},
        )  # fmt: skip
    measured = pipeline.measure(graph, plan, base.qm, images.pixels, to_float)
    refined = pipeline.refine(measured, plan, base.qm, source, images.pixels, to_float)
    fake = FakeQuantized(refined.graph, source, plan.layers)
    evaluator.network = fake
    return Formats(
        plan, base.qm, refined.quantizers,
        fake.layer_sqnr_db(few.pixels, to_float, refined.quantizers, refined.exact),
        base.score, evaluator.score(refined.quantizers)[0], evaluator.unit, refined.graph,
        refined.scales,
    )  # fmt: skip


def run_reference(
    spec: NetworkSpec, graph: Graph, network: QuantizedNetwork, test: ImageSet
) -> dict[str, np.ndarray]:
    """The contents of vectors.npz: every layer's integers for the test images."""
    codes = network.input.encode(test.pixels)
    vectors = {"images": test.pixels, "labels": test.labels, "input": codes}
    vectors.update(Reference(network).run(codes))
    inputs = (data.to_float(spec, batch) for batch in calibrate.batches(test.pixels))
    vectors["float_logits"] = run.float_logits(graph, inputs)
    return vectors


def accuracy(vectors: Mapping[str, np.ndarray], last: str, labelled: bool) -> dict[str, Any] | None:
    """The manifest's `accuracy` of the test images; None without labels."""
    if not labelled:
        return None
    labels = vectors["labels"]
    return scores(vectors["float_logits"], vectors[last].reshape(len(labels), -1), labels)


def scores(exact: np.ndarray, integer: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Percentages of outputs [N, classes] of the float and the integer network, as in 1.1."""
    entry: dict[str, Any] = {"images": len(labels)}
    for name, logits in (("float", exact), ("integer", integer)):
        entry[f"{name}_top1"] = percent_correct(logits, labels)
        wide = logits.shape[1] > _TOP5_CLASSES
        entry[f"{name}_top5"] = percent_correct(logits, labels, 5) if wide else None
    entry["agreement"] = percent_correct(integer, exact.argmax(axis=1))
    return entry


def build(
    spec: NetworkSpec, loaded: weights.WeightsResult, plan: Plan, images: Images, settings: str
) -> tuple[QuantizedNetwork, Formats]:
    """The network in integers, and what the searches found.

    Args:
        spec, loaded, plan, images: the stages before.
        settings: hash to store with it.
    """
    graph, source = loaded.graph, network_input(spec)
    labels = images.calibration.labelled and loaded.origin != "seeded"
    formats = find_formats(spec, graph, source, plan, images.calibration, labels)
    chosen = [formats.quantizers.get(layer.name) for layer in graph.layers]
    layers = [
        replace(
            layer, sqnr_db=finite(formats.sqnr_db[layer.name]),
            scale=formats.scales.get(layer.name),
        )
        for layer in quantize_layers(formats.graph, source, formats.plan.layers, chosen)
    ]  # fmt: skip
    network = QuantizedNetwork(
        spec.name, loaded.origin, loaded.sha256, formats.qm, source, layers,
        classes=images.test.classes,
        calibration={
            "source": images.calibration.source, "images": len(images.calibration),
            "labels": images.calibration.labelled, "includes_test_images": images.overlap,
            "refine": list(plan.refine),
        },
        settings_sha256=settings, concats=dict(graph.concats),
    )  # fmt: skip
    return network, formats


def finite(value: float) -> float | None:
    """A number that JSON can hold; None for an infinite ratio."""
    return value if math.isfinite(value) else None
