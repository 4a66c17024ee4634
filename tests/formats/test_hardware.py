# SPDX-License-Identifier: Apache-2.0
"""The files of parts and boards: complete, consistent, each fact once, refused with a reason."""

import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from nuq.formats.commands import main
from nuq.formats.errors import UserError
from nuq.formats.hardware import (
    FOLDER,
    SOURCES,
    Board,
    Part,
    clocked,
    find_board,
    find_part,
    load_boards,
    load_parts,
)
from tests.checkout import ROOT

PARTS = sorted((FOLDER.resolve() / "parts").glob("*.toml"))
BOARDS = sorted((FOLDER.resolve() / "boards").glob("*.toml"))


@pytest.mark.parametrize("path", PARTS, ids=lambda path: path.stem)
def test_every_figure_of_a_part_has_a_source(path: Path, capsys) -> None:
    part = load_parts()[path.stem.upper()]
    assert part.device.startswith(path.stem) and part.dsp and part.bram36
    assert set(part.source) == {*SOURCES, "ddr", "plls", "clock_max"}
    assert all(part.source.values())
    family = part.processor == "zynq-7000"
    assert family == part.device.startswith("xc7z")
    assert part.ports == (4 if family else 6)
    assert f"{64 if family else 128} bits" in part.source["ports"]
    assert part.multiplier == ((25, 18) if family else (27, 18))
    assert main(["parts"]) == 0
    table, _, sources = capsys.readouterr().out.partition("\n\n")
    row = next(line for line in table.splitlines() if line.startswith(part.name))
    assert all(name in row for name, one in load_boards().items() if one.part == part.name)
    assert max(map(len, [*table.splitlines(), *sources.splitlines()])) <= 100
    assert all(" ".join(text.split()) in " ".join(sources.split()) for text in part.source.values())


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_a_board_agrees_with_its_part_and_its_source(path: Path) -> None:
    board = find_board(path.stem.upper())
    part = find_part(board.part)
    assert part.ddr_gbs <= board.ddr_gbs
    rate, bits = map(int, re.findall(r"(\d+) Mb/s \* (\d+) / 8", board.ddr_source)[0])
    assert board.ddr_gbs == pytest.approx(rate * bits / 8e3, rel=0.03)


def test_every_part_has_a_board_and_every_fact_stands_once() -> None:
    """DRAM and contiguous memory are the boards' alone, and no other file lists boards."""
    assert {board.part for board in load_boards().values()} == set(load_parts())
    assert {path.stem for path in BOARDS} == set(load_boards())
    for path in PARTS:
        entry = tomllib.loads(path.read_text())
        assert not {
            name for name in entry if name.startswith(("ddr", "contiguous", "board", "plls"))
        }
    shared = {item.name for item in fields(Board)} & {item.name for item in fields(Part)}
    assert shared == {"name", "ddr_gbs", "plls"}  # the part's are those of its slowest board
    others = [
        path
        for folder in ("board", "codegen", "formats", "model_prep")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".toml", ".json") and path not in [*PARTS, *BOARDS]
    ]
    assert [path for path in others if re.search(r"pynq-z\d|kv260", path.read_text())] == []


def test_every_field_is_read() -> None:
    """By code outside of this package's reader."""
    sources = [*(ROOT / "codegen").rglob("*.py"), *(ROOT / "board").rglob("*.py")]
    sources += (ROOT / "hls_templates").rglob("*.j2")
    text = "\n".join(path.read_text() for path in sources)
    text += FOLDER.joinpath("hardware.py").read_text().partition("def read_part")[2]
    for kind, name in ((Part, "part"), (Board, "(board|slowest)")):
        for item in fields(kind):
            read = rf"\b{name}\.{item.name}\b|find_part\(.*\)\.{item.name}\b"
            if item.name in ("dsp", "bram36", "uram", "lut", "ff"):
                read += rf'|"{item.name}"'
            assert re.search(read, text), item.name


def test_a_part_of_the_users_own(tmp_path: Path) -> None:
    text = (FOLDER / "parts" / "xc7z020.toml").read_text().replace("dsp = 220", "dsp = 80")
    mine = tmp_path / "mine.toml"
    mine.write_text(text)
    part = find_part(str(mine))
    assert (part.name, part.dsp, part.bram36, part.ddr_gbs) == ("XC7Z020", 80, 140, 2.1)
    mine.write_text(
        text.replace('"XC7Z020"', '"MINE"').replace("ports = 4", "ports = 4\nddr_gbs = 3")
    )
    part = find_part(str(mine))
    assert (part.name, part.ddr_gbs) == ("MINE", 3)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("dsp = 220\n", "", r"mine.toml: dsp must be there; see docs/parts.md$"),
        ("dsp = 220", "dsp = 220\nspeed = 1", r"speed must not be there"),
        ("dsp = 220", "dsp = 0", r"dsp must be an integer of at least 1, not 0$"),
        ("uram = 0", "uram = true", r"uram must be an integer of at least 0, not True$"),
        ("ports = 4", "ports = 4\nddr_gbs = -1", r"ddr_gbs must be a positive number, not -1$"),
        ('"XC7Z020"', '"MINE"', r"ddr_gbs must be there, because no board has the part MINE$"),
        ('"zynq-7000"', '"zynq"', r"processor must be one of zynq-7000, zynq-ultrascale, not 'zy"),
        ("[25, 18]", "[18, 25]", r"multiplier must be two widths, the larger first, not \[18, 25"),
        ("clock = ", "clocks = ", r"source must be a table of texts for fabric, multiplier, ports"),
        ("dsp = 220", "dsp = ", r"mine.toml must be a readable TOML file \("),
    ],
)
def test_what_is_wrong_with_a_file_is_said(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    text = (FOLDER / "parts" / "xc7z020.toml").read_text()
    assert text.count(old) == 1
    mine = tmp_path / "mine.toml"
    mine.write_text(text.replace(old, new))
    with pytest.raises(UserError, match=message):
        find_part(str(mine))


def test_an_unknown_part_or_board(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"^PART must be one of XC7Z020, .* or a TOML file, not 'X'"
    ):
        find_part("X")
    with pytest.raises(UserError, match=r"absent.toml must be a readable TOML file \("):
        find_part(str(tmp_path / "absent.toml"))
    with pytest.raises(UserError, match="^BOARD must be one of kr260, .*pynq-z1, .*not 'de10'"):
        find_board("de10")


def test_a_clock_that_no_block_ram_can_do_is_refused() -> None:
    part = find_part("xc7z020")
    assert clocked(part, 388).clock_mhz <= 388
    with pytest.raises(
        UserError, match=r"^CLOCK must be 1\.\.388.2 MHz, what block RAM of XC7Z020"
    ):
        clocked(part, 1000)
    assert all(part.clock_mhz < part.clock_max_mhz < 1000 for part in load_parts().values())


def test_the_nearest_part_and_board_are_named() -> None:
    with pytest.raises(UserError, match="not 'xc7z02'; did you mean XC7Z020.;"):
        find_part("xc7z02")
    with pytest.raises(UserError, match="not 'pynqz2'; did you mean pynq-z2.;"):
        find_board("pynqz2")
