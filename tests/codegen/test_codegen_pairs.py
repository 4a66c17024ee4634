# SPDX-License-Identifier: Apache-2.0
"""Two products in one multiplier, as docs/faster.md packs them: every case of its widths."""

import numpy as np
import pytest


def split(packed: np.ndarray, shift: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lower product, upper one as it comes, and upper one repaired by the lower one's sign."""
    lower = packed & ((1 << shift) - 1)
    lower -= (lower >> (shift - 1)) << shift
    upper = packed >> shift
    return lower, upper, upper + (lower < 0)


def test_two_codes_share_a_weight() -> None:
    """W = 14, E = 5, s = 19: 16,777,216 cases."""
    first, second = (grid.ravel() for grid in np.meshgrid(np.arange(32), np.arange(32)))
    wrong = unrepaired = cases = 0
    for weight in range(-(1 << 13), 1 << 13):
        lower, raw, upper = split(weight * (first + (second << 19)), 19)
        wrong += int(((lower != weight * first) | (upper != weight * second)).sum())
        unrepaired += int((raw != weight * second).sum())
        cases += first.size
    assert (cases, wrong) == (16_777_216, 0)
    assert unrepaired / cases == pytest.approx(0.484, abs=0.001)


def test_two_weights_share_a_value() -> None:
    """W = 8 without -128, V = 9, s = 17: 33,292,800 cases."""
    weights = np.arange(-127, 128)
    first, second = (grid.ravel() for grid in np.meshgrid(weights, weights))
    packed = first + (second << 17)
    # what is stored: wiring makes the packed factor of it
    assert (packed == ((second - (first < 0)) << 17) + (first & ((1 << 17) - 1))).all()
    cases = 0
    for value in range(-256, 256):
        lower, _, upper = split(packed * value, 17)
        assert (lower == first * value).all() and (upper == second * value).all()
        cases += first.size
    assert cases == 33_292_800
    assert int(np.abs(packed).max()).bit_length() + 1 <= 25  # the larger input of a DSP48E1


@pytest.mark.parametrize(
    ("port", "code_bits", "most"), [(24, 3, 18), (24, 4, 4), (24, 5, 1), (26, 5, 4)]
)
def test_packed_products_may_be_summed_before_they_are_split(
    port: int, code_bits: int, most: int
) -> None:
    """The lower sum must stay within its s bits, whose sign is the top one."""
    largest = (1 << 13) * ((1 << code_bits) - 1)
    assert (1 << (port - code_bits - 1)) // largest == most
