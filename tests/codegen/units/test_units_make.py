# SPDX-License-Identifier: Apache-2.0
"""`make units` end to end on a small network, and its command line."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from nuq.codegen.hls_check.delays import SERIES7
from nuq.codegen.units import commands, recurrences, stages
from nuq.codegen.units.published import measure_published
from nuq.codegen.units.sweep import SWEEPS, Sweep
from nuq.formats.commands import main
from nuq.formats.errors import run_cli
from tests.browser import find_browser, wrong_in
from tests.checkout import needs_yosys
from tests.pages import check_page
from tests.toys import Toy, ToyLayer

TINY = Sweep((2,), (4,), (4,), ("gates",))


@pytest.mark.slow
@needs_yosys
def test_units_of_a_network(
    make_toy, monkeypatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layers = [
        ToyLayer(4, bits=2, qm=6),
        ToyLayer(4, scheme="enq", variant="round", bits=3, qm=6),
        ToyLayer(3),
    ]
    build: Path = make_toy(Toy(layers=layers))
    monkeypatch.setitem(SWEEPS, "small", TINY)
    monkeypatch.setattr(stages, "SIMD", (2,))
    # all recurrences are in test_units_recurrences.py
    every = recurrences.recurrences
    monkeypatch.setattr(recurrences, "recurrences", lambda sizes: every(sizes)[:3])
    # table V's units on an FPGA take most of the time and are no different from the network's
    monkeypatch.setattr(
        commands, "measure_published", lambda target, cache: measure_published("gates", cache)
    )
    arguments = ["units", f"OUT={build}", "REGISTER=1", "LANES=2"]
    assert main(arguments) == 0
    folder = build / "units"
    data = json.loads((folder / "units.json").read_text())
    assert set(data["units"]) == {"qk", "qk_tree", "ck", "qe", "ce"}
    assert data["checks"]["shapes_equal"] is True
    assert set(data["checks"]["inputs"]) == {"cxxrtl", "cpp"}
    assert not any(data["checks"]["mismatches"].values())
    assert data["checks"]["stages"]["edges"] > 1000 and not data["checks"]["stages"]["mismatches"]
    assert [(row["block"], row["dsp"]) for row in data["stages"] if row["stage"] == "pairs"] == [
        ("DSP48E1", 2), ("DSP48E2", 2)
    ]  # fmt: skip
    assert "pool_lane" in {row["name"] for row in data["recurrences"]}
    assert all(2 < row["ns"] <= row["limit"] == 5.0 for row in data["recurrences"])
    for name, unit in data["units"].items():
        assert {f"{name}.v", f"{name}.cpp"} <= {path.name for path in folder.glob("rtl/*")}
        box = json.loads((folder / "rtl" / f"{name}.json").read_text())
        assert box["rtl_resource_usage"]["LUT"] == str(unit["cost"]["xc7"]["lut"])
    text = (folder / "units.html").read_text()
    check_page(text)
    if find_browser():
        assert [wrong_in(text, width, tmp_path) for width in (1400, 400)] == [[], []]
    assert "all equal" in text.partition("<section")[0]
    assert text.count("<svg") == 7 and "http-equiv" not in text and "src=" not in text
    assert "proved" in capsys.readouterr().out
    check_table_v(data["published"])

    # a recurrence that is too long ends it before anything else
    limit = replace(SERIES7, limit=2.0)
    with monkeypatch.context() as patch:
        patch.setattr(recurrences, "delays_of", lambda device: limit)
        assert run_cli(main, arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert re.search(r"a step of \w+ must take 2.0 ns at most with 0.75 ns a net, not", error)

    # a unit that differs gives status 1; everything measured comes from the cache this time
    wrong = (1, ["qk: layer 3, input 7 must give 1, not 2"])
    monkeypatch.setattr(commands, "compare", lambda units, engine: wrong)
    assert main([*arguments, "SIMULATORS=cpp"]) == 1
    assert "FAILED: cpp: qk: layer 3, input 7 must give 1, not 2" in capsys.readouterr().out
    assert "1 differ" in (folder / "units.html").read_text().partition("<section")[0]


def check_table_v(published: dict) -> None:
    """Every ratio is within a factor of two of the paper's, or it is explained, and involves QE."""
    ratios = {item["name"]: item for item in published["ratios"]}
    assert ratios["area QK/QE"]["paper"] == pytest.approx(7512 / 776)
    assert ratios["path QK/QE"]["paper"] == pytest.approx(0.65 / 0.43)
    assert ratios["area CK/CE"]["factor"] < 2
    for item in ratios.values():
        far = item["factor"] > 2
        assert bool(item["why"]) == far
        assert not far or "QE" in item["name"]
    rounding = ratios["area QK/QE"]
    assert rounding["rounding"] / rounding["paper"] < 2
    # floor and nearest are the same hardware with other constants
    gates = published["gates"]
    assert gates["QK nearest"]["area"] == pytest.approx(gates["QK"]["area"], rel=0.1)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["SIMULATORS=vcs"], "error: SIMULATORS must be one of cxxrtl, icarus, cpp, not 'vcs'"),
        (["LANES=0"], "error: LANES must be an integer from 1 to 1024, not '0'"),
        (["SWEEP=huge"], "error: SWEEP must be one of small, medium, full, not 'huge'"),
        ([], "must exist; run `nuq quantize` first"),
    ],
)
def test_bad_command_lines(arguments, text, tmp_path, capsys) -> None:
    assert run_cli(main, ["units", f"OUT={tmp_path / 'none'}", *arguments]) == 2
    error = capsys.readouterr().err
    assert text in error and error.startswith("error: ") and error.count("\n") == 1
