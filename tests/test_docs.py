# SPDX-License-Identifier: Apache-2.0
"""README's commands and files exist; tables and examples in docs/ are those of the code."""

import re
from collections.abc import Iterable

import numpy as np
import pytest

from nuq.codegen.units.netlist import Cost
from nuq.codegen.units.sweep import Point, recorded
from nuq.formats.commands import COMMANDS, GROUPS, main
from nuq.formats.help import FIRST_COMMANDS, FIRST_OPTIONS
from nuq.formats.options import default_text, table
from nuq.formats.packing import pack_maps
from tests.checkout import ROOT, execute, make
from tests.site import prose, sources

DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text()
PAGES = sources()
LINES = [
    line.split("#")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.strip() and not line.startswith("#")
]


MAIN = "NET CONFIG WEIGHTS DATA IMAGES PRESET SCHEME BITS RULE QM PLAN REFINE PART CLOCK STAGE FM "
MAIN += "CSIM_TYPES OUT"


def option_row(name: str) -> str:
    """A row of a table of options: name, meaning, default."""
    _, entry, _ = table()[name]
    words = f": {', '.join(f'`{word}`' for word in entry.choices)}" if entry.choices else ""
    return f"| `{name}` | {entry.help}{words} | {default_text(name)} |"


def option_table(word: str, names: Iterable[str]) -> str:
    """A table of options with help and default, `word` above their names."""
    head = [f"| {word} | meaning | default |", "| --- | --- | --- |"]
    return "\n".join([*head, *map(option_row, names)])


def commands_table() -> str:
    """The other table of docs/options.md: what each command needs first and takes itself."""
    rows = ["| command | what it does | needs | options |", "| --- | --- | --- | --- |"]
    for name, command in COMMANDS.items():
        takes = [
            GROUPS[word][0] if word in GROUPS else f"`{word}`" for word in command.takes.split()
        ]
        before = f"`{command.needs}`" if command.needs else ""
        rows.append(f"| `{name}` | {command.help} | {before} | {', '.join(takes)} |")
    return "\n".join(rows)


def groups_table() -> str:
    """What the names of groups in the table of commands stand for."""
    return "\n".join(
        f"- {title}: {' '.join(f'`{name}`' for name in names.split())}"
        for title, names in GROUPS.values()
    )


def test_there_are_commands():
    assert "make csim" in LINES and "make test" in LINES


@pytest.mark.parametrize("command", LINES)
def test_every_command_is_one_that_make_knows(command, tmp_path):
    words = command.split()
    assert words[0] == "make"
    execute(*words, "-n", f"OUT={tmp_path}", status=0)


def test_make_help_is_one_screen_and_has_all_behind_it():
    done = make("help", status=0)
    lines = done.stdout.splitlines()
    assert make(status=0).stdout == done.stdout and len(lines) <= 40
    assert all(len(line) <= 100 for line in lines)
    named = [line.split()[0] for line in lines if re.match("[A-Z_]+ +[A-Za-z]", line)]
    assert [name for name in named if name in table()] == FIRST_OPTIONS.split()
    whole = make("help", "ALL=1", status=0).stdout.splitlines()
    assert {line.split()[0] for line in whole if re.match("[A-Z_]+ ", line)} >= set(table())
    targets = {line.split()[1] for line in whole if line.startswith("  make ")}
    assert {*COMMANDS, "test", "test-all", "lint", "format", "bench", "fuzz", "clean"} <= targets
    assert set(FIRST_COMMANDS.split()) <= set(COMMANDS)


@pytest.mark.parametrize(
    ("page", "wanted"),
    [
        ("README.md", option_table("variable", MAIN.split())),
        ("docs/options.md", option_table("option", table())),
        ("docs/options.md", commands_table()),
        ("docs/options.md", groups_table()),
    ],
)
def test_pages_have_the_table(page, wanted):
    """Mismatch: put the expected table, which pytest shows, into the page."""
    assert wanted in (ROOT / page).read_text(), wanted


def test_links_and_pictures_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target


def spans(path):
    """The commands in the prose of a page: what stands in backquotes, over ends of lines, too."""
    text = "\n".join(prose(path.read_text()))
    return [" ".join(text.split()) for text in re.findall(r"`([^`]+)`", text)]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_commands_of_developers_name_the_environment(path):
    """A newcomer's `python` or `pytest` is not the one that has the packages."""
    found = [text for text in spans(path) if re.match(r"(python3?|pytest) ", text)]
    assert found == []


def test_the_package_is_installed_without_cuda():
    """The default index gives torch with gigabytes of it."""
    lines = [text for path in PAGES for text in path.read_text().splitlines()
             if re.search(r"pip install\b.* \.(?=[`\s]|$)", text)]  # fmt: skip
    assert len(lines) >= 2
    for line in lines:
        assert "--no-deps" in line or "https://download.pytorch.org/whl/cpu" in line, line


def test_no_gap_is_left():
    assert set(re.findall(r"<!-- (\w+)", README)) <= {"needs", "takes"}


def test_ci_runs_the_test_command():
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    commands = [line for line in lines if line and not line.startswith(("#", "set", "cd"))]
    assert commands == ["make test"]


def test_the_plan_example_quantizes_digits(tmp_path):
    text = re.search(r"```toml\n(.*?)```", (DOCS / "plan.md").read_text(), re.DOTALL)
    assert text
    (tmp_path / "plan.toml").write_text(text.group(1))
    arguments = ["quantize", "NET=digits", "IMAGES=2", f"OUT={tmp_path / 'out'}"]
    assert main([*arguments, f"PLAN={tmp_path / 'plan.toml'}"]) == 0


def test_the_packing_example():
    codes = np.array([1, 2, 3, 4, 5, 6, 7, 0]).reshape(1, 8, 1, 1)
    found = re.search(r"so the bytes are `([0-9a-f ]+)`", (DOCS / "formats.md").read_text())
    assert found
    assert pack_maps(codes, 3)[0, :3].tobytes() == bytes.fromhex(found.group(1))


def test_the_units_page_has_the_kept_sweep():
    """Tables of docs/units.md at qm 12, of one lane, of 16 layers; halves round up."""
    kept = recorded()[1]

    def cost(target: str, kind: str, part: str, bits: int) -> Cost:
        return kept[target][Point(kind, part, bits, 12, 0 if part == "lane" else 16)]

    def cell(kind: str, part: str, bits: int, gates: bool = False) -> str:
        luts, gate = (cost(target, kind, part, bits) for target in ("xc7", "gates"))
        text = f"{luts.lut}" + (f" ({luts.levels})" if part != "table" else "")
        return text + (f", {int(gate.area + 0.5)} ({gate.delay:.0f})" if gates else "")

    rows = []
    for bits in range(2, 9):
        lanes = [cell(kind, "lane", bits) for kind in ("qk", "qk_tree", "ck", "ck_ram")]
        rows.append([bits, *lanes, cell("qk", "table", bits), cell("ck", "table", bits)])
    for bits in range(2, 9):
        large = [cell(kind, "unit", bits, gates=True) for kind in ("qk", "qk_tree", "ck")]
        rows.append([bits, *large, cell("qe", "unit", bits), cell("ce", "unit", bits)])
    page = (DOCS / "units.md").read_text()
    assert [row for row in rows if f"| {' | '.join(map(str, row))} |" not in page] == []
