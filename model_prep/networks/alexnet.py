# SPDX-License-Identifier: Apache-2.0
"""AlexNet in the one-weird-trick topology (Krizhevsky 2014, arXiv 1404.5997).

61,100,840 parameters. Tensor names and shapes are torchvision's. At 224x224 its adaptive average
pool is the identity.
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

POOL = Window((3, 3), (2, 2))


def build(state: State) -> Graph:
    """The Graph from a torchvision state dictionary."""
    return Graph(
        "alexnet",
        NETWORK.in_shape,
        [
            conv(state, "features.0", "conv1", INPUT, stride=4, pad=2, pool=POOL),
            conv(state, "features.3", "conv2", "conv1", pad=2, pool=POOL),
            conv(state, "features.6", "conv3", "conv2", pad=1),
            conv(state, "features.8", "conv4", "conv3", pad=1),
            conv(state, "features.10", "conv5", "conv4", pad=1, pool=POOL),
            linear(state, "classifier.1", "fc6", "conv5", (256, 6, 6)),
            linear(state, "classifier.4", "fc7", "fc6", (4096, 1, 1)),
            linear(state, "classifier.6", "fc8", "fc7", (4096, 1, 1), relu=False),
        ],
    )


NETWORK = NetworkSpec(
    name="alexnet",
    in_shape=(3, 224, 224),
    state_shapes={
        **conv_shapes("features.0", 64, 3, 11),
        **conv_shapes("features.3", 192, 64, 5),
        **conv_shapes("features.6", 384, 192, 3),
        **conv_shapes("features.8", 256, 384, 3),
        **conv_shapes("features.10", 256, 256, 3),
        **linear_shapes("classifier.1", 4096, 9216),
        **linear_shapes("classifier.4", 4096, 4096),
        **linear_shapes("classifier.6", 1000, 4096),
    },
    build=build,
    preprocessing=IMAGENET,
    default_data="photographs",
    default_scheme="knq",
    default_bits="3",
    url="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
)
