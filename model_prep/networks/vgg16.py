# SPDX-License-Identifier: Apache-2.0
"""VGG-16 (Simonyan and Zisserman 2014, configuration D), 138,357,544 parameters.

Tensor names and shapes are torchvision's. At 224x224 its adaptive average pool is the identity.
"""

from formats.arithmetic import Window
from model_prep.graph import INPUT, Graph
from model_prep.networks.spec import (
    IMAGENET,
    NetworkSpec,
    State,
    conv,
    conv_shapes,
    linear,
    linear_shapes,
)

# (layer, index in torchvision's `features`, input channels, output channels, pooled)
CONVS = (
    ("conv1_1", 0, 3, 64, False),
    ("conv1_2", 2, 64, 64, True),
    ("conv2_1", 5, 64, 128, False),
    ("conv2_2", 7, 128, 128, True),
    ("conv3_1", 10, 128, 256, False),
    ("conv3_2", 12, 256, 256, False),
    ("conv3_3", 14, 256, 256, True),
    ("conv4_1", 17, 256, 512, False),
    ("conv4_2", 19, 512, 512, False),
    ("conv4_3", 21, 512, 512, True),
    ("conv5_1", 24, 512, 512, False),
    ("conv5_2", 26, 512, 512, False),
    ("conv5_3", 28, 512, 512, True),
)


def build(state: State) -> Graph:
    """The Graph from a torchvision state dictionary."""
    layers, source = [], INPUT
    for name, index, _, _, pooled in CONVS:
        pool = Window((2, 2), (2, 2)) if pooled else None
        layers.append(conv(state, f"features.{index}", name, source, pad=1, pool=pool))
        source = name
    layers += [
        linear(state, "classifier.0", "fc6", source, (512, 7, 7)),
        linear(state, "classifier.3", "fc7", "fc6", (4096, 1, 1)),
        linear(state, "classifier.6", "fc8", "fc7", (4096, 1, 1), relu=False),
    ]
    return Graph("vgg16", NETWORK.in_shape, layers)


def _state_shapes() -> dict[str, tuple[int, ...]]:
    shapes = {}
    for _, index, channels, out, _ in CONVS:
        shapes.update(conv_shapes(f"features.{index}", out, channels, 3))
    shapes.update(linear_shapes("classifier.0", 4096, 512 * 7 * 7))
    shapes.update(linear_shapes("classifier.3", 4096, 4096))
    shapes.update(linear_shapes("classifier.6", 1000, 4096))
    return shapes


NETWORK = NetworkSpec(
    name="vgg16",
    in_shape=(3, 224, 224),
    state_shapes=_state_shapes(),
    build=build,
    preprocessing=IMAGENET,
    default_data="photographs",
    default_scheme="knq",
    default_bits="5",
    url="https://download.pytorch.org/models/vgg16-397923af.pth",
)
