# SPDX-License-Identifier: Apache-2.0
"""Bit packing: round trips at every width, and against Python's unbounded integers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codegen.emit.packing import (
    CHUNK_FIELDS,
    pack_feature_map,
    pack_fields,
    touched_words,
    unpack_feature_map,
    unpack_fields,
)


@given(st.integers(1, 64), st.lists(st.integers(-(1 << 62), 1 << 62), max_size=200))
def test_fields_are_one_little_endian_integer(width: int, values: list[int]) -> None:
    number = sum((value & ((1 << width) - 1)) << (i * width) for i, value in enumerate(values))
    size = -(-len(values) * width // 64) * 8
    packed = pack_fields(np.array(values, dtype=np.int64), width)
    assert packed.tobytes() == number.to_bytes(size, "little")


@given(st.integers(1, 32), st.integers(0, 150), st.integers(0, 2**31))
def test_fields_come_back(width: int, count: int, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 1 << width, count)
    packed = pack_fields(values, width)
    if count:
        assert unpack_fields(packed, width, count).tolist() == values.tolist()


def test_fields_beyond_one_chunk() -> None:
    values = np.random.default_rng(3).integers(-8192, 8192, CHUNK_FIELDS + 333).astype(np.int16)
    found = unpack_fields(pack_fields(values, 14), 14, values.size).astype(np.int64)
    assert np.array_equal((found ^ 8192) - 8192, values)


@given(
    st.integers(1, 16), st.integers(1, 20), st.integers(1, 6), st.integers(1, 7), st.integers(0, 99)
)
def test_feature_maps_come_back(bits: int, channels: int, height: int, width: int, seed: int):
    codes = np.random.default_rng(seed).integers(0, 1 << bits, (channels, height, width))
    data = pack_feature_map(codes, bits)
    assert np.array_equal(unpack_feature_map(data, codes.shape, bits), codes)
    # NB/8, less than 8 bytes of padding a plane, phantom channels of the last plane
    planes = -(-channels // 8)
    assert 0 <= len(data) - planes * height * width * bits < 8 * planes


def test_example_of_the_format_page() -> None:
    codes = np.array([1, 2, 3, 4, 5, 6, 7, 0]).reshape(8, 1, 1)
    assert pack_feature_map(codes, 3)[:3] == bytes.fromhex("d1581f")


def test_phantom_channels_hold_the_given_code() -> None:
    data = pack_feature_map(np.full((9, 1, 1), 2), 4, phantom=5)
    assert unpack_feature_map(data, (16, 1, 1), 4)[:, 0, 0].tolist() == [2] * 9 + [5] * 7


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
        pack_feature_map(np.zeros((1, 1, 1), int), bits)
