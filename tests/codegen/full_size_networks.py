# SPDX-License-Identifier: Apache-2.0
"""AlexNet and VGG-16 at full size for the planner: true shapes, weights that take no memory."""

from pathlib import Path

import numpy as np

from formats.arithmetic import Window
from formats.images import Preprocessing
from formats.network import InputFormat, Layer, Network
from formats.quantizer import Quantizer

# (name, out channels, kernel, stride, pad, pooled behind it)
ALEXNET = [
    ("conv1", 64, 11, 4, 2, True),
    ("conv2", 192, 5, 1, 2, True),
    ("conv3", 384, 3, 1, 1, False),
    ("conv4", 256, 3, 1, 1, False),
    ("conv5", 256, 3, 1, 1, True),
    ("fc6", 4096, 6, 1, 0, False),
    ("fc7", 4096, 1, 1, 0, False),
    ("fc8", 1000, 1, 1, 0, False),
]
VGG16 = [
    *[
        (f"conv{block}_{item}", width, 3, 1, 1, item == items)
        for block, width, items in ((1, 64, 2), (2, 128, 2), (3, 256, 3), (4, 512, 3), (5, 512, 3))
        for item in range(1, items + 1)
    ],
    ("fc6", 4096, 7, 1, 0, False),
    ("fc7", 4096, 1, 1, 0, False),
    ("fc8", 1000, 1, 1, 0, False),
]


def full_size(name: str, bits: int) -> Network:
    """`alexnet` or `vgg16` at 224x224, KNQ everywhere, 14-bit weights."""
    table, pool_size = (ALEXNET, 3) if name == "alexnet" else (VGG16, 2)
    layers: list[Layer] = []
    source, shape = "input", (3, 224, 224)
    for layer, out, kernel, stride, pad, pooled in table:
        size = (shape[1] + 2 * pad - kernel) // stride + 1
        stored = (size - pool_size) // 2 + 1 if pooled else size
        centroid = np.arange(1 << bits, dtype=np.int32) * (4095 // ((1 << bits) - 1))
        last = layer == "fc8"
        layers.append(
            Layer(
                name=layer,
                kind="fc" if layer[:2] == "fc" else "conv",
                inputs=(source,),
                in_shape=shape,
                conv_shape=(out, size, size),
                kernel=(kernel, kernel),
                stride=(stride, stride),
                dilation=(1, 1),
                pads=(pad, pad, pad, pad),
                groups=1,
                relu=True,
                weight_frac=0,
                bias_bits=14,
                bias_frac=0,
                pool=Window((pool_size, pool_size), (2, 2), (0, 0, 0, 0)) if pooled else None,
                weight_bits=14,
                bias_shift=0,
                acc_bits=36,
                requant_shift=0 if last else 14,
                quantizer=None
                if last
                else Quantizer("knq", bits, 12, 0, None, "nearest", centroid, centroid),
                out_frac=0,
                sqnr_db=None,
                weight=np.broadcast_to(np.int16(0), (out, shape[0], kernel, kernel)),
                bias=np.zeros(out, np.int32),
            )
        )
        source, shape = layer, (out, stored, stored)
    return Network(
        name=name,
        weights="seeded",
        weights_sha256="0" * 64,
        manifest_sha256="0" * 64,
        qm=12,
        input=InputFormat(
            (3, 224, 224), 10, 2, np.zeros((3, 256), np.int16), Preprocessing.plain(3)
        ),
        layers=tuple(layers),
        classes=None,
        calibration={},
        accuracy=None,
        folder=Path(),
    )
