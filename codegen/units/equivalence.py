# SPDX-License-Identifier: Apache-2.0
"""Proves with Yosys' SAT solver that QK's two shapes are the same function.

Two theorems: the whole units with a network's tables, and the lanes alone with *any* thresholds
that do not fall. Unlike a simulation a proof needs no list of inputs.
"""

import tempfile
from pathlib import Path

from codegen.units.render import Unit, environment, verilog
from codegen.units.tables import Tables
from codegen.units.yosys import run_yosys

PROVED = "SAT proof finished - no model found: SUCCESS!"


def shapes_equal(tables: Tables, lanes: bool = False, spoil: tuple[str, str] | None = None) -> bool:
    """True where Yosys proves that parallel comparators and binary search never differ.

    Args:
        tables: KNQ tables.
        lanes: prove it for any table of these widths instead of these tables.
        spoil: a text in the binary search's Verilog and what to put in its place; a proof that
            still succeeds then would prove nothing.
    """
    first, second = Unit("qk", tables), Unit("qk_tree", tables)
    text = verilog(second)
    if spoil:
        text = text.replace(*spoil)
    bench = environment().get_template("rtl/same.v.j2").render(
        lanes=lanes, qm=tables.qm, bits=tables.bits, width=tables.table_width,
        count=tables.levels - 1, layer_bits=tables.layer_bits, first=first.name,
        second=second.name, indices=[entry.index for entry in tables.entries],
    )  # fmt: skip
    script = [
        "read_verilog first.v", "read_verilog second.v", "read_verilog same.v",
        "hierarchy -check -top same", "proc", "flatten", "opt", "memory_map", "opt",
        # tables may give anything at other layer indices; `known` leaves those out
        "setundef -zero", "opt", "techmap", "opt", "abc -g AND", "opt_clean",
        "tee -o proof.txt sat -prove differs 0 same",
    ]  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="units-") as name:
        folder = Path(name)
        (folder / "first.v").write_text(verilog(first))
        (folder / "second.v").write_text(text)
        (folder / "same.v").write_text(bench)
        run_yosys("\n".join(script) + "\n", folder)
        return PROVED in (folder / "proof.txt").read_text()
