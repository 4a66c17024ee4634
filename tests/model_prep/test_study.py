# SPDX-License-Identifier: Apache-2.0
"""A reduced study of digits: every section filled, one HTML file that stands alone, resumable."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from formats.commands import main
from formats.errors import UserError
from model_prep.study import papers
from model_prep.study.commands import SECTIONS
from model_prep.study.results import PAPER

VOID = {"meta", "br", "link", "img", "hr"}


class Page(HTMLParser):
    """Checks nesting; collects text, links and ids."""

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.text: list[str] = []
        self.rows = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.stack.append(tag)
        self._note(tag, attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._note(tag, attrs)

    def _note(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.rows += tag == "tr"
        for name, value in attrs:
            if name in ("href", "src", "xlink:href", "action"):
                self.links.append(value or "")
            if name == "id":
                self.ids.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


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
    parser = Page()
    parser.feed((made / "report.html").read_text())
    parser.close()
    return parser


def test_every_section_has_rows_from_runs(content: dict[str, Any]) -> None:
    assert list(content["sections"]) == list(SECTIONS)
    for name, section in content["sections"].items():
        ours = [table for table in section["tables"] if table["origin"] == "ours"]
        assert ours, name
        for table in section["tables"]:
            assert table["rows"], table["caption"]
            for row in table["rows"]:
                assert len(row) == len(table["columns"]), table["caption"]
        assert section["lead"] and section["figures"]


def test_page_stands_alone(page: Page, made: Path) -> None:
    assert page.stack == []
    assert page.links and all(link.startswith("#") for link in page.links)
    assert {link[1:] for link in page.links} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    text = (made / "report.html").read_text()
    assert text.count("<svg ") >= len(SECTIONS) and "<script" not in text and "@import" not in text
    assert "url(http" not in text


def test_page_quotes_the_papers(page: Page, content: dict[str, Any]) -> None:
    text = " ".join(page.text)
    quoted = [
        table["caption"]
        for section in content["sections"].values()
        for table in section["tables"]
        if table["origin"] == PAPER
    ]
    for name in ("000, table I:", "tables II and III", "000, table IV", "000, table VI:",
                 "000, table VII", "001, tables II", "002, table 6", "004, table 3", "004, table 4",
                 "004, table 5", "004, table 6"):  # fmt: skip
        assert any(name in caption for caption in quoted), name
        assert name in text
    for figure in ("88.4", "86.25", "69.57", "16.80", "24.93"):
        assert figure in text, figure
    assert "needs a download" in text
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
    assert capsys.readouterr().out.count("up to date") == len(SECTIONS)
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


def test_unknown_section_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="SECTIONS must be of histograms, .*, not 'figures'"):
        main(options(tmp_path, "SECTIONS=uniform,figures"))
    assert not (tmp_path / "study").exists()


def test_searching_qm_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="QM must be a number for a study"):
        main(options(tmp_path, "QM=auto"))


def test_paper_figures_name_their_sources() -> None:
    assert set(papers.figures()["sources"]) == {"000", "001", "002", "004"}
