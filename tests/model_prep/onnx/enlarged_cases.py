# SPDX-License-Identifier: Apache-2.0
"""Small networks that enlarge a feature map: decoders, U-Nets, detectors, super-resolution."""

from collections.abc import Callable

import numpy as np
from cases import IMAGE, weight
from onnx import ModelProto, NodeProto
from onnx_models import build, node

SAME = {"pads": [1, 1, 1, 1]}
HALF = {"kernel_shape": [2, 2], "strides": [2, 2]}
TWICE = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric",
         "nearest_mode": "floor"}  # fmt: skip


class Sketch:
    """Nodes and constants of a model, one behind the other."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, np.ndarray] = {"twice": np.array([1, 1, 2, 2], np.float32)}

    def add(self, op: str, inputs: str, **attributes: object) -> str:
        """A node; the name of its output."""
        name = f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(node(op, inputs, name, **attributes))
        return name

    def conv(
        self, source: str, inputs: int, outputs: int, kernel: int = 3, then: str = "Relu"
    ) -> str:
        """A convolution that keeps the size, and an activation."""
        name = f"w{len(self.nodes)}"
        self.constants[name] = weight(len(self.nodes), outputs, inputs, kernel, kernel)
        made = self.add("Conv", f"{source} {name}", **(SAME if kernel == 3 else {}))
        return self.add(then, made) if then else made

    def transposed(self, source: str, inputs: int, outputs: int, kernel: int = 2) -> str:
        """A transposed convolution of stride 2, and a ReLU."""
        name = f"w{len(self.nodes)}"
        self.constants[name] = weight(len(self.nodes), inputs, outputs, kernel, kernel)
        self.constants[f"{name}_b"] = weight(1, outputs)
        pad = kernel // 2 - 1
        made = self.add("ConvTranspose", f"{source} {name} {name}_b", strides=[2, 2],
                        pads=[pad] * 4)  # fmt: skip
        return self.add("Relu", made)

    def half(self, source: str) -> str:
        """A max pool."""
        return self.add("MaxPool", source, **HALF)

    def larger(self, source: str) -> str:
        """Nearest neighbour, twice as large."""
        return self.add("Resize", f"{source} _ twice", **TWICE)

    def model(self, *outputs: str, shape: tuple[int, ...] = IMAGE) -> ModelProto:
        """The model of these outputs."""
        used = {name for one in self.nodes for name in one.input}
        constants = {name: value for name, value in self.constants.items() if name in used}
        return build(self.nodes, constants, shape, output=" ".join(outputs))


def transposed_decoder() -> ModelProto:
    """Kernels of 2 and of 4, both of stride 2, to a mask."""
    net = Sketch()
    x = net.half(net.conv("x", 3, 16))
    x = net.half(net.conv(x, 16, 16))
    x = net.transposed(x, 16, 12, 4)
    return net.model(net.conv(net.transposed(x, 12, 5), 5, 2, 1, ""))


def odd_width_decoder() -> ModelProto:
    """A transposed convolution whose rows are no whole words."""
    net = Sketch()
    x = net.half(net.conv("x", 3, 8))
    x = net.transposed(x, 8, 9)
    return net.model(net.conv(x, 9, 3, 1, ""), shape=(1, 3, 10, 10))


def unet(transposed: bool) -> ModelProto:
    """Two levels, with the maps of the way down joined on the way up."""
    net = Sketch()
    first = net.conv("x", 3, 8)
    second = net.conv(net.half(first), 8, 16)
    x = net.conv(net.half(second), 16, 24)
    for skip, inputs, outputs in ((second, 24, 16), (first, 16, 8)):
        if transposed:
            x = net.transposed(x, inputs, outputs)
        else:
            x = net.conv(net.larger(x), inputs, outputs)
        joined = net.add("Concat", f"{skip} {x}", axis=1)
        x = net.conv(joined, 2 * outputs, outputs)
    return net.model(net.conv(x, 8, 3, 1, ""))


def unet_transposed() -> ModelProto:
    """A U-Net with transposed convolutions."""
    return unet(True)


def unet_nearest() -> ModelProto:
    """A U-Net with nearest-neighbour upsampling."""
    return unet(False)


def leaky_detector() -> ModelProto:
    """As YOLO has it: LeakyRelu, an enlarged map joined with an earlier one, two heads."""
    net, leaky = Sketch(), "LeakyRelu"
    x = net.half(net.conv("x", 3, 8, then=leaky))
    fine = net.conv(x, 8, 16, then=leaky)
    deep = net.conv(net.half(fine), 16, 24, then=leaky)
    coarse = net.conv(deep, 24, 14, 1, "")
    up = net.larger(net.conv(deep, 24, 8, 1, leaky))
    joined = net.add("Concat", f"{up} {fine}", axis=1)
    return net.model(coarse, net.conv(joined, 24, 14, 1, ""))


def pyramid() -> ModelProto:
    """A feature pyramid: what others read, too, is enlarged and added to a finer map."""
    net = Sketch()
    fine = net.conv("x", 3, 16)
    coarse = net.conv(net.half(fine), 16, 16)
    total = net.add("Add", f"{fine} {net.larger(coarse)}")
    return net.model(net.conv(total, 16, 4, 1, ""), net.conv(coarse, 16, 4, 1, ""))


def pixel_shuffle() -> ModelProto:
    """In the middle, as one node with either order of channels, and in parts."""
    net = Sketch()
    x = net.half(net.conv("x", 3, 32))
    x = net.add("DepthToSpace", net.conv(x, 32, 32, then=""), blocksize=2, mode="CRD")
    x = net.half(net.add("Relu", x))
    x = net.add("DepthToSpace", net.conv(x, 8, 24), blocksize=2, mode="DCR")
    net.constants |= {"cut": np.array([1, 3, 2, 2, 16, 16]), "whole": np.array([1, 3, 32, 32])}
    x = net.add("Reshape", f"{net.conv(x, 6, 12, then='')} cut")
    x = net.add("Transpose", x, perm=[0, 1, 4, 2, 5, 3])
    x = net.add("Relu", net.add("Reshape", f"{x} whole"))
    return net.model(net.conv(x, 3, 3, 1, ""))


def super_resolution() -> ModelProto:
    """A pixel shuffle at the end, which the host does."""
    net = Sketch()
    x = net.conv("x", 3, 16)
    x = net.add("DepthToSpace", net.conv(x, 16, 12, then=""), blocksize=2, mode="CRD")
    return net.model(x, shape=(1, 3, 8, 8))


def enlarged_mask() -> ModelProto:
    """A mask that is enlarged at the end."""
    net = Sketch()
    x = net.conv(net.half(net.conv("x", 3, 16)), 16, 2, 1, "")
    return net.model(net.larger(x))


def space_to_depth() -> ModelProto:
    """At the input, and between convolutions."""
    net = Sketch()
    x = net.conv(net.add("SpaceToDepth", "x", blocksize=2), 12, 8)
    return net.model(net.conv(net.add("SpaceToDepth", x, blocksize=2), 32, 6, 1, ""))


ENLARGED: dict[str, Callable[[], ModelProto]] = {
    made.__name__: made
    for made in (
        transposed_decoder, unet_transposed, unet_nearest, leaky_detector,
        pyramid, pixel_shuffle, super_resolution, enlarged_mask, space_to_depth,
    )
}  # fmt: skip
