# SPDX-License-Identifier: Apache-2.0
"""Widths that the papers publish for the scheme they compare with."""

from __future__ import annotations

# CLNQ: uniform codes, a width per convolution, in order (IEEE papers 000/001, section IV).
CLNQ_BITS: dict[str, tuple[int, ...]] = {
    "vgg16": (8, 8, 10, 11, 11, 11, 11, 11, 11, 10, 10, 9, 8),
}
