# SPDX-License-Identifier: Apache-2.0
"""A small AlexNet-style CNN for the 8x8 digits of scikit-learn; its weights come with the project.

One pool overlaps and is padded, as AlexNet's do and ResNet's is.
`make train NET=digits` makes digits.pth again.
"""

from pathlib import Path

from nuq.formats.arithmetic import Window
from nuq.model_prep.networks.spec import Preprocessing, Step, chain

NETWORK = chain(
    "digits",
    (1, 8, 8),
    [
        Step("conv1", 24, 3, pad=1),
        Step("conv2", 32, 3, pad=1, pool=Window((3, 3), (2, 2), (1, 1, 1, 1))),
        Step("conv3", 48, 3, pad=1, pool=Window((2, 2), (2, 2))),
        Step("fc4", 64),
        Step("fc5", 10),
    ],
    preprocessing=Preprocessing(None, 1 / 16, (0.3,), (0.37,), pixel_max=16),
    default_data="digits",
    default_scheme="knq",
    default_bits="4",
    packaged=Path(__file__).with_name("digits.pth"),
)
