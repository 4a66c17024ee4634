# SPDX-License-Identifier: Apache-2.0
"""The recipe for networks of photographs: batch normalisation, one-cycle rate, label smoothing.

Batch normalisation is folded into the convolutions afterwards (paper 002, section 4.1.5).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from model_prep import data
from model_prep.graph import Graph, Layer
from model_prep.networks.spec import NetworkSpec
from model_prep.run import last, max_pool, operate, run
from model_prep.trainer import SHARDS, train
from model_prep.training.augment import Augmented

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
            for _ in range(SHARDS)
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

        return last(run(self.graph, x, stored, gradients=True))

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


def fit(spec: NetworkSpec, images: Augmented, recipe: Recipe) -> dict[str, torch.Tensor]:
    """Train a chain of convolutions; torch's generator and the recipe decide the result.

    Args:
        spec: the network: convolutions one behind the other, all but the last with a ReLU.
        images: the training set.
        recipe: see Recipe.

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
    optimizer = torch.optim.SGD(
        groups, recipe.rate, momentum=recipe.momentum, nesterov=True,
        weight_decay=recipe.weight_decay,
    )  # fmt: skip
    steps = recipe.epochs * max(1, len(images.images) // recipe.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.rate, steps, pct_start=recipe.warm_up, cycle_momentum=False,
        final_div_factor=1e3,
    )  # fmt: skip

    def batches() -> Iterator[list[Shard]]:
        for _ in range(recipe.epochs):
            for pixels, labels in images.batches(recipe.batch):
                parts = data.to_float(spec, pixels).chunk(SHARDS)
                shards = zip(range(SHARDS), parts, labels.chunk(SHARDS), strict=False)
                yield [(*shard, len(parts)) for shard in shards]

    def loss(shard: Shard) -> torch.Tensor:
        number, x, labels, parts = shard
        logits = network.logits(number, x)
        return F.cross_entropy(logits, labels, label_smoothing=recipe.smoothing) / parts

    train(optimizer, schedule, batches(), loss, steps, f"training {spec.name}")
    return network.folded()
