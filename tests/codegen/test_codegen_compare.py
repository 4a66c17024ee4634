# SPDX-License-Identifier: Apache-2.0
"""Builds side by side: what differs is shown, on the page and on the terminal."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nuq import results
from nuq.codegen.emit import compare
from nuq.formats import settings
from nuq.formats.commands import main
from nuq.formats.errors import UserError
from tests.pages import check_page
from tests.toys import Toy, ToyLayer, change_json

SHAPE = (3, 6, 6)
ACCURACY = {"images": 20, "float_top1": 100.0, "integer_top1": 95.0, "float_top5": None,
            "integer_top5": None, "agreement": 95.0}  # fmt: skip


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
    assert "88.00 of 100 images" in rows["top-1 %, integer network"]
    result = results.read("compare", tmp_path, "")
    assert result.tables[0].head == ("", "narrow", "wide") and result.page
    assert ["BITS", "3", "5"] in result.tables[1].rows
    page = (tmp_path / "compare.html").read_text()
    tables = check_page(page).tables
    assert tables[0][0] == ["", "narrow", "wide"]
    assert ["BITS", "3", "5"] in tables[1] and len(tables[1]) == 3
    assert tables[2][1][:3] == ["layer0", "3 knq, weights 14", "5 knq, weights 14"]


def measure(build: Path, images: int, data: str = "/x/shapes.npz") -> None:
    """accuracy.json of a build's network."""
    arrays = compare.read_build(build).report.arrays_sha256
    entry = {"arrays_sha256": arrays, "images": images, "data": data, "float_top1": 90.0,
             "integer_top1": 88.0}  # fmt: skip
    (build / "accuracy.json").write_text(json.dumps(entry))


def test_accuracies_of_other_images_are_not_silently_side_by_side(
    builds: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = builds
    own = ACCURACY
    change_json(first / "report.json", lambda report: report.update(accuracy=own))
    change_json(first / "quantized" / "manifest.json", lambda entry: entry.update(accuracy=own))
    measure(second, 150)

    def said() -> str:
        assert main(["compare", f"A={first}", f"B={second}", f"OUT={tmp_path}"]) == 0
        text = capsys.readouterr().out
        page = (tmp_path / "compare.html").read_text()
        warning = "WARNING: these accuracies are of different images" in text
        assert ("accuracies are of different images" in page) == warning
        notes = results.read("compare", tmp_path, "").facts.values()
        assert any("of different images" in note for note in notes) == warning
        return text

    text = said()
    assert "95.00 of 20 images" in text and "88.00 of 150 images" in text
    assert "random (report.json)" in text and "shapes.npz (accuracy.json)" in text
    assert "WARNING" in text
    measure(first, 150)
    assert "WARNING" not in said()
    measure(first, 150, "/y/shapes.npz")
    assert "WARNING" in said()
    (first / "accuracy.json").write_text(json.dumps({"arrays_sha256": "0" * 64}))
    assert f"{first}/accuracy.json is of another network than this build's and left out" in said()


@pytest.mark.parametrize("change", [{"arrays_sha256": "1" * 64}, {"accuracy": ACCURACY}])
def test_a_report_older_than_its_network_is_refused(
    builds: tuple[Path, Path], tmp_path: Path, change: dict[str, Any]
) -> None:
    """As `nuq accuracy BITS=4` leaves a build: settings of 4 bits beside a report of 5."""
    first, second = builds
    change_json(second / "quantized" / "manifest.json", lambda entry: entry.update(change))
    fault = rf"wide/report.json must be of the network in .* run `nuq codegen OUT={second}`"
    with pytest.raises(UserError, match=fault):
        main(["compare", f"A={first}", f"B={second}", f"OUT={tmp_path}"])
    assert not (tmp_path / "compare.html").exists()


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
