# SPDX-License-Identifier: Apache-2.0
"""What enlarges or folds a map: imported as layers that store it so, equal to onnxruntime."""

from itertools import product
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import ModelProto

from nuq.formats.arithmetic import Upscale
from nuq.formats.errors import UserError
from nuq.model_prep.graph import Layer
from nuq.model_prep.onnx import load_onnx
from nuq.model_prep.onnx.resizing import Sampling, subpixels
from tests.model_prep.onnx.onnx_models import build, compare, node, random, save

CONSTANTS = {
    "w": random(1, 8, 4, 3, 3), "v": random(2, 8, 8, 1, 1), "u": random(3, 5, 12, 1, 1),
    "t": random(4, 8, 3, 2, 2), "b": random(5, 3), "p": random(6, 12, 4, 1, 1),
    "q": random(7, 12), "s": np.array([1, 1, 2, 2], np.float32), "last": random(8, 4, 3, 1, 1),
    "again": random(9, 4, 8, 3, 3),
}  # fmt: skip
CONV = node("Conv", "x w", "a", pads=[1, 1, 1, 1])
END = node("Conv", "z again", "y")
RESIZE = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric",
          "nearest_mode": "floor"}  # fmt: skip


def used(nodes: list, **more: np.ndarray) -> ModelProto:
    """A model of nodes with the constants that they read."""
    names = {name for one in nodes for name in one.input}
    constants = {k: v for k, v in {**CONSTANTS, **more}.items() if k in names}
    return build(nodes, constants, (1, 4, 10, 8), 17)


def layers(nodes: list, folder: Path, **more: np.ndarray) -> dict[str, Layer]:
    """The layers of a model whose float run equals onnxruntime's, by what they are called."""
    network = compare(used(nodes, **more), folder)
    return {layer.name: layer for layer in network.graph.layers}


@pytest.mark.parametrize("factor", [(2, 2), (3, 1), (1, 4), (4, 5)])
def test_nearest_resize_is_in_the_layer_before_it(factor: tuple, tmp_path: Path) -> None:
    scales = np.array([1, 1, *factor], np.float32)
    nodes = [CONV, node("Relu", "a", "r"), node("Resize", "r _ s", "z", **RESIZE), END]
    found = layers(nodes, tmp_path, s=scales)
    assert [layer.upscale for layer in found.values()] == [Upscale(factor, False), None]


def test_every_way_to_resize_that_repeats_pixels_is_taken_and_no_other(tmp_path: Path) -> None:
    taken = 0
    for mode, rounding, factor in product(
        ("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners"),
        ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"),
        (2, 3),
    ):
        options = {"mode": "nearest", "coordinate_transformation_mode": mode,
                   "nearest_mode": rounding}  # fmt: skip
        model = used(
            [CONV, node("Resize", "a _ s", "z", **options), END],
            s=np.array([1, 1, factor, factor], np.float32),
        )
        try:
            compare(model, tmp_path)
            taken += 1
        except UserError as error:
            assert "node_z): every pixel must be repeated" in str(error)
            picks = Sampling("nearest", mode, rounding).picks(10, factor)
            assert not np.array_equal(picks, np.arange(10 * factor) // factor)
    assert taken >= 9


@pytest.mark.parametrize(
    ("options", "inputs", "reason"),
    [
        ({"mode": "linear"}, "a _ s", "mode must be nearest, not linear"),
        ({"mode": "cubic"}, "a _ s", "mode must be nearest, not cubic"),
        (RESIZE, "a _ half", "by whole numbers, and nothing else, not by"),
        (RESIZE, "a _ deep", "by whole numbers, and nothing else, not by"),
        (RESIZE, "a _ much", "must be enlarged 1 to 16 times, not"),
        (RESIZE, "a _ _ sizes", "by whole numbers, and nothing else, not by"),
        ({**RESIZE, "coordinate_transformation_mode": "tf_crop_and_resize"}, "a _ s", "one of"),
        ({**RESIZE, "antialias": 1}, "a _ s", "antialias must be 0"),
        (RESIZE, "a", "scales or sizes must be given"),
    ],
)
def test_other_resizes_are_refused_in_one_sentence(
    options: dict, inputs: str, reason: str, tmp_path: Path
) -> None:
    constants = {
        "half": np.array([1, 1, 1.5, 2], np.float32), "deep": np.array([1, 2, 2, 2], np.float32),
        "much": np.array([1, 1, 17, 2], np.float32), "sizes": np.array([1, 8, 15, 16]),
    }  # fmt: skip
    model = used([CONV, node("Resize", inputs, "z", **options), END], **constants)
    with pytest.raises(UserError, match=rf"Resize \(node_z\): .*{reason}"):
        load_onnx(save(model, tmp_path / "model.onnx"))


def test_sizes_may_be_computed_from_another_maps(tmp_path: Path) -> None:
    nodes = [
        CONV, node("MaxPool", "a", "d", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", "d v", "e"), node("Shape", "a", "all"), node("Slice", "all two four", "end"),
        node("Shape", "e", "own"), node("Slice", "own zero two", "begin"),
        node("Concat", "begin end", "sizes", axis=0),
        node("Resize", "e _ _ sizes", "f", **RESIZE), node("Concat", "a f", "z", axis=1),
        node("Conv", "z wide", "y"),
    ]  # fmt: skip
    found = layers(
        nodes, tmp_path, zero=np.array([0]), two=np.array([2]), four=np.array([4]),
        wide=random(1, 4, 16, 3, 3),
    )  # fmt: skip
    assert found["node_e"].upscale == Upscale((2, 2), False)


def test_upsample_of_old_files(tmp_path: Path) -> None:
    model = build(
        [CONV, node("Upsample", "a s", "z", mode="nearest"), END],
        {k: CONSTANTS[k] for k in ("w", "s", "again")}, (1, 4, 10, 8), 9,
    )  # fmt: skip
    compare(model, tmp_path)


@pytest.mark.parametrize("behind", ["Relu", "Mul", "MaxPool", "Resize"])
def test_what_comes_behind_a_resize(behind: str, tmp_path: Path) -> None:
    nodes = [CONV, node("Resize", "a _ s", "m", **RESIZE)]
    if behind == "Mul":
        nodes.append(node("Mul", "m c", "z"))
    elif behind == "MaxPool":
        nodes.append(node("MaxPool", "m", "z", kernel_shape=[3, 3], strides=[2, 2]))
    elif behind == "Resize":
        nodes.append(node("Resize", "m _ s", "z", **RESIZE))
    else:
        nodes.append(node(behind, "m", "z"))
    found = layers([*nodes, END], tmp_path, c=random(3, 8, 1, 1))
    assert len(found) == (3 if behind == "MaxPool" else 2)


def test_a_resize_of_what_others_read_is_a_layer_and_said(tmp_path: Path) -> None:
    nodes = [
        CONV, node("Relu", "a", "r"), node("Resize", "r _ s", "m", **RESIZE),
        node("Conv", "m v", "k"), node("Resize", "r _ s", "n", **RESIZE), node("Add", "k n", "z"),
        END,
    ]  # fmt: skip
    network = compare(used(nodes), tmp_path)
    kinds = [layer.kind for layer in network.graph.layers if layer.upscale]
    assert kinds == ["maxpool", "maxpool"]
    assert any("2 layers that only enlarge a map" in note for note in network.notes)


def test_a_resize_of_a_concat_is_in_its_parts(tmp_path: Path) -> None:
    nodes = [
        CONV, node("Conv", "a v", "c"), node("Conv", "a v", "d"), node("Relu", "d", "e"),
        node("Relu", "c", "f"), node("Concat", "e f", "g", axis=1),
        node("Resize", "g _ s", "z", **RESIZE), node("Conv", "z wide", "y"),
    ]  # fmt: skip
    found = layers(nodes, tmp_path, wide=random(1, 4, 16, 3, 3))
    assert [name for name, layer in found.items() if layer.upscale] == ["node_d", "node_c"]


def test_a_resize_of_an_add_of_a_pool_and_of_the_input(tmp_path: Path) -> None:
    nodes = [
        node("Resize", "x _ s", "big", **RESIZE), node("Conv", "big w", "a", pads=[1, 1, 1, 1]),
        node("AveragePool", "a", "m", kernel_shape=[2, 2], strides=[2, 2]),
        node("Resize", "m _ s", "n", **RESIZE), node("Add", "a n", "k"),
        node("Resize", "k _ s", "z", **RESIZE), END,
    ]  # fmt: skip
    found = layers(nodes, tmp_path)
    assert [layer.kind for layer in found.values() if layer.upscale] == ["conv", "avgpool", "add"]


def test_a_resize_at_the_end_has_a_layer_behind_it(tmp_path: Path) -> None:
    found = layers([CONV, node("Resize", "a _ s", "y", **RESIZE)], tmp_path)
    assert [layer.upscale is not None for layer in found.values()] == [True, False]


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space_is_in_the_convolution_before_it(mode: str, tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x p q", "a"), node("DepthToSpace", "a", "m", blocksize=2, mode=mode),
        node("Mul", "m c", "n"), node("Relu", "n", "z"), node("Conv", "z last", "y"),
    ]  # fmt: skip
    found = layers(nodes, tmp_path, c=random(3, 3, 1, 1))
    assert [layer.upscale for layer in found.values()] == [Upscale((2, 2), True), None]


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space_of_what_others_read_and_at_the_end(mode: str, tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x p q", "a"), node("Relu", "a", "r"),
        node("DepthToSpace", "r", "m", blocksize=2, mode=mode),
        node("MaxPool", "m", "k", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", "r u", "c"), node("Conv", "k one", "d"), node("Add", "c d", "e"),
        node("Conv", "e four", "f"), node("DepthToSpace", "f", "y", blocksize=2, mode=mode),
    ]  # fmt: skip
    network = compare(used(nodes, one=random(1, 5, 3, 1, 1), four=random(2, 8, 5, 1, 1)), tmp_path)
    assert [step.kind for step in network.outputs[0].ending] == ["reshape", "transpose", "reshape"]
    assert sum(layer.upscale is not None for layer in network.graph.layers) == 1


def test_pixel_shuffle_in_parts(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x p q", "a"), node("Reshape", "a cut", "i"),
        node("Transpose", "i", "j", perm=[0, 1, 4, 2, 5, 3]), node("Reshape", "j whole", "z"),
        node("Conv", "z last", "y"),
    ]  # fmt: skip
    sizes = {"cut": np.array([1, 3, 2, 2, 10, 8]), "whole": np.array([1, 3, 20, 16])}
    found = layers(nodes, tmp_path, **sizes)
    assert [layer.upscale for layer in found.values()] == [Upscale((2, 2), True), None]


@pytest.mark.parametrize("order", [(0, 1, 3, 5, 2, 4), (0, 3, 5, 1, 2, 4)])
def test_space_to_depth_in_parts(order: tuple, tmp_path: Path) -> None:
    nodes = [
        CONV, node("Reshape", "a cut", "i"), node("Transpose", "i", "j", perm=order),
        node("Reshape", "j whole", "z"), node("Conv", "z wide", "y"),
    ]  # fmt: skip
    sizes = {"cut": np.array([1, 8, 5, 2, 2, 4]), "whole": np.array([1, 64, 5, 2])}
    found = layers(nodes, tmp_path, wide=random(1, 4, 64, 1, 1), **sizes)
    assert [layer.kernel for layer in found.values()] == [(3, 3), (2, 4)]


def test_a_vector_becomes_a_map(tmp_path: Path) -> None:
    nodes = [
        node("GlobalAveragePool", "a", "g"), node("Flatten", "g", "f"), node("Gemm", "f m", "h"),
        node("Reshape", "h sizes", "z"), node("Conv", "z last", "y"),
    ]  # fmt: skip
    layers([CONV, *nodes], tmp_path, m=random(1, 8, 24), sizes=np.array([1, 3, 4, 2]))


def test_space_to_depth_is_in_the_weights_that_read_it(tmp_path: Path) -> None:
    nodes = [
        node("SpaceToDepth", "x", "m", blocksize=2),
        node("Conv", "m first", "a", pads=[1, 0, 0, 1]), node("Relu", "a", "r"),
        node("SpaceToDepth", "r", "n", blocksize=2), node("Conv", "n halves", "y", group=2),
    ]  # fmt: skip
    constants = {"first": random(1, 8, 16, 2, 2), "halves": random(2, 6, 16, 1, 1)}
    network = compare(build(nodes, constants, (1, 4, 16, 16), 17), tmp_path)
    first, second, _ = network.graph.layers
    assert (first.kernel, first.stride, first.pads) == ((4, 4), (2, 2), (2, 0, 0, 2))
    assert (second.kernel, second.stride) == ((2, 2), (2, 2))


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_transposed_convolutions(kernel: int, stride: int, tmp_path: Path) -> None:
    taken = 0
    for pad, more, groups, dilation in ((0, 0, 1, 1), (1, 0, 2, 1), (1, 1, 4, 1), (0, 1, 1, 2)):
        ends = [pad, 0, 0, pad]
        options = {"strides": [stride, 1], "pads": ends, "output_padding": [more % stride, 0],
                   "group": groups, "dilations": [dilation, 1]}  # fmt: skip
        weight = random(kernel, 4, 4 // groups, kernel, 3)
        nodes = [node("ConvTranspose", "x w bias", "z", **options), node("Conv", "z l", "y")]
        model = used(nodes, w=weight, bias=random(2, 4), l=random(3, 3, 4, 1, 1))
        out = stride * 9 + more % stride + (kernel - 1) * dilation + 1 - pad
        if out % stride:
            with pytest.raises(UserError, match=f"multiples of its strides, not {out} of {stride}"):
                load_onnx(save(model, tmp_path / "model.onnx"))
        else:
            compare(model, tmp_path)
            taken += 1
    assert taken or kernel % stride


def test_subpixels_of_a_kernel_as_large_as_its_stride_take_one_pixel() -> None:
    one = subpixels(8, 2, 1, 2, (0, 0), 0)
    assert (one.kernel, one.pads, one.taps) == (1, (0, 0), {(0, 0): 0, (1, 0): 1})


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"auto_pad": "SAME_UPPER"}, "write pads instead"),
        ({"output_shape": [20, 16]}, "write pads instead"),
        ({"strides": [17, 1]}, "must be enlarged 1 to 16 times"),
        ({"group": 3}, "in 3 groups must fit 4 channels"),
        ({"strides": [2, 2], "kernel_shape": [3, 2]}, "must be the weights' "),
    ],
)
def test_other_transposed_convolutions_are_refused(
    options: dict, reason: str, tmp_path: Path
) -> None:
    model = used(
        [node("ConvTranspose", "x w", "z", **options), node("Conv", "z l", "y")],
        w=random(1, 4, 3, 2, 2), l=random(2, 3, 3, 1, 1),
    )  # fmt: skip
    with pytest.raises(UserError, match=rf"ConvTranspose \(node_z\): .*{reason}"):
        load_onnx(save(model, tmp_path / "model.onnx"))


def test_a_part_of_a_concat_that_shuffles_gets_zero_channels_for_every_place(
    tmp_path: Path,
) -> None:
    nodes = [
        node("MaxPool", "a", "d", kernel_shape=[2, 2], strides=[2, 2]),
        node("ConvTranspose", "d t b", "k", strides=[2, 2]), node("Relu", "k", "m"),
        node("Concat", "m a", "z", axis=1), node("Conv", "z wide", "y"),
    ]  # fmt: skip
    found = layers([CONV, *nodes], tmp_path, wide=random(1, 4, 11, 3, 3))
    assert found["node_k"].out_shape == (8, 10, 8)
    assert len(found["node_k"].bias) == 32


class Decoder(torch.nn.Module):
    """Every way in which torch enlarges a map that the engine has."""

    def __init__(self) -> None:
        super().__init__()
        self.down = torch.nn.Conv2d(3, 8, 3, 2, 1)
        self.up = torch.nn.ConvTranspose2d(8, 8, 4, 2, 1)
        self.shuffle = torch.nn.Sequential(torch.nn.Conv2d(8, 16, 1), torch.nn.PixelShuffle(2))
        self.twice = torch.nn.Upsample(scale_factor=2)
        self.fold = torch.nn.PixelUnshuffle(2)
        self.end = torch.nn.Conv2d(28, 2, 1)
        self.other = torch.nn.Conv2d(8, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """A mask."""
        small = torch.relu(self.down(x))
        sized = F.interpolate(small, size=x.shape[2:], mode="nearest")
        parts = [self.up(small), self.shuffle(small), self.twice(small), sized]
        mask = self.end(torch.cat(parts, 1))
        return mask + self.twice(self.other(self.fold(mask)))


@pytest.mark.filterwarnings("ignore")  # of an exporter that goes
@pytest.mark.parametrize(("dynamo", "opset"), [(False, 13), (False, 17), (True, 18)])
def test_what_torch_exports(dynamo: bool, opset: int, tmp_path: Path) -> None:
    torch.manual_seed(1)
    path, x = tmp_path / "decoder.onnx", torch.zeros(1, 3, 12, 16)
    options = {"external_data": False} if dynamo else {}
    torch.onnx.export(Decoder().eval(), (x,), str(path), dynamo=dynamo, opset_version=opset,
                      **options)  # fmt: skip
    network = compare(onnx.load(path), tmp_path)
    factors = [layer.upscale for layer in network.graph.layers if layer.upscale]
    assert sorted(one.shuffle for one in factors) == [False, False, False, True, True]
