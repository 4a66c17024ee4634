# SPDX-License-Identifier: Apache-2.0
"""Lane packing never changes the result: the packed convolution equals the original one."""

from dataclasses import replace
from itertools import product

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from nuq.codegen.design.array import Array
from nuq.codegen.design.lowering import axis_options, choose_packing, pack_lanes
from nuq.formats.network import Layer
from nuq.formats.packing import touched_words
from tests.naive import convolve
from tests.networks import full_size


def conv(in_shape, conv_shape, kernel, stride=(1, 1), pads=(0, 0, 0, 0), **fields) -> Layer:
    """A convolution, the fields that are not given as in AlexNet's first."""
    windows = {"kernel": kernel, "stride": stride, "pads": pads}
    first = full_size("alexnet").layers[0]
    return replace(first, in_shape=in_shape, conv_shape=conv_shape, **windows, **fields)


sizes = st.tuples(st.integers(1, 6), st.integers(1, 4), st.integers(0, 3), st.integers(0, 3))


@given(sizes, sizes, st.integers(1, 4), st.integers(1, 12), st.integers(0, 1000))
@settings(max_examples=80, deadline=None)
def test_every_option_gives_the_same_sums(
    rows: tuple[int, ...], columns: tuple[int, ...], channels: int, extra: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    kernel, stride, before, after = zip(rows, columns, strict=True)
    shape = tuple(k + extra for k in kernel)
    outs = tuple((extra + b + a) // s + 1 for s, b, a in zip(stride, before, after, strict=True))
    codes = rng.integers(-512, 512, (2, channels, *shape))
    weight = rng.integers(-8192, 8192, (3, channels, *kernel))
    pads = (*before, *after)
    layer = conv((channels, *shape), (3, *outs), kernel, stride, pads, weight=weight)
    expected = convolve(codes, weight, layer)
    for pair in product(axis_options(layer, 0), axis_options(layer, 1)):
        packed, gather = pack_lanes(layer, *pair)
        found = gather(codes)
        assert found.shape[1:] == gather.packed_shape
        # behind the map as many zeros as its windows reach
        sums = convolve(found, packed.weight, replace(packed, pads=(*packed.pads[:2], *after)))
        assert np.array_equal(sums[:, :, : outs[0], : outs[1]], expected)


def test_dilated_and_grouped_layers_stay_as_they_are() -> None:
    dilated = conv((8, 20, 20), (8, 8, 8), (3, 3), (2, 2), dilation=(2, 2))
    assert len(axis_options(dilated, 0)) == len(axis_options(dilated, 1)) == 1
    grouped = conv((8, 20, 20), (8, 9, 9), (3, 3), (2, 2), groups=2)
    rows, columns = choose_packing(grouped, 10, Array(8, 24), 512)
    assert (rows.taps, columns.taps) == (1, 1)


def test_vgg_first_layer_becomes_pointwise() -> None:
    layer = full_size("vgg16").layers[0]
    packed, _ = pack_lanes(layer, *choose_packing(layer, 10, Array(8, 24), 512))
    assert (packed.in_shape[0], packed.kernel) == (27, (1, 1))
    # cheaper than the plain layer although it reads more
    assert int(touched_words(224, 224, 10).sum()) * 4 < 224 * 224 * 9


def test_alexnets_first_kernel_becomes_lanes() -> None:
    layer = full_size("alexnet").layers[0]
    options = [(axis.taps, axis.step, axis.kernel, axis.size) for axis in axis_options(layer, 0)]
    assert options == [(1, 1, 11, 224), (4, 4, 3, 57), (11, 4, 1, 55)]
    rows, columns = choose_packing(layer, 10, Array(8, 24), 512)
    assert (rows.taps, columns.taps) == (11, 4)
    assert pack_lanes(layer, rows, columns)[0].kernel == (1, 3)
