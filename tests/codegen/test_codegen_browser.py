# SPDX-License-Identifier: Apache-2.0
"""The pages in a browser, 400 to 2,400 pixels wide: nothing cut off, no label on another."""

from collections.abc import Callable
from pathlib import Path

import pytest

from nuq.codegen.design.bounds import layer_times
from nuq.codegen.design.search import explore
from nuq.codegen.emit import explore_page
from nuq.formats.commands import main
from nuq.formats.hardware import find_part
from tests.browser import needs_browser, wrong_in
from tests.networks import full_size
from tests.pages import full_size_report

WIDTHS = (2400, 1400, 800, 400)
pytestmark = needs_browser


@pytest.fixture(scope="module")
def explored() -> str:
    """explore.html of AlexNet."""
    found = explore(full_size("alexnet"), find_part("XC7Z020"))
    drawn = explore_page.figures(found.best, layer_times(found.best))
    pictures = {name: svg for name, (svg, _) in drawn.items()}
    return explore_page.page(explore_page.as_json(found), pictures)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_exploration(width: int, explored: str, tmp_path: Path) -> None:
    assert wrong_in(explored, width, tmp_path) == []


@pytest.fixture(scope="module")
def reported() -> str:
    """report.html of AlexNet."""
    return full_size_report("alexnet")


@pytest.mark.parametrize("width", WIDTHS)
def test_the_report_of_a_real_network(width: int, reported: str, tmp_path: Path) -> None:
    assert wrong_in(reported, width, tmp_path) == []


@pytest.mark.parametrize("width", WIDTHS)
def test_a_report_and_a_comparison(
    width: int, generated: Callable[..., Path], tmp_path: Path
) -> None:
    build = generated()
    assert main(["compare", f"A={build}", f"B={build}", f"OUT={build}"]) == 0
    for name in ("report.html", "compare.html"):
        assert wrong_in((build / name).read_text(), width, tmp_path) == []


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ('<div class="box" style="overflow: hidden; width: 300px"><table><tr><td>'
         '<div style="width: 600px">wide</div></td></tr></table></div>', "is cut off"),
        ('<div style="width: 3000px">wide</div>', "the page is 3000 pixels wide"),
        ("<table></table>", "is in no box"),
        ('<figure><svg width="100" height="50"><text x="10" y="20">one</text>'
         '<text x="15" y="22">two</text></svg></figure>', 'the texts "one" and "two" cover'),
        ('<div class="box"><table style="table-layout: fixed; width: 50px"><tr><td>'
         '<div style="width: 200px">wide</div></td></tr></table></div>', "leaves its cell"),
        ('<div class="box" style="overflow: auto; width: 300px"><table><tr><td>'
         '<div style="width: 600px">wide</div></td></tr></table></div>', "names take"),
        ('<div class="box" style="overflow: auto; width: 300px"><table><tr><td>name</td><td>'
         '<div style="width: 600px">wide</div></td></tr></table></div>', "leave while it scrolls"),
        ('<div class="tile" style="width: 90px">two <dl style="white-space: nowrap">31,556 of '
         "106,400</dl></div>", "leaves its tile"),
    ],
)  # fmt: skip
def test_faults_are_found(body: str, text: str, tmp_path: Path) -> None:
    page = f"<!DOCTYPE html><html><body style='margin: 0'>{body}</body></html>"
    wrong = wrong_in(page, 400, tmp_path)
    assert any(text in one for one in wrong)
    assert len(wrong) == 1 or text in ("names take", "leaves its tile")
