# SPDX-License-Identifier: Apache-2.0
"""Every unit on every input: Verilog, C++ and the integer reference; QK's shapes by proof."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from nuq.codegen.units import checks
from nuq.codegen.units.checks import all_inputs, compare, shapes_equal
from nuq.codegen.units.commands import network_units
from nuq.codegen.units.published import published_enq, published_knq
from nuq.codegen.units.render import Unit, verilog
from nuq.codegen.units.tables import Entry, Tables, seeded_quantizer, seeded_tables
from nuq.formats.errors import UserError
from nuq.formats.network import load
from tests.checkout import needs_yosys

pytestmark = needs_yosys


def random_tables(scheme: str, count: int, seed: int, variant: str = "floor") -> Tables:
    """Tables of `count` layers with random widths, at random layer indices."""
    rng = np.random.default_rng(seed)
    places = np.sort(rng.choice(2 * count + 1, size=count, replace=False)).tolist()
    entries = []
    for index in places:
        qm = int(rng.integers(4, 14))
        bits = int(rng.integers(1, min(qm, 6) + 1))
        quantizer = seeded_quantizer(rng, scheme, bits, qm)
        if scheme == "enq":
            quantizer = type(quantizer)("enq", bits, qm, 0, variant, None)
        entries.append(Entry(index, f"layer{index}", quantizer))
    return Tables(f"seed {seed}", scheme, 2 * count + 1, tuple(entries))


def published_all() -> list[Unit]:
    """Every kind, shape, lane count and register choice once, on the published tables."""
    knq, enq = published_knq("nearest"), published_enq("floor")
    return [
        Unit("qk", knq), Unit("qk_tree", knq), Unit("ck", knq), Unit("qe", enq), Unit("ce", enq),
        Unit("qk", published_knq("floor"), lanes=3, register=True, label="qk_lanes"),
        Unit("qe", published_enq("round"), lanes=2, register=True, label="qe_round"),
        Unit("ce", published_enq("mid"), lanes=2, label="ce_mid"),
    ]  # fmt: skip


@pytest.mark.parametrize("engine", ["cxxrtl", "cpp"])
def test_published_vgg16(engine: str) -> None:
    """VGG-16 as published, KNQ and ENQ: two networks of three."""
    inputs, mismatches = compare(published_all(), engine)
    assert mismatches == []
    # encoders: 12 or 13 layers of 2^12 values; decoders: 2^bits codes of each layer
    codes = sum(1 << bits for bits in (8, 5, 6, 5, 5, 5, 5, 5, 5, 5, 6, 6, 5))
    assert inputs == 3 * 12 * 4096 + 2 * 13 * 4096 + 12 * 32 + 2 * codes


@pytest.mark.parametrize("engine", ["cxxrtl", "cpp"])
def test_network_with_mixed_schemes(engine: str, make_toy) -> None:
    """The third network: KNQ and ENQ layers of several widths."""
    units = network_units(load(make_toy() / "quantized"), register=True)
    assert {unit.kind for unit in units} == {"qk", "qk_tree", "ck", "qe", "ce"}
    assert compare(units, engine)[1] == []


@pytest.mark.parametrize("engine", ["cxxrtl", "cpp"])
def test_fifty_random_tables(engine: str) -> None:
    """50 KNQ and 75 ENQ tables with random widths, 25 to a unit: all values and all codes."""
    units = []
    for part in range(2):
        tables = random_tables("knq", 25, part)
        units += [Unit(kind, tables, label=f"{kind}{part}") for kind in ("qk", "qk_tree", "ck")]
    for part, variant in enumerate(("floor", "mid", "round")):
        tables = random_tables("enq", 25, 10 + part, variant)
        units += [Unit(kind, tables, label=f"{kind}{part}") for kind in ("qe", "ce")]
    assert compare(units, engine)[1] == []
    assert sum(len(unit.tables.entries) for unit in units if unit.kind == "qk") == 50


def test_icarus_agrees() -> None:
    if shutil.which("iverilog") is None:
        pytest.skip("needs Icarus Verilog: `apt-get install iverilog`")
    assert compare(published_all(), "icarus")[1] == []


@pytest.mark.parametrize("engine", ["cxxrtl", "cpp"])
def test_a_wrong_table_is_found(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A comparison that cannot fail would show nothing: one threshold is off by one."""
    good = seeded_tables("knq", 3, 8, 2, 5)
    quantizer = good.entries[1].quantizer
    assert quantizer.threshold is not None
    wrong = quantizer.threshold.copy()
    wrong[4] += 1
    entry = Entry(1, "layer1", replace(quantizer, threshold=wrong))
    bad = replace(good, entries=(good.entries[0], entry))
    stimuli, expected = all_inputs(Unit("qk", good))
    monkeypatch.setattr(checks, "all_inputs", lambda unit: (stimuli, expected))
    _, mismatches = compare([Unit("qk", bad)], engine)
    assert mismatches == [f"qk: layer 1, input {quantizer.threshold[4]} must give 4, not 3"]


def test_lanes_see_different_inputs() -> None:
    unit = Unit("ck", seeded_tables("knq", 2, 4, 1, 1), lanes=3)
    stimuli, expected = all_inputs(unit)
    words = ["100100", "111001", "001110", "010011"]
    assert [f"{int(word):06b}" for word in stimuli[:, 1]] == words
    assert len(np.unique(expected)) == 4


def test_ports_beyond_64_bits_are_refused() -> None:
    unit = Unit("qk", published_knq("floor"))
    with pytest.raises(UserError, match="^unit qk: ports must have at most 64 bits .* not 96"):
        compare([replace(unit, lanes=8)], "cxxrtl")


@pytest.mark.parametrize("rule", ["floor", "nearest"])
def test_shapes_of_qk_are_proved_equal(rule: str) -> None:
    assert shapes_equal(published_knq(rule))


@pytest.mark.parametrize(("bits", "qm"), [(1, 4), (2, 6), (3, 8), (4, 8)])
def test_shapes_of_qk_are_proved_equal_for_all_tables(bits: int, qm: int) -> None:
    """With any thresholds that do not fall."""
    assert shapes_equal(seeded_tables("knq", bits, qm, 1, 1), lanes=True)


@pytest.mark.parametrize("lanes", [False, True])
def test_the_proof_can_fail(lanes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """One comparator of the binary search is spoiled."""
    monkeypatch.setattr(
        checks, "verilog", lambda unit: verilog(unit).replace("value >= chosen", "value > chosen")
    )
    assert not shapes_equal(seeded_tables("knq", 3, 8, 2, 1), lanes)
