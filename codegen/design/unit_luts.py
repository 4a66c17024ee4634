# SPDX-License-Identifier: Apache-2.0
"""LUTs of the conversion units by formula, with coefficients fitted to measured ones.

No synthesis tool is needed. codegen/units measures the units and fits lut_model.json to the figures
(Yosys, 7-series); a vendor's tool may need fewer.
"""

import json
import math
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import numpy as np

from nuq.formats.errors import UserError

MODEL = Path(__file__).with_name("lut_model.json")
QM = (2, 16)  # what a value may have
BITS = {"knq": (1, 8), "enq": (1, 16)}  # and a code of each scheme

# The terms of each formula, as functions of a code's and a value's width; every one has a meaning
# in the circuit.
Terms = tuple[str, Callable[[int, int], tuple[float, ...]]]
# one comparator a step; multiplexers over all thresholds but the first
_TREE: Terms = (
    "thresholds*qm, bits*qm, bits, 1", lambda b, q: (_thresholds(b) * q, b * q, b, 1)
)  # fmt: skip
# a shifter over a few distances
_SHIFTER: Terms = ("bits, qm, 1", lambda b, q: (b, q, 1))
TERMS: dict[str, Terms] = {
    # comparators: qm bits each; encoder: one input each
    "qk lane": ("thresholds*qm, thresholds, 1",
                lambda b, q: (_thresholds(b) * q, _thresholds(b), 1)),
    "qk_tree lane": _TREE,
    # a multiplexer of 2^bits inputs for each bit of the value
    "ck lane": ("levels*qm, qm, 1", lambda b, q: ((1 << b) * q, q, 1)),
    # 32-deep memories hold 6 bits in 4 LUTs, 64-deep ones 3
    "ck_ram lane": ("blocks", lambda b, q: (_ram_blocks(b, q),)),
    "qe lane": _SHIFTER,
    "ce lane": _SHIFTER,
    # a function of the layer index for each bit of the table; few distinct ones with few layers
    "qk table": ("thresholds*qm", lambda b, q: (_thresholds(b) * q,)),
    "ck table": ("levels*qm", lambda b, q: ((1 << b) * q,)),
    # whole units of one lane: constants of the layer index merge with what they feed
    "qk unit": ("thresholds*qm, thresholds, bits, 1",
                lambda b, q: (_thresholds(b) * q, _thresholds(b), b, 1)),
    "qk_tree unit": _TREE,
    "ck unit": ("levels*qm, levels, qm, 1", lambda b, q: ((1 << b) * q, 1 << b, q, 1)),
    "qe unit": _SHIFTER,
    "ce unit": _SHIFTER,
}  # fmt: skip


def _thresholds(bits: int) -> int:
    return (1 << bits) - 1


def _ram_blocks(bits: int, qm: int) -> int:
    """LUTs of a memory of 2^bits words.

    >>> _ram_blocks(5, 12), _ram_blocks(6, 12), _ram_blocks(8, 12)
    (8, 16, 76)
    """
    if bits <= 5:
        return 4 * math.ceil(qm / 6)
    # beyond 64 words a multiplexer joins the memories
    return 4 * math.ceil(qm / 3) * (1 << (bits - 6)) + (qm if bits > 6 else 0)


def lut_estimate(kind: str, bits: int, qm: int, layers: int = 0, lanes: int = 1) -> float:
    """LUTs of a unit as an engine uses it: one table, and lanes that convert one value each.

    The table chooses from so many layers' constants; with 0 or 1 there is none, they come from
    elsewhere (registers, a memory).
    """
    luts = lanes * formula(kind, "lane", bits, qm, 0)
    if layers > 1 and kind[:2] in ("qk", "ck"):
        luts += formula(kind[:2], "table", bits, qm, layers)
    return luts


def formula(kind: str, part: str, bits: int, qm: int, layers: int) -> float:
    """LUTs of one part of a unit: "lane", "table", or the whole "unit" of one lane."""
    if f"{kind} {part}" not in TERMS:
        raise UserError(f"unit must be one of {', '.join(TERMS)}, not {kind} {part}")
    scheme = "enq" if kind in ("qe", "ce") else "knq"
    for name, value, (low, high) in (("bits", bits, BITS[scheme]), ("qm", qm, QM)):
        if not low <= value <= high:
            raise UserError(f"{kind}: {name} must be {low}..{high}, not {value}")
    _, terms = TERMS[f"{kind} {part}"]
    measured = _coefficients()[f"{kind} {part}"]
    luts = [float(np.dot(factors, terms(bits, qm))) for factors in measured.values()]
    # between measured numbers of layers the cost grows with their logarithm
    places = [math.log2(max(1, int(key))) for key in measured]
    return max(0.0, float(np.interp(math.log2(max(1, layers)), places, luts)))


@cache
def _coefficients() -> Mapping[str, Mapping[str, list[float]]]:
    data = json.loads(MODEL.read_text(encoding="utf-8"))
    model: Mapping[str, Mapping[str, list[float]]] = data["model"]
    return model
