# SPDX-License-Identifier: Apache-2.0
"""VGG-16 (Simonyan and Zisserman 2014, configuration D), 138,357,544 parameters.

Tensor names and shapes are torchvision's. At 224x224 its adaptive average pool is the identity.
"""

from nuq.formats.arithmetic import Window
from nuq.model_prep.networks.spec import IMAGENET, Step, chain

# (layer, index in torchvision's `features`, output channels, pooled)
CONVS = (
    ("conv1_1", 0, 64, False),
    ("conv1_2", 2, 64, True),
    ("conv2_1", 5, 128, False),
    ("conv2_2", 7, 128, True),
    ("conv3_1", 10, 256, False),
    ("conv3_2", 12, 256, False),
    ("conv3_3", 14, 256, True),
    ("conv4_1", 17, 512, False),
    ("conv4_2", 19, 512, False),
    ("conv4_3", 21, 512, True),
    ("conv5_1", 24, 512, False),
    ("conv5_2", 26, 512, False),
    ("conv5_3", 28, 512, True),
)
POOL = Window((2, 2), (2, 2))
NETWORK = chain(
    "vgg16",
    (3, 224, 224),
    [
        *(
            Step(name, out, 3, pad=1, pool=POOL if pooled else None, tensors=f"features.{index}")
            for name, index, out, pooled in CONVS
        ),
        Step("fc6", 4096, tensors="classifier.0"),
        Step("fc7", 4096, tensors="classifier.3"),
        Step("fc8", 1000, tensors="classifier.6"),
    ],
    preprocessing=IMAGENET,
    default_data="photographs",
    default_scheme="knq",
    default_bits="5",
    url="https://download.pytorch.org/models/vgg16-397923af.pth",
)
