# SPDX-License-Identifier: Apache-2.0
"""Networks that people bring, in torch with seeded weights, as both its exporters write them.

DenseNet121, ShuffleNet v2 and SqueezeNet 1.1 have the blocks and widths of the papers (Huang et al.
2017, Ma et al. 2018, Iandola et al. 2016), which torchvision has, too. Those with
squeeze-and-excitation are in `gated_networks`, those of MLPerf Tiny in `tiny_networks`.
`python tests/model_prep/onnx/torch_networks.py FOLDER NAME...` writes them as ONNX, and beside each
the images that the tests quantize it with: noise, as the weights are.
"""

import argparse
import io
from collections.abc import Callable
from functools import cache
from pathlib import Path

import gated_networks
import numpy as np
import onnx
import tiny_networks
import torch
from gated_networks import unit
from tiny_networks import connected
from torch import nn


def activated(inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> list[nn.Module]:
    """Convolution, normalisation, ReLU."""
    return unit(inputs, outputs, kernel, stride, activation=nn.ReLU)


class Fire(nn.Module):
    """Squeezed, then two convolutions side by side."""

    def __init__(self, inputs: int, few: int, outputs: int) -> None:
        super().__init__()
        self.squeeze = nn.Sequential(nn.Conv2d(inputs, few, 1), nn.ReLU())
        self.one = nn.Sequential(nn.Conv2d(few, outputs // 2, 1), nn.ReLU())
        self.three = nn.Sequential(nn.Conv2d(few, outputs // 2, 3, padding=1), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Both joined."""
        x = self.squeeze(x)
        return torch.cat([self.one(x), self.three(x)], 1)


def squeezenet1_1() -> nn.Module:
    """Max pools in `ceil_mode`."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, 2), nn.ReLU()]
    inputs = 64
    stages = (((16, 128), (16, 128)), ((32, 256), (32, 256)),
              ((48, 384), (48, 384), (64, 512), (64, 512)))  # fmt: skip
    for stage in stages:
        layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
        for few, outputs in stage:
            layers.append(Fire(inputs, few, outputs))
            inputs = outputs
    layers += [nn.Dropout(), nn.Conv2d(512, 1000, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*layers, nn.Flatten())


class Dense(nn.Module):
    """A block's layer: what it reads, and 32 channels more."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.more = nn.Sequential(
            nn.BatchNorm2d(inputs), nn.ReLU(), *activated(inputs, 128),
            nn.Conv2d(128, 32, 3, padding=1, bias=False),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """All joined."""
        return torch.cat([x, self.more(x)], 1)


def densenet121() -> nn.Module:
    """Concats that each begin with the one before."""
    layers, channels = [*activated(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)], 64
    for number, blocks in enumerate((6, 12, 24, 16)):
        if number:
            layers += [nn.BatchNorm2d(channels), nn.ReLU()]
            layers += [nn.Conv2d(channels, channels // 2, 1, bias=False), nn.AvgPool2d(2)]
            channels //= 2
        for _ in range(blocks):
            layers.append(Dense(channels))
            channels += 32
    layers += [nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(channels, 1000))


class Shuffled(nn.Module):
    """Half of the channels, or with a stride all of them twice; then both halves interleaved."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        half, self.whole = outputs // 2, stride > 1
        reads = inputs if self.whole else half
        deep = unit(half, half, 3, stride, half)
        self.branch = nn.Sequential(*activated(reads, half), *deep, *activated(half, half))
        near = [*unit(inputs, inputs, 3, stride, inputs), *activated(inputs, half)]
        self.near = nn.Sequential(*(near if self.whole else []))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The halves' channels in turns."""
        first, second = (x, x) if self.whole else x.chunk(2, 1)
        both = torch.cat([self.near(first), self.branch(second)], 1)
        images, channels, rows, columns = both.shape
        parts = both.view(images, 2, channels // 2, rows, columns)
        return parts.transpose(1, 2).reshape(images, channels, rows, columns)


def shufflenet_v2() -> nn.Module:
    """The one of width 1."""
    layers, inputs = [*activated(3, 24, 3, 2), nn.MaxPool2d(3, 2, 1)], 24
    for outputs, blocks in ((116, 4), (232, 8), (464, 4)):
        for block in range(blocks):
            layers.append(Shuffled(inputs, outputs, 1 if block else 2))
            inputs = outputs
    layers += [*activated(464, 1024), nn.AdaptiveAvgPool2d(1), nn.Flatten(1)]
    return nn.Sequential(*layers, nn.Linear(1024, 1000))


def leaky(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
    """Convolution, normalisation, LeakyReLU."""
    return unit(inputs, outputs, kernel, stride, activation=lambda: nn.LeakyReLU(0.1))


class Detector(nn.Module):
    """Darknet blocks, an enlarged map joined with a finer one, two heads of three anchors."""

    def __init__(self, classes: int = 20) -> None:
        super().__init__()
        layers, inputs = leaky(3, 16), 16
        for outputs in (32, 64, 128):
            half = [*leaky(outputs, outputs // 2, 1), *leaky(outputs // 2, outputs)]
            layers += leaky(inputs, outputs, 3, 2)
            layers.append(gated_networks.Residual(half, [], nn.Identity()))
            inputs = outputs
        self.fine, values = nn.Sequential(*layers), 3 * (5 + classes)
        self.deep = nn.Sequential(*leaky(128, 256, 3, 2), *leaky(256, 128, 1))
        self.coarse_head = nn.Sequential(*leaky(128, 256), nn.Conv2d(256, values, 1))
        self.up = nn.Sequential(*leaky(128, 64, 1), nn.Upsample(scale_factor=2))
        self.fine_head = nn.Sequential(*leaky(192, 128), nn.Conv2d(128, values, 1))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The coarse head's map and the fine one's."""
        fine = self.fine(x)
        deep = self.deep(fine)
        return self.coarse_head(deep), self.fine_head(torch.cat([self.up(deep), fine], 1))


def detector() -> nn.Module:
    """YOLO v3's way to detect, with fewer channels."""
    return Detector()


class UNet(nn.Module):
    """Three levels, two convolutions each, to a mask of three classes."""

    def __init__(self, transposed: bool) -> None:
        super().__init__()
        widths = (16, 32, 64, 128)
        self.down, self.up, self.join = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for inputs, outputs in zip((3, *widths), widths, strict=False):
            layers = [*activated(inputs, outputs, 3), *activated(outputs, outputs, 3)]
            self.down.append(nn.Sequential(*layers))
        for inputs, outputs in zip(widths[:0:-1], widths[-2::-1], strict=True):
            self.up.append(
                nn.ConvTranspose2d(inputs, outputs, 2, 2) if transposed
                else nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(inputs, outputs, 1))
            )  # fmt: skip
            layers = [*activated(2 * outputs, outputs, 3), *activated(outputs, outputs, 3)]
            self.join.append(nn.Sequential(*layers))
        self.head, self.smaller = nn.Conv2d(16, 3, 1), nn.MaxPool2d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The classes of every pixel."""
        maps: list[torch.Tensor] = []
        for number, level in enumerate(self.down):
            x = level(self.smaller(x) if number else x)
            maps.append(x)
        for up, join, skip in zip(self.up, self.join, maps[-2::-1], strict=True):
            x = join(torch.cat([skip, up(x)], 1))
        return self.head(x)


def unet_transposed() -> nn.Module:
    """Up by transposed convolutions."""
    return UNet(True)


def unet_nearest() -> nn.Module:
    """Up by copies of pixels."""
    return UNet(False)


def mlp() -> nn.Module:
    """Three layers on a vector."""
    return nn.Sequential(*connected(64, 128, 96), nn.Linear(96, 10))


OWN: tuple[Callable[[], nn.Module], ...] = (
    squeezenet1_1, densenet121, shufflenet_v2, detector, unet_transposed, unet_nearest, mlp,
)  # fmt: skip
NETWORKS = gated_networks.NETWORKS | {made.__name__: made for made in OWN} | tiny_networks.NETWORKS
SHAPES = {name: (3, 64, 64) for name in NETWORKS} | {"mlp": (64,)} | tiny_networks.SHAPES


@cache
def seeded(name: str) -> tuple[nn.Module, torch.Tensor]:
    """A network with random weights and the statistics of random inputs, and an input."""
    torch.manual_seed(1)
    network = NETWORKS[name]()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.momentum = None  # statistics are means over all batches
    with torch.inference_mode():
        for _ in range(2):
            network(torch.randn(8, *SHAPES[name]))
    return network.eval(), torch.randn(1, *SHAPES[name])


def exported(name: str, dynamo: bool, opset: int) -> onnx.ModelProto:
    """As one of torch's two exporters writes it."""
    network, x = seeded(name)
    if dynamo:
        program = torch.onnx.export(
            network, (x,), dynamo=True, opset_version=opset, verbose=False
        )  # fmt: skip
        assert program is not None
        return program.model_proto
    file = io.BytesIO()
    torch.onnx.export(network, (x,), file, dynamo=False, opset_version=opset)
    return onnx.load_from_string(file.getvalue())


def save_images(name: str, path: Path) -> None:
    """Write 24 images of random bytes for a network as .npz."""
    channels, rows, columns = (*SHAPES[name], 1, 1)[:3]
    generator = np.random.default_rng(3)
    pixels = generator.integers(0, 256, (24, channels, rows, columns), dtype=np.uint8)
    np.savez(path, images=pixels)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="+", choices=NETWORKS, metavar="NAME")
    given = parser.parse_args()
    for chosen in given.names:
        onnx.save(exported(chosen, False, 17), given.folder / f"{chosen}.onnx")
        save_images(chosen, given.folder / f"{chosen}.npz")
