# SPDX-License-Identifier: Apache-2.0
"""The recipe for networks of photographs: batch normalisation, one-cycle rate, label smoothing.

Batch normalisation is folded into the convolutions afterwards (paper 002, section 4.1.5).
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from tqdm import tqdm

from model_prep import data
from model_prep.graph import Graph, Layer
from model_prep.networks.spec import NetworkSpec
from model_prep.run import last, max_pool, operate, run
from model_prep.training.augment import Augmented

# A step's images are divided among so many workers, whatever the number of cores, so that sums
# and batch statistics do not depend on the machine.
SHARDS = 2
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


class Normalised:
    """A chain of convolutions with batch normalisation behind each but the last.

    Its scale is left out: behind a ReLU the next convolution's weights hold it. So the deviation
    divides, never flips a sign, and normalising behind the max pool is the same and cheaper.
    """

    def __init__(self, spec: NetworkSpec) -> None:
        """Kaiming's random weights from torch's generator."""
        self.spec = spec
        self.state = {name: torch.zeros(shape) for name, shape in spec.state_shapes.items()}
        for name, tensor in self.state.items():
            if name.endswith("weight"):
                torch.nn.init.kaiming_normal_(tensor)
            tensor.requires_grad_()
        arrays = {name: tensor.detach().numpy() for name, tensor in self.state.items()}
        self.graph: Graph = spec.build(arrays)
        self.running = [
            {
                layer.name: (torch.zeros(len(layer.bias)), torch.ones(len(layer.bias)))
                for layer in self.graph.layers[:-1]
            }
            for _ in range(SHARDS)
        ]

    def loss_gradients(
        self, shard: int, x: torch.Tensor, labels: torch.Tensor, smoothing: float
    ) -> tuple[float, tuple[torch.Tensor, ...]]:
        """(loss, its gradients in the order of the state) on one worker's images."""
        with torch.enable_grad():

            def stored(layer: Layer, inputs: list[torch.Tensor]) -> torch.Tensor:
                weight = self.state[f"{layer.name}.weight"].reshape(layer.weight.shape)
                bias = self.state[f"{layer.name}.bias"]
                if layer.name not in self.running[shard]:
                    return operate(layer, inputs, (weight, bias))
                out = operate(layer, inputs, (weight, torch.zeros(len(weight))))
                out = max_pool(layer.pool, out) if layer.pool else out
                mean, variance = self.running[shard][layer.name]
                out = F.batch_norm(out, mean, variance, None, bias, True, MOMENTUM, EPSILON)
                return F.relu(out)

            out = last(run(self.graph, x, stored, gradients=True))
            loss = F.cross_entropy(out, labels, label_smoothing=smoothing)
            return float(loss.detach()), torch.autograd.grad(loss, list(self.state.values()))

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
    quiet = not sys.stderr.isatty()
    with (
        ThreadPoolExecutor(SHARDS) as workers,
        tqdm(total=steps, desc=f"training {spec.name}", unit="step", disable=quiet) as bar,
    ):
        for _ in range(recipe.epochs):
            for pixels, labels in images.batches(recipe.batch):
                shards = zip(
                    range(SHARDS), data.to_float(spec, pixels).chunk(SHARDS),
                    labels.chunk(SHARDS), strict=False,
                )  # fmt: skip
                jobs = [(*shard, recipe.smoothing) for shard in shards]
                results = list(workers.map(lambda job: network.loss_gradients(*job), jobs))
                for index, tensor in enumerate(state.values()):
                    tensor.grad = torch.stack([grads[index] for _, grads in results]).mean(0)
                optimizer.step()
                schedule.step()
                bar.update()
                bar.set_postfix(loss=f"{results[0][0]:.3f}", refresh=False)
    return network.folded()
