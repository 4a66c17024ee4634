# SPDX-License-Identifier: Apache-2.0
"""Paper 002's CIFAR-10 network (table 2) with a quarter of its channels; trained here.

Kernels and maps are the paper's: 24x24 crops, convolutions that give 22, 12, 10, 8, 5 and 2 pixels
a side, the last one with a 7x7 kernel. `make train NET=cifar10` makes cifar10.pth again.
"""

from pathlib import Path

from formats.arithmetic import Window
from model_prep.graph import INPUT, Graph
from model_prep.networks.spec import (
    NetworkSpec,
    Preprocessing,
    State,
    conv,
    conv_shapes,
    linear,
    linear_shapes,
)

# (name, input channels, output channels, kernel, stride, pad, pooled). The paper has 256 channels
# for 64 and 128 for 32. Its table tells maps but neither pads nor pools: these lead to every map.
CONVS = (
    ("conv0", 3, 64, 3, 1, 0, True),
    ("conv1", 64, 32, 3, 1, 1, False),
    ("conv2", 32, 64, 3, 1, 0, False),
    ("conv3", 64, 64, 3, 1, 0, True),
    ("conv4", 64, 64, 3, 1, 1, False),
    ("conv5", 64, 32, 7, 2, 2, False),
)
OVERLAPPING = Window((3, 3), (2, 2), (1, 1, 2, 2))  # 22 to 12 and 8 to 5 pixels, as Caffe pools


def build(state: State) -> Graph:
    """The Graph from the state dictionary of cifar10.pth."""
    layers, source = [], INPUT
    for name, _, _, _, stride, pad, pooled in CONVS:
        pool = OVERLAPPING if pooled else None
        layers.append(conv(state, name, name, source, stride=stride, pad=pad, pool=pool))
        source = name
    layers.append(linear(state, "fc0", "fc0", source, (CONVS[-1][2], 2, 2), relu=False))
    return Graph("cifar10", NETWORK.in_shape, layers)


def _shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for name, channels, out, kernel, *_ in CONVS:
        shapes |= conv_shapes(name, out, channels, kernel)
    return shapes | linear_shapes("fc0", 10, CONVS[-1][2] * 2 * 2)


NETWORK = NetworkSpec(
    name="cifar10",
    in_shape=(3, 24, 24),
    state_shapes=_shapes(),
    build=build,
    # Mean and deviation of the training images; the centre of the whole image, as the paper crops.
    preprocessing=Preprocessing(32, 1 / 255, (0.4913, 0.4821, 0.4465), (0.2452, 0.2428, 0.2606)),
    default_data="photographs",
    default_scheme="knq",
    default_bits="4",
    packaged=Path(__file__).with_name("cifar10.pth"),
)
