# SPDX-License-Identifier: Apache-2.0
"""Integer helpers and the widths of the engine's types; every log2 says how it rounds.

Widths follow docs/formats.md section 2.
"""

from __future__ import annotations


def ceil_div(a: int, b: int) -> int:
    """a / b rounded up.

    >>> [ceil_div(a, 8) for a in (0, 1, 8, 9)]
    [0, 1, 1, 2]
    """
    return -(-a // b)


def ceil_log2(n: int) -> int:
    """Smallest k with 2^k >= n.

    >>> [ceil_log2(n) for n in (1, 2, 3, 8, 9)]
    [0, 1, 2, 3, 4]
    """
    return (n - 1).bit_length()


def signed_bits(low: int, high: int) -> int:
    """Width of the smallest two's complement type that holds low..high.

    >>> [signed_bits(*r) for r in ((0, 0), (0, 1), (-1, 0), (-8, 7), (-8, 8), (0, 4095))]
    [1, 2, 1, 4, 5, 13]
    """
    return max(high.bit_length(), (~low).bit_length() if low < 0 else 0) + 1


def unsigned_bits(high: int) -> int:
    """Width of the smallest unsigned type that holds 0..high, at least 1.

    >>> [unsigned_bits(n) for n in (0, 1, 7, 8)]
    [1, 1, 3, 4]
    """
    return max(1, high.bit_length())


def tree_bits(weight_bits: int, value_bits: int, simd: int) -> int:
    """Width of the sum of `simd` full products; no input can overflow it.

    >>> tree_bits(14, 13, 8), tree_bits(14, 13, 24)
    (30, 32)
    """
    return weight_bits + value_bits + ceil_log2(simd)


def native_bits(bits: int) -> int:
    """Width of the smallest native C++ integer of at least `bits` bits.

    >>> [native_bits(n) for n in (1, 8, 9, 17, 33)]
    [8, 8, 16, 32, 64]
    """
    for width in (8, 16, 32, 64):
        if bits <= width:
            return width
    raise ValueError(f"width must be at most 64 bits, not {bits}")


def half_step(shift: int) -> int:
    """Half of 2^shift, rounded down: what ENQ `mid` and `round` add.

    >>> half_step(0), half_step(1), half_step(7)
    (0, 1, 64)
    """
    return (1 << shift) >> 1
