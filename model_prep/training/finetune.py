# SPDX-License-Identifier: Apache-2.0
"""The command `finetune`: train the quantized network itself (paper 002, section 5.4).

From labels, or without any by distillation from the float network. What comes out is a checkpoint
and a plan that the other commands take.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from nuq.formats.build import atomic_dir
from nuq.formats.errors import UserError
from nuq.formats.images import ImageSet, percent_correct, spaced
from nuq.formats.network import Network
from nuq.formats.options import Options
from nuq.formats.quantizer import Quantizer
from nuq.model_prep import data, run, stats, trainer
from nuq.model_prep.accuracy import interval_text, print_paired
from nuq.model_prep.graph import Graph
from nuq.model_prep.networks.spec import NetworkSpec
from nuq.model_prep.quantize import calibrate, part_ranges, plan_file
from nuq.model_prep.quantize.fake_quant import FakeQuantized
from nuq.model_prep.quantize.integers import network_input, quantize_layers
from nuq.model_prep.quantize.plan import Plan
from nuq.model_prep.quantize.reference import Reference
from nuq.model_prep.quantize.student import Student
from nuq.model_prep.source import Source, state_of
from nuq.model_prep.stages import quantization
from nuq.model_prep.trainer import SHARDS
from nuq.model_prep.training.augment import Augmented, centre, load_split

CALIBRATION = 1000  # images the quantizers are fitted on before training
EPOCHS = 3  # unless the options say otherwise
INTEGER_TEST = 500  # test images that the slower integer reference runs, too
TEST_PART = 5  # without TEST, one image in so many is kept apart


def load_images(
    spec: NetworkSpec, source: str | None, test: str | None, labels: bool
) -> tuple[ImageSet, ImageSet]:
    """See `load_split`; `labels` says whether the training images must have labels.

    Raises:
        UserError: too few images, or no labels where they are needed.
    """
    digits = source is None and spec.default_data == "digits"
    part = (lambda _: data.DIGITS_TEST) if digits else (lambda total: total // TEST_PART)
    fit, held_out = load_split(spec, source, test, part)
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
    spec: NetworkSpec,
    network: Student,
    teacher: Graph,
    images: Augmented,
    options: Options,
    seed: int,
) -> list[float]:
    """Fine-tune `network` in place; the mean loss of every epoch.

    The result depends on the options, the seed and the images only, not on the number of cores.
    Distillation learns the outputs of `teacher`, the float network.
    """
    epochs = options.epochs or EPOCHS

    def loss(shard: Shard) -> torch.Tensor:
        pixels, labels, total = shard
        logits = network(network.inputs(pixels))
        if not options.distil:
            return F.cross_entropy(logits, labels, reduction="sum") / total
        answer = torch.tensor(run.forward(teacher, data.to_float(spec, pixels)).numpy())
        replies, answers = logits.log_softmax(1), answer.log_softmax(1)
        return F.kl_div(replies, answers, reduction="sum", log_target=True) / total

    with trainer.reproducible(seed):
        optimizer = torch.optim.Adam(network.parameters(), options.lr)
        epoch = max(1, len(images.images) // options.minibatch)
        steps = epochs * epoch
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        batches = (
            shards(*batch) for _ in range(epochs) for batch in images.batches(options.minibatch)
        )
        losses = trainer.train(optimizer, schedule, batches, loss, steps, "fine-tuning")
    return [float(np.mean(losses[first : first + epoch])) for first in range(0, steps, epoch)]


def finetune(
    source: Source, plan: Plan, images: tuple[ImageSet, ImageSet], options: Options, out: Path
) -> dict[str, Any]:
    """Quantize, fine-tune, measure, and write the folder `out`.

    Args:
        source, plan: the network, with what loads its weights, and how it is quantized.
        images: see `load_images`.
        options: of the command line.
        out: folder for weights.pth, plan.toml and finetune.json; replaced as a whole.

    Returns:
        The contents of finetune.json.
    """
    spec, (fit, test) = source.spec, images
    _check_schemes(source, plan)
    few = fit.take(spaced(len(fit), CALIBRATION))
    few = replace(few, pixels=centre(few.pixels, spec.in_shape))
    loaded = source.load(few.pixels)
    fixed_input, to_float = network_input(spec), partial(data.to_float, spec)
    labels = few.labels if few.labelled else None
    graph, _ = part_ranges.balanced(loaded.graph, plan, few.pixels, to_float)
    graph = graph if _can_hold(source, graph) else loaded.graph
    formats = quantization(graph, fixed_input, plan, few.pixels, labels, to_float)
    # Tables are fitted to this graph: channels may be scaled, and REFINE may change its weights.
    before = formats.network
    start = before.graph
    if plan.refine:
        _check_stored(source, start)
    network = Student(start, fixed_input, formats.plan.layers, formats.quantizers)
    augmented = Augmented(fit, spec.in_shape, mirror=spec.default_data != "digits")
    history = train(spec, network, graph, augmented, options, plan.seed)
    trained, tables = network.trained(), network.quantizers()
    tuned = Plan(formats.qm, "network", None, None, network.fixed_plans())
    result: dict[str, Any] = {
        "network": spec.name, "weights": loaded.origin, "weights_sha256": loaded.sha256,
        "data": fit.source, "images": len(fit), "test_images": len(test),
        "epochs": options.epochs or EPOCHS, "rate": options.lr, "batch": options.minibatch,
        "seed": plan.seed, "distilled": options.distil, "refine": list(plan.refine),
        "loss": history,
    }  # fmt: skip
    if test.labelled:
        inputs = map(to_float, calibrate.batches(test.pixels, "float network"))
        float_logits = run.float_logits(graph, inputs)
        result["float_top1"] = percent_correct(float_logits, test.labels)
        logits = before.logits(test.pixels, formats.quantizers)
        result["before_top1"] = percent_correct(logits, test.labels)
        result["paired"] = {"before": _paired(float_logits, logits, test.labels)}
        after = FakeQuantized(trained, fixed_input, tuned.layers)
        logits = after.logits(test.pixels, tables)
        result["tuned_top1"] = percent_correct(logits, test.labels)
        result["paired"]["tuned"] = _paired(float_logits, logits, test.labels)
        some = spaced(len(test), INTEGER_TEST)
        exact = _integer_logits(spec, trained, network, tuned, tables, test.take(some))
        result["integer_images"] = len(some)
        result["integer_top1"] = percent_correct(exact, test.labels[some])
        result["integer_agreement"] = percent_correct(exact, logits[some].argmax(1))
    _write(source, trained, tuned, result, out)
    return result


def _paired(exact: np.ndarray, logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Outputs [N, classes] against float's, image by image: `stats.compare`, and divergence."""
    far = stats.mean_interval(stats.divergences(exact, logits))
    return {**stats.compare(exact, logits, labels), "divergence": far}


def _check_schemes(source: Source, plan: Plan) -> None:
    """Refuse weights that are no fixed-point numbers."""
    for layer in plan.layers:
        if layer.weight_scheme != "uniform" and source.graph.layer(layer.name).has_weights:
            raise UserError(
                f"weight_scheme of layer {layer.name} must be uniform to fine-tune it, not "
                f"{layer.weight_scheme}"
            )


def _can_hold(source: Source, graph: Graph) -> bool:
    """Whether a checkpoint of the network can hold these weights."""
    try:
        state_of(source, graph)
    except UserError:
        return False
    return True


def _check_stored(source: Source, refined: Graph) -> None:
    """Refuse, before any training, refined weights that no checkpoint of the network can hold."""
    try:
        state_of(source, refined)
    except UserError as error:
        raise UserError(
            f"REFINE must leave out equalise to fine-tune {source.spec.name}: {error}"
        ) from None


def _integer_logits(
    spec: NetworkSpec, graph: Graph, network: Student, tuned: Plan,
    tables: Mapping[str, Quantizer], test: ImageSet,
) -> np.ndarray:  # fmt: skip
    """The raw outputs of the integer reference, int64 [N, classes]."""
    chosen = [tables.get(layer.name) for layer in graph.layers]
    layers = quantize_layers(graph, network.source, tuned.layers, chosen)
    integer = Network(
        name=spec.name, weights="file", weights_sha256="", qm=int(tuned.qm), input=network.source,
        layers=tuple(layers), concats=dict(graph.concats),
    )  # fmt: skip
    reference = Reference(integer)
    batches = calibrate.batches(test.pixels, "integer network")
    return np.concatenate([reference.logits(network.source.encode(batch)) for batch in batches])


def _write(source: Source, graph: Graph, plan: Plan, result: dict[str, Any], out: Path) -> None:
    """The three files, all of them or none."""
    state = {name: torch.from_numpy(array) for name, array in state_of(source, graph).items()}
    with atomic_dir(out) as folder:
        (folder / "weights.pth").write_bytes(trainer.checkpoint(state))
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
        for name, title in (("before", "quantized"), ("tuned", "fine-tuned")):
            found = result["paired"][name]
            print(f"{title}:")
            print_paired({key: one for key, one in found.items() if key != "divergence"}, "float")
            print(f"divergence from float: {interval_text(found['divergence'])} nats")
        print(
            f"integer reference on {result['integer_images']} of them: "
            f"{result['integer_top1']:.2f}%, {result['integer_agreement']:.2f}% predicted alike"
        )
    print(f"written: {out}; use WEIGHTS={out / 'weights.pth'} PLAN={out / 'plan.toml'}")
