# SPDX-License-Identifier: Apache-2.0
"""Rules that a quantized layer must keep so that the engine can run it (docs/formats.md 2).

What the schema cannot say: which fields go with which kind, shapes that follow from windows, widths
that no input can overflow.
"""

from __future__ import annotations  # rules and network name each other's types

from collections.abc import Iterable, Iterator, Sequence
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from nuq.formats.arithmetic import (
    BLOCK_CODES,
    ENTRY_BITS,
    LRN_FACTOR_BITS,
    MAX_ACC_BITS,
    MAX_COUNT,
    MAX_INDEX_BITS,
    MAX_LRN_SIZE,
    MAX_PRODUCT_BITS,
    MAX_SHIFT,
    SCALE_BITS,
    SQUARES_BITS,
    Shape,
    Window,
    accumulator_bits,
    dilated,
)  # fmt: skip
from nuq.formats.ending import result_shape
from nuq.formats.errors import UserError

if TYPE_CHECKING:
    from nuq.formats.network import Layer, Network

INPUT = "input"  # the name under which layers refer to the network's input
WEIGHTED = ("conv", "fc")
TWO_INPUTS = ("add", "mul")
KINDS = (*WEIGHTED, *TWO_INPUTS, "maxpool", "avgpool", "lrn")
HEAD_KINDS = ("conv", "fc", "add", "avgpool")  # accumulators that leave the engine as they are


def pixel_shapes(kind: str, index: int, shape: Shape) -> list[Shape]:
    """The shapes that an input may have beside the first one's: of a product a pixel, for all.

    >>> pixel_shapes("mul", 1, (8, 5, 5)), pixel_shapes("mul", 0, (8, 5, 5))
    ([(8, 1, 1)], [])
    """
    return [(shape[0], 1, 1)] if kind == "mul" and index == 1 else []


def _refuse(thing: str, faults: Iterable[str]) -> None:
    """UserError with the first fault, if there is one."""
    for fault in faults:
        raise UserError(f"{thing}: {fault}")


def check_layer(layer: Layer, out_shape: Shape) -> None:
    """UserError where the fields of a layer do not go together."""
    _refuse(f"layer {layer.name}", _layer_faults(layer, out_shape))


def _layer_faults(layer: Layer, out_shape: Shape) -> Iterator[str]:
    expected = 2 if layer.kind in TWO_INPUTS else 1
    if len(layer.inputs) != expected:
        yield (
            f"inputs must be {expected} of a layer of kind {layer.kind}, "
            f"not {len(layer.inputs)}; join the parts before quantizing"
        )
    if INPUT in layer.inputs and not layer.has_weights:
        yield "only convolutions must read the network's input"
    yield from _shape_faults(layer, out_shape)
    yield from _array_faults(layer)
    if not layer.has_weights:
        yield from _operation_faults(layer)
    if layer.quantizer is None and layer.kind not in HEAD_KINDS:
        yield f"a head must be one of {', '.join(HEAD_KINDS)}, not {layer.kind}"
    yield from _pool_faults(layer)
    yield from _upscale_faults(layer)


def _upscale_faults(layer: Layer) -> Iterator[str]:
    """What enlarges its map, and does not go with the layer."""
    if layer.upscale is None:
        return
    if layer.quantizer is None:
        yield "a head must have no upscale, as its output stays as it is"
    places = prod(layer.upscale.factor)
    if layer.upscale.shuffle and (
        not layer.has_weights or layer.groups > 1 or layer.conv_shape[0] % places
    ):
        yield (
            f"an upscale that shuffles must be of a convolution of one group and a multiple of "
            f"{places} channels"
        )


def check_pool(layer: Layer) -> None:
    """UserError where a layer's max pool cannot work on its codes."""
    _refuse(f"layer {layer.name}", _pool_faults(layer))


def _pool_faults(layer: Layer) -> Iterator[str]:
    """The largest code must belong to the largest value."""
    pooled, quantizer = layer.pool is not None and not layer.pool.trivial, layer.quantizer
    if not pooled or quantizer is None or quantizer.ordered:
        return
    if quantizer.scheme == "knq":
        yield (
            "a max pool must be of codes that rise with their values, not of those of "
            f"{layer.activation}, which falls before it rises; let it be a layer of its own"
        )
    else:
        yield (
            "a max pool of values that may be negative must have codes of a table, which are "
            f"ordered, not those of {quantizer.scheme}; use SCHEME=knq, or put a ReLU before it"
        )


def _shape_faults(layer: Layer, out_shape: Shape) -> Iterator[str]:
    window = Window(dilated(layer.kernel, layer.dilation), layer.stride, layer.pads)
    channels = layer.conv_shape[0] if layer.has_weights else layer.in_shape[0]
    conv = (channels, *window.out_size(*layer.in_shape[1:]))
    out = (channels, *layer.pool.out_size(*conv[1:])) if layer.pool else conv
    out = layer.upscale.shape(out) if layer.upscale else out
    if (layer.conv_shape, out_shape) != (conv, out) or min(*conv, *out) < 1:
        yield (
            "conv_shape and out_shape must follow from the windows, "
            f"{conv} and {out}, not {layer.conv_shape} and {out_shape}"
        )
    if layer.in_shape[0] % layer.groups or channels % layer.groups:
        yield f"groups must divide its channels, not {layer.groups}"


def _operation_faults(layer: Layer) -> Iterator[str]:
    """Of the kinds without weights."""
    windowed = (*layer.kernel, *layer.stride, *layer.pads) != (1, 1, 1, 1, 0, 0, 0, 0)
    if layer.dilation != (1, 1) or (windowed and layer.kind != "avgpool") or layer.groups > 1:
        yield "only convolutions and average pools must have windows"
    if layer.kind == "maxpool" and layer.pool is None:
        yield "pool must be given for kind maxpool"
    if (layer.kind == "lrn") != (layer.lrn is not None):
        yield "lrn must be given for kind lrn, and only there"
    if layer.lrn and not 1 <= layer.lrn.size <= MAX_LRN_SIZE:
        yield f"lrn size must be 1..{MAX_LRN_SIZE}, not {layer.lrn.size}"
    if len(layer.in_aligns) != len(layer.inputs) or min(layer.in_aligns) < 0:
        yield (
            f"in_aligns must be one shift of 0 or more for each input, not {list(layer.in_aligns)}"
        )
    if layer.exclude_pad and layer.quantizer is None:
        yield (
            "the average pool at the end must divide by the same number everywhere; use no padding"
        )
    if layer.exclude_pad and prod(layer.kernel) > MAX_COUNT:
        yield (
            f"an average pool that leaves padding out must have at most {MAX_COUNT} elements "
            f"a window, not {prod(layer.kernel)}"
        )


def _array_faults(layer: Layer) -> Iterator[str]:
    """Weights or factors that are not what the manifest says about them."""
    bits, weight = layer.weight_bits, layer.weight
    half = 1 << (bits - 1) if bits else 0
    if layer.has_weights and (weight.min() < -half or weight.max() >= half):
        yield f"weights must fit {bits} bits; quantize again"
    if layer.weight_scale is not None:
        yield from _scale_faults(layer, half)
    if layer.lrn and not 0 <= layer.lrn.table.min() <= layer.lrn.table.max() < 1 << LRN_FACTOR_BITS:
        yield f"factors of a normalisation must fit {LRN_FACTOR_BITS} bits"
    storage = layer.weight_storage
    if storage is None or not layer.has_weights:
        return
    table = storage.table
    if table is None:
        if storage.bits != bits:
            yield (
                f"weights without a table must be stored in their {bits} bits, not "
                f"{storage.bits}; quantize again"
            )
        return
    if storage.bits > MAX_INDEX_BITS or bits > ENTRY_BITS:
        yield (
            f"a weight table must have at most 2^{MAX_INDEX_BITS} entries of {ENTRY_BITS} bits; "
            "quantize again"
        )
    if (np.diff(table) < 1).any() or table[0] < -half or table[-1] >= half:
        yield (
            f"the weight table must increase strictly within {-half}..{half - 1}; quantize again"
        )
    strange = ~np.isin(weight, table)
    if strange.any():
        yield (
            f"weights must be entries of its weight table, not {int(weight[strange][0])}; "
            "quantize again"
        )


def _scale_faults(layer: Layer, half: int) -> Iterator[str]:
    """A weight scale that is out of range, or weights that it does not go with."""
    scale = layer.weight_scale
    if not layer.has_weights or scale is None:
        yield "only convolutions and fully connected layers must have a weight_scale"
    elif scale.dtype != np.uint8 or scale.min() < 1:
        wrong = scale.min() if scale.min() < 1 else scale.max()
        yield f"weight_scale must be 1..{(1 << SCALE_BITS) - 1}, not {wrong}; quantize again"
    elif layer.weight.min() <= -half:
        yield (
            f"weights with a weight_scale must be {1 - half}..{half - 1}, not {-half}; "
            "quantize again"
        )


def check_exact(layer: Layer) -> None:
    """UserError where float64 or a 64-bit shift could not hold a layer's integers."""
    _refuse(f"layer {layer.name}", _exact_faults(layer))


def _exact_faults(layer: Layer) -> Iterator[str]:
    shift, bits = layer.requant_shift or 0, layer.product_bits
    if layer.acc_bits > MAX_ACC_BITS:
        yield (
            f"accumulator must fit {MAX_ACC_BITS} bits, not {layer.acc_bits}; "
            "use fewer weight_bits or a smaller qm"
        )
    if layer.weight_scale is not None and bits > MAX_ACC_BITS:
        yield (
            f"accumulator times weight_scale must fit {MAX_ACC_BITS} bits, not {bits}; "
            "use fewer weight_bits or a smaller qm"
        )
    if bits > MAX_PRODUCT_BITS:
        yield f"products must fit {MAX_PRODUCT_BITS} bits, not {bits}; use a smaller QM"
    if shift > MAX_SHIFT or bits - shift > 63:
        yield (
            f"requantize shift must be {bits - 63}..{MAX_SHIFT}, not {shift}; "
            "check the scale of its weights"
        )


def check_network(network: Network) -> None:
    """UserError where a layer does not fit what it reads, or its accumulator is too narrow."""
    shapes: dict[str, Shape] = {INPUT: network.input.shape}
    magnitudes = {INPUT: network.input.magnitude}
    layers: dict[str, Layer] = {}
    waiting = dict(network.concats)
    for layer in network.layers:
        for name in [name for name, parts in waiting.items() if set(parts) <= set(layers)]:
            parts = [layers[part] for part in waiting.pop(name)]
            if name in shapes:
                raise UserError(f"concat {name}: its name must be no other feature map's")
            _refuse(f"concat {name}", _concat_faults(parts))
            shapes[name] = (sum(part.out_shape[0] for part in parts), *parts[0].out_shape[1:])
            magnitudes[name] = magnitudes[parts[0].name]
        if layer.name in shapes:
            raise UserError(f"layer {layer.name}: its name must be no other feature map's")
        _refuse(f"layer {layer.name}", _input_faults(layer, shapes, magnitudes))
        check_exact(layer)
        shapes[layer.name] = layer.out_shape
        magnitudes[layer.name] = layer.quantizer.magnitude if layer.quantizer else 0
        layers[layer.name] = layer
    for name, missing in waiting.items():
        raise UserError(f"concat {name}: parts must be layers, not {', '.join(missing)}")
    _check_heads(network)


def _check_heads(network: Network) -> None:
    """UserError where heads and outputs do not go together."""
    last = network.layers[-1]
    if last.quantizer is not None:
        raise UserError(f"layer {last.name}: the last layer must be a head, without a quantizer")
    heads = {layer.name: layer for layer in network.layers if layer.quantizer is None}
    for layer in network.layers:
        read = heads.keys() & {part for name in layer.inputs for part in network.parts_of(name)}
        if layer.name in heads and layer.pool:
            raise UserError(f"layer {layer.name}: a head must have no pool")
        if read:
            raise UserError(f"layer {layer.name}: it must not read a head, {min(read)}")
    names = [output.name for output in network.outputs]
    wanted = {output.layer for output in network.outputs}
    if len(set(names)) < len(names):
        raise UserError(f"outputs must have names of their own, not {', '.join(names)}")
    if wanted != heads.keys():
        raise UserError(
            f"outputs must be of all heads, {', '.join(heads)}, and of nothing else, not of "
            f"{', '.join(sorted(wanted))}"
        )
    for output in network.outputs:
        result_shape(output.ending, heads[output.layer].out_shape)


def _concat_faults(parts: Sequence[Layer]) -> Iterator[str]:
    """Why the parts cannot lie behind each other."""
    if not parts:
        yield "parts must be one layer or more"
    first = parts[0]
    for part in parts:
        if first.quantizer is None or part.quantizer is None:
            yield f"parts must not be heads, as {part.name}"
            return
        if part.out_shape[1:] != first.out_shape[1:]:
            yield (
                f"parts must have {first.out_shape[1:]} rows and columns, "
                f"not {part.out_shape[1:]} as {part.name}"
            )
        if part.quantizer.decoder != first.quantizer.decoder:
            yield (
                f"parts must share one quantizer, unlike {first.name} and {part.name}; "
                "quantize again"
            )
        if part.out_shape[0] % BLOCK_CODES and part is not parts[-1]:
            yield (
                f"parts but the last must have a multiple of {BLOCK_CODES} channels, "
                f"not {part.out_shape[0]} as {part.name}"
            )


def _input_faults(
    layer: Layer, shapes: dict[str, Shape], magnitudes: dict[str, int]
) -> Iterator[str]:
    """Feature maps that are not there, or that its table or its accumulator cannot take."""
    for index, source in enumerate(layer.inputs):
        wanted = [layer.in_shape, *pixel_shapes(layer.kind, index, layer.in_shape)]
        if shapes.get(source) not in wanted:
            named = " or ".join(map(str, wanted))
            yield f"input must be an earlier feature map of shape {named}, not {source}"
    reach = [magnitudes[source] for source in layer.inputs]
    if layer.lrn and layer.lrn.size * reach[0] ** 2 >= 1 << SQUARES_BITS:
        yield (
            f"sums of squares must be below 2^{SQUARES_BITS}, not {layer.lrn.size} times "
            f"{reach[0]}^2; use a smaller qm for its input"
        )
    if layer.has_weights:
        needed = accumulator_bits(layer.weight, layer.bias, layer.bias_shift, reach[0])
    elif layer.kind == "mul":
        needed = 1 + prod(reach).bit_length()
    else:
        aligned = sum(m << align for m, align in zip(reach, layer.in_aligns, strict=True))
        needed = 1 + (aligned * prod(layer.kernel)).bit_length()
    if layer.acc_bits < needed:
        yield f"acc_bits must be at least {needed}, not {layer.acc_bits}; quantize again"
