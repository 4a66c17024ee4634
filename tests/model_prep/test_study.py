# SPDX-License-Identifier: Apache-2.0
"""A reduced study of digits: every section filled, one HTML file that stands alone, resumable.

Then its parts alone: interpolation, escaping, figures, the store, quoted figures.
"""

import json
import math
import xml.etree.ElementTree as ElementTree
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nuq.formats.commands import main
from nuq.formats.errors import UserError
from nuq.model_prep.allocate.budget import undominated
from nuq.model_prep.study import papers, plots
from nuq.model_prep.study.commands import NEEDS, SECTIONS, render
from nuq.model_prep.study.context import fixed
from nuq.model_prep.study.results import PAPER, Section, Store, Table, plain
from nuq.model_prep.study.weights import savings, size_at
from tests.browser import needs_browser, wrong_in
from tests.checkout import paper_tables
from tests.pages import Page, check_page

DIGITS = [name for name in SECTIONS if name not in NEEDS]


def options(out: Path, *more: str) -> list[str]:
    return ["study", "NET=digits", f"OUT={out}", "IMAGES=40", "QUICK=1", *more]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("study")
    assert main(options(out)) == 0
    return out / "study"


@pytest.fixture(scope="module")
def content(made: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((made / "study.json").read_text())
    return found


@pytest.fixture(scope="module")
def page(made: Path) -> Page:
    return check_page((made / "report.html").read_text())


def test_every_section_has_rows_from_runs(content: dict[str, Any]) -> None:
    assert list(content["sections"]) == DIGITS
    for name, section in content["sections"].items():
        ours = [table for table in section["tables"] if table["origin"] == "ours"]
        assert ours, name
        for table in section["tables"]:
            assert table["rows"], table["caption"]
            for row in table["rows"]:
                assert len(row) == len(table["columns"]), table["caption"]
        assert section["lead"] and section["figures"]


def test_page_has_links_and_figures(page: Page, made: Path) -> None:
    assert page.links
    assert (made / "report.html").read_text().count("<svg ") >= len(DIGITS)


def test_page_quotes_the_papers(page: Page, content: dict[str, Any]) -> None:
    text = " ".join(page.words)
    quoted = [
        table["caption"]
        for section in content["sections"].values()
        for table in section["tables"]
        if table["origin"] == PAPER
    ]
    for name in ("000, table I:", "tables II and III", "000, table IV", "000, table VI:",
                 "000, table VII", "001, tables II", "002, table 6", "004, table 3", "004, table 4",
                 "004, table 5", "004, table 6", "002, table 7"):  # fmt: skip
        assert any(name in caption for caption in quoted), name
        assert name in text
    for figure in ("88.4", "86.25", "69.57", "16.80", "24.93"):
        assert figure in text, figure
    assert "needs a download" in text
    assert set(papers.figures()["sources"]) == {"000", "001", "002", "004"}
    assert "digits, trained weights, 40 test images (1437 others calibrate)" in text


def test_recomputed_figures_are_the_printed_ones(content: dict[str, Any]) -> None:
    tables = {
        table["caption"]: table["rows"]
        for section in content["sections"].values()
        for table in section["tables"]
        if table["origin"] == "both"
    }
    offsets = [rows for caption, rows in tables.items() if "bits of weights" in caption]
    assert len(offsets) == 2 and all(row[2] == row[3] for rows in offsets for row in rows)
    memory = next(rows for caption, rows in tables.items() if "54 MB" in caption)
    assert all(abs(row[2] - row[3]) < 0.06 and abs(row[4] - row[5]) < 0.006 for row in memory)


def test_figures_fit_each_other(content: dict[str, Any]) -> None:
    uniform = content["sections"]["uniform"]["tables"][1]["rows"]
    assert uniform[-1][0] == "float" and uniform[-1][2] > 90
    noise = [row[5] for row in uniform[:-1]]
    assert noise == sorted(noise, reverse=True) and noise[0] > 40 > noise[-1]
    front = content["sections"]["front"]["tables"][0]["rows"]
    kept = [row for row in front if row[6]]
    assert kept == sorted(kept, key=lambda row: row[1])
    assert all(one[3] < other[3] for one, other in zip(kept, kept[1:], strict=False))


def test_a_second_run_measures_nothing(
    made: Path, content: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(options(made.parent)) == 0
    assert capsys.readouterr().out.count("up to date") == len(DIGITS)
    assert json.loads((made / "study.json").read_text()) == content


def test_a_lost_section_comes_from_kept_evaluations(
    made: Path, content: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    shortened = {**content, "sections": dict(content["sections"])}
    del shortened["sections"]["schemes"]
    (made / "study.json").write_text(json.dumps(shortened))
    assert main(options(made.parent, "SECTIONS=schemes")) == 0
    assert "up to date" not in capsys.readouterr().out
    again = json.loads((made / "study.json").read_text())
    assert again["sections"]["schemes"]["tables"] == content["sections"]["schemes"]["tables"]
    assert again["values"] == content["values"]
    # the page has the sections of all runs
    assert 'id="the-pareto-front"' in (made / "report.html").read_text()


def test_other_settings_begin_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["SECTIONS=uniform"]
    assert main(options(tmp_path, *few)) == 0
    assert main(options(tmp_path, *few, "QM=10")) == 0
    assert "up to date" not in capsys.readouterr().out
    found = json.loads((tmp_path / "study" / "study.json").read_text())
    assert "qm 10" in found["about"]["facts"]["formats"]


@needs_browser
@pytest.mark.parametrize("width", [1400, 400])
def test_the_page_in_a_browser(width: int, made: Path, tmp_path: Path) -> None:
    assert wrong_in((made / "report.html").read_text(), width, tmp_path) == []


def test_unknown_section_is_refused_before_any_work(tmp_path: Path) -> None:
    close = "SECTIONS must be of .*, not 'histogram'; did you mean histograms"
    with pytest.raises(UserError, match=close):
        main(options(tmp_path, "SECTIONS=histogram"))
    with pytest.raises(UserError, match="SECTIONS must be of histograms, .*, not 'figures'"):
        main(options(tmp_path, "SECTIONS=uniform,figures"))
    assert not (tmp_path / "study").exists()


def test_searching_qm_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="QM must be a number for a study"):
        main(options(tmp_path, "QM=auto"))


def test_size_at_equal_error() -> None:
    curve = [(4.0, 10.0), (2.0, 30.0), (3.0, 35.0), (1.0, 50.0)]
    assert size_at(curve, 40.0) == 1.5
    assert size_at(curve, 20.0) == 3.0  # the bump at size 3 is passed over
    assert size_at(curve, 60.0) is None and size_at(curve, 5.0) is None


def test_savings_leave_out_levels_that_are_not_crossed() -> None:
    equal = [(1.0, 30.0), (2.0, 20.0), (4.0, 10.0)]
    half = [(size / 2, error) for size, error in equal]
    rows = savings(equal, {"half": half}, 9.0)
    assert [row[0] for row in rows] == [10.0, 11.0, 12.0, 14.0, 19.0, 29.0]
    assert all(row[3] == pytest.approx(50.0) for row in rows)
    assert savings(equal, {"none": [(1.0, 5.0)]}, 9.0) == []


def test_the_front_keeps_what_nothing_beats() -> None:
    points = np.random.default_rng(1).integers(0, 40, (60, 2))
    kept = undominated(*points.T).tolist()
    assert np.all(np.diff(points[kept], axis=0) * (1, -1) > 0)
    for index, point in enumerate(points):
        beaten = bool(((points <= point).all(axis=1) & (points != point).any(axis=1)).any())
        again = any((points[other] == point).all() for other in kept if other != index)
        assert (index in kept) == (not beaten and not again)


def test_fixed_weights_are_on_a_grid_of_the_width() -> None:
    weight = np.random.default_rng(2).normal(size=(8, 4, 3, 3)).astype(np.float32)
    for bits in (2, 4, 8):
        values = fixed(weight, bits)
        assert values.dtype == np.float32
        assert len(np.unique(values)) <= 2**bits - 1
        assert np.square(values - weight).mean() < 1.2 * 0.3 ** (bits - 1)


def entry(table: Table, caption: str = "c") -> dict[str, Any]:
    panel = plots.Panel([plots.Series("knq", [1, 2], [3, 4])], caption, level=3.5, legend=1)
    figure = plots.Figure(caption, [panel], (4.0, 3.0))
    content: dict[str, Any] = plain(
        {"title": caption, **asdict(Section(caption, [table], [figure]))}
    )
    return content


def test_text_is_escaped() -> None:
    evil = '<img src="http://x" onerror=alert(1)>&'
    about = {"title": evil, "where": evil, "lead": evil, "facts": {evil: evil}}
    text = render(about, {"uniform": entry(Table(evil, [evil], [[evil]], note=evil), evil)})
    assert "<img" not in text and text.count("&lt;img") >= 10


def test_empty_columns_are_left_out() -> None:
    table = Table("c", ["a", "b"], [[1, None], [2, None]], PAPER)
    about = {"title": "t", "where": "w", "lead": "l", "facts": {}}
    text = render(about, {"uniform": entry(table)})
    assert "<th>a</th>" in text and "<th>b</th>" not in text


def test_svg_is_well_formed_with_text_and_own_ids() -> None:
    ids: list[str] = []
    for name in ("one", "two"):
        svg = plots.draw(name, entry(Table("c", [], []), "a <title>")["figures"][0]).svg
        root = ElementTree.fromstring(svg)
        ids += [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
        words = " ".join(element.text or "" for element in root.iter())
        assert "KNQ" in words and "float" in words and "a <title>" in words
        assert "metadata" not in svg
    assert len(ids) == len(set(ids))


def test_store_keeps_values_for_the_same_settings_only(tmp_path: Path) -> None:
    path, calls = tmp_path / "study.json", list[int]()

    def make() -> dict[str, Any]:
        calls.append(1)
        return {"infinite": math.inf, "array": np.arange(2), "tuple": (1, 2.5)}

    store = Store(path, "a")
    first = store.remember("key", make)
    assert first == {"infinite": None, "array": [0, 1], "tuple": [1, 2.5]}
    store.keep("part", "Title", Section("lead", [Table("c", ["x"], [[1]])]), 0.5)
    again = Store(path, "a")
    assert again.remember("key", make) == first and calls == [1]
    assert again.sections["part"]["tables"][0]["rows"] == [[1]]
    assert Store(path, "b").sections == {}


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"sections": {}}', "\x00"])
def test_a_broken_store_is_begun_anew(tmp_path: Path, text: str) -> None:
    path = tmp_path / "study.json"
    path.write_text(text)
    assert Store(path, "a").values == {}


@pytest.mark.data
def test_quoted_figures_are_the_digested_ones() -> None:
    digested = paper_tables()
    paper = digested["ilnq"]
    assert papers.rows("uniform") == [["top-5, %", *paper["uniform_vgg16_top5"].values()]]
    columns = papers.figures()["tables"]["uniform"]["columns"]
    assert columns[1:] == list(paper["uniform_vgg16_top5"])
    centroids = paper["knq_vgg16_centroids_5bit"]
    assert {layer: row for layer, *row in papers.rows("centroids")} == centroids
    assert papers.rows("comparison") == [
        [net, scheme, row["top5"], row["nb_mb"], row["nnb"]]
        for net, by_scheme in paper["comparison"].items() for scheme, row in by_scheme.items()
    ]  # fmt: skip
    assert papers.rows("bound") == [
        [net, int(bits), row["plain"], row["clipped"], round(row["clipped"] - row["plain"], 2)]
        for net, by_bits in paper["knq_top5"].items() for bits, row in by_bits.items()
    ]  # fmt: skip
    sqnr = digested["fixed_point"]["sqnr_db"]
    printed = [sqnr[name][kind] for name in ("example1", "example2")
               for kind in ("predicted", "measured")]  # fmt: skip
    assert [*zip(*papers.rows("sqnr"), strict=True)] == [*map(tuple, (sqnr["layer"], *printed))]
    tuned = digested["fixed_point"]["finetuned_cifar10_error_pct"]
    assert papers.rows("finetuned") == [[name, *tuned[name]] for name in ("4", "8", "16", "float")]
    layers = papers.figures()["tables"]["enq"]["columns"][2:]
    for row, (_, *quoted) in zip(paper["enq_vgg16"], papers.rows("enq"), strict=True):
        assert quoted == [row["top5"], *[row["bits"][name] for name in layers]]
    for technique, row in zip(digested["quenn"]["alexnet"], papers.rows("alexnet"), strict=True):
        keys = ("technique", "weight_saving_pct", "activation_saving_pct", "l2")
        assert row[:4] == [technique[key] for key in keys]
