# SPDX-License-Identifier: Apache-2.0
"""Widths and F of the uniform codes that a quantized file gives its layers (`graph.Codes`)."""

import math
from collections import Counter

from nuq.model_prep.graph import Codes, Graph, Layer


def is_power(step: float) -> bool:
    """Whether a step is a power of two."""
    return math.frexp(step)[0] == 0.5


def width(codes: Codes) -> int:
    """Bits of the codes.

    >>> width(Codes(0.5, 0, 255)), width(Codes(0.5, -128, 127)), width(Codes(0.5, -90, 165))
    (8, 8, 9)
    """
    signed = codes.low < 0
    return max(codes.high.bit_length(), (-codes.low - 1).bit_length() if signed else 0) + signed


def file_frac(layer: Layer, scheme: str, bits: int | None, signed: bool) -> int | None:
    """F of a layer's codes where uniform ones of so many bits are the file's; else None."""
    codes = layer.codes
    if codes is None or scheme != "uniform" or not is_power(codes.step):
        return None
    same = width(codes) == bits and (codes.low < 0) == signed
    return -round(math.log2(codes.step)) if same else None


def usual_width(graph: Graph) -> int | None:
    """The width that most stored values have in the file; None where it is not quantized."""
    counts: Counter[int] = Counter()
    for layer in graph.stored:
        if layer.codes is not None:
            counts[width(layer.codes)] += math.prod(layer.out_shape)
    return counts.most_common(1)[0][0] if counts else None
