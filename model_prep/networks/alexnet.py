# SPDX-License-Identifier: Apache-2.0
"""AlexNet in the one-weird-trick topology (Krizhevsky 2014, arXiv 1404.5997).

61,100,840 parameters. Tensor names and shapes are torchvision's. At 224x224 its adaptive average
pool is the identity.
"""

from nuq.formats.arithmetic import Window
from nuq.model_prep.networks.spec import IMAGENET, Step, chain

POOL = Window((3, 3), (2, 2))
NETWORK = chain(
    "alexnet",
    (3, 224, 224),
    [
        Step("conv1", 64, 11, stride=4, pad=2, pool=POOL, tensors="features.0"),
        Step("conv2", 192, 5, pad=2, pool=POOL, tensors="features.3"),
        Step("conv3", 384, 3, pad=1, tensors="features.6"),
        Step("conv4", 256, 3, pad=1, tensors="features.8"),
        Step("conv5", 256, 3, pad=1, pool=POOL, tensors="features.10"),
        Step("fc6", 4096, tensors="classifier.1"),
        Step("fc7", 4096, tensors="classifier.4"),
        Step("fc8", 1000, tensors="classifier.6"),
    ],
    preprocessing=IMAGENET,
    default_data="photographs",
    default_scheme="knq",
    default_bits="3",
    url="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
)
