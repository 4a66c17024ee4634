# SPDX-License-Identifier: Apache-2.0
"""What several schemes read off a histogram: its range, its deviation, the error of a format.

A histogram counts the integers y of docs/formats.md 2.3, the smallest first: 0, or -2^(qm - 1)
where they are signed.
"""

import math

import numpy as np

from nuq.formats.activation import Activation
from nuq.formats.arithmetic import lowest
from nuq.formats.errors import UserError
from nuq.formats.quantizer import Quantizer
from nuq.model_prep import activations


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


def signal_and_noise(
    counts: np.ndarray, first: int, frac: int, quantizer: Quantizer, factor: float = 1.0,
    activation: Activation | None = None,
) -> tuple[float, float]:  # fmt: skip
    """Sums of squares of activations and of their error, in real units (paper 002, equation 4).

    Args:
        counts: how often, or with what weight, the integers first, first + 1, ... occur.
        first, frac: the smallest of them, and their F; it may be finer than the quantizer's.
        quantizer: what they are stored by.
        factor: by which values are multiplied before they are stored, and divided after.
        activation: what the quantizer's table holds, of the integers' values.

    >>> signal_and_noise(np.array([0, 0, 0, 1]), 0, 1, Quantizer("uniform", 2, 2, 0))
    (2.25, 0.25)
    """
    values = np.arange(first, first + len(counts)) * (factor * 2.0**-frac)
    y = np.floor(values * 2.0**quantizer.encoded_frac + 0.5)
    y = np.clip(y, quantizer.y_min, quantizer.y_max).astype(np.int64)
    values = activations.values(activation, values)
    error = quantizer.round_trip()[y - quantizer.y_min] * 2.0**-quantizer.frac - values
    signal, noise = float((counts * values**2).sum()), float((counts * error**2).sum())
    return signal / factor**2, noise / factor**2


def uniform_error(
    histogram: np.ndarray, qm: int, frac: int, signed: bool, bits: int, out_frac: int
) -> float:
    """Squared error, in real units, of rounding and clamping y * 2^-frac to bits and out_frac.

    >>> uniform_error(np.array([0, 0, 0, 0, 0, 1, 0, 2]), 3, 0, False, 2, -1)  # 5 to 6, 7 to 6
    3.0
    """
    codes = Quantizer("uniform", bits, bits, out_frac, signed=signed)
    return signal_and_noise(histogram, lowest(qm, signed), frac, codes)[1]
