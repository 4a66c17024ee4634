# SPDX-License-Identifier: Apache-2.0
"""From a rule for tables to quantizers: centroids for activations, a codebook for weights.

A rule gets counts of integers and gives 2^bits strictly increasing ones (paper 004, section 4.2:
the table's entries are in fixed point).
"""

from collections.abc import Callable

import numpy as np

from nuq.formats.arithmetic import ENTRY_BITS, lowest, to_fixed
from nuq.formats.errors import UserError
from nuq.formats.quantizer import WIDTHS, Quantizer, check_qm, thresholds
from nuq.model_prep.quantize.quantizers import WeightFormat
from nuq.model_prep.quantize.quantizers.histogram import occupied

# (counts of first.., first, number of entries, whether the entry of 0 is 0) -> integer table
Table = Callable[[np.ndarray, int, int, bool], np.ndarray]


def table_quantizer(
    centroid: np.ndarray, qm: int, frac: int, signed: bool, rule: str
) -> Quantizer:  # fmt: skip
    """A quantizer run by QK and CK, of its table of 2^bits rising integers."""
    return Quantizer(
        "knq", len(centroid).bit_length() - 1, qm, frac, rule=rule,
        centroid=centroid.astype(np.int32), threshold=thresholds(centroid, rule), signed=signed,
    )  # fmt: skip


def fit_activations(
    scheme: str, table: Table, histogram: np.ndarray, bits: int, qm: int, frac: int, signed: bool,
    rule: str = "nearest",
) -> Quantizer:  # fmt: skip
    """A quantizer with the table of a histogram.

    The first entry is 0 where most of the activations are: a sum over many of them would multiply
    any other value's error. Only the smallest y of unsigned ones is 0.

    Args:
        scheme: for messages.
        table: makes the table.
        histogram, bits, qm, frac, signed: as of every `Scheme`.
        rule: see `formats.quantizer.thresholds`.
    """
    check_qm(qm)
    low, high = WIDTHS["knq"]
    if not low <= bits <= min(high, qm):
        raise UserError(f"{scheme} bits must be {low}..{min(high, qm)}, not {bits}")
    occupied(histogram, qm, signed)
    keep_zero = not signed and 2 * int(histogram[0]) > int(histogram.sum())
    centroid = table(histogram, lowest(qm, signed), 1 << bits, keep_zero)
    return table_quantizer(centroid, qm, frac, signed, rule)


def fit_weights(scheme: str, table: Table, values: np.ndarray, bits: int) -> WeightFormat:
    """Weights as indices into a table of 2^bits integers of ENTRY_BITS bits.

    The weights are rounded to fixed point of that width first, of which there are so few that
    counts describe a layer of any size without loss; each then goes to the nearest entry, ties
    upwards.
    """
    integers, frac = to_fixed(values, ENTRY_BITS)
    first = 1 - (1 << (ENTRY_BITS - 1))  # the range is symmetric, as in `to_fixed`
    counts = np.bincount((integers - first).ravel(), minlength=1 - 2 * first)
    if not values.size:
        counts[-first] = 1
    entries = table(counts, first, 1 << bits, False)
    bounds = (entries[:-1] + entries[1:] + 1) >> 1
    # one search for each integer that there can be, not for each weight
    nearest = entries[np.searchsorted(bounds, np.arange(first, 1 - first), side="right")]
    chosen = nearest[integers - first].astype(np.int64)
    return WeightFormat(scheme, bits, frac, chosen, entries.astype(np.int32))
