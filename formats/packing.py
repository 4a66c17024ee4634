# SPDX-License-Identifier: Apache-2.0
"""Bit packing of feature maps and weights, and lane packing: docs/formats.md sections 3 and 3.1.

Codes go in blocks of 8 channels; a block of T-bit codes is T bytes, code i in bits [i*T, (i+1)*T)
of the little-endian integer. Weights are plain fields in little-endian words. Written for batches
on a small processor, too: a fixed number of array operations per width, none per pixel.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import gcd, prod

import numpy as np

from nuq.formats.arithmetic import BLOCK_CODES

WORD_BITS = 64
WORD_BYTES = 8
CHUNK_FIELDS = 1 << 18  # fields packed at a time: bounds the memory, and stays in the cache


@dataclass(frozen=True)
class Gather:
    """Lane packing: how the host lays out the input; codes outside the map are 0.

    packed[(dy*TX + dx)*C + c][y][x] = code[c][y*SY + dy - PT][x*SX + dx - PL]
    """

    shape: tuple[int, int, int]  # C, H, W of the network's input
    packed_shape: tuple[int, int, int]  # TY*TX*C, rows, columns of what the engine reads
    taps: tuple[int, int]  # TY, TX
    steps: tuple[int, int]  # SY, SX
    pads: tuple[int, int]  # PT, PL

    def __call__(self, codes: np.ndarray) -> np.ndarray:
        """Gather codes [N, C, H, W] into [N, *packed_shape], same dtype.

        >>> row = np.arange(1, 5).reshape(1, 1, 1, 4)
        >>> Gather((1, 1, 4), (2, 1, 3), (1, 2), (1, 2), (0, 1))(row).tolist()
        [[[[0, 2, 4]], [[1, 3, 0]]]]
        """
        if (self.taps, self.steps, self.pads) == ((1, 1), (1, 1), (0, 0)):
            return codes
        count, channels = codes.shape[:2]
        _, rows, columns = self.packed_shape
        extent = [
            (size - 1) * step + tap
            for size, step, tap in zip((rows, columns), self.steps, self.taps, strict=True)
        ]
        canvas = np.zeros((count, channels, *extent), dtype=codes.dtype)
        top, left = self.pads
        part = codes[:, :, : extent[0] - top, : extent[1] - left]
        canvas[:, :, top : top + part.shape[2], left : left + part.shape[3]] = part
        out = np.empty((count, *self.packed_shape), dtype=codes.dtype)
        for index, (dy, dx) in enumerate(product(range(self.taps[0]), range(self.taps[1]))):
            source = canvas[:, :, dy :: self.steps[0], dx :: self.steps[1]]
            out[:, index * channels : (index + 1) * channels] = source[:, :, :rows, :columns]
        return out


def plane_words(height: int, width: int, bits: int) -> int:
    """64-bit words of one plane of 8 channels.

    >>> plane_words(13, 13, 3), plane_words(1, 1, 16)
    (64, 2)
    """
    return -(-height * width * bits // WORD_BYTES)


def touched_words(rows: int, width: int, bits: int) -> np.ndarray:
    """int64 [rows]: words that hold at least one byte of each row of a plane.

    >>> touched_words(3, 13, 3).tolist()
    [5, 6, 6]
    """
    offset = np.arange(rows, dtype=np.int64) * (width * bits) % WORD_BYTES
    return (offset + width * bits - 1) // WORD_BYTES + 1


def pack_maps(codes: np.ndarray, bits: int, phantom: int = 0) -> np.ndarray:
    """Pack feature maps.

    Args:
        codes: integers [N, C, H, W] of `bits` bits, two's complement where negative.
        bits: T, 1..16.
        phantom: the code that fills the channels missing from the last block of 8.

    Returns:
        uint8 [N, bytes]: ceil(C/8) planes of ceil(H*W*T/64) words for each map.

    >>> pack_maps(np.array([1, 2, 3, 4, 5, 6, 7, 0]).reshape(1, 8, 1, 1), 3)[0].tobytes().hex()
    'd1581f0000000000'
    >>> pack_maps(np.array([-1, 2]).reshape(1, 1, 1, 2), 10)[0].tobytes().hex()[:24]
    'ff0300000000000000000200'
    """
    if not 1 <= bits <= 16:
        raise ValueError(f"bits must be 1..16, not {bits}")
    count, channels, height, width = codes.shape
    planes = -(-channels // BLOCK_CODES)
    pixels = height * width
    mask = (1 << bits) - 1
    size = plane_words(height, width, bits) * WORD_BYTES
    out = np.zeros((count, planes, size), dtype=np.uint8)
    blocks = out[:, :, : pixels * bits].reshape(count, planes, pixels, bits)
    for channel in range(planes * BLOCK_CODES if phantom else channels):
        plane, lane = divmod(channel, BLOCK_CODES)
        if channel < channels:
            field = codes[:, channel].reshape(count, pixels).astype(np.int32) & mask
        else:
            field = np.full((count, pixels), phantom & mask, dtype=np.int32)
        first, offset = divmod(lane * bits, 8)
        field <<= offset
        for index in range(first, (lane * bits + bits - 1) // 8 + 1):
            blocks[:, plane, :, index] |= (field & 0xFF).astype(np.uint8)
            field >>= 8
    return out.reshape(count, planes * size)


def unpack_maps(data: np.ndarray, shape: tuple[int, int, int], bits: int) -> np.ndarray:
    """uint16 [N, *shape] of uint8 [N, bytes]: the inverse of pack_maps, codes without their sign.

    >>> codes = np.arange(24).reshape(1, 12, 1, 2) % 8
    >>> bool((unpack_maps(pack_maps(codes, 3), (12, 1, 2), 3) == codes).all())
    True
    """
    channels, height, width = shape
    count, pixels = data.shape[0], height * width
    stored = data.reshape(count, -1, plane_words(height, width, bits) * WORD_BYTES)
    blocks = stored[:, :, : pixels * bits].reshape(count, -1, pixels, bits)
    out = np.empty((count, channels, pixels), dtype=np.uint16)
    for channel in range(channels):
        plane, lane = divmod(channel, BLOCK_CODES)
        first, offset = divmod(lane * bits, 8)
        field = np.zeros((count, pixels), dtype=np.uint32)
        for place, index in enumerate(range(first, (lane * bits + bits - 1) // 8 + 1)):
            field |= blocks[:, plane, :, index].astype(np.uint32) << np.uint32(8 * place)
        out[:, channel] = (field >> np.uint32(offset)) & np.uint32((1 << bits) - 1)
    return out.reshape(count, *shape)


def unpack_raw(words: np.ndarray, shapes: Sequence[tuple[int, int, int]]) -> list[np.ndarray]:
    """Raw accumulators of heads: int64 [N, C, H, W] each.

    Args:
        words: 64-bit words, [N, ...]; of an image [H][W][C] head after head.
        shapes: [C, H, W] of the heads.

    >>> unpack_raw(np.arange(6)[None], [(2, 1, 2), (2, 1, 1)])[0].tolist()
    [[[[0, 2]], [[1, 3]]]]
    """
    ends = np.cumsum([prod(shape) for shape in shapes])
    parts = np.split(words.view("<i8").reshape(len(words), ends[-1]), ends[:-1], axis=1)
    return [
        part.reshape(-1, height, width, channels).transpose(0, 3, 1, 2)
        for part, (channels, height, width) in zip(parts, shapes, strict=True)
    ]


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
    out = np.empty(-(-flat.size * width // WORD_BITS), dtype="<u8")
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
    periods = -(-values.size // fields)
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
