# SPDX-License-Identifier: Apache-2.0
"""The weight scale of a layer: a factor m of 1..255 for each output channel (docs/formats.md 2.3).

A weight of channel c stands for w * m[c] * 2^-F, so that the step of every channel is m[c] steps of
the layer. Weights are rounded to those steps, and m itself costs no accuracy.
"""

import math

import numpy as np

from nuq.formats.arithmetic import SCALE_BITS, largest_frac

LARGEST = (1 << SCALE_BITS) - 1
_TRIALS = 11  # of a channel's m: from what holds its largest weight down to 3/8 of it
_FEWEST, _SAMPLE = 8, 64  # weights of a channel that show its step: at least, and looked at first
_LIKE = 1e-3  # a multiple of a step may be so far from one, in steps
_GAIN = 1 / 64  # m may be so far from a given step
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


def own_steps(values: np.ndarray, top: int) -> np.ndarray | None:
    """The step [out] of each channel whose multiples its weights are, as in quantized files.

    None where a channel has fewer than 8 weights, or some that are not -top..top of any step, or
    more than 255.

    >>> own_steps(np.array([[0.5, -0.25, 0.75] * 3]), 127)
    array([0.25])
    """
    rows = np.abs(np.asarray(values, np.float64).reshape(len(values), -1))
    if rows.shape[1] < _FEWEST:
        return None
    multiples, steps = np.arange(1, min(top, 255) + 1), np.full(len(rows), np.nan)
    for number, row in enumerate(rows):
        largest = row.max()
        if largest == 0:
            continue
        scaled = row[:_SAMPLE] * (multiples / largest)[:, None]
        fits = np.abs(scaled - np.rint(scaled)).max(axis=1) < _LIKE
        for multiple in multiples[fits]:
            whole = row * (multiple / largest)
            if np.abs(whole - np.rint(whole)).max() < _LIKE:
                steps[number] = largest / multiple
                break
        else:
            return None
    known = steps[np.isfinite(steps)]
    return np.where(np.isfinite(steps), steps, known.max()) if known.size else None


def given_scale(
    values: np.ndarray, steps: np.ndarray, top: int
) -> tuple[np.ndarray, np.ndarray, int] | None:
    """(integers int64, m uint8 [out], F) of weights that are multiples of their channel's step.

    The integers are those multiples, or k times them where k as large fits, so that m * k is near
    the step. None where it is further from it than 1 in 64.

    >>> integers, scale, frac = given_scale(np.array([[3.0, -1.0], [0.5, 1.5]]), [1.0, 0.5], 7)
    >>> integers.tolist(), scale.tolist(), frac
    ([[6, -2], [1, 3]], [128, 128], 8)
    """
    own = np.rint(values / per_channel(steps, values)).astype(np.int64)
    largest = np.abs(own).reshape(len(own), -1).max(axis=1)
    most = top // np.maximum(largest, 1)
    frac = math.floor(np.log2(LARGEST * most / steps).min())
    exact = np.asarray(steps, np.float64) * 2.0**frac
    best, scale = np.ones(len(own), np.int64), np.zeros(len(own))
    error = np.full(len(own), np.inf)
    for k in range(1, int(most.max()) + 1):
        m = np.clip(np.rint(exact / k), 1, LARGEST)
        gap = np.where(k <= most, np.abs(m * k / exact - 1), np.inf)
        better = gap < error
        best[better], scale[better], error[better] = k, m[better], gap[better]
    if error.max() > _GAIN:
        return None
    return own * per_channel(best, own).astype(np.int64), scale.astype(np.uint8), frac


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
