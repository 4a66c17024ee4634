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

from formats.errors import UserError

MODEL = Path(__file__).with_name("lut_model.json")
QM = (2, 16)  # what a value may have
BITS = {"knq": (1, 8), "enq": (1, 16)}  # and a code of each scheme

# The terms of each formula; every one has a meaning in the circuit.
TERMS: dict[str, tuple[str, Callable[[int, int, int], tuple[float, ...]]]] = {
    # comparators: qm bits each; encoder: one input each
    "qk lane": ("thresholds*qm, thresholds, 1",
                lambda b, q, n: (_thresholds(b) * q, _thresholds(b), 1)),
    # one comparator a step; multiplexers over all thresholds but the first
    "qk_tree lane": ("thresholds*qm, bits*qm, bits, 1",
                     lambda b, q, n: (_thresholds(b) * q, b * q, b, 1)),
    # a multiplexer of 2^bits inputs for each bit of the value
    "ck lane": ("levels*qm, qm, 1", lambda b, q, n: ((1 << b) * q, q, 1)),
    # 32-deep memories hold 6 bits in 4 LUTs, 64-deep ones 3
    "ck_ram lane": ("blocks", lambda b, q, n: (_ram_blocks(b, q),)),
    # a shifter over a few distances
    "qe lane": ("bits, qm, 1", lambda b, q, n: (b, q, 1)),
    "ce lane": ("bits, qm, 1", lambda b, q, n: (b, q, 1)),
    # a function of the layer index for each bit of the table; few distinct ones with few layers
    "qk table": ("thresholds*qm", lambda b, q, n: (_thresholds(b) * q,)),
    "ck table": ("levels*qm", lambda b, q, n: ((1 << b) * q,)),
    # whole units of one lane: constants of the layer index merge with what they feed
    "qk unit": ("thresholds*qm, thresholds, bits, 1",
                lambda b, q, n: (_thresholds(b) * q, _thresholds(b), b, 1)),
    "qk_tree unit": ("thresholds*qm, bits*qm, bits, 1",
                     lambda b, q, n: (_thresholds(b) * q, b * q, b, 1)),
    "ck unit": (
        "levels*qm, levels, qm, 1",
        lambda b, q, n: ((1 << b) * q, 1 << b, q, 1),
    ),
    "qe unit": ("bits, qm, 1", lambda b, q, n: (b, q, 1)),
    "ce unit": ("bits, qm, 1", lambda b, q, n: (b, q, 1)),
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

    Args:
        kind: "qe", "ce", "qk", "qk_tree", "ck" or "ck_ram".
        bits: width of a code.
        qm: width of a value.
        layers: number of layer indices that the table chooses from; 0 or 1 for no table, where its
            constants come from elsewhere (registers, a memory).
        lanes: values converted at once.
    """
    lane = formula(kind, "lane", bits, qm, 0)
    table = 0.0
    if layers > 1 and kind[:2] in ("qk", "ck"):
        table = formula(kind[:2], "table", bits, qm, layers)
    return table + lanes * lane


def formula(kind: str, part: str, bits: int, qm: int, layers: int) -> float:
    """LUTs of one part of a unit: "lane", "table", or the whole "unit" of one lane."""
    if f"{kind} {part}" not in TERMS:
        raise UserError(f"unit must be one of {', '.join(TERMS)}, not {kind} {part}")
    scheme = "enq" if kind in ("qe", "ce") else "knq"
    for name, value, (low, high) in (("bits", bits, BITS[scheme]), ("qm", qm, QM)):
        if not low <= value <= high:
            raise UserError(f"{kind}: {name} must be {low}..{high}, not {value}")
    _, terms = TERMS[f"{kind} {part}"]
    found = _coefficients()[f"{kind} {part}"]
    values = terms(bits, qm, layers)
    known = sorted(int(key) for key in found)
    # between measured numbers of layers the cost grows with their logarithm
    place = np.interp(math.log2(max(1, layers)), [math.log2(max(1, k)) for k in known],
                      [float(np.dot(found[str(k)], values)) for k in known])  # fmt: skip
    return max(0.0, float(place))


@cache
def _coefficients() -> Mapping[str, Mapping[str, list[float]]]:
    data = json.loads(MODEL.read_text(encoding="utf-8"))
    model: Mapping[str, Mapping[str, list[float]]] = data["model"]
    return model
