# SPDX-License-Identifier: Apache-2.0
"""The weight scale of a layer: a factor m of 1..255 for each output channel (docs/formats.md 2.3).

A weight of channel c stands for w * m[c] * 2^-F, so that the step of every channel is m[c] steps of
the layer. Weights are rounded to those steps, and m itself costs no accuracy.
"""

import numpy as np

from nuq.formats.arithmetic import SCALE_BITS, largest_frac

LARGEST = (1 << SCALE_BITS) - 1
_TRIALS = 11  # of a channel's m: from what holds its largest weight down to 3/8 of it
_BLOCK = 1 << 16  # weights in work at once, so that they stay in the caches


def per_channel(values: np.ndarray, like: np.ndarray) -> np.ndarray:
    """One float64 an output channel, shaped to multiply arrays such as `like` [out, ...]."""
    return np.asarray(values, np.float64).reshape(-1, *[1] * (like.ndim - 1))


def rounding_scale(values: np.ndarray, bits: int) -> tuple[np.ndarray, int]:
    """(m uint8 [out], F) of least squared error for signed integers of `bits` bits, by channel.

    F is the finest that lets the channel with the largest weight hold it, m then what suits each
    channel; weights may saturate where that lowers the error.

    Args:
        values: float weights [out, ...].
        bits: width of the integers, whose range is symmetric.

    >>> scale, frac = rounding_scale(np.array([[1.0, -0.5], [0.01, 0.005], [0.0, 0.0]]), 8)
    >>> scale.tolist(), frac
    ([130, 2, 255], 14)
    """
    top = (1 << (bits - 1)) - 1
    rows = np.asarray(values, np.float64).reshape(len(values), -1)
    largest = np.abs(rows).max(axis=1, initial=0.0)
    frac = largest_frac(float(largest.max(initial=0.0)) / top, LARGEST)
    holds = largest / top * 2.0**frac
    holds[largest == 0] = LARGEST  # no weights, but a bias: as fine as those of the others
    best = np.empty(len(rows))
    step = max(1, _BLOCK // max(1, rows.shape[1]))
    for first in range(0, len(rows), step):
        part = slice(first, first + step)
        best[part] = _least_error(rows[part] * 2.0**frac, holds[part], top)
    return best.astype(np.uint8), frac


def _least_error(rows: np.ndarray, holds: np.ndarray, top: int) -> np.ndarray:
    """m of each row of weights, in steps of the layer; `holds` is the real one that holds all."""
    best, least = np.ones(len(rows)), np.full(len(rows), np.inf)
    for trial in range(_TRIALS):
        scale = np.clip(np.ceil(holds * (1 - trial / 16)), 1, LARGEST)
        scaled = rows / scale[:, None]
        error = np.square(np.clip(np.rint(scaled), -top, top) - scaled).sum(axis=1) * scale**2
        better = error < least
        best[better], least[better] = scale[better], error[better]
    return best


def spread_scale(values: np.ndarray) -> np.ndarray:
    """m (uint8 [out]) in proportion to each channel's RMS, so that all can share one codebook.

    >>> spread_scale(np.array([[3.0, -3.0], [1.0, 1.0], [0.0, 0.0]])).tolist()
    [255, 85, 255]
    """
    rows = np.asarray(values, np.float64).reshape(len(values), -1)
    spread = np.sqrt(np.square(rows).mean(axis=1)) if rows.shape[1] else np.zeros(len(rows))
    spread[spread == 0] = spread.max(initial=0.0)
    most = float(spread.max(initial=0.0)) or 1.0
    scale = np.clip(np.rint(spread / most * LARGEST), 1, LARGEST)
    return np.where(spread == 0, LARGEST, scale).astype(np.uint8)
