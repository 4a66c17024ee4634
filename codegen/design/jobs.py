# SPDX-License-Identifier: Apache-2.0
"""Rewrites the layers of a network into convolutions that suit the engine, results unchanged.

The convolution that reads the network's input, where there is but one reader, has its kernel taps
packed into lanes (lanes.py); grouped convolutions are merged until their groups are whole channel
blocks. Operations without weights keep their windows.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from codegen.design.lanes import Conv, apply, choose, make_gather, pack_weight
from codegen.design.layers import INPUT, Layer, Quantizer, Storage
from codegen.design.network import MAX_TABLE_BITS, Network
from codegen.design.numbers import ceil_div
from codegen.design.rows import Job, Source
from formats.packing import BLOCK_CODES, Gather


def knq_tables(network: Network) -> tuple[Quantizer, ...]:
    """The KNQ quantizers in layer order: row i of the rendered tables."""
    found = [layer.quantizer for layer in network.layers if layer.quantizer]
    return tuple(quantizer for quantizer in found if quantizer.scheme == "knq")


def lrn_layers(network: Network) -> tuple[Layer, ...]:
    """The normalisations in layer order: row i of the rendered factors."""
    return tuple(layer for layer in network.layers if layer.lrn)


def make_jobs(
    network: Network,
    simd: int,
    pe: int,
    max_taps: int,
    compact: bool = False,
    pixels: int = 1,
) -> tuple[list[Job], Gather]:
    """One job per layer, and how the host gathers the input.

    Args:
        network: the quantized network.
        simd, pe, pixels: input channels, output channels and pixels a cycle.
        max_taps: largest kernel that the weight buffer can hold.
        compact: take the smallest packed input instead of the fastest.
    """
    readers = sum(layer.inputs.count(INPUT) for layer in network.layers)
    channels, height, width = network.in_shape
    plain = Conv(channels, height, width, 1, height, width, (1, 1), (1, 1), (1, 1), (0, 0))
    gather = make_gather(plain, *choose(plain, network.in_bits, simd, pe, 1, pixels=pixels))
    tables = {id(quantizer): index for index, quantizer in enumerate(knq_tables(network))}
    normalised = [layer.name for layer in lrn_layers(network)]
    jobs: list[Job] = []
    for layer in network.layers:
        conv, weight = merge_groups(layer, simd, pe)
        if layer.weighted and layer.source == INPUT and readers == 1:
            axes = choose(conv, network.in_bits, simd, pe, max_taps, compact, pixels)
            gather = make_gather(conv, *axes)
            conv, weight = apply(conv, *axes), pack_weight(weight, *axes)
        jobs.append(
            Job(
                layer=layer,
                conv=conv,
                weight=weight,
                sources=tuple(_source(network, name, tables) for name in layer.inputs),
                out_table=tables.get(id(layer.quantizer), 0),
                lrn_table=normalised.index(layer.name) if layer.lrn else 0,
                storage=with_zero(layer, conv, weight, simd),
            )
        )
    return jobs, gather


def _source(network: Network, name: str, tables: dict[int, int]) -> Source:
    """How the codes of the feature map called `name` are to be read."""
    quantizer = network.quantizer(name)
    bits = quantizer.bits if quantizer else network.in_bits
    return Source(bits, quantizer, tables.get(id(quantizer), 0))


def merge_groups(layer: Layer, simd: int, pe: int) -> tuple[Conv, np.ndarray]:
    """The layer's convolution with groups of whole channel blocks, and its weights.

    Of all mergers that give whole blocks the one with the fewest steps is taken; one
    group (dense, zeros between the old groups) is always possible, and what the last layer gets.
    """
    groups = layer.groups
    cin, cout = layer.in_shape[0] // groups, layer.conv_shape[0] // groups
    choices = []
    for merged in range(1, groups + 1):
        whole = cin * merged % BLOCK_CODES == 0 and cout * merged % BLOCK_CODES == 0
        if groups % merged or not (merged == groups or (whole and layer.quantizer)):
            continue
        items = layer.kernel[0] * layer.kernel[1] * ceil_div(cin * merged, BLOCK_CODES)
        tiles = groups // merged * ceil_div(cout * merged, pe)
        steps = tiles * ceil_div(items * BLOCK_CODES, simd)
        choices.append((steps, merged))
    merged = min(choices)[1]
    conv = Conv(
        layer.in_shape[0],
        layer.in_shape[1],
        layer.in_shape[2],
        layer.conv_shape[0],
        layer.conv_shape[1],
        layer.conv_shape[2],
        layer.kernel,
        layer.stride,
        layer.dilation,
        layer.pads[:2],
    )
    return replace(conv, groups=groups // merged), spread_weight(layer.weight, groups, merged)


def with_zero(layer: Layer, conv: Conv, weight: np.ndarray, simd: int) -> Storage:
    """How a layer is stored: as it says, but its table has a 0 wherever weights are filled up.

    Channels that do not exist, taps beyond a kernel and the gaps between merged groups need the
    weight 0. A table without it takes one bit more, with 0 among its entries, or where that would
    be too many entries the integers are stored.
    """
    stored, table = layer.stored, layer.stored.table
    if table is None or not layer.weighted or (table == 0).any():
        return stored
    channels, out = conv.channels // conv.groups, conv.out_channels // conv.groups
    filled = channels % simd or (out % BLOCK_CODES and layer.quantizer)
    if not filled and weight.all():
        return stored
    if stored.bits == MAX_TABLE_BITS:
        return Storage(layer.weight_bits, stored.scheme)
    half = 1 << (layer.weight_bits - 1)
    entries = {*table.tolist(), 0}
    spare = [value for value in range(-half, half) if value not in entries]
    entries.update(spare[: (2 << stored.bits) - len(entries)])
    return Storage(stored.bits + 1, stored.scheme, np.array(sorted(entries), np.int32))


def spread_weight(weight: np.ndarray, groups: int, merged: int) -> np.ndarray:
    """Weights after merging `merged` neighbouring groups into one: zeros between the old groups.

    >>> spread_weight(np.array([1, 2, 3, 4]).reshape(4, 1, 1, 1), 2, 2).reshape(4, 2).tolist()
    [[1, 0], [2, 0], [0, 3], [0, 4]]
    """
    if merged == 1:
        return weight
    out, cin = weight.shape[:2]
    wide = np.zeros((out, merged * cin, *weight.shape[2:]), dtype=weight.dtype)
    for group in range(groups):
        rows = slice(group * out // groups, (group + 1) * out // groups)
        first = group % merged * cin
        wide[rows, first : first + cin] = weight[rows]
    return wide
