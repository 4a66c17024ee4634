# SPDX-License-Identifier: Apache-2.0
"""Feature maps to packed words and back, docs/formats.md sections 2.1, 3 and 3.1.

Written for batches on a small processor: a fixed number of array operations per width, none per
pixel.
"""

from __future__ import annotations

from itertools import product

import numpy as np

BLOCK_CODES = 8
WORD_BYTES = 8


def look_up(table: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Input codes int16 [N, C, H, W] of pixels uint8 [N, C, H, W]: code = table[c][pixel].

    >>> table = np.arange(256, dtype=np.int16)[None] - 128
    >>> look_up(table, np.array([[[[0, 255]]]], dtype=np.uint8)).tolist()
    [[[[-128, 127]]]]
    """
    codes = np.empty(images.shape, dtype=np.int16)
    for channel, row in enumerate(table):
        np.take(row, images[:, channel], out=codes[:, channel])
    return codes


def gather(
    codes: np.ndarray,
    taps: tuple[int, int],
    steps: tuple[int, int],
    pads: tuple[int, int],
    packed_shape: tuple[int, int, int],
) -> np.ndarray:
    """Lane packing: [N, C, H, W] to [N, *packed_shape], 0 outside the map.

    packed[(dy*TX + dx)*C + c][y][x] = code[c][y*SY + dy - PT][x*SX + dx - PL]

    >>> row = np.arange(1, 5).reshape(1, 1, 1, 4)
    >>> gather(row, (1, 2), (1, 2), (0, 1), (2, 1, 3)).tolist()
    [[[[0, 2, 4]], [[1, 3, 0]]]]
    """
    count, channels, height, width = codes.shape
    if (taps, steps, pads) == ((1, 1), (1, 1), (0, 0)):
        return codes
    _, rows, columns = packed_shape
    extent = [
        (size - 1) * step + tap
        for size, step, tap in zip((rows, columns), steps, taps, strict=True)
    ]
    top, left = pads
    canvas = np.zeros((count, channels, *extent), dtype=codes.dtype)
    part = codes[:, :, : extent[0] - top, : extent[1] - left]
    canvas[:, :, top : top + part.shape[2], left : left + part.shape[3]] = part
    out = np.empty((count, *packed_shape), dtype=codes.dtype)
    for index, (dy, dx) in enumerate(product(range(taps[0]), range(taps[1]))):
        source = canvas[:, :, dy :: steps[0], dx :: steps[1]]
        out[:, index * channels : (index + 1) * channels] = source[:, :, :rows, :columns]
    return out


def plane_bytes(height: int, width: int, bits: int) -> int:
    """Bytes of a plane of 8 channels, padding included.

    >>> plane_bytes(13, 13, 3), plane_bytes(1, 1, 16)
    (512, 16)
    """
    return -(-height * width * bits // WORD_BYTES) * WORD_BYTES


def pack_maps(codes: np.ndarray, bits: int) -> np.ndarray:
    """Pack feature maps.

    Args:
        codes: integers [N, C, H, W] of `bits` bits, two's complement where negative.
        bits: T, 1..16.

    Returns:
        uint8 [N, bytes]; channels missing from the last block of 8 are the code 0.

    >>> pack_maps(np.array([1, 2, 3, 4, 5, 6, 7, 0]).reshape(1, 8, 1, 1), 3)[0].tobytes().hex()
    'd1581f0000000000'
    >>> pack_maps(np.array([-1, 2]).reshape(1, 1, 1, 2), 10)[0].tobytes().hex()[:24]
    'ff0300000000000000000200'
    """
    count, channels, height, width = codes.shape
    planes = -(-channels // BLOCK_CODES)
    pixels = height * width
    mask = (1 << bits) - 1
    out = np.zeros((count, planes, plane_bytes(height, width, bits)), dtype=np.uint8)
    blocks = out[:, :, : pixels * bits].reshape(count, planes, pixels, bits)
    for channel in range(channels):
        plane, lane = divmod(channel, BLOCK_CODES)
        field = codes[:, channel].reshape(count, pixels).astype(np.int32) & mask
        first, offset = divmod(lane * bits, 8)
        field <<= offset
        for index in range(first, (lane * bits + bits - 1) // 8 + 1):
            blocks[:, plane, :, index] |= (field & 0xFF).astype(np.uint8)
            field >>= 8
    return out.reshape(count, planes * out.shape[2])


def unpack_maps(data: np.ndarray, shape: tuple[int, int, int], bits: int) -> np.ndarray:
    """uint16 [N, *shape]: the inverse of pack_maps, codes without their sign.

    >>> codes = np.arange(24).reshape(1, 12, 1, 2) % 8
    >>> bool((unpack_maps(pack_maps(codes, 3), (12, 1, 2), 3) == codes).all())
    True
    """
    channels, height, width = shape
    count, pixels = data.shape[0], height * width
    planes = -(-channels // BLOCK_CODES)
    stored = data.reshape(count, planes, plane_bytes(height, width, bits))
    blocks = stored[:, :, : pixels * bits].reshape(count, planes, pixels, bits)
    out = np.empty((count, channels, pixels), dtype=np.uint16)
    for channel in range(channels):
        plane, lane = divmod(channel, BLOCK_CODES)
        first, offset = divmod(lane * bits, 8)
        field = np.zeros((count, pixels), dtype=np.uint32)
        for place, index in enumerate(range(first, (lane * bits + bits - 1) // 8 + 1)):
            field |= blocks[:, plane, :, index].astype(np.uint32) << np.uint32(8 * place)
        out[:, channel] = (field >> np.uint32(offset)) & np.uint32((1 << bits) - 1)
    return out.reshape(count, *shape)
