# SPDX-License-Identifier: Apache-2.0
"""Trains the networks whose weights come with the project, from fixed seeds.

digits has a recipe of its own. Networks of photographs have batch normalisation, which is folded
into the convolutions afterwards (paper 002, section 4.1.5), a one-cycle rate and label smoothing.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from nuq.formats.build import write_atomic
from nuq.formats.errors import UserError
from nuq.formats.images import ImageSet, percent_correct
from nuq.model_prep import data, networks, trainer
from nuq.model_prep.graph import Graph, Layer
from nuq.model_prep.networks.spec import NetworkSpec
from nuq.model_prep.quantize import calibrate
from nuq.model_prep.run import finish, float_logits, max_pool, operate, outputs, run
from nuq.model_prep.training.augment import Augmented, load_split

SEED = 8
EPOCHS = 60
BATCH = 64
RATE = 3e-3
WEIGHT_DECAY = 1e-4
SHIFT = 1  # pixels a training image may be moved by

Shard = tuple[int, torch.Tensor, torch.Tensor, int]  # number, images, labels, how many shards
EPSILON = 1e-5
MOMENTUM = 0.1  # of the running statistics


@dataclass(frozen=True)
class Recipe:
    """How a network of photographs is trained."""

    epochs: int = 40
    batch: int = 256
    rate: float = 0.3
    warm_up: float = 0.3
    momentum: float = 0.9
    weight_decay: float = 5e-4
    smoothing: float = 0.05

    def descent(
        self, parameters: Iterable[Any], steps: int
    ) -> tuple[torch.optim.SGD, torch.optim.lr_scheduler.OneCycleLR]:
        """The optimizer of parameters, or of groups of them, and the schedule of its rate."""
        optimizer = torch.optim.SGD(
            parameters, self.rate, momentum=self.momentum, nesterov=True,
            weight_decay=self.weight_decay,
        )  # fmt: skip
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.rate, steps, pct_start=self.warm_up, cycle_momentum=False,
            final_div_factor=1e3,
        )  # fmt: skip
        return optimizer, schedule


def train(
    net: str, out: Path | None = None, source: str | None = None, test: str | None = None,
    epochs: int | None = None,
) -> float:  # fmt: skip
    """Train `net`, print and return its test accuracy in percent, and store its weights.

    Args:
        net: a network with packaged weights.
        out: where to store them; default: the packaged place.
        source: DATA, images with labels; not for digits.
        test: TEST, images to report the accuracy of; default: a tenth of DATA, kept apart.
        epochs: instead of the recipe's.

    Raises:
        UserError: the network has no training recipe here, images do not fit, or the file cannot
            be written.
    """
    spec = networks.get(net)
    if spec.packaged is None:
        recipes = ", ".join(name for name, other in networks.registry().items() if other.packaged)
        raise UserError(f"NET must be one with a training recipe ({recipes}), not {net}")
    if epochs is not None and epochs < 1:
        raise UserError(f"EPOCHS must be 1 or more, not {epochs}")
    digits = spec.default_data == "digits"
    fit, held_out = _digits(spec, source, test) if digits else _photographs(spec, source, test)
    with trainer.reproducible(SEED):
        if digits:
            pixels, labels = data.to_float(spec, fit.pixels), torch.from_numpy(fit.labels)
            state = _fit_digits(spec, pixels, labels, epochs or EPOCHS)
        else:
            recipe = Recipe()
            recipe = replace(recipe, epochs=epochs or recipe.epochs)
            folded = _fit_photographs(spec, Augmented(fit, spec.in_shape, mirror=True), recipe)
            state = {name: tensor.half() for name, tensor in folded.items()}
    graph = spec.build({name: tensor.detach().float().numpy() for name, tensor in state.items()})
    inputs = (data.to_float(spec, batch) for batch in calibrate.batches(held_out.pixels))
    accuracy = percent_correct(float_logits(graph, inputs), held_out.labels)
    path = out or spec.packaged
    write_atomic(path, trainer.checkpoint(state))
    print(f"{net}: {accuracy:.2f}% of {len(held_out)} test images; written: {path}")
    return accuracy


def _digits(spec: NetworkSpec, source: str | None, test: str | None) -> tuple[ImageSet, ImageSet]:
    if source is not None or test is not None:
        raise UserError("DATA and TEST must be absent for digits, whose images scikit-learn has")
    return data.split(data.load(spec, None), data.DIGITS_TEST)


def _photographs(
    spec: NetworkSpec, source: str | None, test: str | None
) -> tuple[ImageSet, ImageSet]:
    """See `load_split`; both must have labels."""
    if source is None:
        raise UserError(
            f"DATA must be given to train {spec.name}: an .npz file with `jpeg`, `start` and "
            "`label` (or `images` and `labels`), or a folder with a subfolder of images per class"
        )
    fit, held_out = load_split(spec, source, test, lambda total: total // 10)
    for name, images in (("DATA", fit), ("TEST", held_out)):
        if not images.labelled:
            raise UserError(f"{name} must have a label for every image, not {images.source}")
    return fit, held_out


def _fit_digits(
    spec: NetworkSpec, x: torch.Tensor, labels: torch.Tensor, epochs: int
) -> dict[str, torch.Tensor]:
    """Train on images float32 [N, C, H, W], moved about by up to SHIFT pixels; labels int64 [N].

    Returns:
        The trained tensors by their names in a state_dict.
    """
    state, graph = untrained(spec)
    optimizer = torch.optim.AdamW(state.values(), RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    background = float(x.min())

    def batches() -> Iterator[list[torch.Tensor]]:
        for _ in range(epochs):
            for index in torch.randperm(len(x)).split(BATCH):
                yield [index]
            schedule.step()

    def loss(index: torch.Tensor) -> torch.Tensor:
        down, right = torch.randint(0, 2 * SHIFT + 1, (2,)).tolist()
        moved = F.pad(x[index], (SHIFT,) * 4, value=background)
        moved = moved[:, :, down : down + x.shape[2], right : right + x.shape[3]]
        replies = outputs(graph, run(graph, moved, stored, gradients=True))
        return F.cross_entropy(replies, labels[index])

    def stored(layer: Layer, inputs: list[torch.Tensor]) -> torch.Tensor:
        return finish(layer, operate(layer, inputs, parameters(state, layer)))

    steps = epochs * math.ceil(len(x) / BATCH)
    trainer.train(optimizer, None, batches(), loss, steps, f"training {spec.name}")
    return state


def untrained(spec: NetworkSpec) -> tuple[dict[str, torch.Tensor], Graph]:
    """(trainable tensors by their names in a state_dict, the graph): Kaiming's random weights."""
    state = {name: torch.zeros(shape) for name, shape in spec.state_shapes.items()}
    for name, tensor in state.items():
        if name.endswith("weight"):
            torch.nn.init.kaiming_normal_(tensor)
        tensor.requires_grad_()
    return state, spec.build({name: tensor.detach().numpy() for name, tensor in state.items()})


def parameters(
    state: Mapping[str, torch.Tensor], layer: Layer
) -> tuple[torch.Tensor, torch.Tensor]:
    """A layer's weight and bias among trainable tensors that are named like layers."""
    weight = state[f"{layer.name}.weight"].reshape(layer.weight.shape)
    return weight, state[f"{layer.name}.bias"]


class Normalised:
    """A chain of convolutions with batch normalisation behind each but the last.

    Its scale is left out: behind a ReLU the next convolution's weights hold it. So the deviation
    divides, never flips a sign, and normalising behind the max pool is the same and cheaper.
    """

    def __init__(self, spec: NetworkSpec) -> None:
        self.spec = spec
        self.state, self.graph = untrained(spec)
        self.running = [
            {
                layer.name: (torch.zeros(len(layer.bias)), torch.ones(len(layer.bias)))
                for layer in self.graph.layers[:-1]
            }
            for _ in range(trainer.SHARDS)
        ]

    def logits(self, shard: int, x: torch.Tensor) -> torch.Tensor:
        """Outputs [N, classes] for one worker's images, normalised among themselves."""

        def stored(layer: Layer, inputs: list[torch.Tensor]) -> torch.Tensor:
            weight, bias = parameters(self.state, layer)
            if layer.name not in self.running[shard]:
                return operate(layer, inputs, (weight, bias))
            out = operate(layer, inputs, (weight, torch.zeros(len(weight))))
            out = max_pool(layer.pool, out) if layer.pool else out
            mean, variance = self.running[shard][layer.name]
            return F.relu(F.batch_norm(out, mean, variance, None, bias, True, MOMENTUM, EPSILON))

        return outputs(self.graph, run(self.graph, x, stored, gradients=True))

    def folded(self) -> dict[str, torch.Tensor]:
        """The state with the normalisation in the weights and biases, float32."""
        state = {name: tensor.detach().clone() for name, tensor in self.state.items()}
        for layer in self.graph.layers[:-1]:
            pairs = [running[layer.name] for running in self.running]
            mean = torch.stack([mean for mean, _ in pairs]).mean(0)
            variance = torch.stack([variance for _, variance in pairs]).mean(0)
            deviation = (variance + EPSILON).sqrt()
            weight = state[f"{layer.name}.weight"]
            weight /= deviation.reshape(-1, *[1] * (weight.dim() - 1))
            state[f"{layer.name}.bias"] -= mean / deviation
        return state


def _fit_photographs(
    spec: NetworkSpec, images: Augmented, recipe: Recipe
) -> dict[str, torch.Tensor]:
    """Train a chain of convolutions, all but the last with a ReLU.

    Returns:
        The folded float32 tensors by their names in a state_dict.
    """
    network = Normalised(spec)
    state = network.state
    decayed = [tensor for name, tensor in state.items() if name.endswith("weight")]
    others = [tensor for name, tensor in state.items() if not name.endswith("weight")]
    groups: list[dict[str, Any]] = [
        {"params": decayed}, {"params": others, "weight_decay": 0.0}
    ]  # fmt: skip
    steps = recipe.epochs * max(1, len(images.images) // recipe.batch)
    optimizer, schedule = recipe.descent(groups, steps)

    def batches() -> Iterator[list[Shard]]:
        for _ in range(recipe.epochs):
            for pixels, labels in images.batches(recipe.batch):
                parts = data.to_float(spec, pixels).chunk(trainer.SHARDS)
                shards = zip(
                    range(trainer.SHARDS), parts, labels.chunk(trainer.SHARDS), strict=False
                )
                yield [(*shard, len(parts)) for shard in shards]

    def loss(shard: Shard) -> torch.Tensor:
        number, x, labels, parts = shard
        logits = network.logits(number, x)
        return F.cross_entropy(logits, labels, label_smoothing=recipe.smoothing) / parts

    trainer.train(optimizer, schedule, batches(), loss, steps, f"training {spec.name}")
    return network.folded()
