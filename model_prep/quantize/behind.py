# SPDX-License-Identifier: Apache-2.0
"""Codebooks that hold an activation: values behind it, thresholds on the numbers y in front of it.

Layers that share codes have one table of values; each has its own thresholds, of its own function
and F. Of a function that rises, codes are in the order of their values, so that every rule for
tables applies to the histogram of the values. Of one that falls first, codes are segments of y.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nuq.formats.activation import Activation
from nuq.formats.arithmetic import largest_frac, lowest
from nuq.formats.errors import UserError
from nuq.formats.quantizer import Quantizer, thresholds
from nuq.model_prep.activations import rises, values
from nuq.model_prep.quantize import quantizers
from nuq.model_prep.quantize.kmeans import turning_table
from nuq.model_prep.quantize.plan import LayerPlan

MOST_FRAC = 24  # of a value, as of y
# (counts [2^qm] of integers from the smallest up, F) -> the quantizer of these integers
Fit = Callable[[np.ndarray, int], Quantizer]


@dataclass(frozen=True)
class Part:
    """What one of the layers that share a table encodes."""

    activation: Activation | None  # None: y is what is stored
    frac: int  # F of y
    counts: np.ndarray  # of every y, int64 [2^qm], the smallest first


def numbers(activation: Activation | None, qm: int, frac: int, signed: bool) -> np.ndarray:
    """The value of every y, float64 [2^qm]; y is signed where there is an activation."""
    first = lowest(qm, signed or activation is not None)
    return values(activation, np.arange(first, first + (1 << qm)) * 2.0**-frac)


def rounded(exact: np.ndarray, qm: int, frac: int, signed: bool) -> np.ndarray:
    """Values as integers of an F and qm bits, int64."""
    low = lowest(qm, signed)
    return np.clip(np.floor(exact * 2.0**frac + 0.5), low, low + (1 << qm) - 1).astype(np.int64)


def value_frac(parts: Sequence[Part], qm: int, signed: bool) -> int:
    """The largest F with which no value that occurs is clipped."""
    most = MOST_FRAC
    for part in parts:
        found = numbers(part.activation, qm, part.frac, signed)[part.counts > 0]
        if not len(found):
            raise UserError("histogram must hold some count above 0; give calibration images")
        top = (1 << (qm - signed)) - 1
        below = -float(found.min()) * top / (top + 1) if signed else 0.0  # it reaches one further
        most = min(most, largest_frac(max(float(found.max()), below, 0.0) or 2.0**-most, top, most))
    return most


def fit(parts: Sequence[Part], number: int, qm: int, signed: bool, table: Fit) -> Quantizer:
    """The table of values that suits the parts, with the thresholds of the first of them.

    Args:
        parts: layers that share it; where one's function falls, all have the same and one F.
        number: of codes.
        qm, signed: of the values.
        table: makes it of a histogram of values.
    """
    frac, first = value_frac(parts, qm, signed), parts[0]
    if all(rises(part.activation) for part in parts):
        total = np.zeros(1 << qm, np.int64)
        for part in parts:
            exact = numbers(part.activation, qm, part.frac, signed)
            places = rounded(exact, qm, frac, signed) - lowest(qm, signed)
            np.add.at(total, places, part.counts)
        return table(total, frac)
    counts = np.sum([part.counts for part in parts], axis=0)
    there = counts > 0
    exact = rounded(numbers(first.activation, qm, first.frac, signed), qm, frac, signed)
    centroid = turning_table(exact[there], counts[there], number)
    return encoder(centroid, qm, frac, signed, "nearest", first.activation, first.frac, counts)


def encoder(
    centroid: np.ndarray, qm: int, frac: int, signed: bool, rule: str,
    activation: Activation | None, y_frac: int, counts: np.ndarray | None = None,
) -> Quantizer:  # fmt: skip
    """The quantizer of a table of values for what a layer encodes.

    Args:
        centroid: the values, integers.
        qm, frac, signed: their width, F and sign.
        rule: see `formats.quantizer.thresholds`.
        activation: None where y is what is stored; `y_frac` is not read then.
        y_frac: F of y.
        counts: of every y, where a function that falls has to know which ones matter.
    """
    bits = len(centroid).bit_length() - 1
    table = centroid.astype(np.int32)
    if activation is None:
        limits = thresholds(centroid, rule)
        return Quantizer(
            "knq", bits, qm, frac, rule=rule, centroid=table, threshold=limits, signed=signed
        )
    exact = rounded(numbers(activation, qm, y_frac, signed), qm, frac, signed)
    if rises(activation):
        limits = np.searchsorted(exact, thresholds(centroid, rule)[1:], side="left")
    else:
        weights = np.ones(len(exact)) if counts is None else counts / counts.sum() + 1e-9
        limits = _staircase(exact, weights, centroid)
    limits = np.concatenate([[0], limits + lowest(qm, True)]).astype(np.int32)
    return Quantizer(
        "knq", bits, qm, frac, rule=rule, centroid=table, threshold=limits, signed=signed,
        y_frac=y_frac,
    )  # fmt: skip


def _staircase(exact: np.ndarray, weights: np.ndarray, centroid: np.ndarray) -> np.ndarray:
    """Where each code but the first begins, so that the squared error of all values is least.

    Codes never fall from one place to the next; len(exact) stands for a code that has no place.

    >>> _staircase(np.array([0, -3, -3, 1, 5]), np.ones(5), np.array([-3, 1, 5]))
    array([3, 4])
    """
    codes = np.arange(len(centroid))
    least, origin = np.zeros(len(centroid)), np.zeros((len(exact), len(centroid)), np.int64)
    for place, value in enumerate(exact):
        before = np.minimum.accumulate(least)
        origin[place] = np.maximum.accumulate(np.where(least == before, codes, 0))
        least = before + weights[place] * (value - centroid) ** 2.0
    code, begins = int(least.argmin()), np.full(len(centroid), len(exact))
    for place in range(len(exact) - 1, -1, -1):
        begins[: code + 1] = place
        code = int(origin[place, code])
    return begins[1:]


def fit_all(
    layers: Sequence[LayerPlan], parts: Mapping[str, Part], qm: int
) -> dict[str, Quantizer]:
    """The quantizers of layers that share a codebook with an activation in it, by name.

    Args:
        layers: all that share it, with their width; those that are not counted have thresholds
            only.
        parts: what they encode, by name.
        qm: width of y and of the values.
    """
    plan = layers[0]
    bits, signed = plan.bits or 0, plan.signed

    def table(counts: np.ndarray, frac: int) -> Quantizer:
        scheme = str(plan.scheme)
        return quantizers.fit(scheme, counts, bits, qm, frac, signed=signed, **plan.options)

    shared = fit([parts[one.name] for one in layers if one.counted], 1 << bits, qm, signed, table)
    if shared.y_frac is not None:  # all are alike
        return {layer.name: shared for layer in layers}
    centroid, rule = shared.centroid, shared.rule
    assert centroid is not None and rule is not None
    made: dict[object, Quantizer] = {}  # layers that are alike have one object
    found = {}
    for layer in layers:
        own, y_frac = layer.activation, parts[layer.name].frac
        key = own and (own.key, y_frac)
        if key not in made:
            made[key] = encoder(centroid, qm, shared.frac, signed, rule, own, y_frac)
        found[layer.name] = made[key]
    return found
