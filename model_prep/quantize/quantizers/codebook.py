# SPDX-License-Identifier: Apache-2.0
"""From a rule for tables to quantizers: centroids for activations, a codebook for weights.

A rule gets counts of integers and gives 2^bits strictly increasing ones (paper 004, section 4.2:
the table's entries are in fixed point).
"""

from collections.abc import Callable

import numpy as np

from formats.arithmetic import lowest, to_fixed
from formats.errors import UserError
from formats.quantizer import WIDTHS, Quantizer, check_qm, thresholds
from model_prep.quantize.quantizers.histogram import occupied
from model_prep.quantize.quantizers.weights import WeightFormat

# (counts of first.., first, number of entries, whether the entry of 0 is 0) -> int64 table
Rule = Callable[[np.ndarray, int, int, bool], np.ndarray]
TABLE_BITS = (2, 16)  # width of a weight that a codebook holds


def fit_activations(
    scheme: str, rule: Rule, histogram: np.ndarray, bits: int, qm: int, frac: int, signed: bool
) -> Quantizer:
    """A quantizer run by QK and CK, whose codes go to the nearest entry of the rule's table.

    As in KNQ (docs/formats.md, `kmeans.py`), the first entry is 0 where most of the
    activations are: a sum over many of them would multiply any other value's error.

    Args:
        scheme: for messages.
        rule: makes the table.
        histogram: counts [2^qm] of y.
        bits: width of a code, 1..8.
        qm, frac: width and F of y.
        signed: whether y may be negative.
    """
    check_qm(qm)
    low, high = WIDTHS["knq"]
    if not low <= bits <= min(high, qm):
        raise UserError(f"{scheme} bits must be {low}..{min(high, qm)}, not {bits}")
    occupied(histogram, qm, signed)
    keep_zero = not signed and 2 * int(histogram[0]) > int(histogram.sum())
    centroid = rule(histogram, lowest(qm, signed), 1 << bits, keep_zero).astype(np.int32)
    return Quantizer(
        "knq", bits, qm, frac, rule="nearest", centroid=centroid,
        threshold=thresholds(centroid, "nearest"), signed=signed,
    )  # fmt: skip


def fit_codebook(
    scheme: str, rule: Rule, values: np.ndarray, bits: int, table_bits: int
) -> WeightFormat:
    """Weights as indices into a table of 2^bits integers of `table_bits` bits.

    The weights are rounded to fixed point of the table's width first; each then goes to the
    nearest entry, ties upwards.

    Args:
        scheme: name of the format.
        rule: makes the table.
        values: float weights.
        bits: width of an index.
        table_bits: signed width of an entry.

    Raises:
        UserError: a width out of range, or more entries than integers.
    """
    least, most = TABLE_BITS
    if not least <= table_bits <= most:
        raise UserError(f"table bits must be {least}..{most}, not {table_bits}")
    if not 1 <= bits < table_bits:
        raise UserError(f"{scheme} weight bits must be 1..{table_bits - 1}, not {bits}")
    integers, frac = to_fixed(values, table_bits)
    first = 1 - (1 << (table_bits - 1))  # the range is symmetric, as in `to_fixed`
    counts = np.bincount((integers - first).ravel(), minlength=1 - 2 * first)
    if not values.size:
        counts[-first] = 1
    table = rule(counts, first, 1 << bits, False)
    bounds = (table[:-1] + table[1:] + 1) >> 1
    # one search for each integer that there can be, not for each weight
    nearest = table[np.searchsorted(bounds, np.arange(first, 1 - first), side="right")]
    chosen = nearest[integers - first].astype(np.int64)
    return WeightFormat(scheme, bits, frac, chosen, table.astype(np.int32))
