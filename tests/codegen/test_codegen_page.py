# SPDX-License-Identifier: Apache-2.0
"""The HTML pages: tables in boxes that scroll, text escaped; labels of figures do not overlap."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nuq import dispatch
from nuq.codegen.design.bounds import layer_times
from nuq.codegen.design.search import explore
from nuq.codegen.emit import codes, explore_page, plots
from nuq.codegen.emit.codes import occurring
from nuq.codegen.emit.page import Bad, Bar, Figure, Page, Section, Table, render
from nuq.codegen.emit.report_model import read_report
from nuq.formats.commands import main
from nuq.formats.errors import UserError
from nuq.formats.hardware import find_part
from nuq.formats.options import Options
from nuq.formats.quantizer import Quantizer, thresholds
from nuq.model_prep.study.plots import STYLES
from tests.layout import outside, overlaps, table_width
from tests.networks import full_size
from tests.pages import check_page, full_size_report
from tests.toys import change_json

EVIL = '<img src="http://x" onerror=alert(1)>&'


def test_cells_and_text() -> None:
    cells = (EVIL, 1234567, 1.25, None, True, Bar(7, 0.5), Bad(3))
    table = Table([EVIL], [cells], EVIL, EVIL)
    sections = [Section(EVIL, (EVIL, table, Figure("<svg></svg>", EVIL), Table([], [], fold=EVIL)))]
    text = render(Page(EVIL, EVIL, sections, EVIL, {EVIL: EVIL}, contents=True))
    check_page(text)
    assert "<img" not in text and text.count("&lt;img") == 15
    for shown in (
        "1,234,567",
        "1.25",
        "–",
        "yes",
        '<span class="bar " style="--share: 50.0%">7</span>',
        '<span class="bad">3</span>',
    ):
        assert f"<td>{shown}</td>" in text or shown in text


def test_report_of_a_build(generated: Callable[..., Path]) -> None:
    build = generated()
    text = (build / "report.html").read_text()
    reader = check_page(text)
    assert len(reader.around) >= 4 and "multipliers busy" in text
    report = read_report(build)
    assert text.count("<details><summary>") == len(report.layers)
    assert text.count('<tr class="more">') == len(report.layers)
    for tile in ("frames/s", "kB", "DSP", "of 16 bits"):
        assert tile in text.partition('<section id="layers">')[0]


def test_a_report_opens_with_the_accuracy_of_its_network(generated: Callable[..., Path]) -> None:
    build = generated()
    report = read_report(build)
    paired = {"top1": {"difference": -2.3, "low": -5.1, "high": 0.2}}
    entry = {"arrays_sha256": report.arrays_sha256, "images": 436, "float_top1": 62.16,
             "integer_top1": 59.86, "paired": paired}  # fmt: skip
    for name, shown in ((report.arrays_sha256, True), ("0" * 64, False)):
        (build / "accuracy.json").write_text(json.dumps({**entry, "arrays_sha256": name}))
        assert main(["report", f"OUT={build}"]) == 0
        head = (build / "report.html").read_text().partition('<section id="layers">')[0]
        assert ("59.86%" in head and "(-5.10 to +0.20)" in head) == shown
    (build / "accuracy.json").write_text("{")
    with pytest.raises(UserError, match="accuracy.json must be JSON; run `nuq accuracy` again"):
        main(["report", f"OUT={build}"])


def test_accuracy_refreshes_the_report_of_its_network(generated: Callable[..., Path]) -> None:
    build = generated()
    arrays = read_report(build).arrays_sha256
    entry = {"arrays_sha256": arrays, "images": 50, "float_top1": 90.0,
             "integer_top1": 71.25}  # fmt: skip
    (build / "accuracy.json").write_text(json.dumps(entry))
    options = replace(Options(), out=build)
    change_json(build / "report.json", lambda report: report.update(arrays_sha256="0" * 64))
    dispatch.refresh_report(options)  # a report of another network stays as it is
    assert "71.25%" not in (build / "report.html").read_text()
    change_json(build / "report.json", lambda report: report.update(arrays_sha256=arrays))
    dispatch.refresh_report(options)
    assert "71.25%" in (build / "report.html").read_text()


def test_codes_are_counted_where_they_begin_and_what_they_stand_for() -> None:
    knq = Quantizer("knq", 2, 4, 1, None, "nearest", np.array([0, 3, 10, 13], np.int32),
                    thresholds(np.array([0, 3, 10, 13]), "nearest"))  # fmt: skip
    found = occurring(knq, np.array([0, 0, 1, 3, 3, 3], np.uint16))
    assert found.values == [0, 1.5, 5, 6.5] and found.thresholds == [0, 1, 3.5, 6]
    assert found.counts == [2, 1, 0, 3]
    enq = Quantizer("enq", 2, 3, 0, "floor", signed=True)
    found = occurring(enq, np.array([2, 3, 0, 0], np.uint16))
    assert found.values == [-4, -2, 0, 2] and found.thresholds == [-4, -2, 0, 2]
    assert found.counts == [1, 1, 2, 0]
    wide = occurring(Quantizer("uniform", 10, 10, 0), np.array([0, 3, 4], np.uint16))
    assert wide.together == 4 and len(wide.values) == 256 and wide.counts[:2] == [2, 1]
    for one in (found, wide):
        assert not overlaps(codes.picture(one).svg)
        assert sum(len(row) - 1 for row in codes.table(one).rows[::3]) == len(one.values)


@pytest.mark.parametrize("net", ["alexnet", "vgg16"])
def test_the_table_of_layers_fits_a_window_of_1400_pixels(net: str) -> None:
    """And so one of 2,400; a narrower one scrolls the box, which check_page asserts."""
    page = check_page(full_size_report(net))
    columns, *rows = (row for row in page.tables[0] if row)
    assert len(columns) == 17 and len(rows) == len(full_size(net).layers)
    body = 1400 - 2 * 32 - 16  # without margins and the mark before a name that opens
    assert table_width(columns, rows) <= body
    assert table_width([*columns, "one more column", "another"], rows) > body


def test_texts_that_cover_each_other_or_leave_the_picture_are_found() -> None:
    texts = '<text x="10" y="20">one</text><text x="{}" y="20">two</text>'
    svg = '<svg viewBox="0 0 100 40" font-size="10">' + texts + "</svg>"
    assert overlaps(svg.format(20)) == [("one", "two")] and not outside(svg.format(20))
    assert not overlaps(svg.format(60))
    assert outside(svg.format(90)) == ["two"]
    turned = '<text transform="rotate(-60 20 20)" x="20" y="20">two</text>'
    svg = '<svg viewBox="0 0 100 40"><text x="10" y="20">one</text>' + turned + "</svg>"
    assert overlaps(svg) == [("one", "two")]


def boxes(axis: Any, texts: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    """Boxes in pixels of texts that are drawn, without the lines of annotations."""
    from matplotlib.text import Text

    axis.figure.draw_without_rendering()
    renderer = axis.figure.canvas.get_renderer()
    for text in texts:
        if text.get_visible() and text.get_text():
            yield text.get_text(), Text.get_window_extent(text, renderer)


def no_overlaps(named: Sequence[tuple[str, Any]]) -> None:
    for (first, a), (second, b) in combinations(named, 2):
        assert not a.overlaps(b), (first, second)


@pytest.mark.parametrize("net", ["alexnet", "vgg16"])
def test_labels_of_the_roofline_do_not_intersect(net: str) -> None:
    plan = explore(full_size(net), find_part("XC7Z020")).best
    times = layer_times(plan)
    with plots.drawing("roofline", size=explore_page.ROOFLINE_SIZE) as (axes, _):
        explore_page.roofline(axes[0, 0], plan, times)
        named = list(boxes(axes[0, 0], axes[0, 0].texts))
        no_overlaps(named)
        shown = [part.strip() for name, _ in named for part in name.split(",")]
        assert {time.name for time in times} <= set(shown)
        assert len(shown) == len(set(shown))
        no_leader_crosses_a_text(axes[0, 0])
        for _, box in named:
            assert axes[0, 0].figure.bbox.containsx(box.x0) and box.x1 <= axes[0, 0].figure.bbox.x1


def no_leader_crosses_a_text(axis: Any) -> None:
    """The line from a label to its mark leaves other texts alone."""
    named = dict(boxes(axis, axis.texts))
    for text in axis.texts:
        if text.arrow_patch is not None:
            path = text.arrow_patch.get_path().interpolated(40)
            points = text.arrow_patch.get_transform().transform(path.vertices)
            for name, box in named.items():
                crossed = name != text.get_text() and any(box.contains(*at) for at in points)
                assert not crossed, (text.get_text(), name)


def test_what_is_drawn_can_be_seen_on_the_dark_page() -> None:
    colours = [*plots.CYCLE, *(colour for colour, *_ in STYLES.values())]
    for colour in colours:
        assert plots.contrast(plots.on_dark(colour), plots.DARK) >= 3
    dark = (Path(plots.__file__).parent / "page.html.j2").read_text().partition("dark)")[2]
    assert f"--ground: {plots.DARK};" in dark
    line = f'<path style="stroke: {colours[0]}"/>'
    assert plots.on_dark(colours[0]) in plots.themed(line)


def test_columns_of_words_begin_at_the_left() -> None:
    rows = [("a", "conv", 1, "12 of 3", None), ("b", "2^q of M", None, "–", None)]
    table = Table(["name", "kind", "n", "share", "none"], rows)
    assert table.left == {1}
    text = render(Page("t", "", [Section("s", (table,))]))
    assert text.count('class="left"') == 3  # of the heading and both rows


@pytest.mark.parametrize("count", [5, 16, 40])
def test_names_stand_under_their_bars(count: int) -> None:
    names = [f"body_body_{n}_expand3_conv" if n % 2 else f"conv{n}" for n in range(count)]
    size = explore_page.bounds_size(count)
    with plots.drawing("bounds", size=size) as (axes, _):
        axis = axes[0, 0]
        plots.stacked(axis, names, [("a", "#111111", range(count)), ("b", "#222222", range(count))])
        named = list(boxes(axis, axis.get_xticklabels()))
        assert len(named) == count
        for place, (name, box) in enumerate(named):
            pixel = axis.transData.transform((place, 0))[0]
            end = box.x1 if axis.get_xticklabels()[place].get_rotation() else (box.x0 + box.x1) / 2
            assert abs(end - pixel) < 12, (name, end, pixel)
        legend = axis.get_legend().get_window_extent()
        assert legend.x0 >= axis.get_window_extent().x1
