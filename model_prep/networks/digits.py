# SPDX-License-Identifier: Apache-2.0
"""A small AlexNet-style CNN for the 8x8 digits of scikit-learn; its weights come with the project.

One pool overlaps and is padded, as AlexNet's do and ResNet's is.
`make train NET=digits` makes digits.pth again.
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


def build(state: State) -> Graph:
    """The Graph from the state dictionary of digits.pth."""
    return Graph(
        "digits",
        NETWORK.in_shape,
        [
            conv(state, "conv1", "conv1", INPUT, pad=1),
            conv(
                state, "conv2", "conv2", "conv1", pad=1, pool=Window((3, 3), (2, 2), (1, 1, 1, 1))
            ),
            conv(state, "conv3", "conv3", "conv2", pad=1, pool=Window((2, 2), (2, 2))),
            linear(state, "fc4", "fc4", "conv3", (48, 2, 2)),
            linear(state, "fc5", "fc5", "fc4", (64, 1, 1), relu=False),
        ],
    )


NETWORK = NetworkSpec(
    name="digits",
    in_shape=(1, 8, 8),
    state_shapes={
        **conv_shapes("conv1", 24, 1, 3),
        **conv_shapes("conv2", 32, 24, 3),
        **conv_shapes("conv3", 48, 32, 3),
        **linear_shapes("fc4", 64, 48 * 2 * 2),
        **linear_shapes("fc5", 10, 64),
    },
    build=build,
    preprocessing=Preprocessing(None, 1 / 16, (0.3,), (0.37,), pixel_max=16),
    default_data="digits",
    default_scheme="knq",
    default_bits="4",
    packaged=Path(__file__).with_name("digits.pth"),
)
