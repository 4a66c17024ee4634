# SPDX-License-Identifier: Apache-2.0
"""Builds side by side: what differs is shown, on the page and on the terminal."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from nuq import results
from nuq.codegen.emit import compare
from nuq.formats import settings
from nuq.formats.commands import main
from nuq.formats.errors import UserError
from tests.pages import check_page
from tests.toys import Toy, ToyLayer

SHAPE = (3, 6, 6)


@pytest.fixture
def builds(make_toy: Callable[..., Path]) -> tuple[Path, Path]:
    """A toy and one with wider codes on a larger array."""
    made = []
    for name, bits, pe in (("narrow", 3, 8), ("wide", 5, 16)):
        layers = [ToyLayer(16, pads=(1, 1, 1, 1), bits=bits), ToyLayer(5)]
        build = make_toy(Toy(in_shape=SHAPE, layers=layers), name)
        assert main(["codegen", f"OUT={build}", f"PE={pe}"]) == 0
        settings.write(build, {"NET": "alexnet", "BITS": str(bits), "PE": pe})
        made.append(build)
    return made[0], made[1]


def test_what_differs_is_shown(
    builds: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = builds
    read = [compare.read_build(build) for build in builds]
    entry = {"arrays_sha256": read[0].report.arrays_sha256, "images": 100, "float_top1": 90.0,
             "integer_top1": 88.0}  # fmt: skip
    (first / "accuracy.json").write_text(json.dumps(entry))
    assert main(["compare", f"A={first}", f"B={second}", f"OUT={tmp_path}"]) == 0
    text = capsys.readouterr().out
    rows = {line[:30].split("  ")[0]: line for line in text.splitlines()}
    memory = [one.report.memory.nb_bits for one in read]
    assert f"{memory[0]:,}" in rows["NB, bits of an image"]
    assert f"{memory[1]:,} (×{memory[1] / memory[0]:.2f})" in rows["NB, bits of an image"]
    assert rows["BITS ="].split()[-2:] == ["3", "5"] and rows["PE ="].split()[-2:] == ["8", "16"]
    assert "NET =" not in rows  # alike
    assert "88.00" in rows["top-1 %, integer network"]
    result = results.read("compare", tmp_path, "")
    assert result.tables[0].head == ("", "narrow", "wide") and result.page
    assert ["BITS", "3", "5"] in result.tables[1].rows
    page = (tmp_path / "compare.html").read_text()
    tables = check_page(page).tables
    assert tables[0][0] == ["", "narrow", "wide"]
    assert ["BITS", "3", "5"] in tables[1] and len(tables[1]) == 3
    assert tables[2][1][:3] == ["layer0", "3 knq, weights 14", "5 knq, weights 14"]


def test_builds_alike_have_no_settings_that_differ(builds: tuple[Path, Path]) -> None:
    one = compare.read_build(builds[0])
    assert compare.differing([one, one]) == []
    assert "None." in compare.page([one, one])


def test_three_builds_and_folders_of_one_name(
    builds: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = builds
    others = f"B={second},{first}"
    assert main(["compare", f"A={first}", others, f"OUT={tmp_path}"]) == 0
    assert capsys.readouterr().out.splitlines()[0].split() == [str(first), str(second), str(first)]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ((), "A and B must be set, as in A=build/x B=build/y; B takes several, with commas"),
        (("A={first}",), "A and B must be set"),
        (("A={first}", "B={empty}"), "report.json must exist; run `nuq codegen` first"),
    ],
)
def test_refusals(
    builds: tuple[Path, Path], tmp_path: Path, words: tuple[str, ...], text: str
) -> None:
    given = [word.format(first=builds[0], empty=tmp_path) for word in words]
    with pytest.raises(UserError, match=text):
        main(["compare", *given, f"OUT={tmp_path}"])
    assert not (tmp_path / "compare.html").exists()
