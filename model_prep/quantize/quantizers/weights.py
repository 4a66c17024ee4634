# SPDX-License-Identifier: Apache-2.0
"""`WeightFormat`: how a layer's weights are stored, as integers or as indices into a codebook.

Weights are signed; the engine multiplies integers of `docs/formats.md` 2.3 either way, so a
codebook changes the stored bits only. A scheme is a module with `fit_weights(values, bits,
table_bits) -> WeightFormat`, imported when it is asked for.
"""

from dataclasses import dataclass
from importlib import import_module

import numpy as np

from formats.errors import UserError

TABLE_BITS = 14  # signed entries of a codebook: the papers' width of a weight
# scheme: its module, and (least, most, default) bits of a stored weight or index
WEIGHT_SCHEMES = {
    "uniform": ("weight_uniform", (2, 16, 14)),
    "dynamic": ("dynamic", (2, 16, 14)),
    "kmeans": ("weight_kmeans", (1, 8, 8)),
    "linear": ("kmeans_linear", (1, 8, 8)),
    "gaussian": ("kmeans_gaussian", (1, 8, 8)),
}


@dataclass(frozen=True, eq=False)
class WeightFormat:
    """The stored form of one layer's weights.

    Attributes:
        scheme: its name in a plan: "uniform", "dynamic", "kmeans", "linear" or "gaussian".
        bits: width of a stored weight or index.
        frac: F of the integers, which stand for integer * 2^-F.
        integers: int64, the weights that are multiplied, in the shape of the float weights.
        table: int32 [2^bits], strictly increasing, holding every value in `integers`; None where
            the integers themselves are stored.
    """

    scheme: str
    bits: int
    frac: int
    integers: np.ndarray
    table: np.ndarray | None = None

    @property
    def multiplied_bits(self) -> int:
        """Signed width of the integers."""
        return self.bits if self.table is None else TABLE_BITS

    @property
    def indices(self) -> np.ndarray:
        """What is stored: positions in the table, or the integers (int64)."""
        if self.table is None:
            return self.integers
        return np.searchsorted(self.table, self.integers)


def fit_weights(scheme: str, values: np.ndarray, bits: int, name: str) -> WeightFormat:
    """Quantize the float weights of the layer called `name` by a scheme of WEIGHT_SCHEMES.

    Raises:
        UserError: the scheme is not there, or its width is out of range.
    """
    module, (low, high, _) = WEIGHT_SCHEMES[scheme]
    if not low <= bits <= high:
        raise UserError(
            f"weight_bits of layer {name} must be {low}..{high} for {scheme}, not {bits}"
        )
    path = f"model_prep.quantize.quantizers.{module}"
    try:
        fitted: WeightFormat = import_module(path).fit_weights(values, bits, TABLE_BITS)
    except ModuleNotFoundError as error:
        if error.name != path:
            raise
        raise UserError(
            f"weight_scheme of layer {name} must be one that is installed, not {scheme}: {path} "
            "does not exist; choose another"
        ) from None
    _check(fitted, name)
    return fitted


def _check(fitted: WeightFormat, name: str) -> None:
    """The promises of WeightFormat that the formats rely on; a fault of the scheme otherwise."""
    table = fitted.table
    half = 1 << (fitted.multiplied_bits - 1)
    if table is None:
        low, high = fitted.integers.min(initial=0), fitted.integers.max(initial=0)
        good = -half <= int(low) and int(high) < half
    else:
        within = -half <= int(table[0]) and int(table[-1]) < half
        good = table.shape == (1 << fitted.bits,) and within and bool((np.diff(table) > 0).all())
        known = np.zeros(2 * half, bool)
        known[table + half] = True
        good = good and bool(known[fitted.integers + half].all())
    if not good:
        raise ValueError(f"layer {name}: {fitted.scheme} must give weights that can be stored")
