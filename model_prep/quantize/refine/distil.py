# SPDX-License-Identifier: Apache-2.0
"""Distillation: gradients through the quantized network, with the float network as the teacher.

Weights, biases and KNQ tables move so that the quantized network gives the float network's answers
on calibration images (Hinton et al. 2015: Kullback-Leibler divergence of the outputs) and its
values in the small maps on the way (Romero et al. 2015). No label is read. What is learned is kept
only as far as it helps on calibration images left out of the learning.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from nuq.model_prep.graph import Graph, Layer
from nuq.model_prep.parallel import ordered
from nuq.model_prep.quantize.calibrate import ToFloat
from nuq.model_prep.quantize.plan import DISTIL_STEPS, SEED
from nuq.model_prep.quantize.student import Student
from nuq.model_prep.trainer import SHARDS, train

_SMALL_PART = 0.12  # of all values that the maps compared with the teacher have together
_WARM = 5  # steps until the full rate
_BATCH = 8  # images
_FEATURE = 0.1  # weight of the maps' relative squared error beside the divergence
_ZOOM = 0.75  # smallest side of a random crop, relative to the image


@dataclass(frozen=True)
class Recipe:
    """How long and how strongly to learn."""

    steps: int = DISTIL_STEPS  # of Adam
    # of a weight, relative to the RMS of its layer; of a bias, to their spread; of a table entry,
    # to the table's mean
    rate: float = 2e-4
    # one in so many images is left out of the learning; it judges the result. 0: none, no judge
    held_out: int = 8
    seed: int = SEED  # of crops, flips and order


def augment(pixels: np.ndarray, generator: np.random.Generator, zoom: float) -> np.ndarray:
    """Each image (uint8 [N, C, H, W]) cropped to `zoom`..1 of its sides, resized back, flipped."""
    rows, columns = pixels.shape[2:]
    done = []
    for image in torch.from_numpy(pixels).float():
        part = generator.uniform(zoom, 1)
        height, width = max(2, round(part * rows)), max(2, round(part * columns))
        top = generator.integers(rows - height, endpoint=True)
        left = generator.integers(columns - width, endpoint=True)
        crop = image[None, :, top : top + height, left : left + width]
        crop = F.interpolate(crop, (rows, columns), mode="bilinear", align_corners=False)[0]
        done.append(crop.flip(2) if generator.random() < 0.5 else crop)
    return torch.stack(done).round().clamp(0, 255).to(torch.uint8).numpy()


def small_maps(graph: Graph) -> frozenset[str]:
    """The smallest maps behind weights, together at most a part of all values.

    They gather the errors of the large ones before them, which would cost more to compare.
    """
    sizes = sorted(
        (math.prod(layer.out_shape), layer.name) for layer in graph.stored if layer.has_weights
    )
    limit = _SMALL_PART * sum(size for size, _ in sizes)
    used = itertools.accumulate(size for size, _ in sizes)
    return frozenset(name for (_, name), total in zip(sizes, used, strict=True) if total <= limit)


class _Lesson:
    """The teacher and the loss between it and the student."""

    def __init__(self, student: Student, to_float: ToFloat) -> None:
        graph = student.graph
        self.student, self.to_float = student, to_float
        self.teacher = student.teacher()
        self.maps = small_maps(graph)

    def answers(
        self, network: Student, x: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """(logits, the small maps by layer name) of a network for inputs."""
        maps = {}

        def observe(layer: Layer, out: torch.Tensor) -> None:
            if layer.name in self.maps:
                maps[layer.name] = out

        return network(x.contiguous(memory_format=torch.channels_last), observe), maps

    def loss(self, pixels: np.ndarray) -> torch.Tensor:
        """Divergence of the answers plus the weighted errors of the small maps."""
        with torch.no_grad():
            answer, targets = self.answers(self.teacher, self.to_float(pixels))
        reply, maps = self.answers(self.student, self.student.inputs(pixels))
        error = torch.zeros(())
        for name, target in targets.items():
            power = target.square().mean() + 1e-12
            error = error + F.mse_loss(maps[name], target) / power
        return divergence_of(reply, answer) + _FEATURE * error

    def divergence(self, pixels: np.ndarray) -> float:
        """Mean divergence over images uint8 [N, C, H, W], without gradients."""

        def total(batch: np.ndarray) -> float:
            with torch.no_grad():
                answer, _ = self.answers(self.teacher, self.to_float(batch))
                reply, _ = self.answers(self.student, self.student.inputs(batch))
                return float(divergence_of(reply, answer)) * len(batch)

        parts = [pixels[first : first + _BATCH] for first in range(0, len(pixels), _BATCH)]
        return sum(ordered(total, parts)) / len(pixels)


def divergence_of(reply: torch.Tensor, answer: torch.Tensor) -> torch.Tensor:
    """Mean Kullback-Leibler divergence of logits' probabilities from the answer's, in nats."""
    one, other = reply.flatten(1).log_softmax(1), answer.flatten(1).log_softmax(1)
    return F.kl_div(one, other, reduction="batchmean", log_target=True)


def _orders(number: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """Batches of indices, each image once an epoch."""
    order = np.zeros(0, np.int64)
    while True:
        while len(order) < _BATCH:
            order = np.concatenate([order, generator.permutation(number)])
        yield order[:_BATCH]
        order = order[_BATCH:]


def distil(student: Student, pixels: np.ndarray, to_float: ToFloat, recipe: Recipe) -> bool:
    """Let the student learn from images uint8 [N, C, H, W]; its weights and quantizers change.

    Returns:
        Whether it answers the images left out better than before; if not it is unchanged. Without
        a judge, True.
    """
    parameters = student.parameters()
    before = [one.detach().clone() for one in parameters]
    lesson = _Lesson(student, to_float)
    judges, kept = pixels, np.ones(len(pixels), bool)
    if 0 < recipe.held_out < len(pixels):
        judges, kept[:: recipe.held_out] = pixels[:: recipe.held_out], False
    at_start = lesson.divergence(judges) if recipe.held_out else math.inf
    generator = np.random.default_rng(recipe.seed)
    groups = [
        {"params": [one], "lr": recipe.rate * (float(one.detach().square().mean().sqrt()) + 1e-12)}
        for one in parameters
    ]
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99))

    def rate(step: int) -> float:
        return min(1.0, (step + 1) / _WARM) * 0.5 * (1 + math.cos(math.pi * step / recipe.steps))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    orders = _orders(int(kept.sum()), generator)
    drawn = (augment(pixels[kept][next(orders)], generator, _ZOOM) for _ in range(recipe.steps))
    # shards of a batch, in each of which the loss is a mean
    batches = (np.array_split(batch, SHARDS) for batch in drawn)

    def loss(shard: np.ndarray) -> torch.Tensor:
        return lesson.loss(shard) * (len(shard) / _BATCH)

    train(optimizer, schedule, batches, loss, recipe.steps, "distil")
    better = not recipe.held_out or lesson.divergence(judges) < at_start
    if not better:
        with torch.no_grad():
            for one, start in zip(parameters, before, strict=True):
                one.copy_(start)
    return better
