# SPDX-License-Identifier: Apache-2.0
"""What several schemes read off a histogram: its range, its moments, the error of a format.

A histogram counts the integers y of docs/formats.md 2.3, the smallest first: 0, or -2^(qm - 1)
where they are signed.
"""

from __future__ import annotations

import math

import numpy as np

from formats.arithmetic import lowest
from formats.errors import UserError


def occupied(histogram: np.ndarray, qm: int, signed: bool) -> tuple[int, int]:
    """The smallest and the largest y that occurs.

    Raises:
        UserError: none occurs.

    >>> occupied(np.array([0, 3, 0, 1]), 2, signed=True)
    (-1, 1)
    """
    places = np.flatnonzero(histogram)
    if not len(places):
        raise UserError("histogram must hold some count above 0; give calibration images")
    first = lowest(qm, signed)
    return first + int(places[0]), first + int(places[-1])


def moments(histogram: np.ndarray, qm: int, signed: bool) -> tuple[float, float]:
    """Mean and variance of y.

    >>> moments(np.array([1, 0, 1, 0]), 2, signed=False)
    (1.0, 1.0)
    """
    first = lowest(qm, signed)
    y = np.arange(first, first + len(histogram), dtype=np.float64)
    mean = float(np.average(y, weights=histogram))
    return mean, float(np.average((y - mean) ** 2, weights=histogram))


def half_width(histogram: np.ndarray, qm: int, signed: bool) -> float:
    """Root mean square of the y other than 0: sigma of the density that a ReLU has cut in half.

    Zeros of unsigned values are the negative half, whose mirror image the positive half is; signed
    values are all counted.

    >>> half_width(np.array([9, 0, 2, 0]), 2, signed=False)
    2.0
    """
    first = lowest(qm, signed)
    y = np.arange(first, first + len(histogram), dtype=np.float64)
    counts = histogram.astype(np.float64)
    if not signed:
        counts[0] = 0
    total = counts.sum()
    return math.sqrt(float((counts * y * y).sum()) / total) if total else 0.0


def uniform_error(
    histogram: np.ndarray, qm: int, frac: int, signed: bool, bits: int, out_frac: int
) -> float:
    """Squared error, in units of y, of rounding and clamping y * 2^-frac to bits and out_frac.

    >>> uniform_error(np.array([0, 0, 0, 0, 0, 1, 0, 2]), 3, 0, False, 2, -1)  # 5 to 6, 7 to 6
    3.0
    """
    first, low = lowest(qm, signed), lowest(bits, signed)
    y = np.arange(first, first + len(histogram), dtype=np.float64)
    scale = 2.0 ** (out_frac - frac)
    codes = np.clip(np.floor(y * scale + 0.5), low, low + (1 << bits) - 1)
    return squared_error(histogram, codes / scale, first)


def only(scheme: str, options: dict[str, str | None], *known: str) -> None:
    """Refuse, by UserError, options that a scheme does not have."""
    unknown = sorted(key for key, value in options.items() if value is not None)
    for key in unknown:
        if key not in known:
            raise UserError(f"{scheme} must have no {key}, not {options[key]}; drop it")


def squared_error(histogram: np.ndarray, values: np.ndarray, first: int = 0) -> float:
    """Total squared error when every y = first + i of a histogram [n] becomes values[i]."""
    difference = values.astype(np.float64) - np.arange(first, first + len(histogram))
    return float((histogram * difference**2).sum())
