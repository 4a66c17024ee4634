# SPDX-License-Identifier: Apache-2.0
"""Bit packing against Python's unbounded integers, and lane packing against its formula."""

from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nuq.formats.packing import (
    CHUNK_FIELDS,
    Gather,
    pack_fields,
    pack_maps,
    plane_words,
    touched_words,
    unpack_maps,
)


def one_integer(values: list[int], width: int, size: int) -> bytes:
    """The fields as one little-endian integer of `size` bytes."""
    number = sum((value & ((1 << width) - 1)) << (i * width) for i, value in enumerate(values))
    return number.to_bytes(size, "little")


@given(st.integers(1, 64), st.lists(st.integers(-(1 << 62), 1 << 62), max_size=200))
def test_fields_are_one_little_endian_integer(width: int, values: list[int]) -> None:
    packed = pack_fields(np.array(values, dtype=np.int64), width)
    assert packed.tobytes() == one_integer(values, width, -(-len(values) * width // 64) * 8)


def test_fields_beyond_one_chunk() -> None:
    values = np.random.default_rng(3).integers(-8192, 8192, CHUNK_FIELDS + 333).astype(np.int16)
    packed = pack_fields(values, 14)
    bits = np.unpackbits(packed.view(np.uint8), bitorder="little")[: 14 * values.size]
    found = bits.reshape(-1, 14).astype(np.int64) @ (1 << np.arange(14))
    assert np.array_equal((found ^ 8192) - 8192, values)
    assert packed.size == -(-values.size * 14 // 64)


@settings(deadline=None, max_examples=200)
@given(
    bits=st.integers(1, 16), shape=st.tuples(*[st.integers(1, top) for top in (20, 6, 7)]),
    seed=st.integers(0, 99), signed=st.booleans(), phantom=st.integers(0, 65535),
)  # fmt: skip
def test_maps_are_planes_of_little_endian_integers(bits, shape, seed, signed, phantom) -> None:
    low, levels = -(1 << bits - 1) if signed else 0, 1 << bits
    codes = np.random.default_rng(seed).integers(low, low + levels, (3, *shape))
    phantom %= levels
    packed = pack_maps(codes, bits, phantom)
    planes, (_, height, width) = -(-shape[0] // 8), shape
    full = np.full((3, planes * 8, height, width), phantom)
    full[:, : shape[0]] = codes
    for image, data in zip(full, packed, strict=True):
        size = len(data) // planes
        assert size == 8 * plane_words(height, width, bits)
        assert 0 <= size - height * width * bits < 8  # of padding
        for plane, part in zip(image.reshape(planes, 8, -1), data.reshape(planes, -1), strict=True):
            assert part.tobytes() == one_integer(plane.T.reshape(-1).tolist(), bits, size)
    assert np.array_equal(unpack_maps(packed, shape, bits), codes % levels)
    assert np.array_equal(unpack_maps(packed, full.shape[1:], bits), full % levels)


@settings(deadline=None, max_examples=60)
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(4, 12), st.integers(4, 12)),
    taps=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    steps=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    pads=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
)
def test_gather_is_the_documented_formula(shape, taps, steps, pads, size) -> None:
    # The planner never makes a packed map that starts beyond its padding.
    extent = [(n - 1) * step + tap for n, step, tap in zip(size, steps, taps, strict=True)]
    assume(extent[0] > pads[0] and extent[1] > pads[1])
    channels, height, width = shape
    if (taps, steps, pads) == ((1, 1), (1, 1), (0, 0)):
        size = (height, width)
    codes = np.random.default_rng(1).integers(-99, 99, (2, *shape)).astype(np.int16)
    packed = Gather(shape, (channels * taps[0] * taps[1], *size), taps, steps, pads)(codes)
    assert packed.dtype == np.int16
    for dy, dx, y, x in product(*map(range, (*taps, *size))):
        row, column = y * steps[0] + dy - pads[0], x * steps[1] + dx - pads[1]
        inside = 0 <= row < height and 0 <= column < width
        expected = codes[:, :, row, column] if inside else np.zeros((2, channels), np.int16)
        first = (dy * taps[1] + dx) * channels
        assert np.array_equal(packed[:, first : first + channels, y, x], expected)


@given(st.integers(1, 9), st.integers(1, 40), st.integers(1, 16))
def test_touched_words_cover_each_row(rows: int, width: int, bits: int) -> None:
    expected = []
    for y in range(rows):
        row = range(y * width * bits, (y + 1) * width * bits)
        expected.append(len({byte // 8 for byte in row}))
    assert touched_words(rows, width, bits).tolist() == expected


@pytest.mark.parametrize("bits", [0, 17])
def test_width_out_of_range(bits: int) -> None:
    with pytest.raises(ValueError, match=r"^bits must be 1\.\.16, not "):
        pack_maps(np.zeros((1, 1, 1, 1), int), bits)
