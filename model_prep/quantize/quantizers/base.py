# SPDX-License-Identifier: Apache-2.0
"""`Quantizer`: one activation format, with its exact integer encode (QE, QK) and decode (CE, CK).

Equations: design of ENQ and KNQ in papers 000/001, fixed bit for bit in docs/formats.md 2.2-2.4.
A scheme is one module with `fit(histogram, bits, qm, frac, **options) -> Quantizer`; this module
holds what all of them share.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
import torch

from formats.errors import UserError
from model_prep.quantize.kmeans import RULES

VARIANTS = ("floor", "mid", "round")
WIDTHS = {"knq": (1, 8), "enq": (1, 15), "uniform": (2, 16)}  # bits of a stored code
# Schemes of a plan -> the scheme that their codes are stored and converted by.
HARDWARE = {
    "knq": "knq", "enq": "enq", "uniform": "uniform", "optimal": "uniform", "dynamic": "uniform",
    "linear": "knq", "gaussian": "knq",
}  # fmt: skip
PLAN_WIDTHS = {scheme: WIDTHS[hardware] for scheme, hardware in HARDWARE.items()}
QM_RANGE = (2, 15)  # width of y where a nonuniform code is made from it

Codes = TypeVar("Codes", np.ndarray, torch.Tensor)


@dataclass(frozen=True, eq=False)
class Quantizer:
    """How one layer's activations are stored.

    Attributes:
        scheme: "knq", "enq" or "uniform".
        bits: width T of a stored code.
        qm: width of the integer y that is encoded; equals `bits` for uniform.
        frac: F, y stands for y * 2^-F.
        variant: enq "floor", "mid" or "round"; otherwise None.
        rule: knq "nearest" or "floor"; otherwise None.
        centroid, threshold: int32 [2^bits], knq only.
        signed: whether y may be negative.
    """

    scheme: str
    bits: int
    qm: int
    frac: int
    variant: str | None = None
    rule: str | None = None
    centroid: np.ndarray | None = None
    threshold: np.ndarray | None = None
    signed: bool = False

    def __post_init__(self) -> None:
        """Refuse, by UserError, what docs/formats.md does not allow."""
        if self.scheme not in WIDTHS:
            raise UserError(f"scheme must be one of {', '.join(WIDTHS)}, not {self.scheme}")
        low, high = WIDTHS[self.scheme]
        if not low <= self.bits <= high:
            raise UserError(f"{self.scheme} bits must be {low}..{high}, not {self.bits}")
        if self.scheme == "uniform":
            if self.qm != self.bits:
                raise UserError(f"uniform qm must equal its bits {self.bits}, not {self.qm}")
        else:
            check_qm(self.qm)
            if self.bits > self.qm:
                raise UserError(f"{self.scheme} bits must be at most qm {self.qm}, not {self.bits}")
        _check_choice("variant", self.variant, VARIANTS if self.scheme == "enq" else None)
        _check_choice("rule", self.rule, RULES if self.scheme == "knq" else None)
        if self.scheme == "knq":
            self._check_tables()

    def _check_tables(self) -> None:
        """The centroid table increases strictly within the range of y, the thresholds too."""
        if self.centroid is None or self.threshold is None:
            raise UserError("knq must have a centroid and a threshold table; fit it to a histogram")
        for name, table in (("centroid", self.centroid), ("threshold", self.threshold)):
            if table.shape != (1 << self.bits,):
                raise UserError(
                    f"{name} table must have {1 << self.bits} entries, not {table.size}"
                )
            if table.min() < self.min_input or table.max() > self.max_input:
                raise UserError(
                    f"{name} table must stay in {self.min_input}..{self.max_input}, not {table}"
                )
        if (np.diff(self.centroid) <= 0).any():
            raise UserError(f"centroid table must increase strictly, not {self.centroid}")
        if self.threshold[0] != 0 or (np.diff(self.threshold[1:]) <= 0).any():
            raise UserError(
                f"threshold table must start at 0 and then increase strictly, not {self.threshold}"
            )

    @property
    def min_input(self) -> int:
        """Smallest y: 0, or -2^(qm - 1) where it is signed."""
        return lowest(self.qm, self.signed)

    @property
    def max_input(self) -> int:
        """Largest y: 2^qm - 1, or 2^(qm - 1) - 1 where it is signed."""
        return self.min_input + (1 << self.qm) - 1

    @property
    def max_value(self) -> int:
        """Largest integer that decoding gives."""
        return int(self.decode_table.max())

    @property
    def magnitude(self) -> int:
        """Largest magnitude of an integer that decoding gives."""
        return max(self.max_value, -int(self.decode_table.min()))

    @property
    def key(self) -> tuple[object, ...]:
        """What two quantizers have in common if their codes stand for the same values."""
        tables = [
            None if table is None else tuple(table.tolist())
            for table in (self.centroid, self.threshold)
        ]
        return (self.scheme, self.bits, self.qm, self.frac, self.variant, self.signed, *tables)

    @cached_property
    def encode_table(self) -> np.ndarray:
        """The code of every y (uint16 [2^qm], from min_input up): what QE or QK computes.

        >>> Quantizer("enq", 2, 4, 0, variant="round").encode_table
        array([0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3], dtype=uint16)
        >>> Quantizer("enq", 2, 3, 0, variant="floor", signed=True).encode_table
        array([2, 2, 3, 3, 0, 0, 1, 1], dtype=uint16)
        """
        y = np.arange(self.min_input, self.max_input + 1)
        if self.scheme == "enq":
            shift = self.qm - self.bits
            half = (1 << shift) >> 1 if self.variant == "round" else 0
            y = np.minimum((y + half) >> shift, (1 << (self.bits - self.signed)) - 1)
        elif self.threshold is not None:
            y = np.searchsorted(self.threshold[1:], y, side="right")
        return (y & ((1 << self.bits) - 1)).astype(np.uint16)

    @cached_property
    def decode_table(self) -> np.ndarray:
        """The integer value of every code (int32 [2^bits]): what CE or CK computes.

        >>> Quantizer("enq", 2, 4, 0, variant="mid").decode_table
        array([ 0,  6, 10, 14], dtype=int32)
        """
        if self.centroid is not None:
            return self.centroid.astype(np.int32)
        codes = np.arange(1 << self.bits)
        if self.signed:
            codes -= (codes >> (self.bits - 1)) << self.bits
        if self.scheme == "enq":
            shift = self.qm - self.bits
            half = (1 << shift) >> 1 if self.variant == "mid" else 0
            codes = (codes << shift) + np.where(codes != 0, half, 0)
        return codes.astype(np.int32)

    def encode(self, y: Codes) -> Codes:
        """Codes of integers y in min_input..max_input; uint16 for numpy, int32 for torch."""
        if isinstance(y, torch.Tensor):
            return torch.from_numpy(self.encode_table.astype(np.int32)).to(y.device)[
                y.long() - self.min_input
            ]
        return self.encode_table[y - self.min_input]

    def decode(self, codes: Codes) -> Codes:
        """Integer values (int32) of stored codes."""
        if isinstance(codes, torch.Tensor):
            return torch.from_numpy(self.decode_table).to(codes.device)[codes.long()]
        return self.decode_table[codes]

    def round_trip(self) -> np.ndarray:
        """decode(encode(y)) for every y (int32 [2^qm], from min_input up)."""
        return self.decode_table[self.encode_table]

    @cached_property
    def values_table(self) -> np.ndarray:
        """What is left of every y as a number (float32 [2^qm], from min_input up)."""
        return (self.round_trip() * 2.0**-self.frac).astype(np.float32)


def lowest(qm: int, signed: bool) -> int:
    """The smallest integer of `qm` bits.

    >>> lowest(8, False), lowest(8, True)
    (0, -128)
    """
    return -(1 << (qm - 1)) if signed else 0


def check_qm(qm: int) -> None:
    """Refuse a width of y out of range, by UserError."""
    if not QM_RANGE[0] <= qm <= QM_RANGE[1]:
        raise UserError(f"qm must be {QM_RANGE[0]}..{QM_RANGE[1]}, not {qm}")


def _check_choice(name: str, value: str | None, choices: tuple[str, ...] | None) -> None:
    """`value` is one of `choices`, or None where there is no choice."""
    if choices is None:
        if value is not None:
            raise UserError(f"{name} must be absent for this scheme, not {value}")
    elif value not in choices:
        raise UserError(f"{name} must be one of {', '.join(choices)}, not {value}")


def squared_error(histogram: np.ndarray, values: np.ndarray, first: int = 0) -> float:
    """Total squared error when every y = first + i of a histogram [n] becomes values[i]."""
    difference = values.astype(np.float64) - np.arange(first, first + len(histogram))
    return float((histogram * difference**2).sum())
