# SPDX-License-Identifier: Apache-2.0
"""Networks trained on CIFAR-10, written as ONNX: ResNet-8, and one with each activation.

    .venv/bin/python tests/model_prep/onnx/trained_networks.py FOLDER cifar10_train.npz \\
        cifar10_test.npz NAME...

ResNet-8 is MLPerf Tiny's; the others, `six_relu` and so on, are tests/activations.py's six
convolutions with normalisation. The recipe is the packaged cifar10 network's, with epochs of its
own. What is learned does not depend on the number of cores.
"""

import argparse
import copy
import io
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from gated_networks import unit
from tiny_networks import classifier, resnet8
from torch import nn

from nuq.formats.build import write_atomic
from nuq.formats.images import percent_correct
from nuq.model_prep import data, networks, trainer
from nuq.model_prep.networks.spec import NetworkSpec
from nuq.model_prep.training.augment import Augmented
from nuq.model_prep.training.train import SEED, Recipe
from tests.activations import CHANNELS, POOLED

MARGIN = 4  # pixels around a training image, which is cropped at random
BATCH = 128  # of test images
SPEC = replace(networks.get("cifar10"), name="cifar10_whole", in_shape=(3, 32, 32))


def six(activation: Callable[[], nn.Module]) -> nn.Module:
    """Six convolutions with normalisation, two max pools, a fully connected layer."""
    layers: list[nn.Module] = []
    for index, (inputs, channels) in enumerate(zip((3, *CHANNELS), CHANNELS, strict=False)):
        layers += unit(inputs, channels, 3, activation=activation)
        layers += [nn.MaxPool2d(2)] if index in POOLED else []
    return nn.Sequential(*layers, *classifier(CHANNELS[-1], 10, nn.AdaptiveAvgPool2d(1)))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet8": resnet8, "six_relu": partial(six, nn.ReLU), "six_tanh": partial(six, nn.Tanh),
    "six_leaky_relu": partial(six, partial(nn.LeakyReLU, 0.1)), "six_silu": partial(six, nn.SiLU),
}  # fmt: skip


def replicas(network: nn.Module) -> list[nn.Module]:
    """One for each shard of a batch: the same parameters, running statistics of their own."""
    shared = {id(one): one for one in network.parameters()}
    return [copy.deepcopy(network, dict(shared)) for _ in range(trainer.SHARDS)]


def averaged(made: list[nn.Module]) -> nn.Module:
    """The first of the replicas, with the mean of their running statistics."""
    with torch.no_grad():
        for same in zip(*(dict(one.named_buffers()).values() for one in made), strict=True):
            same[0].copy_(torch.stack([buffer.double() for buffer in same]).mean(0))
    return made[0].eval()


def trained(make: Callable[[], nn.Module], images: Augmented, recipe: Recipe) -> nn.Module:
    """The network after `recipe`; its input is what `SPEC` makes of the pixels."""
    with trainer.reproducible(SEED):
        made = replicas(make().to(memory_format=torch.channels_last))
        steps = recipe.epochs * (len(images.images) // recipe.batch)
        optimizer, schedule = recipe.descent(made[0].parameters(), steps)

        def loss(shard: tuple[nn.Module, torch.Tensor, torch.Tensor]) -> torch.Tensor:
            replica, x, labels = shard
            logits = replica(x.contiguous(memory_format=torch.channels_last))
            return F.cross_entropy(logits, labels, label_smoothing=recipe.smoothing) / len(made)

        batches = (
            list(zip(made, data.to_float(SPEC, pixels).chunk(2), labels.chunk(2), strict=True))
            for _ in range(recipe.epochs)
            for pixels, labels in images.batches(recipe.batch)
        )
        trainer.train(optimizer, schedule, batches, loss, steps, "training")
        return averaged(made)


def exported(network: nn.Module, spec: NetworkSpec) -> bytes:
    """The bytes of an ONNX file."""
    file = io.BytesIO()
    torch.onnx.export(network, (torch.zeros(1, *spec.in_shape),), file, dynamo=False)
    return file.getvalue()


def run() -> None:
    """Train and write what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("folder", "train", "test"):
        parser.add_argument(name, type=Path)
    parser.add_argument("names", nargs="+", choices=NETWORKS, metavar="NAME")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--images", type=int, help="of the training images; default: all")
    given = parser.parse_args()
    fit, test = (data.load(SPEC, str(path)) for path in (given.train, given.test))
    sides = (MARGIN, MARGIN)
    padded = np.pad(fit.pixels[: given.images], ((0, 0), (0, 0), sides, sides), "reflect")
    whole = replace(fit, pixels=padded, labels=fit.labels[: given.images])
    recipe = replace(Recipe(), epochs=given.epochs)
    for name in given.names:
        network = trained(NETWORKS[name], Augmented(whole, SPEC.in_shape, mirror=True), recipe)
        with torch.no_grad():
            parts = torch.from_numpy(test.pixels).split(BATCH)
            logits = torch.cat([network(data.to_float(SPEC, part.numpy())) for part in parts])
        write_atomic(given.folder / f"{name}.onnx", exported(network, SPEC))
        accuracy = percent_correct(logits.numpy(), test.labels)
        print(f"{name}: {accuracy:.2f}% of {len(test)} test images", flush=True)


if __name__ == "__main__":
    run()
