# SPDX-License-Identifier: Apache-2.0
"""Paper 002's CIFAR-10 network (table 2) with a quarter of its channels; trained here.

Kernels and maps are the paper's: 24x24 crops, convolutions that give 22, 12, 10, 8, 5 and 2 pixels
a side, the last one with a 7x7 kernel. `make train NET=cifar10` makes cifar10.pth again.
"""

from pathlib import Path

from nuq.formats.arithmetic import Window
from nuq.model_prep.networks.spec import Preprocessing, Step, chain

OVERLAPPING = Window((3, 3), (2, 2), (1, 1, 2, 2))  # 22 to 12 and 8 to 5 pixels, as Caffe pools
NETWORK = chain(
    "cifar10",
    (3, 24, 24),
    # The paper has 256 channels for 64 and 128 for 32. Its table tells maps but neither pads nor
    # pools: these lead to every map.
    [
        Step("conv0", 64, 3, pool=OVERLAPPING),
        Step("conv1", 32, 3, pad=1),
        Step("conv2", 64, 3),
        Step("conv3", 64, 3, pool=OVERLAPPING),
        Step("conv4", 64, 3, pad=1),
        Step("conv5", 32, 7, stride=2, pad=2),
        Step("fc0", 10),
    ],
    # Mean and deviation of the training images; the centre of the whole image, as the paper crops.
    preprocessing=Preprocessing(32, 1 / 255, (0.4913, 0.4821, 0.4465), (0.2452, 0.2428, 0.2606)),
    default_data="photographs",
    default_scheme="knq",
    default_bits="4",
    packaged=Path(__file__).with_name("cifar10.pth"),
)
