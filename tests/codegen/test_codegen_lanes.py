# SPDX-License-Identifier: Apache-2.0
"""Lane packing never changes the result: the packed convolution equals the original one."""

from dataclasses import replace
from itertools import product

import numpy as np
from full_size_networks import full_size
from hypothesis import given, settings
from hypothesis import strategies as st

from codegen.design.array import Array
from codegen.design.lowering import axis_options, choose_packing, pack_lanes
from formats.network import Layer
from formats.packing import touched_words


def conv(in_shape, conv_shape, kernel, stride=(1, 1), pads=(0, 0), groups=1, **fields) -> Layer:
    """A convolution whose weights take no memory, if they are not given."""
    weight = np.broadcast_to(np.int16(0), (conv_shape[0], in_shape[0] // groups, *kernel))
    windows = {"kernel": kernel, "stride": stride, "pads": (*pads, 0, 0), "groups": groups}
    first = full_size("alexnet", 3).layers[0]
    shapes = {"in_shape": in_shape, "conv_shape": conv_shape}
    return replace(first, **{"weight": weight, **windows, **shapes, **fields})


def convolve(codes: np.ndarray, layer: Layer) -> np.ndarray:
    """Naive convolution [N, O, H, W]; rows and columns beyond the map are 0."""
    (top, left), (kh, kw), (sh, sw) = layer.pads[:2], layer.kernel, layer.stride
    far = ((0, 0), (0, 0), (top, kh + sh), (left, kw + sw))
    padded = np.pad(codes, far)
    out = np.zeros((len(codes), *layer.conv_shape), dtype=np.int64)
    for y, x in product(*map(range, layer.conv_shape[1:])):
        window = padded[:, :, y * sh : y * sh + kh, x * sw : x * sw + kw]
        out[:, :, y, x] = np.einsum("nchw,ochw->no", window, layer.weight)
    return out


sizes = st.tuples(st.integers(1, 6), st.integers(1, 4), st.integers(0, 3), st.integers(0, 3))


@given(sizes, sizes, st.integers(1, 4), st.integers(1, 12), st.integers(0, 1000))
@settings(max_examples=80, deadline=None)
def test_every_option_gives_the_same_sums(
    rows: tuple[int, ...], columns: tuple[int, ...], channels: int, extra: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    shape, kernel, stride, pads, outs = [], [], [], [], []
    for k, s, before, after in (rows, columns):
        size = k + extra
        shape.append(size)
        kernel.append(k)
        stride.append(s)
        pads.append(before)
        outs.append((size + before + after - k) // s + 1)
    codes = rng.integers(-512, 512, (2, channels, *shape))
    weight = rng.integers(-8192, 8192, (3, channels, *kernel))
    layer = conv((channels, *shape), (3, *outs), tuple(kernel), tuple(stride), pads, weight=weight)
    expected = convolve(codes, layer)
    options = [axis_options(shape[i], kernel[i], stride[i], 1, pads[i], outs[i]) for i in range(2)]
    for pair in product(*options):
        packed, gather = pack_lanes(layer, *pair)
        found = gather(codes)
        assert found.shape[1:] == gather.packed_shape
        assert np.array_equal(convolve(found, packed), expected)


def test_dilated_and_grouped_layers_stay_as_they_are() -> None:
    assert len(axis_options(20, 3, 2, 2, 0, 8)) == 1
    grouped = conv((8, 20, 20), (8, 9, 9), (3, 3), (2, 2), groups=2)
    rows, columns = choose_packing(grouped, 10, Array(8, 24), 512)
    assert (rows.taps, columns.taps) == (1, 1)


def test_vgg_first_layer_becomes_pointwise() -> None:
    layer = full_size("vgg16", 5).layers[0]
    packed, _ = pack_lanes(layer, *choose_packing(layer, 10, Array(8, 24), 512))
    assert (packed.in_shape[0], packed.kernel) == (27, (1, 1))
    # cheaper than the plain layer although it reads more
    assert int(touched_words(224, 224, 10).sum()) * 4 < 224 * 224 * 9


def test_alexnets_first_kernel_becomes_lanes() -> None:
    layer = full_size("alexnet", 3).layers[0]
    rows, columns = choose_packing(layer, 10, Array(8, 24), 512)
    assert (rows.taps, columns.taps) == (11, 4)
    assert pack_lanes(layer, rows, columns)[0].kernel == (1, 3)
