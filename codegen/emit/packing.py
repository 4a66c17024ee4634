# SPDX-License-Identifier: Apache-2.0
"""Bit packing of feature maps and weights, docs/formats.md section 3 (design: packed feature maps).

Codes go in blocks of 8 channels; a block of T-bit codes is T bytes, code i in bits [i*T, (i+1)*T)
of the little-endian integer. Weights are plain fields in little-endian words.
"""

from __future__ import annotations

from math import gcd

import numpy as np

from codegen.design.numbers import ceil_div

WORD_BITS = 64
WORD_BYTES = 8
BLOCK_CODES = 8
CHUNK_FIELDS = 1 << 18  # fields packed at a time: bounds the memory, and stays in the cache


def plane_words(height: int, width: int, bits: int) -> int:
    """64-bit words of one plane of 8 channels.

    >>> plane_words(13, 13, 3), plane_words(1, 1, 16)
    (64, 2)
    """
    return ceil_div(height * width * bits, WORD_BYTES)


def touched_words(rows: int, width: int, bits: int) -> np.ndarray:
    """int64 [rows]: words that hold at least one byte of each row of a plane.

    >>> touched_words(3, 13, 3).tolist()
    [5, 6, 6]
    """
    offset = np.arange(rows, dtype=np.int64) * (width * bits) % WORD_BYTES
    return (offset + width * bits - 1) // WORD_BYTES + 1


def pack_fields(values: np.ndarray, width: int) -> np.ndarray:
    """Pack integers to `width` bits each, the first one in the lowest bits.

    Args:
        values: integers, any shape, taken in row-major order; two's complement where negative.
        width: bits of a field, 1..64.

    Returns:
        uint64 [ceil(n*width/64)]; bits after the last field are 0.

    >>> [hex(word) for word in pack_fields(np.array([1, -1, 2]), 14).tolist()]
    ['0x2fffc001']
    >>> [hex(word) for word in pack_fields(np.ones(7, int), 10).tolist()]  # the last from bit 60
    ['0x1004010040100401', '0x0']
    """
    if not 1 <= width <= WORD_BITS:
        raise ValueError(f"width must be 1..64, not {width}")
    flat = values.reshape(-1)
    out = np.empty(ceil_div(flat.size * width, WORD_BITS), dtype="<u8")
    step = CHUNK_FIELDS  # a multiple of 64 fields, so a chunk ends on a word boundary
    for start in range(0, flat.size, step):
        words = _pack_chunk(flat[start : start + step], width)
        first = start * width // WORD_BITS
        out[first : first + words.size] = words[: out.size - first]
    return out


def _pack_chunk(values: np.ndarray, width: int) -> np.ndarray:
    """Pack at most CHUNK_FIELDS fields; a period of 64/gcd fields fills whole words."""
    fields = WORD_BITS // gcd(width, WORD_BITS)
    words = fields * width // WORD_BITS
    periods = ceil_div(values.size, fields)
    lanes = np.zeros((fields, periods), dtype=np.uint64)
    padded = values
    if periods * fields != values.size:
        padded = np.zeros(periods * fields, dtype=values.dtype)
        padded[: values.size] = values
    lanes[:] = padded.reshape(periods, fields).T.astype(np.int64).view(np.uint64)
    if width < WORD_BITS:
        lanes &= np.uint64((1 << width) - 1)
    packed = np.zeros((words, periods), dtype=np.uint64)
    for i in range(fields):
        word, offset = divmod(i * width, WORD_BITS)
        packed[word] |= lanes[i] << np.uint64(offset)
        if offset + width > WORD_BITS:
            packed[word + 1] |= lanes[i] >> np.uint64(WORD_BITS - offset)
    return packed.T.reshape(-1)


def unpack_fields(words: np.ndarray, width: int, count: int) -> np.ndarray:
    """uint64 [count]: the inverse of pack_fields, without sign.

    >>> unpack_fields(pack_fields(np.array([5, 0, 7, 3]), 3), 3, 4).tolist()
    [5, 0, 7, 3]
    """
    position = np.arange(count, dtype=np.int64) * width
    word, offset = position // WORD_BITS, (position % WORD_BITS).astype(np.uint64)
    low = words[word] >> offset
    spill = offset + np.uint64(width) > WORD_BITS
    following = words[np.minimum(word + 1, words.size - 1)]
    high = np.where(spill, following << ((np.uint64(WORD_BITS) - offset) % np.uint64(64)), 0)
    mask = np.uint64((1 << width) - 1)
    return (low | high.astype(np.uint64)) & mask


def pack_feature_map(codes: np.ndarray, bits: int, phantom: int = 0) -> bytes:
    """Pack one feature map.

    Args:
        codes: integers [C, H, W] of `bits` bits, two's complement where negative.
        bits: T, 1..16.
        phantom: the code that fills the channels missing from the last plane.

    Returns:
        ceil(C/8) planes of ceil(H*W*T/64) words each.

    >>> codes = np.arange(8).reshape(8, 1, 1)
    >>> pack_feature_map(codes, 3).hex()  # 0o76543210 in 3 bytes, then padding to 8
    '88c6fa0000000000'
    >>> pack_feature_map(np.array([[[1, 2]]]), 16).hex()[:36]
    '010000000000000000000000000000000200'
    """
    if not 1 <= bits <= 16:
        raise ValueError(f"bits must be 1..16, not {bits}")
    channels, height, width = codes.shape
    planes = ceil_div(channels, BLOCK_CODES)
    full = np.full((planes * BLOCK_CODES, height * width), phantom, dtype=np.int64)
    full[:channels] = codes.reshape(channels, -1)
    # [plane][8][pixel] -> [plane][pixel][8]: fields in storage order
    fields = full.reshape(planes, BLOCK_CODES, -1).transpose(0, 2, 1)
    return b"".join(pack_fields(plane, bits).tobytes() for plane in fields)


def unpack_feature_map(data: bytes, shape: tuple[int, int, int], bits: int) -> np.ndarray:
    """uint16 [C, H, W]: the inverse of pack_feature_map, phantom channels dropped.

    >>> unpack_feature_map(pack_feature_map(np.array([[[5]], [[6]]]), 3), (2, 1, 1), 3).tolist()
    [[[5]], [[6]]]
    """
    channels, height, width = shape
    planes = ceil_div(channels, BLOCK_CODES)
    words = np.frombuffer(data, dtype="<u8").reshape(planes, plane_words(height, width, bits))
    count = height * width * BLOCK_CODES
    codes = np.stack([unpack_fields(row, bits, count) for row in words])
    blocks = codes.reshape(planes, height, width, BLOCK_CODES).transpose(0, 3, 1, 2)
    return blocks.reshape(-1, height, width)[:channels].astype(np.uint16)
