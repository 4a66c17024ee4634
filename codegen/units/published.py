# SPDX-License-Identifier: Apache-2.0
"""The papers' table V beside what is measured here, as ratios of area and of path.

The units are VGG-16's as published: ENQ widths of table III index 6, KNQ centroids of table IV,
12-bit values, one lane, combinational, generic gates.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from codegen.units.render import Unit, verilog
from codegen.units.synthesis import Cache, Cost, Design, synthesize
from codegen.units.tables import published, published_enq, published_knq

RATIOS = (("QK", "QE"), ("CK", "CE"), ("QK", "CE"), ("QK", "CK"), ("QE", "CE"))
FIGURES = {"area": ("area_um2", "area"), "path": ("critical_path_ns", "delay")}
FACTOR = 2.0  # a ratio that differs by more is explained


@dataclass(frozen=True)
class Comparison:
    """One ratio.

    Attributes:
        name: as "area QK/QE" or "path QK/QE".
        paper: from table V.
        measured: with QE as Fig. 2(a) draws it (floor).
        rounding: with a QE that rounds and saturates (variant round).
    """

    name: str
    paper: float
    measured: float
    rounding: float

    @property
    def factor(self) -> float:
        """How far `measured` is off, at least 1."""
        return max(self.measured / self.paper, self.paper / self.measured)


def published_units() -> dict[str, Unit]:
    """The units of table V by the names of RATIOS, and the variants that explain them."""
    knq, enq = published_knq("floor"), published_enq("floor")
    return {
        "QE": Unit("qe", enq, label="paper_qe"),
        "CE": Unit("ce", enq, label="paper_ce"),
        "QK": Unit("qk", knq, label="paper_qk"),
        "CK": Unit("ck", knq, label="paper_ck"),
        "QK tree": Unit("qk_tree", knq, label="paper_qk_tree"),
        "QK nearest": Unit("qk", published_knq("nearest"), label="paper_qk_nearest"),
        "QE round": Unit("qe", published_enq("round"), label="paper_qe_round"),
        "CE mid": Unit("ce", published_enq("mid"), label="paper_ce_mid"),
    }


def measure_published(target: str, cache: Cache) -> dict[str, Cost]:
    """Synthesize the published units."""
    units = published_units()
    designs = [Design(unit.name, verilog(unit)) for unit in units.values()]
    costs = synthesize(designs, target, cache)
    return {name: costs[unit.name] for name, unit in units.items()}


def compare_published(gates: Mapping[str, Cost]) -> list[Comparison]:
    """All ratios of area (NAND2 equivalents) and path (FO4), the papers' beside the measured."""
    table = published()["table_v_tsmc90"]
    found = []
    for title, theirs, ours in (
        ("area", "area_um2", "area"),
        ("path", "critical_path_ns", "delay"),
    ):
        for over, under in RATIOS:
            measured = getattr(gates[over], ours) / getattr(gates[under], ours)
            top, bottom = (f"{n} round" if n == "QE" else n for n in (over, under))
            rounding = getattr(gates[top], ours) / getattr(gates[bottom], ours)
            found.append(Comparison(f"{title} {over}/{under}",
                                    table[over][theirs] / table[under][theirs],
                                    measured, rounding))  # fmt: skip
    return found


def explanation(item: Comparison, gates: Mapping[str, Cost]) -> str:
    """Why a ratio differs by more than FACTOR; an empty text where it does not."""
    if item.factor <= FACTOR:
        return ""
    if "QE" not in item.name:
        return (
            "Different libraries and constraints: areas here are transistor counts of a netlist "
            "mapped for depth first, without sizing, buffers or wires."
        )
    table = published()["table_v_tsmc90"]
    theirs, ours = FIGURES[item.name.split()[0]]
    paper = table["QE"][theirs] / table["CE"][theirs]
    here = getattr(gates["QE"], ours) / getattr(gates["CE"], ours)
    rounds = getattr(gates["QE round"], ours) / getattr(gates["CE"], ours)
    return (
        f"Their QE has {paper:.2f} times the {item.name.split()[0]} of their CE, though Figs. 2(a) "
        f"and 2(b) are mirror images, a multiplexer of the shift and a shifter; measured here it "
        f"has {here:.2f} times. So their QE holds more than the figure draws. With rounding and "
        f"saturation in QE it is {rounds:.2f} times, and this ratio becomes {item.rounding:.2f}."
    )
