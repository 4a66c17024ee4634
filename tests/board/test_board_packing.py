# SPDX-License-Identifier: Apache-2.0
"""The driver's packing against the code generator's, which shares no code with it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from board.packing import gather, pack_maps, plane_bytes, unpack_maps
from codegen.design.lanes import Gather
from codegen.emit.packing import pack_feature_map, plane_words, unpack_feature_map

sizes = st.tuples(st.integers(1, 19), st.integers(1, 6), st.integers(1, 7))


@settings(deadline=None, max_examples=60)
@given(bits=st.integers(1, 16), shape=sizes, seed=st.integers(0, 99), signed=st.booleans())
def test_packed_maps_are_those_of_the_code_generator(bits, shape, seed, signed):
    low = -(1 << bits - 1) if signed else 0
    codes = np.random.default_rng(seed).integers(low, low + (1 << bits), (3, *shape))
    packed = pack_maps(codes, bits)
    for image, data in zip(codes, packed, strict=True):
        assert data.tobytes() == pack_feature_map(image, bits)
        found = unpack_maps(data[None], shape, bits)[0]
        assert (found == unpack_feature_map(data.tobytes(), shape, bits)).all()
    assert plane_bytes(*shape[1:], bits) == 8 * plane_words(*shape[1:], bits)


@settings(deadline=None, max_examples=60)
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(4, 12), st.integers(4, 12)),
    taps=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    steps=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    pads=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
)
def test_lane_packing_is_that_of_the_code_generator(shape, taps, steps, pads, size):
    # The planner never makes a packed map that starts beyond its padding.
    extent = [(n - 1) * step + tap for n, step, tap in zip(size, steps, taps, strict=True)]
    if extent[0] <= pads[0] or extent[1] <= pads[1]:
        return
    packed_shape = (shape[0] * taps[0] * taps[1], *size)
    if (taps, steps, pads) == ((1, 1), (1, 1), (0, 0)):
        packed_shape = shape
    codes = np.random.default_rng(1).integers(-99, 99, (2, *shape)).astype(np.int16)
    expected = Gather(shape, packed_shape, taps, steps, pads)(codes)
    assert (gather(codes, taps, steps, pads, packed_shape) == expected).all()


@pytest.mark.parametrize("bits", range(1, 17))
def test_codes_beyond_the_channels_are_zero(bits):
    ones = np.full((1, 3, 2, 2), (1 << bits) - 1)
    fields = unpack_maps(pack_maps(ones, bits), (8, 2, 2), bits)
    assert (fields[0, :3] == (1 << bits) - 1).all()
    assert (fields[0, 3:] == 0).all()
