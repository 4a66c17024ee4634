# SPDX-License-Identifier: Apache-2.0
"""Rules that a quantized layer must keep so that the engine can run it (docs/formats.md 2).

What the schema cannot say: which fields go with which kind, shapes that follow from windows, widths
that no input can overflow.
"""

from __future__ import annotations  # rules and network name each other's types

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from formats.arithmetic import (
    BLOCK_CODES,
    ENTRY_BITS,
    LRN_FACTOR_BITS,
    MAX_ACC_BITS,
    MAX_COUNT,
    MAX_INDEX_BITS,
    MAX_LRN_SIZE,
    MAX_PRODUCT_BITS,
    MAX_SHIFT,
    SQUARES_BITS,
    Shape,
    Window,
    dilated,
)  # fmt: skip
from formats.errors import UserError

if TYPE_CHECKING:
    from formats.network import Layer, Network

INPUT = "input"  # the name under which layers refer to the network's input
WEIGHTED = ("conv", "fc")
KINDS = (*WEIGHTED, "add", "maxpool", "avgpool", "lrn")
LAST_KINDS = ("conv", "fc", "add", "avgpool")  # accumulators that leave the engine as they are


def check_layer(layer: Layer, out_shape: Shape) -> None:
    """UserError where the fields of a layer do not go together."""
    expected = 2 if layer.kind == "add" else 1
    if len(layer.inputs) != expected:
        raise UserError(
            f"layer {layer.name}: inputs must be {expected} of a layer of kind {layer.kind}, "
            f"not {len(layer.inputs)}; join the parts before quantizing"
        )
    if INPUT in layer.inputs and not layer.has_weights:
        raise UserError(f"layer {layer.name}: only convolutions must read the network's input")
    _check_shapes(layer, out_shape)
    check_arrays(layer)
    if not layer.has_weights:
        _check_operation(layer)
    if layer.quantizer is None and layer.kind not in LAST_KINDS:
        raise UserError(
            f"layer {layer.name}: the last layer must be one of {', '.join(LAST_KINDS)}, "
            f"not {layer.kind}"
        )
    pooled = layer.pool is not None and not layer.pool.trivial
    if pooled and layer.quantizer is not None and layer.quantizer.signed:
        raise UserError(
            f"layer {layer.name}: a max pool must have values of 0 or more, not signed ones; "
            "put the ReLU before the pool"
        )


def _check_shapes(layer: Layer, out_shape: Shape) -> None:
    window = Window(dilated(layer.kernel, layer.dilation), layer.stride, layer.pads)
    channels = layer.conv_shape[0] if layer.has_weights else layer.in_shape[0]
    conv = (channels, *window.out_size(*layer.in_shape[1:]))
    out = conv
    if layer.pool:
        out = (channels, *layer.pool.out_size(*conv[1:]))
    if (layer.conv_shape, out_shape) != (conv, out) or min(*conv, *out) < 1:
        raise UserError(
            f"layer {layer.name}: conv_shape and out_shape must follow from the windows, "
            f"{conv} and {out}, not {layer.conv_shape} and {out_shape}"
        )
    if layer.in_shape[0] % layer.groups or channels % layer.groups:
        raise UserError(f"layer {layer.name}: groups must divide its channels, not {layer.groups}")


def _check_operation(layer: Layer) -> None:
    """Rules of the kinds without weights."""
    name = layer.name
    windowed = (*layer.kernel, *layer.stride, *layer.pads) != (1, 1, 1, 1, 0, 0, 0, 0)
    if layer.dilation != (1, 1) or (windowed and layer.kind != "avgpool") or layer.groups > 1:
        raise UserError(f"layer {name}: only convolutions and average pools must have windows")
    if layer.kind == "maxpool" and layer.pool is None:
        raise UserError(f"layer {name}: pool must be given for kind maxpool")
    if (layer.kind == "lrn") != (layer.lrn is not None):
        raise UserError(f"layer {name}: lrn must be given for kind lrn, and only there")
    if layer.lrn and not 1 <= layer.lrn.size <= MAX_LRN_SIZE:
        raise UserError(f"layer {name}: lrn size must be 1..{MAX_LRN_SIZE}, not {layer.lrn.size}")
    if len(layer.in_aligns) != len(layer.inputs) or min(layer.in_aligns) < 0:
        raise UserError(
            f"layer {name}: in_aligns must be one shift of 0 or more for each input, "
            f"not {list(layer.in_aligns)}"
        )
    if layer.exclude_pad and layer.quantizer is None:
        raise UserError(
            f"layer {name}: the average pool at the end must divide by the same number everywhere; "
            "use no padding"
        )
    if layer.exclude_pad and prod(layer.kernel) > MAX_COUNT:
        raise UserError(
            f"layer {name}: an average pool that leaves padding out must have at most {MAX_COUNT} "
            f"elements a window, not {prod(layer.kernel)}"
        )


def check_concat(name: str, parts: Sequence[Layer]) -> Shape:
    """(C, H, W) of a concat; UserError where its parts cannot lie behind each other."""
    if not parts:
        raise UserError(f"concat {name}: parts must be one layer or more")
    first = parts[0]
    for part in parts:
        if first.quantizer is None or part.quantizer is None:
            raise UserError(f"concat {name}: parts must not be the last layer, {part.name}")
        if part.out_shape[1:] != first.out_shape[1:]:
            raise UserError(
                f"concat {name}: parts must have {first.out_shape[1:]} rows and columns, "
                f"not {part.out_shape[1:]} as {part.name}"
            )
        if part.quantizer.key != first.quantizer.key:
            raise UserError(
                f"concat {name}: parts must share one quantizer, unlike {first.name} and "
                f"{part.name}; quantize again"
            )
        if part.out_shape[0] % BLOCK_CODES and part is not parts[-1]:
            raise UserError(
                f"concat {name}: parts but the last must have a multiple of {BLOCK_CODES} "
                f"channels, not {part.out_shape[0]} as {part.name}"
            )
    return (sum(part.out_shape[0] for part in parts), *first.out_shape[1:])


def check_squares(layer: Layer, magnitude: int) -> None:
    """UserError where a normalisation's sum of squares could leave its table."""
    if layer.lrn and layer.lrn.size * magnitude**2 >= 1 << SQUARES_BITS:
        raise UserError(
            f"layer {layer.name}: sums of squares must be below 2^{SQUARES_BITS}, not "
            f"{layer.lrn.size} times {magnitude}^2; use a smaller qm for its input"
        )


def check_exact(layer: Layer) -> None:
    """UserError where float64 or a 64-bit shift could not hold a layer's integers."""
    shift, bits = layer.requant_shift or 0, layer.product_bits
    if layer.acc_bits > MAX_ACC_BITS:
        raise UserError(
            f"layer {layer.name}: accumulator must fit {MAX_ACC_BITS} bits, not {layer.acc_bits}; "
            "use fewer weight_bits or a smaller qm"
        )
    if bits > MAX_PRODUCT_BITS:
        raise UserError(
            f"layer {layer.name}: products must fit {MAX_PRODUCT_BITS} bits, not {bits}; use a "
            "smaller QM"
        )
    if shift > MAX_SHIFT or bits - shift > 63:
        raise UserError(
            f"layer {layer.name}: requantize shift must be {bits - 63}..{MAX_SHIFT}, "
            f"not {shift}; check the scale of its weights"
        )


def check_arrays(layer: Layer) -> None:
    """UserError where weights or factors are not what the manifest says about them."""
    name, bits, weight = layer.name, layer.weight_bits, layer.weight
    half = 1 << (bits - 1) if bits else 0
    if layer.has_weights and (weight.min() < -half or weight.max() >= half):
        raise UserError(f"layer {name}: weights must fit {bits} bits; quantize again")
    if layer.lrn and not 0 <= layer.lrn.table.min() <= layer.lrn.table.max() < 1 << LRN_FACTOR_BITS:
        raise UserError(f"layer {name}: factors of a normalisation must fit {LRN_FACTOR_BITS} bits")
    storage = layer.weight_storage
    if storage is None or not layer.has_weights:
        return
    table = storage.table
    if table is None:
        if storage.bits != bits:
            raise UserError(
                f"layer {name}: weights without a table must be stored in their {bits} bits, not "
                f"{storage.bits}; quantize again"
            )
        return
    if storage.bits > MAX_INDEX_BITS or bits > ENTRY_BITS:
        raise UserError(
            f"layer {name}: a weight table must have at most 2^{MAX_INDEX_BITS} entries of "
            f"{ENTRY_BITS} bits; quantize again"
        )
    if (np.diff(table) < 1).any() or table[0] < -half or table[-1] >= half:
        raise UserError(
            f"layer {name}: the weight table must increase strictly within "
            f"{-half}..{half - 1}; quantize again"
        )
    entries = np.zeros(2 * half, dtype=bool)
    entries[table + half] = True
    good = entries[weight.reshape(-1) + half]
    if not good.all():
        raise UserError(
            f"layer {name}: weights must be entries of its weight table, not "
            f"{int(weight.reshape(-1)[good.argmin()])}; quantize again"
        )


def check_network(network: Network) -> None:
    """UserError where a layer does not fit what it reads, or its accumulator is too narrow."""
    shapes: dict[str, Shape] = {INPUT: network.input.shape}
    magnitudes = {INPUT: network.input.magnitude}
    layers: dict[str, Layer] = {}
    waiting = dict(network.concats)
    for layer in network.layers:
        for name, parts in [item for item in waiting.items() if set(item[1]) <= set(layers)]:
            del waiting[name]
            if name in shapes:
                raise UserError(f"concat {name}: its name must be no other feature map's")
            shapes[name] = check_concat(name, [layers[part] for part in parts])
            magnitudes[name] = magnitudes[parts[0]]
        if layer.name in shapes:
            raise UserError(f"layer {layer.name}: its name must be no other feature map's")
        _check_inputs(layer, shapes, magnitudes)
        last = layer is network.layers[-1]
        if last != (layer.quantizer is None) or (last and layer.pool):
            raise UserError(
                f"layer {layer.name}: the last layer, and only it, must have no quantizer and no "
                "pool"
            )
        shapes[layer.name] = layer.out_shape
        magnitudes[layer.name] = layer.quantizer.magnitude if layer.quantizer else 0
        layers[layer.name] = layer
    for name, parts in waiting.items():
        raise UserError(f"concat {name}: parts must be layers, not {', '.join(parts)}")


def _check_inputs(layer: Layer, shapes: dict[str, Shape], magnitudes: dict[str, int]) -> None:
    """The feature maps that a layer reads are there, and its accumulator holds them."""
    for source in layer.inputs:
        if shapes.get(source) != layer.in_shape:
            raise UserError(
                f"layer {layer.name}: input must be an earlier feature map of shape "
                f"{layer.in_shape}, not {source}"
            )
    reach = [magnitudes[source] for source in layer.inputs]
    check_squares(layer, reach[0])
    needed = layer.needed_bits(reach)
    if layer.acc_bits < needed:
        raise UserError(
            f"layer {layer.name}: acc_bits must be at least {needed}, "
            f"not {layer.acc_bits}; quantize again"
        )
    check_exact(layer)
