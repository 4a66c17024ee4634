# SPDX-License-Identifier: Apache-2.0
"""The HTML pages: tables in boxes that scroll, text escaped; labels of figures do not overlap."""

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from nuq.codegen.design.bounds import layer_times
from nuq.codegen.design.search import explore
from nuq.codegen.emit import explore_page, plots
from nuq.codegen.emit.page import Bad, Bar, Figure, Page, Section, Table, render
from nuq.formats.hardware import find_part
from tests.networks import full_size
from tests.pages import check_page

EVIL = '<img src="http://x" onerror=alert(1)>&'


def test_cells_and_text() -> None:
    cells = (EVIL, 1234567, 1.25, None, True, Bar(0.5), Bad(3))
    table = Table([EVIL], [cells], EVIL, EVIL)
    sections = [Section(EVIL, (EVIL, table, Figure("<svg></svg>", EVIL), Table([], [], fold=EVIL)))]
    text = render(Page(EVIL, EVIL, sections, EVIL, {EVIL: EVIL}, contents=True))
    check_page(text)
    assert "<img" not in text and text.count("&lt;img") == 15
    for shown in ("1,234,567", "1.25", "–", "yes", 'width="40.0"', '<span class="bad">3</span>'):
        assert f"<td>{shown}</td>" in text or shown in text


def test_report_of_a_build(generated: Callable[..., Path]) -> None:
    text = (generated() / "report.html").read_text()
    reader = check_page(text)
    assert len(reader.around) >= 4 and "multipliers busy" in text


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
        assert {time.name for time in times} <= {name for name, _ in named}
        for _, box in named:
            assert axes[0, 0].figure.bbox.containsx(box.x0) and box.x1 <= axes[0, 0].figure.bbox.x1


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
