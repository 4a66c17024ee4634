# SPDX-License-Identifier: Apache-2.0
"""The papers' table V beside what is measured here, as ratios of area and of path.

The units are VGG-16's as published (published/ilnq.json, paper 000 tables III-V): ENQ widths of
table III index 6, KNQ centroids of table IV, 12-bit values, one lane, combinational, generic gates.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nuq.codegen.units.netlist import Cost
from nuq.codegen.units.render import Unit, verilog
from nuq.codegen.units.synthesis import synthesize
from nuq.codegen.units.tables import Entry, FreeQuantizer, Tables
from nuq.formats.quantizer import Quantizer, thresholds

PUBLISHED = Path(__file__).parent / "published" / "ilnq.json"
QM = 12
RATIOS = (("QK", "QE"), ("CK", "CE"), ("QK", "CE"), ("QK", "CK"), ("QE", "CE"))
# fields of the paper's table and of Cost: NAND2 equivalents, FO4
FIGURES = {"area": ("area_um2", "area"), "path": ("critical_path_ns", "delay")}
FACTOR = 2.0  # a ratio that differs by more is explained


def published() -> dict[str, Any]:
    """The published figures, as published/ilnq.json has them."""
    data: dict[str, Any] = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    return data


def published_knq(rule: str) -> Tables:
    """VGG-16 with the centroids of table IV.

    The table has no row for conv1_1, whose index is left without an entry. Its 4096 is one above
    the largest 12-bit value; the paper clips at M = 2^12 - 1, so 4095 is what is meant. The row
    conv1_2 begins with thirteen zeros, which are kept: its codes 0 to 11 are never given.

    Args:
        rule: "floor", the paper as written, or "nearest".
    """
    rows = published()["vgg16_knq_centroids"]
    entries = []
    for index, (name, row) in enumerate(rows.items(), start=1):
        centroid = np.minimum(np.array(row, np.int32), (1 << QM) - 1)
        quantizer = FreeQuantizer(
            "knq", len(row).bit_length() - 1, QM, 0,
            rule=rule, centroid=centroid, threshold=thresholds(centroid, rule),
        )  # fmt: skip
        entries.append(Entry(index, name, quantizer))
    return Tables(f"VGG-16, paper table IV, rule {rule}", "knq", len(rows) + 1, tuple(entries))


def published_enq(variant: str) -> Tables:
    """VGG-16's convolutional layers with the code widths of table III, index 6."""
    entries = tuple(
        Entry(index, name, Quantizer("enq", bits, QM, 0, variant))
        for index, (name, bits) in enumerate(published()["vgg16_enq_bits"].items())
        if name.startswith("conv")
    )
    source = f"VGG-16, paper table III index 6, variant {variant}"
    return Tables(source, "enq", len(entries), entries)


def measure_published(target: str, cache: Path) -> dict[str, Cost]:
    """Costs of the units by the names of RATIOS, and of the variants that explain them."""
    knq, enq = published_knq("floor"), published_enq("floor")
    units = {
        "QE": ("qe", enq), "CE": ("ce", enq), "QK": ("qk", knq), "CK": ("ck", knq),
        "QK tree": ("qk_tree", knq), "QK nearest": ("qk", published_knq("nearest")),
        "QE round": ("qe", published_enq("round")), "CE mid": ("ce", published_enq("mid")),
    }  # fmt: skip
    labels = {name: f"paper_{name.lower().replace(' ', '_')}" for name in units}
    modules = {
        labels[name]: verilog(Unit(kind, tables, label=labels[name]))
        for name, (kind, tables) in units.items()
    }
    costs = synthesize(modules, target, cache)
    return {name: costs[label] for name, label in labels.items()}


@dataclass(frozen=True)
class Ratio:
    """A row of the comparison."""

    name: str  # as "area QK/QE" or "path QK/QE"
    paper: float  # from table V
    measured: float  # with QE as Fig. 2(a) draws it (floor)
    rounding: float  # with a QE that rounds and saturates (variant round)
    factor: float  # how far `measured` is off, at least 1
    why: str  # it is off by more than FACTOR; else empty


def compare_published(gates: Mapping[str, Cost]) -> list[Ratio]:
    """All ratios of area and of path, the papers' beside the measured."""
    rows = []
    for figure, (theirs, ours) in FIGURES.items():
        table = {unit: row[theirs] for unit, row in published()["table_v_tsmc90"].items()}
        here = {unit: getattr(cost, ours) for unit, cost in gates.items()}
        round_here = {**here, "QE": here["QE round"]}
        for over, under in RATIOS:
            name, paper = f"{figure} {over}/{under}", table[over] / table[under]
            measured, rounding = here[over] / here[under], round_here[over] / round_here[under]
            factor = max(measured / paper, paper / measured)
            why = ""
            if factor > FACTOR and "QE" not in name:
                why = (
                    "Different libraries and constraints: areas here are transistor counts of a "
                    "netlist mapped for depth first, without sizing, buffers or wires."
                )
            elif factor > FACTOR:
                why = (
                    f"Their QE has {table['QE'] / table['CE']:.2f} times the {figure} of their CE, "
                    "though Figs. 2(a) and 2(b) are mirror images, a multiplexer of the shift and "
                    f"a shifter; measured here it has {here['QE'] / here['CE']:.2f} times. So "
                    "their QE holds more than the figure draws. With rounding and saturation in "
                    f"QE it is {here['QE round'] / here['CE']:.2f} times, and this ratio becomes "
                    f"{rounding:.2f}."
                )
            rows.append(Ratio(name, paper, measured, rounding, factor, why))
    return rows
