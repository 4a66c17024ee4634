# SPDX-License-Identifier: Apache-2.0
"""Lane packing never changes the result: the packed convolution equals the original one."""

from __future__ import annotations

from itertools import product

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from codegen.design.lanes import Conv, apply, axis_options, choose, make_gather, pack_weight
from formats.packing import touched_words


def convolve(codes: np.ndarray, weight: np.ndarray, conv: Conv) -> np.ndarray:
    """Naive convolution [N, O, H, W]; rows and columns beyond the map are 0."""
    (top, left), (kh, kw), (sh, sw) = conv.pads, conv.kernel, conv.stride
    far = ((0, 0), (0, 0), (top, kh + sh), (left, kw + sw))
    padded = np.pad(codes, far)
    out = np.zeros((len(codes), len(weight), conv.conv_height, conv.conv_width), dtype=np.int64)
    for y, x in product(range(conv.conv_height), range(conv.conv_width)):
        window = padded[:, :, y * sh : y * sh + kh, x * sw : x * sw + kw]
        out[:, :, y, x] = np.einsum("nchw,ochw->no", window, weight)
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
    conv = Conv(
        channels, shape[0], shape[1], 3, outs[0], outs[1],
        (kernel[0], kernel[1]), (stride[0], stride[1]), (1, 1), (pads[0], pads[1]),
    )  # fmt: skip
    codes = rng.integers(-512, 512, (2, channels, *shape))
    weight = rng.integers(-8192, 8192, (3, channels, *kernel))
    expected = convolve(codes, weight, conv)
    options = [axis_options(shape[i], kernel[i], stride[i], 1, pads[i], outs[i]) for i in range(2)]
    for pair in product(*options):
        packed, gather = apply(conv, *pair), make_gather(conv, *pair)
        found = gather(codes)
        assert found.shape[1:] == gather.packed_shape
        assert np.array_equal(convolve(found, pack_weight(weight, *pair), packed), expected)


def test_dilated_and_grouped_layers_stay_as_they_are() -> None:
    assert len(axis_options(20, 3, 2, 2, 0, 8)) == 1
    grouped = Conv(8, 20, 20, 8, 9, 9, (3, 3), (2, 2), (1, 1), (0, 0), groups=2)
    rows, columns = choose(grouped, 10, 8, 24, 512)
    assert (rows.taps, columns.taps) == (1, 1)


def test_vgg_first_layer_becomes_pointwise() -> None:
    conv = Conv(3, 224, 224, 64, 224, 224, (3, 3), (1, 1), (1, 1), (1, 1))
    packed = apply(conv, *choose(conv, 10, 8, 24, 512))
    assert (packed.channels, packed.kernel) == (27, (1, 1))
    # cheaper than the plain layer although it reads more
    assert int(touched_words(224, 224, 10).sum()) * 4 < 224 * 224 * 9
