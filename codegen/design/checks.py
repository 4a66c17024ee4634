# SPDX-License-Identifier: Apache-2.0
"""Rules that a quantized layer must keep so that the engine can run it (docs/formats.md 2).

What the schema cannot say: which fields go with which kind, shapes that follow from windows, widths
that no input can overflow.
"""

from __future__ import annotations

from collections.abc import Sequence

from codegen.design.layers import INPUT, Layer, Shape
from formats.arithmetic import (
    BLOCK_CODES,
    MAX_COUNT,
    MAX_LRN_SIZE,
    SQUARES_BITS,
    Window,
    accumulator_bits,
    dilated,
)  # fmt: skip
from formats.errors import UserError

LAST_KINDS = ("conv", "fc", "add", "avgpool")  # accumulators that leave the engine as they are


def check_layer(layer: Layer) -> None:
    """UserError where the fields of a layer do not go together."""
    expected = 2 if layer.kind == "add" else 1
    if len(layer.inputs) != expected:
        raise UserError(
            f"layer {layer.name}: inputs must be {expected} of a layer of kind {layer.kind}, "
            f"not {len(layer.inputs)}; join the parts before quantizing"
        )
    if INPUT in layer.inputs and not layer.weighted:
        raise UserError(f"layer {layer.name}: only convolutions must read the network's input")
    _check_shapes(layer)
    if not layer.weighted:
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


def _check_shapes(layer: Layer) -> None:
    window = Window(dilated(layer.kernel, layer.dilation), layer.stride, layer.pads)
    channels = layer.conv_shape[0] if layer.weighted else layer.in_shape[0]
    conv = (channels, *window.out_size(*layer.in_shape[1:]))
    out = conv
    if layer.pool:
        out = (channels, *layer.pool.out_size(*conv[1:]))
    if (layer.conv_shape, layer.out_shape) != (conv, out) or min(*conv, *out) < 1:
        raise UserError(
            f"layer {layer.name}: conv_shape and out_shape must follow from the windows, "
            f"{conv} and {out}, not {layer.conv_shape} and {layer.out_shape}"
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
    if layer.exclude_pad and layer.averaging.size > MAX_COUNT:
        raise UserError(
            f"layer {name}: an average pool that leaves padding out must have at most {MAX_COUNT} "
            f"elements a window, not {layer.averaging.size}"
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


def needed_bits(layer: Layer, magnitudes: Sequence[int]) -> int:
    """Signed width of the accumulator, given the largest magnitude of each input's values."""
    aligned = sum(
        magnitude << align for magnitude, align in zip(magnitudes, layer.in_aligns, strict=False)
    )
    if not layer.weighted:
        return 1 + (aligned * layer.averaging.size).bit_length()
    return accumulator_bits(layer.weight, layer.bias, layer.bias_shift, magnitudes[0])


def check_squares(layer: Layer, magnitude: int) -> None:
    """UserError where a normalisation's sum of squares could leave its table."""
    if layer.lrn and layer.lrn.size * magnitude**2 >= 1 << SQUARES_BITS:
        raise UserError(
            f"layer {layer.name}: sums of squares must be below 2^{SQUARES_BITS}, not "
            f"{layer.lrn.size} times {magnitude}^2; use a smaller qm for its input"
        )
