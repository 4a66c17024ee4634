# SPDX-License-Identifier: Apache-2.0
"""The command `finetune`: train the quantized network itself (paper 002, section 5.4).

From labels, or without any by distillation from the float network. What comes out is a checkpoint
and a plan that the other commands take.
"""

import io
import json
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from formats.build import atomic_dir
from formats.errors import UserError
from formats.images import ImageSet, percent_correct, spaced
from formats.network import InputFormat, Network
from formats.quantizer import Quantizer
from model_prep import data, run, trainer
from model_prep.graph import Graph
from model_prep.networks.spec import NetworkSpec
from model_prep.quantize import calibrate, plan_file
from model_prep.quantize.fake_quant import FakeQuantized
from model_prep.quantize.integers import network_input, quantize_layers
from model_prep.quantize.plan import Plan
from model_prep.quantize.reference import Reference
from model_prep.quantize.student import Student
from model_prep.source import Source, state_of
from model_prep.stages import Quantization, quantization
from model_prep.trainer import SHARDS
from model_prep.training.augment import Augmented, centre, load_whole

CALIBRATION = 1000  # images the quantizers are fitted on before training
INTEGER_TEST = 500  # test images that the slower integer reference runs, too
TEST_PART = 5  # without TEST, one image in so many is kept apart


@dataclass(frozen=True)
class Options:
    """How to fine-tune.

    Attributes:
        epochs: passes over the images.
        rate: Adam's learning rate at the start; it falls to 0 along a cosine.
        batch: images a step.
        seed: of order and augmentation.
        distill: learn the float network's outputs instead of the labels.
        temperature: of the two softmaxes compared in distillation.
    """

    epochs: int = 3
    rate: float = 1e-3
    batch: int = 128
    seed: int = 1
    distill: bool = False
    temperature: float = 1.0

    def __post_init__(self) -> None:
        """Refuse, by UserError, numbers that make no training."""
        if self.epochs < 1:
            raise UserError(f"EPOCHS must be 1 or more, not {self.epochs}")
        if not 0 < self.rate < 1:
            raise UserError(f"LR must be above 0 and below 1, not {self.rate}")
        if not 1 <= self.batch <= 4096:
            raise UserError(f"MINIBATCH must be 1..4096, not {self.batch}")


def load_images(
    spec: NetworkSpec, source: str | None, test: str | None, labels: bool
) -> tuple[ImageSet, ImageSet]:
    """(training images with their margin, test images of the input size).

    Args:
        spec: the network.
        source: DATA, or None for the network's own images.
        test: TEST, or None: a part of DATA is kept apart.
        labels: whether the training images must have labels.

    Raises:
        UserError: too few images, or no labels where they are needed.
    """
    fit = load_whole(spec, source)
    if test is not None:
        held_out = data.load(spec, test)
    else:
        digits = source is None and spec.default_data == "digits"
        fit, held_out = data.split(fit, data.DIGITS_TEST if digits else len(fit) // TEST_PART)
        held_out = replace(held_out, pixels=centre(held_out.pixels, spec.in_shape))
    if labels and not fit.labelled:
        raise UserError(
            f"DATA must have a label for every image, not {fit.source}; give a folder of class "
            "folders or an .npz file with `label`, or learn without labels: DISTIL=1"
        )
    if not len(fit) or not len(held_out):
        raise UserError(
            f"DATA must hold images to train on and others to test, not {len(fit)} and "
            f"{len(held_out)}; give more images, or TEST"
        )
    return fit, held_out


Shard = tuple[np.ndarray, torch.Tensor, int]  # pixels, labels, images of the whole batch


def shards(pixels: np.ndarray, labels: torch.Tensor) -> list[Shard]:
    """A batch divided among the workers."""
    parts = zip(np.array_split(pixels, SHARDS), labels.tensor_split(SHARDS), strict=True)
    return [(part, label, len(labels)) for part, label in parts if len(part)]


def train(
    spec: NetworkSpec, network: Student, teacher: Graph, images: Augmented, options: Options
) -> list[float]:
    """Fine-tune `network` in place; the mean loss of every epoch.

    The result depends on the options and images only, not on the number of cores.

    Args:
        spec: the network's images.
        network: what is trained.
        teacher: the float network, whose outputs distillation learns.
        images: what is learned from.
        options: see Options.
    """
    warm = options.temperature

    def loss(shard: Shard) -> torch.Tensor:
        pixels, labels, total = shard
        logits = network(network.inputs(pixels))
        if not options.distill:
            return F.cross_entropy(logits, labels, reduction="sum") / total
        answer = torch.tensor(run.forward(teacher, data.to_float(spec, pixels)).numpy())
        wanted, given = F.log_softmax(answer / warm, 1), F.log_softmax(logits / warm, 1)
        divergence = F.kl_div(given, wanted, reduction="sum", log_target=True)
        return divergence * warm**2 / total

    with trainer.reproducible(options.seed):
        optimizer = torch.optim.Adam(network.parameters(), options.rate)
        epoch = max(1, len(images.images) // options.batch)
        steps = options.epochs * epoch
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        batches = (
            shards(*batch) for _ in range(options.epochs) for batch in images.batches(options.batch)
        )
        losses = trainer.train(optimizer, schedule, batches, loss, steps, "fine-tuning")
    return [float(np.mean(losses[first : first + epoch])) for first in range(0, steps, epoch)]


def finetune(
    source: Source, plan: Plan, images: tuple[ImageSet, ImageSet], options: Options, out: Path
) -> dict[str, Any]:
    """Quantize, fine-tune, measure, and write the folder `out`.

    Args:
        source: the network, with what loads its weights.
        plan: how it is quantized.
        images: see `load_images`.
        options: see Options.
        out: folder for weights.pth, plan.toml and finetune.json; replaced as a whole.

    Returns:
        The contents of finetune.json.

    Raises:
        UserError: the network, the plan or the folder does not allow it.
    """
    spec, (fit, test) = source.spec, images
    _check_schemes(source, plan)
    few = fit.take(spaced(len(fit), CALIBRATION))
    few = replace(few, pixels=centre(few.pixels, spec.in_shape))
    loaded = source.load(few.pixels)
    graph, fixed_input = loaded.graph, network_input(spec)
    labels = few.labels if few.labelled else None
    to_float = partial(data.to_float, spec)
    formats = quantization(graph, fixed_input, plan, few.pixels, labels, to_float)
    # Tables are fitted to this graph: REFINE scales its channels and may change its weights.
    before = formats.network
    start = before.graph
    if plan.refine:
        _check_stored(source, start)
    network = Student(start, fixed_input, formats.plan.layers, formats.quantizers)
    augmented = Augmented(fit, spec.in_shape, mirror=spec.default_data != "digits")
    history = train(spec, network, graph, augmented, options)
    trained, tables = network.trained(), network.quantizers()
    result: dict[str, Any] = {
        "network": spec.name, "weights": loaded.origin, "weights_sha256": loaded.sha256,
        "data": fit.source, "images": len(fit), "test_images": len(test),
        "epochs": options.epochs, "rate": options.rate, "batch": options.batch,
        "seed": options.seed, "distilled": options.distill, "refine": list(plan.refine),
        "loss": history,
    }  # fmt: skip
    if test.labelled:
        result["float_top1"] = percent_correct(_float_logits(spec, graph, test), test.labels)
        logits = before.logits(test.pixels, formats.quantizers)
        result["before_top1"] = percent_correct(logits, test.labels)
        after = FakeQuantized(trained, fixed_input, network.fixed_plans())
        logits = after.logits(test.pixels, tables)
        result["tuned_top1"] = percent_correct(logits, test.labels)
        some = spaced(len(test), INTEGER_TEST)
        exact = _integer_logits(
            spec, trained, fixed_input, network, tables, formats, test.take(some)
        )
        result["integer_images"] = len(some)
        result["integer_top1"] = percent_correct(exact, test.labels[some])
        result["integer_agreement"] = percent_correct(exact, logits[some].argmax(1))
    tuned = Plan(formats.qm, "network", None, None, tuple(network.fixed_plans()))
    _write(source, trained, tuned, result, out)
    return result


def _check_schemes(source: Source, plan: Plan) -> None:
    """Refuse weights that are no fixed-point numbers."""
    weighted = {layer.name for layer in source.graph.layers if layer.has_weights}
    for layer in plan.layers:
        if layer.name in weighted and layer.weight_scheme != "uniform":
            raise UserError(
                f"weight_scheme of layer {layer.name} must be uniform to fine-tune it, not "
                f"{layer.weight_scheme}"
            )


def _check_stored(source: Source, refined: Graph) -> None:
    """Refuse, before any training, refined weights that no checkpoint of the network can hold."""
    try:
        state_of(source, refined)
    except UserError as error:
        raise UserError(
            f"REFINE must leave out equalise to fine-tune {source.spec.name}: {error}"
        ) from None


def _float_logits(spec: NetworkSpec, graph: Graph, test: ImageSet) -> np.ndarray:
    batches = calibrate.batches(test.pixels, "float network")
    return run.float_logits(graph, (data.to_float(spec, batch) for batch in batches))


def _integer_logits(
    spec: NetworkSpec, graph: Graph, source: InputFormat, network: Student,
    tables: dict[str, Quantizer], formats: Quantization, test: ImageSet,
) -> np.ndarray:  # fmt: skip
    """The raw outputs of the integer reference, int64 [N, classes]."""
    chosen = [tables.get(layer.name) for layer in graph.layers]
    layers = quantize_layers(graph, source, network.fixed_plans(), chosen)
    integer = Network(
        name=spec.name, weights="file", weights_sha256="", qm=formats.qm, input=source,
        layers=tuple(layers), concats=dict(graph.concats),
    )  # fmt: skip
    reference, parts = Reference(integer), []
    for batch in calibrate.batches(test.pixels, "integer network"):
        for _, codes in reference.run(source.encode(batch)):
            last = codes
        parts.append(last.reshape(len(batch), -1))
    return np.concatenate(parts)


def _write(source: Source, graph: Graph, plan: Plan, result: dict[str, Any], out: Path) -> None:
    """The three files, all of them or none."""
    state = {name: torch.from_numpy(array) for name, array in state_of(source, graph).items()}
    buffer = io.BytesIO()
    torch.save(state, buffer)
    with atomic_dir(out) as folder:
        (folder / "weights.pth").write_bytes(buffer.getvalue())
        (folder / "plan.toml").write_text(plan_file.text(plan, {}))
        (folder / "finetune.json").write_text(json.dumps(result, indent=2) + "\n")


def show(result: dict[str, Any], out: Path) -> None:
    """Print what came out."""
    last = ", ".join(f"{loss:.4f}" for loss in result["loss"])
    print(f"{result['network']}: {result['images']} images, loss by epoch {last}")
    if "float_top1" in result:
        print(
            f"accuracy on {result['test_images']} test images: float {result['float_top1']:.2f}%, "
            f"quantized {result['before_top1']:.2f}%, fine-tuned {result['tuned_top1']:.2f}%"
        )
        print(
            f"integer reference on {result['integer_images']} of them: "
            f"{result['integer_top1']:.2f}%, {result['integer_agreement']:.2f}% predicted alike"
        )
    print(f"written: {out}; use WEIGHTS={out / 'weights.pth'} PLAN={out / 'plan.toml'}")
