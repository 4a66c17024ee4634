# SPDX-License-Identifier: Apache-2.0
"""Layers whose pixels are stored at several places (docs/formats.md 2.10): fields and tiles."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from nuq.formats.arithmetic import BLOCK_CODES, ceil_div
from nuq.formats.errors import UserError
from nuq.formats.network import Layer
from nuq.formats.packing import WORD_BYTES


def place_fields(layer: Layer) -> dict[str, int]:
    """Fields of where a layer's pixels are stored."""
    (rows, columns), shuffle, interleave = (1, 1), False, 1
    if layer.upscale:
        (rows, columns), shuffle = layer.upscale.factor, layer.upscale.shuffle
        interleave = layer.groups if shuffle else 1  # see `split_places`
    return {
        "places_h": rows // interleave,
        "places_w": columns,
        "apart": int(shuffle),
        "interleave": interleave,
    }


def split_places(layer: Layer, tile: int) -> Layer | None:
    """A convolution that shuffles, with its output channels in the order in which they are stored.

    A tile has whole output planes, each with 8 channels for every place that the tile stores; what
    is left of its lanes computes zeros. Either it has all places; or, where rows are whole words,
    those of one row, and there is a group of tiles for each place down. None where a tile of so
    many channels is too small for either.
    """
    ways = [(len(order), groups, order) for groups, order in _orders(layer, tile)]
    if not ways:
        return None
    _, groups, order = min(ways, key=lambda way: way[:2])
    return replace(
        layer,
        groups=groups,
        conv_shape=(len(order), *layer.conv_shape[1:]),
        weight=_taken(layer.weight, order),
        bias=_taken(layer.bias, order),
        weight_scale=None if layer.weight_scale is None else _taken(layer.weight_scale, order),
    )


def check_places(layer: Layer, tile: int) -> None:
    """UserError where a tile of so many channels is too small for a layer that shuffles."""
    if layer.upscale and layer.upscale.shuffle and not any(_orders(layer, tile)):
        rows, columns = layer.upscale.factor
        raise UserError(
            f"layer {layer.name}: PE must be {rows * columns * BLOCK_CODES} or more to store its "
            f"channels at {rows}x{columns} places, or {columns * BLOCK_CODES} or more where rows "
            f"of its output are whole 64-bit words, as those of BITS=8 are, not {tile}; use a "
            "larger PE"
        )


def _orders(layer: Layer, tile: int) -> Iterator[tuple[int, np.ndarray]]:
    """The ways to split a layer: (groups of tiles, channel of every lane, -1 for none)."""
    if layer.upscale is None or layer.quantizer is None:
        return
    (rows, columns), channels = layer.upscale.factor, layer.out_shape[0]
    planes = ceil_div(channels, BLOCK_CODES)
    words = columns * layer.pooled_size[1] * layer.quantizer.bits % WORD_BYTES == 0
    for groups in (1, rows) if words and rows > 1 else (1,):
        places = rows // groups * columns
        together = tile // BLOCK_CODES // places  # planes of a tile
        if not together:
            continue
        tiles = ceil_div(planes, together)
        plane = np.arange(tiles * together)[:, None, None] * BLOCK_CODES
        channel = plane + np.arange(BLOCK_CODES)  # [planes, place, 8]
        place = np.arange(groups * places).reshape(groups, 1, places, 1) * channels
        order = np.where(channel < channels, place + channel, -1)
        full = np.full((groups, tiles, tile), -1)
        full[..., : together * places * BLOCK_CODES] = order.reshape(groups, tiles, -1)
        yield groups, full.reshape(-1)


def _taken(values: np.ndarray, order: np.ndarray) -> np.ndarray:
    """values[order], 0 where that is -1."""
    found = values[order]
    found[order < 0] = 0
    return found
