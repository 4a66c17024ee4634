# SPDX-License-Identifier: Apache-2.0
"""Rewrites the layers of a network into convolutions that suit the engine, results unchanged.

The convolution that reads the network's input, where there is but one reader, has its kernel taps
packed into lanes: per axis, taps become channels, none, `stride` of them (space-to-depth) or all.
The host gathers the input accordingly. Grouped convolutions are merged until their groups are whole
channel blocks. Operations without weights keep their windows. Each layer then is a row of the layer
table, before it is cut into chunks and placed in memory.
"""

from dataclasses import dataclass, replace
from itertools import product, repeat
from math import prod

import numpy as np

from nuq.codegen.design.array import WEIGHT_PORTS, Array
from nuq.codegen.design.places import check_places, place_fields, split_places
from nuq.codegen.design.rows import Operation, Row, Scheme, tile_planes
from nuq.formats.arithmetic import BLOCK_CODES, MAX_INDEX_BITS, Window, ceil_div
from nuq.formats.errors import UserError
from nuq.formats.network import Layer, Network, Storage
from nuq.formats.packing import Gather, plane_words, touched_words
from nuq.formats.quantizer import Quantizer
from nuq.formats.rules import INPUT

NO_POOL = Window((1, 1), (1, 1), (0, 0, 0, 0))


@dataclass(frozen=True)
class Lowered:
    """A network as an array runs it."""

    network: Network  # with the layers as they were
    array: Array
    layers: tuple[Layer, ...]  # after lane packing and merging of groups, stored with a 0
    paired: tuple[bool, ...]  # of each layer: whether its output channels can share multipliers
    depthwise: tuple[bool, ...]  # of each layer: whether its lanes are channels
    gather: Gather  # how the host lays out the input
    widths: tuple[int, ...] = ()  # at which weights can be stored; none: at any

    def rows(self) -> list[Row]:
        """A row for each layer; what depends on chunks and addresses is 0.

        UserError where the words of a row of weights do not divide by the weight ports, or a tile
        has no room for the neighbours of a normalisation or the places of a pixel.
        """
        modes = zip(self.layers, self.network.layers, self.paired, self.depthwise, strict=True)
        rows = []
        for layer, original, paired, depthwise in modes:
            row = self._row(layer, original, paired)
            rows.append(replace(row, **channel_fields(layer)) if depthwise else row)
        return rows

    def source(self, name: str) -> Quantizer:
        """How the codes of a feature map are read."""
        return source(self.network, name)

    def _row(self, layer: Layer, original: Layer, paired: bool) -> Row:
        (_, in_height, in_width), quantizer = layer.in_shape, layer.quantizer
        (out_height, out_width), pool = layer.pooled_size, layer.pool or NO_POOL
        channels = original.out_shape[0]
        shuffles = bool(layer.upscale and layer.upscale.shuffle)
        per_group = channels if shuffles else channels // layer.groups
        return Row(
            in_height=in_height,
            in_width=in_width,
            rows_used=rows_used(layer),
            **_sides("kernel", layer.kernel),
            **_sides("stride", layer.stride),
            **_sides("dilation", layer.dilation),
            pad_top=layer.pads[0],
            pad_left=layer.pads[1],
            conv_height=layer.conv_shape[1],
            conv_width=layer.conv_shape[2],
            conv_groups=layer.groups,
            group_out_planes=ceil_div(per_group, BLOCK_CODES),
            out_channels=channels,
            **_sides("pool", pool.kernel),
            **_sides("pool_stride", pool.stride),
            pool_pad_top=pool.pads[0],
            pool_pad_left=pool.pads[1],
            out_height=out_height,
            out_width=out_width,
            **place_fields(layer),
            bias_shift=layer.bias_shift,
            requant_shift=layer.requant_shift or 0,
            raw=int(quantizer is None),
            sources=len(layer.inputs),
            **self._decoder("in", layer, 0),
            **(self._encoder(layer, quantizer) if quantizer else {}),
            **(
                self._weights(layer, original, paired)
                if layer.has_weights
                else self._operation(layer)
            ),
        )

    def _weights(self, layer: Layer, original: Layer, paired: bool) -> dict[str, int]:
        """Fields of a convolution: how its weights are stored, and how it is cut into tiles."""
        array, bits = self.array, stored_bits(layer, self.widths)
        paired = paired and bits <= array.pair_bits
        check_places(original, array.tile(paired))
        table, words = layer.stored.table, array.row_words(bits, paired)
        if words % array.weight_ports:
            fitting = ", ".join(str(ports) for ports in WEIGHT_PORTS if words % ports == 0)
            raise UserError(
                f"WEIGHT_PORTS must divide the {words} words of a row of layer {layer.name} "
                f"({array.simd}x{array.tile(paired)} weights of {bits} bits), not "
                f"{array.weight_ports}; use one of {fitting}"
            )
        return {
            "blocks": ceil_div(layer.weight.shape[1], BLOCK_CODES),
            "tiles_per_group": ceil_div(layer.conv_shape[0] // layer.groups, array.tile(paired)),
            "weight_bits": bits,
            "paired": int(paired),
            "weight_table": 0 if table is None else table.size,
            "row_words": words // array.weight_ports,
            "scaled": int(layer.weight_scale is not None and layer.quantizer is not None),
        }

    def _operation(self, layer: Layer) -> dict[str, int]:
        """Fields of a layer without weights: channel by channel, planes instead of groups."""
        operation = Operation.LRN if layer.lrn else Operation.SUM
        if layer.kind == "mul":
            operation = Operation.PRODUCT
        planes = ceil_div(layer.in_shape[0], BLOCK_CODES)
        step = tile_planes(operation, self.array)
        if step < 1:
            raise UserError(
                f"PE must be at least 24 for the normalisation {layer.name}, not {self.array.pe}; "
                "use a larger PE"
            )
        fields = {
            "op": operation,
            "blocks": min(planes, step) + self.array.planes - step,
            "tiles_per_group": ceil_div(planes, step),
            "reciprocal": layer.reciprocal if layer.quantizer else 0,
            "exclude_pad": int(layer.exclude_pad),
            "lrn_size": layer.lrn.size if layer.lrn else 0,
        }
        if len(layer.inputs) > 1:
            fields.update(self._decoder("in2", layer, 1))
            shape = self.network.shape(layer.inputs[1])
            fields["in2_repeat"] = int(shape != layer.in_shape)
        return fields

    def _decoder(self, prefix: str, layer: Layer, index: int) -> dict[str, int]:
        """Fields of one input and its decoder."""
        source = self.source(layer.inputs[index])
        _, height, width = self.network.shape(layer.inputs[index]) if index else layer.in_shape
        return {
            f"{prefix}_plane_words": plane_words(height, width, source.bits),
            f"{prefix}_align": layer.in_aligns[index],
            f"{prefix}_bits": source.bits,
            f"{prefix}_signed": int(source.signed),
            f"{prefix}_scheme": Scheme[source.scheme.upper()],
            f"{prefix}_shift": source.shift,
            f"{prefix}_half": source.decode_half,
        }

    def _encoder(self, layer: Layer, quantizer: Quantizer) -> dict[str, int]:
        """Fields of the requantizer and the encoder."""
        return {
            "y_min": layer.y_range[0] if layer.y_range else 0,
            "y_max": quantizer.y_max,
            "out_bits": quantizer.bits,
            "out_plane_words": plane_words(*layer.out_shape[1:], quantizer.bits),
            "out_signed": int(quantizer.y_signed),
            "out_scheme": Scheme[quantizer.scheme.upper()],
            "out_shift": quantizer.shift,
            "out_half": quantizer.encode_half,
        }


def source(network: Network, name: str) -> Quantizer:
    """How the codes of a feature map are read; the network's input is signed integers."""
    bits, frac = network.input.bits, network.input.frac
    plain = Quantizer("uniform", bits, bits, frac, None, None, signed=True)
    return network.quantizer(name) or plain


def _sides(name: str, values: tuple[int, int]) -> dict[str, int]:
    """Fields of a window, down and across."""
    return {f"{name}_h": values[0], f"{name}_w": values[1]}


def lower(
    network: Network,
    array: Array,
    max_taps: int,
    compact: bool = False,
    widths: tuple[int, ...] = (),
) -> Lowered:
    """Lower a network for the lanes and pixels of an array.

    A packed kernel has at most `max_taps` taps, what the weight buffer can hold; `compact` takes
    the smallest packed input instead of the fastest. Weights are stored at the next of `widths`,
    where there are some.
    """  # fmt: skip
    readers = sum(layer.inputs.count(INPUT) for layer in network.layers)
    gather = Gather(network.input.shape, network.input.shape, (1, 1), (1, 1), (0, 0))
    layers = []
    pairs = tuple(is_paired(network, layer, array) for layer in network.layers)
    channels = tuple(map(is_depthwise, network.layers, repeat(array), pairs))
    for original, paired, depthwise in zip(network.layers, pairs, channels, strict=True):
        if depthwise:
            layers.append(replace(original, weight_storage=with_zero(original, array, True)))
            continue
        layer = merge_groups(original, array, paired) if original.has_weights else original
        if layer.has_weights and layer.source == INPUT and readers == 1:
            axes = choose_packing(layer, network.input.bits, array, max_taps, compact, paired)
            layer, gather = pack_lanes(layer, *axes)
        layer = replace(layer, weight_storage=with_zero(layer, array))
        if layer.upscale and layer.upscale.shuffle:
            shared = paired and stored_bits(layer, widths) <= array.pair_bits
            layer = split_places(layer, array.tile(shared)) or layer  # or `rows` refuses it
        layers.append(layer)
    return Lowered(network, array, tuple(layers), pairs, channels, gather, widths)


def chain(layer: Layer) -> tuple[int, int]:
    """(pixels of an output row that one input column can reach, those left of the map's).

    Lanes that are channels hold so many output pixels at once, each 8 channels of them. The pixels
    whose columns so far were all padding need not be stepped through.
    """
    stride, reach = layer.stride[1], (layer.kernel[1] - 1) * layer.dilation[1] + 1
    length = ceil_div(reach, stride)
    return length, min(layer.pads[1] // stride, length - 1)


def has_single_channels(layer: Layer) -> bool:
    """Whether a layer is a depthwise convolution: an output channel of each input channel."""
    return layer.has_weights and 1 < layer.groups == layer.in_shape[0] == layer.conv_shape[0]


def is_depthwise(layer: Layer, array: Array, paired: bool) -> bool:
    """Whether lanes are channels: where the array can, and where that takes no more cycles."""
    if not has_single_channels(layer) or layer.upscale is not None:
        return False
    length, skipped = chain(layer)
    lanes = length * BLOCK_CODES <= array.tile(paired) and layer.kernel[0] <= array.kernel_rows
    if not lanes or layer.quantizer is None:
        return False
    width = layer.conv_shape[2]
    steps = (
        ceil_div(layer.in_shape[0], BLOCK_CODES) * layer.stride[1] * (width + length - 1 - skipped)
    )
    return steps <= merged_steps(layer, array, paired)[0] * array.groups(width)


def channel_fields(layer: Layer) -> dict[str, int]:
    """Fields of a convolution whose lanes are channels: a tile for each plane."""
    length, skipped = chain(layer)
    return {
        "depthwise": 1,
        "lead": length - 1 - skipped,
        "pad_left": layer.pads[1] - skipped * layer.stride[1],
        "blocks": 1,
        "conv_groups": ceil_div(layer.in_shape[0], BLOCK_CODES),
        "tiles_per_group": 1,
        "group_out_planes": 1,
    }


def stored_bits(layer: Layer, widths: tuple[int, ...]) -> int:
    """Width at which a layer's weights are stored: the next of `widths`, where there are some."""
    bits = layer.stored.bits
    return min((width for width in widths if width >= bits), default=bits)


def is_paired(network: Network, layer: Layer, array: Array) -> bool:
    """Whether two output channels of a layer can share a multiplier.

    UserError where a weight is the most negative number of its bits, which no quantizer makes.
    """
    if not layer.has_weights:
        return False
    value_bits = max(source(network, name).value_bits for name in layer.inputs)
    if not array.can_pair(max(layer.weight_bits, layer.stored.bits), value_bits):
        return False
    lowest = -(1 << (layer.weight_bits - 1))
    if layer.lowest_weight == lowest:
        raise UserError(
            f"layer {layer.name}: a weight must be above {lowest} to share a multiplier; quantize "
            "the network again, or use an engine of STAGE=single"
        )
    return True


def merge_groups(layer: Layer, array: Array, paired: bool = False) -> Layer:
    """The convolution with groups of whole channel blocks.

    Of all mergers that give whole blocks the one with the fewest steps is taken; one group (dense,
    zeros between the old groups) is always possible, and what the last layer gets.
    """
    groups, (_, merged) = layer.groups, merged_steps(layer, array, paired)
    weight = layer.weight if merged == 1 else spread_weight(layer.weight, groups, merged)
    return replace(layer, groups=groups // merged, weight=weight)


def merged_steps(layer: Layer, array: Array, paired: bool) -> tuple[int, int]:
    """(cycles of the multipliers for a group of pixels, groups that are merged) of merge_groups."""
    groups = layer.groups
    cin, cout = layer.in_shape[0] // groups, layer.conv_shape[0] // groups
    choices = []
    for merged in range(1, groups + 1):
        whole = cin * merged % BLOCK_CODES == 0 and cout * merged % BLOCK_CODES == 0
        if groups % merged or not (merged == groups or (whole and layer.quantizer)):
            continue
        tiles = groups // merged * ceil_div(cout * merged, array.tile(paired))
        choices.append((tiles * array.steps(prod(layer.kernel), cin * merged), merged))
    return min(choices)


def with_zero(layer: Layer, array: Array, depthwise: bool = False) -> Storage:
    """How a layer is stored: as it says, but its table has a 0 wherever weights are filled up.

    Channels that do not exist, taps beyond a kernel, the gaps between merged groups and multipliers
    that a depthwise kernel leaves idle need the weight 0. A table without it takes one bit more,
    with 0 among its entries, or where that would be too many entries the integers are stored.
    """
    stored, table = layer.stored, layer.stored.table
    if table is None or not layer.has_weights or (table == 0).any():
        return stored
    channels, out = layer.in_shape[0] // layer.groups, layer.conv_shape[0] // layer.groups
    filled = depthwise or channels % array.simd or (out % BLOCK_CODES and layer.quantizer)
    filled = filled or layer.upscale is not None  # its tiles may have idle lanes
    if not filled and layer.weight.all():
        return stored
    if stored.bits == MAX_INDEX_BITS:
        return Storage(stored.scheme, layer.weight_bits)
    half = 1 << (layer.weight_bits - 1)
    entries = {*table.tolist(), 0}
    spare = [value for value in (*range(1 - half, half), -half) if value not in entries]
    entries.update(spare[: (2 << stored.bits) - len(entries)])
    return Storage(stored.scheme, stored.bits + 1, np.array(sorted(entries), np.int32))


def spread_weight(weight: np.ndarray, groups: int, merged: int) -> np.ndarray:
    """Weights after merging `merged` neighbouring groups into one: zeros between the old groups.

    >>> spread_weight(np.array([1, 2, 3, 4]).reshape(4, 1, 1, 1), 2, 2).reshape(4, 2).tolist()
    [[1, 0], [2, 0], [0, 3], [0, 4]]
    """
    out, cin = weight.shape[:2]
    wide = np.zeros((out, merged * cin, *weight.shape[2:]), dtype=weight.dtype)
    for group in range(groups):
        rows = slice(group * out // groups, (group + 1) * out // groups)
        first = group % merged * cin
        wide[rows, first : first + cin] = weight[rows]
    return wide


@dataclass(frozen=True)
class Axis:
    """One axis of a packing."""

    taps: int  # packed[d][y] = code[y*step + d - pad] for 0 <= d < taps
    step: int
    pad: int
    kernel: int  # this and what follows are of the convolution that remains
    stride: int
    engine_pad: int
    size: int


def axis_options(layer: Layer, axis: int) -> list[Axis]:
    """The ways to pack the rows (0) or the columns (1), plain first."""
    kernel, stride, pad = layer.kernel[axis], layer.stride[axis], layer.pads[axis]
    out = layer.conv_shape[1 + axis]
    options = [Axis(1, 1, 0, kernel, stride, pad, layer.in_shape[1 + axis])]
    if layer.dilation[axis] > 1:
        return options  # the taps of a dilated kernel are not neighbours
    for taps in dict.fromkeys((stride, kernel)):
        if 1 < taps <= kernel:
            rest = ceil_div(kernel - taps, stride) + 1
            options.append(Axis(taps, stride, pad, rest, 1, 0, out + rest - 1))
    return options


def pack_shape(layer: Layer, rows: Axis, columns: Axis) -> Layer:
    """The convolution that remains after packing; its weights are still those of `layer`."""
    return replace(
        layer,
        in_shape=(layer.in_shape[0] * rows.taps * columns.taps, rows.size, columns.size),
        kernel=(rows.kernel, columns.kernel),
        stride=(rows.stride, columns.stride),
        pads=(rows.engine_pad, columns.engine_pad, *layer.pads[2:]),
    )


def pack_lanes(layer: Layer, rows: Axis, columns: Axis) -> tuple[Layer, Gather]:
    """The packed convolution, and the host's side of the packing."""
    packed = pack_shape(layer, rows, columns)
    gather = Gather(
        shape=layer.in_shape,
        packed_shape=packed.in_shape,
        taps=(rows.taps, columns.taps),
        steps=(rows.step, columns.step),
        pads=(rows.pad, columns.pad),
    )
    return replace(packed, weight=pack_weight(layer.weight, rows, columns)), gather


def pack_weight(weight: np.ndarray, rows: Axis, columns: Axis) -> np.ndarray:
    """Weights [O, C, KH, KW] become [O, TY*TX*C, KH', KW'], 0 beyond the kernel."""
    out, channels, kernel_h, kernel_w = weight.shape
    packed = np.zeros(
        (out, rows.taps, columns.taps, channels, rows.kernel, columns.kernel), dtype=weight.dtype
    )
    for qy, dy in product(range(rows.kernel), range(rows.taps)):
        for qx, dx in product(range(columns.kernel), range(columns.taps)):
            ky, kx = qy * rows.step + dy, qx * columns.step + dx
            if ky < kernel_h and kx < kernel_w:
                packed[:, dy, dx, :, qy, qx] = weight[:, :, ky, kx]
    return packed.reshape(out, -1, rows.kernel, columns.kernel)


def rows_used(layer: Layer) -> int:
    """Rows of one image that the windows reach."""
    steps = (layer.conv_shape[1] - 1) * layer.stride[0]
    reach = steps + (layer.kernel[0] - 1) * layer.dilation[0] + 1
    return min(layer.in_shape[1], reach - layer.pads[0])


def packing_cost(layer: Layer, bits: int, array: Array, paired: bool = False) -> tuple[int, int]:
    """(cycles that bound a packed convolution, words read), for one image."""
    (channels, _, width), (out_channels, conv_height, conv_width) = layer.in_shape, layer.conv_shape
    blocks, rows = ceil_div(channels, BLOCK_CODES), rows_used(layer)
    arriving = rows * width * blocks
    steps = array.steps(prod(layer.kernel), channels)
    compute = conv_height * array.groups(conv_width) * steps
    read = int(touched_words(rows, width, bits).sum()) * blocks
    return ceil_div(out_channels, array.tile(paired)) * max(compute, arriving, read), read


def choose_packing(
    layer: Layer,
    bits: int,
    array: Array,
    max_taps: int,
    compact: bool = False,
    paired: bool = False,
) -> tuple[Axis, Axis]:
    """The cheapest packing (rows, columns) whose kernel has at most `max_taps` taps.

    With `compact`, that of the smallest packed input. A group's channels have to stay together, so
    grouped convolutions are not packed.
    """
    options = list(product(axis_options(layer, 0), axis_options(layer, 1)))
    if layer.groups > 1:
        return options[0]

    def rank(pair: tuple[Axis, Axis]) -> tuple[int, ...]:
        packed = pack_shape(layer, *pair)
        cost = packing_cost(packed, bits, array, paired)
        channels, height, width = packed.in_shape
        size = ceil_div(channels, BLOCK_CODES) * height * width
        return (size, *cost) if compact else cost

    fitting = [pair for pair in options if pair[0].kernel * pair[1].kernel <= max_taps]
    return min(fitting or options, key=rank)
