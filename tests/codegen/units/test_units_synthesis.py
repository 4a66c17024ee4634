# SPDX-License-Identifier: Apache-2.0
"""Synthesis, netlist measures, the kept sweep, and the planner's formula."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nuq.codegen.design.unit_luts import MODEL, formula, lut_estimate
from nuq.codegen.units import synthesis
from nuq.codegen.units.netlist import GATES, genlib, longest_path, stage_delay
from nuq.codegen.units.sweep import (
    RECORDED,
    SWEEPS,
    Point,
    errors,
    model_json,
    points,
    recorded,
    to_json,
)
from nuq.codegen.units.synthesis import synthesize
from nuq.formats.errors import UserError
from tests.checkout import needs_yosys

TOLERANCE, SMALL = 0.3, 4  # of lut_estimate: a share, and LUTs below which a share says nothing

ADDER = {"adder": "module adder(input a, b, output s, c);\nassign {c, s} = a + b;\nendmodule\n"}
LATCHED = {
    "latched": "module latched(input ap_clk, input [7:0] a, output reg [7:0] q);\n"
    "always @(posedge ap_clk) q <= ~a;\nendmodule\n"
}


def chain(length: int) -> dict:
    """A netlist of inverters in a row."""
    cells = {
        f"c{i}": {"type": "INV", "connections": {"A": [i + 2], "Y": [i + 3]}} for i in range(length)
    }
    return {"cells": cells}


def test_longest_path_counts_gates_and_their_loads() -> None:
    # effort 1 into one inverter, parasitic 1
    assert longest_path(chain(6)) == (6, pytest.approx(6 * 2 / 5))
    fan = chain(1)
    for i in range(16):
        fan["cells"][f"load{i}"] = {"type": "INV", "connections": {"A": [3], "Y": [100 + i]}}
    assert longest_path(fan)[1] == pytest.approx((10 + 2) / 5)


def test_longest_path_ends_at_flip_flops_and_refuses_loops() -> None:
    ring = chain(3)
    ring["cells"]["back"] = {"type": "FDRE", "connections": {"D": [5], "Q": [2]},
                             "port_directions": {"D": "input", "Q": "output"}}  # fmt: skip
    assert longest_path(ring)[0] == 3
    ring["cells"]["back"]["type"] = "BUF"
    ring["cells"]["back"]["connections"] = {"A": [5], "Y": [2]}
    with pytest.raises(UserError, match="^a conversion unit must have no combinational loop"):
        longest_path(ring)


@given(st.sampled_from(sorted(GATES)), st.floats(0.1, 1000), st.floats(0.1, 1000))
def test_delay_grows_with_load(name: str, a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert stage_delay(GATES[name], low) <= stage_delay(GATES[name], high)


def test_gate_library_is_printed_once_a_gate() -> None:
    lines = genlib().splitlines()
    assert len(lines) == len(GATES)
    assert "GATE NAND2 1.0 Y=!(A*B); PIN * INV 1 999 1 0 1 0" in lines


@needs_yosys
def test_synthesis_of_known_circuits(tmp_path: Path) -> None:
    """A half adder is an XOR and an AND; a register is a flip-flop a bit."""
    gates = synthesize(ADDER | LATCHED, "gates", tmp_path / "cache.json")
    assert gates["adder"].area <= GATES["XOR2"].area + GATES["AND2"].area
    assert (gates["adder"].levels, gates["adder"].lut) in {(1, 0), (2, 0)}
    assert (gates["latched"].ff, gates["latched"].levels) == (8, 1)
    unit = dict([Point("ck", "unit", 3, 10, 16).module()])
    fpga = synthesize(ADDER | unit | LATCHED, "xc7", tmp_path / "cache.json")
    assert (fpga["adder"].lut, fpga["adder"].levels) == (2, 1)
    assert fpga["latched"].ff == 8 and fpga["latched"].area == 0
    # modules of one run do not disturb each other: the same figures alone and in company
    assert synthesize(unit, "xc7", tmp_path / "alone.json").items() <= fpga.items()


@needs_yosys
def test_cache_saves_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "cache.json"
    path.write_text("{")  # damaged
    first = synthesize(ADDER, "gates", path)

    def refuse(*_: object) -> None:
        raise AssertionError("synthesized again")

    monkeypatch.setattr(synthesis, "_run", refuse)
    assert synthesize(ADDER, "gates", path) == first
    with pytest.raises(AssertionError, match="again"):
        synthesize({"adder": ADDER["adder"] + "// changed\n"}, "gates", path)


@needs_yosys
def test_a_broken_module_is_reported(tmp_path: Path) -> None:
    bad = {"bad": "module bad(input a, output y);\nassign y = ;\nendmodule\n"}
    with pytest.raises(UserError, match="^Yosys must accept its script, but ended with .*ERROR"):
        synthesize(bad, "gates", tmp_path / "cache.json")


def test_missing_yosys_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthesis.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(synthesis.shutil, "which", lambda name: None)
    with pytest.raises(UserError, match="^Yosys must be installed .*`pip install pyosys`"):
        synthesis.find_yosys.__wrapped__()


def test_points_of_every_sweep_have_modules() -> None:
    """Values of 16 bits, which no network has, too; a name stands for one module."""
    for sweep in SWEEPS.values():
        assert not any(point.bits > point.qm for point in points(sweep))
        ends = [point for point in points(sweep) if point.qm == max(sweep.qm)][-40:]
        assert len(dict(point.module() for point in ends)) == len(ends)


def test_kept_files_are_written_as_they_are_read() -> None:
    """And the formula's file is what is fitted to the kept figures."""
    tool, costs = recorded()
    assert RECORDED.read_text() == to_json(costs, tool)
    assert MODEL.read_text() == model_json(costs["xc7"], tool)


def test_formula_follows_the_kept_figures() -> None:
    """On the figures it was fitted to."""
    _, costs = recorded()
    for key, (count, mean, largest) in errors(costs["xc7"]).items():
        assert count >= 12, key
        assert mean <= 0.06, (key, mean)
        assert largest <= TOLERANCE, (key, largest)


@needs_yosys
@pytest.mark.slow
def test_formula_follows_fresh_synthesis(tmp_path: Path) -> None:
    """Points that it was not fitted to: other qm, other numbers of layers."""
    fresh = [
        *(Point("qk", "lane", bits, 10 + bits % 2, 0) for bits in (2, 3)),
        *(Point("ck", "lane", bits, 11, 0) for bits in (3, 4)),
        Point("qk_tree", "lane", 4, 10, 0),
        Point("ck_ram", "lane", 6, 10, 0),
        Point("qe", "lane", 4, 10, 0),
        Point("ce", "lane", 4, 11, 0),
        Point("qk", "table", 4, 10, 16),
        Point("ck", "table", 3, 11, 16),
        Point("qk", "unit", 3, 10, 16),
        Point("ck", "unit", 4, 10, 16),
        Point("qk_tree", "unit", 3, 11, 16),
    ]
    kept = recorded()[1]["xc7"]
    assert not set(fresh) & set(kept)
    modules = {point: point.module() for point in fresh}
    costs = synthesize(dict(modules.values()), "xc7", tmp_path / "cache.json")
    for point, (top, _) in modules.items():
        estimate = formula(point.kind, point.part, point.bits, point.qm, point.layers)
        measured = costs[top].lut
        assert abs(estimate - measured) <= SMALL + TOLERANCE * measured, (point, estimate, measured)


def test_estimate_adds_a_shared_table_and_lanes() -> None:
    lane = lut_estimate("qk", 5, 12)
    table = lut_estimate("qk", 5, 12, layers=16) - lane
    assert lut_estimate("qk", 5, 12, layers=16, lanes=8) == pytest.approx(table + 8 * lane)
    assert lut_estimate("qk", 5, 12, layers=1) == lane
    assert 0 < table < 31 * 12 + 1
    assert lut_estimate("ck_ram", 5, 12, lanes=8) == pytest.approx(64, rel=0.02)


def test_estimate_refuses_what_no_unit_has() -> None:
    with pytest.raises(UserError, match="^qk: bits must be 1..8, not 9"):
        lut_estimate("qk", 9, 12)
    with pytest.raises(UserError, match="^ck: qm must be 2..16, not 17"):
        lut_estimate("ck", 5, 17)
    with pytest.raises(UserError, match="^unit must be one of .*, not qx lane"):
        lut_estimate("qx", 5, 12)
