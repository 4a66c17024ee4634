# SPDX-License-Identifier: Apache-2.0
"""From a float Graph and fitted quantizers to integers: input, weights, biases, widths, shifts.

14-bit weights and biases as in papers 000/001, weights also by codebook; the arithmetic is
docs/formats.md 2.3.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from nuq.formats import network
from nuq.formats.arithmetic import (
    RECIPROCAL_BITS,
    SQUARES_BITS,
    accumulator_bits,
    at_frac,
    lrn_table,
    to_fixed,
)
from nuq.formats.errors import UserError
from nuq.formats.images import Preprocessing
from nuq.formats.network import Divisor, InputFormat, LrnTable, Storage
from nuq.formats.quantizer import Quantizer
from nuq.formats.rules import check_exact, check_pool
from nuq.model_prep.graph import INPUT, Graph, Layer
from nuq.model_prep.networks.spec import NetworkSpec
from nuq.model_prep.quantize.plan import LayerPlan
from nuq.model_prep.quantize.quantizers import WeightFormat

INPUT_BITS = 10


def input_format(
    shape: tuple[int, int, int], pixel_values: np.ndarray, preprocessing: Preprocessing
) -> InputFormat:
    """The input table: normalisation folded into one code per pixel value and channel.

    Entries of pixels above the largest that images have may saturate.

    Args:
        shape: (channels, rows, columns).
        pixel_values: float [channels, 256], the normalised value of each pixel value.
        preprocessing: where pixels come from.
    """
    _, frac = to_fixed(pixel_values[:, : preprocessing.pixel_max + 1], INPUT_BITS)
    table = at_frac(pixel_values, INPUT_BITS, frac).astype(np.int16)
    return InputFormat(shape, INPUT_BITS, frac, table, preprocessing)


def network_input(spec: NetworkSpec) -> InputFormat:
    """The input format of a network: its published normalisation, pixel value by pixel value.

    Where its file has codes for it, and INPUT_BITS hold them, they are those.
    """
    values, codes, half = spec.preprocessing.values(), spec.input_codes, 1 << (INPUT_BITS - 1)
    if codes is None or codes.low < -half or codes.high >= half:
        return input_format(spec.in_shape, values, spec.preprocessing)
    table = np.clip(np.rint(values / codes.step), codes.low, codes.high).astype(np.int16)
    frac = -round(math.log2(codes.step))
    return InputFormat(spec.in_shape, INPUT_BITS, frac, table, spec.preprocessing)


def quantize_layer(
    layer: Layer, plan: LayerPlan, in_frac: int, magnitude: int, quantizer: Quantizer | None,
    stored: WeightFormat | None = None,
) -> network.Layer:  # fmt: skip
    """One layer in integers.

    Args:
        layer, plan: the float layer, and widths of its weights and biases.
        in_frac, magnitude: F of its input, and the largest magnitude that its decoder gives.
        quantizer: of its output; None for a head.
        stored: its weights, where they are fitted already.

    Raises:
        UserError: the accumulator or the shift is too wide to be exact.
    """
    if stored is None:
        stored = plan.fit_weights(layer.weight)
    weight, weight_frac = stored.integers, stored.frac
    acc_frac = in_frac + weight_frac
    bias, bias_frac = stored.fixed_bias(layer.bias, plan.bias_bits, most=acc_frac)
    if not bias.any():
        bias_frac = acc_frac
    quantized = network.Layer(
        **_common(layer, quantizer), weight=weight.astype(np.int16), bias=bias.astype(np.int32),
        weight_bits=stored.multiplied_bits, weight_frac=weight_frac,
        weight_storage=Storage(stored.scheme, stored.bits, stored.table),
        weight_scale=stored.scale,
        bias_bits=plan.bias_bits, bias_frac=bias_frac, bias_shift=acc_frac - bias_frac,
        acc_bits=accumulator_bits(weight, bias, acc_frac - bias_frac, magnitude),
        requant_shift=None if quantizer is None else acc_frac - quantizer.encoded_frac,
        out_frac=acc_frac if quantizer is None else quantizer.frac,
    )  # fmt: skip
    check_exact(quantized)
    return quantized


def _common(layer: Layer, quantizer: Quantizer | None) -> dict[str, Any]:
    """The fields that a layer in integers has from the float layer."""
    names = (
        "name", "kind", "in_shape", "conv_shape", "stride", "pads", "dilation", "groups",
        "activation", "pool", "upscale", "kernel",
    )  # fmt: skip
    own = {name: getattr(layer, name) for name in names}
    return {**own, "inputs": tuple(layer.inputs), "quantizer": quantizer}


def quantize_operation(
    layer: Layer, fracs: Sequence[int], magnitudes: Sequence[int], quantizer: Quantizer | None
) -> network.Layer:
    """One layer without weights in integers (docs/formats.md 2.5-2.8).

    `fracs` and `magnitudes` are F and the largest magnitude of each input.

    Raises:
        UserError: a sum or a shift is too wide to be exact.
    """
    in_frac = max(fracs)
    aligns = tuple(in_frac - frac for frac in fracs)
    worst = sum(m << align for m, align in zip(magnitudes, aligns, strict=True))
    if layer.kind == "mul":
        in_frac, aligns, worst = sum(fracs), (0,) * len(fracs), math.prod(magnitudes)
    acc_frac = in_frac  # F of what is shifted; the raw sum of an average pool is not
    table = None
    if layer.average:
        worst *= layer.average.size
        acc_frac += RECIPROCAL_BITS
    if layer.lrn:
        squares = layer.lrn.size * worst * worst
        if squares >= 1 << SQUARES_BITS:
            raise UserError(
                f"layer {layer.name}: sums of squares must be below 2^{SQUARES_BITS}, not "
                f"{layer.lrn.size} times {worst}^2; use a smaller QM"
            )
        factors, table_frac = lrn_table(layer.lrn, in_frac)
        table = LrnTable(**asdict(layer.lrn), table_frac=table_frac, table=factors)
        acc_frac += table_frac
    done = network.Layer(
        **_common(layer, quantizer), weight=layer.weight.astype(np.int16),
        bias=layer.bias.astype(np.int32), weight_bits=0, weight_frac=0,
        bias_bits=0, bias_frac=0, bias_shift=0, in_aligns=aligns, lrn=table,
        average=Divisor(layer.average.count_include_pad) if layer.average else None,
        acc_bits=1 + worst.bit_length(),
        requant_shift=None if quantizer is None else acc_frac - quantizer.encoded_frac,
        out_frac=in_frac if quantizer is None else quantizer.frac,
    )  # fmt: skip
    check_exact(done)
    return done


def check_graph(graph: Graph) -> None:
    """Refuse, by UserError, a network that the integer arithmetic does not cover."""
    for head in graph.ends:
        plain = head.pool is None and head.upscale is None
        if head.coded or (head.activation and head.has_weights) or not plain:
            raise UserError(
                f"layer {head.name} must have neither activation nor pool nor upscale, as its "
                "output stays raw"
            )
        if not head.has_weights and head.kind != "avgpool":
            raise UserError(
                f"layer {head.name}: the last layer must be conv, fc or avgpool, not {head.kind}"
            )
    used = {part for parts in graph.concats.values() for part in parts}
    for name in graph.heads:
        if name in used:
            raise UserError(f"layer {name} must be no part of a concatenation, as it stays raw")


def quantize_layers(
    graph: Graph,
    source: InputFormat,
    plans: Sequence[LayerPlan],
    quantizers: Sequence[Quantizer | None],
    stored: Mapping[str, WeightFormat] | None = None,
) -> list[network.Layer]:
    """All layers in integers; `plans` and `quantizers` have one entry per layer of the graph.

    Weights in `stored`, by layer name, are not fitted again.

    Raises:
        UserError: a network that `check_graph` refuses, or widths that could not be exact.
    """
    check_graph(graph)
    frac = {INPUT: source.frac}
    magnitude = {INPUT: source.magnitude}
    layers = []
    for layer, plan, quantizer in zip(graph.layers, plans, quantizers, strict=True):
        # the parts of a concatenation have one quantizer, so the first speaks for all
        sources = [graph.parts_of(name)[0] for name in layer.inputs]
        fracs, magnitudes = [frac[name] for name in sources], [magnitude[name] for name in sources]
        if layer.has_weights:
            done = quantize_layer(
                layer, plan, fracs[0], magnitudes[0], quantizer, (stored or {}).get(layer.name)
            )
        else:
            done = quantize_operation(layer, fracs, magnitudes, quantizer)
        check_pool(done)
        layers.append(done)
        if quantizer is not None:
            frac[layer.name], magnitude[layer.name] = quantizer.frac, quantizer.magnitude
    return layers
