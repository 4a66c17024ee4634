# SPDX-License-Identifier: Apache-2.0
"""MLPerf Tiny's four reference networks in torch (Banbury et al. 2021).

Layers, widths and strides are those of the Keras models in mlcommons/tiny, benchmark/training. At a
stride of 2 Keras's SAME pads of a map of even size are behind it only, and so they are here. The
Softmax at the end is left out: it changes no answer.
"""

from gated_networks import Residual, unit
from torch import nn


def activated(
    inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """Convolution, normalisation, ReLU; a stride of 2 only with kernels of 3."""
    if stride == 1:
        return unit(inputs, outputs, kernel, stride, groups, nn.ReLU)
    return [nn.ZeroPad2d((0, 1, 0, 1)), *unit(inputs, outputs, 3, 2, groups, nn.ReLU, pad=0)]


def connected(*sizes: int) -> list[nn.Module]:
    """Fully connected layers with normalisation and ReLU."""
    pairs = zip(sizes[:-1], sizes[1:], strict=True)
    rows = [[nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU()] for a, b in pairs]
    return [layer for row in rows for layer in row]


def classifier(inputs: int, classes: int, average: nn.Module) -> list[nn.Module]:
    """What stands behind the last map."""
    return [average, nn.Flatten(1), nn.Linear(inputs, classes)]


def resnet8() -> nn.Module:
    """Image classification, CIFAR-10."""
    layers, inputs = activated(3, 16, 3), 16
    for outputs in (16, 32, 64):
        stride = outputs // inputs
        branch = [*activated(inputs, outputs, 3, stride), *unit(outputs, outputs, 3)]
        shortcut = [nn.Conv2d(inputs, outputs, 1, stride)] if stride > 1 else []
        layers.append(Residual(branch, shortcut, nn.ReLU()))
        inputs = outputs
    return nn.Sequential(*layers, *classifier(64, 10, nn.AdaptiveAvgPool2d(1)))


def ds_cnn() -> nn.Module:
    """Keyword spotting: 12 answers of 49 frames of 10 coefficients.

    The average's window is half of the input, so that it leaves the last of 25 rows out.
    """
    layers: list[nn.Module] = [
        nn.ZeroPad2d((1, 1, 4, 5)), nn.Conv2d(1, 64, (10, 4), 2), nn.BatchNorm2d(64), nn.ReLU(),
    ]  # fmt: skip
    for _ in range(4):
        layers += [*activated(64, 64, 3, groups=64), *activated(64, 64)]
    return nn.Sequential(*layers, *classifier(64, 12, nn.AvgPool2d((24, 5))))


def mobilenet_v1() -> nn.Module:
    """Visual wake words: a person or none; a quarter of the published widths."""
    layers, inputs = activated(3, 8, 3, 2), 8
    for outputs, stride in (
        (16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), *5 * [(128, 1)], (256, 2), (256, 1)
    ):  # fmt: skip
        layers += [*activated(inputs, inputs, 3, stride, inputs), *activated(inputs, outputs)]
        inputs = outputs
    return nn.Sequential(*layers, *classifier(256, 2, nn.AdaptiveAvgPool2d(1)))


def autoencoder() -> nn.Module:
    """Anomaly detection: 640 values through 8 and back."""
    sizes = (640, 128, 128, 128, 128, 8, 128, 128, 128, 128)
    return nn.Sequential(*connected(*sizes), nn.Linear(128, 640))


NETWORKS = {made.__name__: made for made in (resnet8, ds_cnn, mobilenet_v1, autoencoder)}
SHAPES: dict[str, tuple[int, ...]] = {  # of an input
    "resnet8": (3, 32, 32),
    "ds_cnn": (1, 49, 10),
    "mobilenet_v1": (3, 96, 96),
    "autoencoder": (640,),
}
