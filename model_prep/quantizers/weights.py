# SPDX-License-Identifier: Apache-2.0
"""`WeightFormat`: how a layer's weights are stored, as integers or as indices into a codebook.

Weights are signed; the engine multiplies integers of `docs/formats.md` 2.3 either way, so a
codebook changes the stored bits only. Imports numpy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


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
    def indices(self) -> np.ndarray:
        """What is stored: positions in the table, or the integers (int64)."""
        if self.table is None:
            return self.integers
        return np.searchsorted(self.table, self.integers)
