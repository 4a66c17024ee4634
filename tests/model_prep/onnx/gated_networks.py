# SPDX-License-Identifier: Apache-2.0
"""MobileNet v3 small, EfficientNet B0 and RegNet-Y 400MF in torch.

Blocks, widths and strides are those of the papers (Howard et al. 2019, Tan and Le 2019, Radosavovic
et al. 2020), which torchvision has, too.
"""

from collections.abc import Callable

import torch
from torch import nn

Activation = Callable[[], nn.Module]


def unit(
    inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1,
    activation: Activation | None = None, pad: int | None = None,
) -> list[nn.Module]:  # fmt: skip
    """Convolution, normalisation, activation; with `pad` None, maps keep their size at stride 1."""
    around = kernel // 2 if pad is None else pad
    conv = nn.Conv2d(inputs, outputs, kernel, stride, around, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs), *([activation()] if activation else [])]


class Excitation(nn.Module):
    """A map times what a mean of it makes of each channel."""

    def __init__(self, channels: int, few: int, activation: Activation, gate: Activation) -> None:
        super().__init__()
        self.scale = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, few, 1), activation(),
            nn.Conv2d(few, channels, 1), gate(),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The product."""
        return self.scale(x) * x


class Residual(nn.Module):
    """A branch and what it is added to."""

    def __init__(
        self, branch: list[nn.Module], shortcut: list[nn.Module], activation: nn.Module
    ) -> None:
        super().__init__()
        self.branch, self.shortcut = nn.Sequential(*branch), nn.Sequential(*shortcut)
        self.activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The sum."""
        return self.activation(self.branch(x) + self.shortcut(x))


def inverted(
    inputs: int, wide: int, outputs: int, kernel: int, stride: int, few: int,
    activation: Activation, inner: Activation, gate: Activation,
) -> nn.Module:  # fmt: skip
    """Wider, depthwise, excited where `few` is given, narrower."""
    branch = unit(inputs, wide, activation=activation) if wide != inputs else []
    branch += unit(wide, wide, kernel, stride, wide, activation)
    branch += [Excitation(wide, few, inner, gate)] if few else []
    branch += unit(wide, outputs)
    same = stride == 1 and inputs == outputs
    return Residual(branch, [], nn.Identity()) if same else nn.Sequential(*branch)


def rounded(channels: float) -> int:
    """The next multiple of 8, but not a tenth less."""
    near = max(8, int(channels + 4) // 8 * 8)
    return near + 8 if near < 0.9 * channels else near


def mobilenet_v3_small() -> nn.Module:
    """HardSwish, HardSigmoid."""
    blocks = [  # kernel, wide, outputs, excited, HardSwish, stride
        (3, 16, 16, 1, 0, 2), (3, 72, 24, 0, 0, 2), (3, 88, 24, 0, 0, 1), (5, 96, 40, 1, 1, 2),
        (5, 240, 40, 1, 1, 1), (5, 240, 40, 1, 1, 1), (5, 120, 48, 1, 1, 1), (5, 144, 48, 1, 1, 1),
        (5, 288, 96, 1, 1, 2), (5, 576, 96, 1, 1, 1), (5, 576, 96, 1, 1, 1),
    ]  # fmt: skip
    layers, inputs = unit(3, 16, 3, 2, activation=nn.Hardswish), 16
    for kernel, wide, outputs, excited, hard, stride in blocks:
        few = rounded(wide / 4) if excited else 0
        activation = nn.Hardswish if hard else nn.ReLU
        layers.append(inverted(
            inputs, wide, outputs, kernel, stride, few, activation, nn.ReLU, nn.Hardsigmoid
        ))  # fmt: skip
        inputs = outputs
    layers += unit(96, 576, activation=nn.Hardswish)
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(576, 1024), nn.Hardswish()]
    return nn.Sequential(*layers, nn.Dropout(), nn.Linear(1024, 1000))


def efficientnet_b0() -> nn.Module:
    """SiLU, Sigmoid."""
    stages = [  # widening, kernel, stride, outputs, blocks
        (1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3), (6, 5, 1, 112, 3),
        (6, 5, 2, 192, 4), (6, 3, 1, 320, 1),
    ]  # fmt: skip
    layers, inputs = unit(3, 32, 3, 2, activation=nn.SiLU), 32
    for widening, kernel, first, outputs, blocks in stages:
        for block in range(blocks):
            stride = 1 if block else first
            layers.append(inverted(
                inputs, inputs * widening, outputs, kernel, stride, inputs // 4, nn.SiLU, nn.SiLU,
                nn.Sigmoid,
            ))  # fmt: skip
            inputs = outputs
    layers += [*unit(320, 1280, activation=nn.SiLU), nn.AdaptiveAvgPool2d(1), nn.Flatten(1)]
    return nn.Sequential(*layers, nn.Dropout(), nn.Linear(1280, 1000))


def regnet_y_400mf() -> nn.Module:
    """ReLU, Sigmoid, groups of 8 channels."""
    layers, inputs = unit(3, 32, 3, 2, activation=nn.ReLU), 32
    for outputs, blocks in ((48, 1), (104, 3), (208, 6), (440, 6)):
        for block in range(blocks):
            stride = 1 if block else 2
            branch = [
                *unit(inputs, outputs, activation=nn.ReLU),
                *unit(outputs, outputs, 3, stride, outputs // 8, nn.ReLU),
                Excitation(outputs, round(inputs / 4), nn.ReLU, nn.Sigmoid),
                *unit(outputs, outputs),
            ]
            shortcut = [] if block else unit(inputs, outputs, 1, stride)
            layers.append(Residual(branch, shortcut, nn.ReLU()))
            inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(440, 1000))


NETWORKS = {made.__name__: made for made in (mobilenet_v3_small, efficientnet_b0, regnet_y_400mf)}
