# SPDX-License-Identifier: Apache-2.0
"""The parts' files: complete, consistent with themselves, and refused with a reason where not."""

from __future__ import annotations

from pathlib import Path

import pytest

from codegen.design.parts import PARTS, SOURCES, find_part, load_parts
from formats.commands import main
from formats.errors import UserError

FILES = sorted(PARTS.glob("*.toml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_figure_has_a_source(path: Path) -> None:
    part = load_parts()[path.stem.upper()]
    assert part.device.startswith(path.stem) and part.boards
    assert set(part.sources) == set(SOURCES)
    rate = float(part.ddr_type.rsplit("-", 1)[1])  # Mb/s a pin
    assert part.ddr_gbs == pytest.approx(rate * part.ddr_bits / 8e3, rel=0.03)
    family = part.device.startswith("xc7z")
    assert (part.ports, part.port_bits) == ((4, 64) if family else (6, 128))
    assert part.multiplier == ((25, 18) if family else (27, 18))


def test_a_part_of_the_users_own(tmp_path: Path, capsys) -> None:
    text = (PARTS / "xc7z020.toml").read_text()
    mine = tmp_path / "mine.toml"
    mine.write_text(text.replace('"XC7Z020"', '"MINE"').replace("dsp = 220", "dsp = 80"))
    part = find_part(str(mine))
    assert (part.name, part.dsp, part.bram36) == ("MINE", 80, 140)
    assert main(["parts"]) == 0
    assert "XC7Z020" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("dsp = 220\n", "", r"mine.toml: dsp must be there; see docs/parts.md$"),
        ("dsp = 220", "dsp = 220\nspeed = 1", r"speed must not be there"),
        ("dsp = 220", "dsp = 0", r"dsp must be an integer of at least 1, not 0$"),
        ("uram = 0", "uram = true", r"uram must be an integer of at least 0, not True$"),
        ("ddr_gbs = 2.1", "ddr_gbs = -1", r"ddr_gbs must be a positive number, not -1$"),
        ("[25, 18]", "[18, 25]", r"multiplier must be two widths, the larger first, not \[18, 25"),
        ("clock = ", "clocks = ", r"source must be a table of texts for fabric, multiplier, ports"),
        ("dsp = 220", "dsp = ", r"mine.toml must be a readable TOML file \("),
    ],
)
def test_what_is_wrong_with_a_file_is_said(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    text = (PARTS / "xc7z020.toml").read_text()
    assert text.count(old) == 1
    mine = tmp_path / "mine.toml"
    mine.write_text(text.replace(old, new))
    with pytest.raises(UserError, match=message):
        find_part(str(mine))


def test_an_unknown_part(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"^PART must be one of XC7Z020, .* or a TOML file, not 'X'"
    ):
        find_part("X")
    with pytest.raises(UserError, match=r"absent.toml must be a readable TOML file \("):
        find_part(str(tmp_path / "absent.toml"))
