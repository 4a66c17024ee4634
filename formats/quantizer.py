# SPDX-License-Identifier: Apache-2.0
"""`Quantizer`: one activation format, with its exact integer encode (QE, QK) and decode (CE, CK).

The design of ENQ and KNQ in the papers on intra-layer nonuniform quantization, fixed bit for bit in
docs/formats.md 2.2 and 2.4.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, ClassVar

import numpy as np

from nuq.formats.arithmetic import half_step, lowest
from nuq.formats.errors import UserError
from nuq.formats.schema import Limits, stored

SCHEMES = ("uniform", "enq", "knq")  # index = Scheme in hls_templates/engine/layer.hpp
WIDTHS = {"knq": (1, 8), "enq": (1, 15), "uniform": (2, 16)}  # bits of a stored code
QM_RANGE = (2, 15)  # width of y where a nonuniform code is made from it
VARIANTS = ("round", "mid", "floor")
RULES = ("nearest", "floor")


def thresholds(centroid: np.ndarray, rule: str) -> np.ndarray:
    """Comparator table of QK: threshold[j] is the least y whose code is j; entry 0 is unused, 0.

    Args:
        centroid: strictly increasing integers [2^T].
        rule: "nearest" (to the nearest centroid, ties upwards) or "floor" (paper 000, equation of
            KNQ: code k where d_k <= x < d_(k+1)).

    >>> thresholds(np.array([0, 3, 10, 13]), "nearest")
    array([ 0,  2,  7, 12], dtype=int32)
    >>> thresholds(np.array([0, 3, 10, 13]), "floor")
    array([ 0,  3, 10, 13], dtype=int32)
    """
    if rule not in RULES:
        raise UserError(f"rule must be one of {', '.join(RULES)}, not {rule}")
    table = np.asarray(centroid, np.int64).copy()
    if rule == "nearest":
        table[1:] = (table[:-1] + table[1:] + 1) // 2
    table[0] = 0
    return table.astype(np.int32)


def check_qm(qm: int) -> None:
    """Refuse a width of y out of range, by UserError."""
    if not QM_RANGE[0] <= qm <= QM_RANGE[1]:
        raise UserError(f"qm must be {QM_RANGE[0]}..{QM_RANGE[1]}, not {qm}")


@dataclass(frozen=True, eq=False)
class Quantizer:
    """How one layer's activations are stored."""

    scheme: Annotated[str, Limits(enum=[*WIDTHS])]
    bits: Annotated[int, Limits(minimum=1, maximum=16)]  # width T of a stored code
    # width of the integer y that is encoded; equals `bits` for uniform
    qm: Annotated[int, Limits(minimum=2, maximum=16)]
    frac: int  # F of its values; y stands for y * 2^-F, too, unless `y_frac` says otherwise
    variant: str | None = None  # of VARIANTS, enq only
    rule: str | None = None  # of RULES, knq only
    # int32 [2^bits], knq only
    centroid: np.ndarray | None = stored(array="centroid", default=None)
    threshold: np.ndarray | None = stored(array="threshold", default=None)
    signed: bool = False  # whether y, and codes other than knq's, are two's complement
    # F of y where centroids are values of a function of it (knq only): y is two's complement then,
    # and `signed` is said of the values
    y_frac: int | None = None
    SCHEMA_RULES: ClassVar[dict[str, Any]] = {
        "allOf": [
            {
                "if": {"properties": {"scheme": {"const": scheme}}},
                "then": {
                    "properties": {
                        "bits": {"minimum": low, "maximum": high},
                        "qm": {"maximum": high if scheme == "uniform" else QM_RANGE[1]},
                        "variant": {"enum": [*VARIANTS] if scheme == "enq" else [None]},
                        "rule": {"enum": [*RULES] if scheme == "knq" else [None]},
                        **({} if scheme == "knq" else {"y_frac": {"enum": [None]}}),
                    },
                    "required": ["variant", "rule"],
                },
            }
            for scheme, (low, high) in WIDTHS.items()
        ]
    }

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
        elif self.y_frac is not None:
            raise UserError(f"y_frac must be absent for {self.scheme}, not {self.y_frac}")

    def _check_tables(self) -> None:
        """The centroid table increases strictly within the range of y, the thresholds too.

        Behind a function centroids may have any order, and a threshold may be one that no y reaches
        or that an earlier code has, too: that code then is not used.
        """
        if self.centroid is None or self.threshold is None:
            raise UserError("knq must have a centroid and a threshold table; fit it to a histogram")
        behind = self.y_frac is not None
        for name, table, low, more in (
            ("centroid", self.centroid, lowest(self.qm, self.signed), 0),
            ("threshold", self.threshold, self.y_min, int(behind)),
        ):
            if table.shape != (1 << self.bits,):
                raise UserError(
                    f"{name} table must have {1 << self.bits} entries, not {table.size}"
                )
            high = low + (1 << self.qm) - 1 + more
            if table.min() < low or table.max() > high:
                raise UserError(f"{name} table must stay in {low}..{high}, not {table}")
        if not behind and (np.diff(self.centroid) <= 0).any():
            raise UserError(f"centroid table must increase strictly, not {self.centroid}")
        if self.threshold[0] != 0 or (np.diff(self.threshold[1:]) < (not behind)).any():
            raise UserError(
                f"threshold table must start at 0 and then increase strictly, not {self.threshold}"
            )

    @property
    def value_bits(self) -> int:
        """Signed width of whatever value a code stands for.

        >>> Quantizer("enq", 3, 12, 0, "mid").value_bits, Quantizer("uniform", 8, 8, 0).value_bits
        (13, 9)
        """
        return self.qm + (not self.signed)

    @property
    def encoded_frac(self) -> int:
        """F of y."""
        return self.frac if self.y_frac is None else self.y_frac

    @property
    def y_signed(self) -> bool:
        """Whether y is two's complement."""
        return self.signed or self.y_frac is not None

    @property
    def ordered(self) -> bool:
        """Whether the largest of some codes belongs to the largest value."""
        if self.centroid is None:
            return not self.signed
        return bool((np.diff(self.centroid) >= 0).all())

    @property
    def y_min(self) -> int:
        """Smallest y: 0, or -2^(qm - 1) where it is signed."""
        return lowest(self.qm, self.y_signed)

    @property
    def y_max(self) -> int:
        """Largest y: 2^qm - 1, or 2^(qm - 1) - 1 where it is signed."""
        return self.y_min + (1 << self.qm) - 1

    @property
    def shift(self) -> int:
        """Bits that ENQ drops."""
        return self.qm - self.bits if self.scheme == "enq" else 0

    @property
    def decode_half(self) -> int:
        """Added to the value of codes other than 0 (enq, mid)."""
        return half_step(self.shift) if self.variant == "mid" else 0

    @property
    def encode_half(self) -> int:
        """Added before the shift (enq, round)."""
        return half_step(self.shift) if self.variant == "round" else 0

    @property
    def min_value(self) -> int:
        """Smallest integer that decoding gives.

        >>> Quantizer("enq", 3, 12, 0, "mid", signed=True).min_value
        -1792
        """
        return int(self.decode_table.min())

    @property
    def max_value(self) -> int:
        """Largest integer that decoding gives."""
        return int(self.decode_table.max())

    @property
    def magnitude(self) -> int:
        """Largest magnitude of an integer that decoding gives."""
        return max(self.max_value, -self.min_value)

    @property
    def decoder(self) -> tuple[object, ...]:
        """What two quantizers have in common if their codes stand for the same values."""
        table = None if self.centroid is None else tuple(self.centroid.tolist())
        return (self.scheme, self.bits, self.qm, self.frac, self.variant, self.signed, table)

    @property
    def key(self) -> tuple[object, ...]:
        """What two quantizers have in common if they also give every y the same code."""
        table = None if self.threshold is None else tuple(self.threshold.tolist())
        return (*self.decoder, self.y_frac, table)

    @cached_property
    def encode_table(self) -> np.ndarray:
        """The code of every y (uint16 [2^qm], from y_min up): what QE or QK computes.

        >>> Quantizer("enq", 2, 4, 0, variant="round").encode_table
        array([0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3], dtype=uint16)
        >>> Quantizer("enq", 2, 3, 0, variant="floor", signed=True).encode_table
        array([2, 2, 3, 3, 0, 0, 1, 1], dtype=uint16)
        """
        y = np.arange(self.y_min, self.y_max + 1)
        if self.threshold is not None:
            y = np.searchsorted(self.threshold[1:], y, side="right")
        else:
            largest = (1 << (self.bits - self.signed)) - 1
            y = np.minimum((y + self.encode_half) >> self.shift, largest)
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
        return ((codes << self.shift) + np.where(codes != 0, self.decode_half, 0)).astype(np.int32)

    def encode(self, y: Any) -> Any:
        """Codes (uint16) of integers y in y_min..y_max, an array or one."""
        return self.encode_table[y - self.y_min]

    def decode(self, codes: Any) -> Any:
        """Integer values (int32) of stored codes, an array or one."""
        return self.decode_table[codes]

    def round_trip(self) -> np.ndarray:
        """decode(encode(y)) for every y (int32 [2^qm], from y_min up)."""
        return self.decode_table[self.encode_table]

    @cached_property
    def values_table(self) -> np.ndarray:
        """What is left of every y as a number (float32 [2^qm], from y_min up)."""
        return (self.round_trip() * 2.0**-self.frac).astype(np.float32)


def _check_choice(name: str, value: str | None, choices: tuple[str, ...] | None) -> None:
    """`value` is one of `choices`, or None where there is no choice."""
    if choices is None:
        if value is not None:
            raise UserError(f"{name} must be absent for this scheme, not {value}")
    elif value not in choices:
        raise UserError(f"{name} must be one of {', '.join(choices)}, not {value}")
