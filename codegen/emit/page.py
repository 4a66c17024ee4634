# SPDX-License-Identifier: Apache-2.0
"""The HTML pages: each is a Page of sections, which hold paragraphs, tables and figures.

One template with one style sheet renders them all into files that need no network. Everything but
SVG made here is escaped.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from nuq.codegen.emit.templates import environment

TEMPLATE = "page.html.j2"
BAR = 80  # pixels of the longest bar in a cell


@dataclass(frozen=True)
class Table:
    """One table, in a box that scrolls where the window is too narrow for it."""

    columns: Sequence[str]  # the first column holds names, too
    rows: Sequence[Sequence[Any]]  # cells: texts, numbers, None, Bar or Bad
    caption: str | Markup = ""  # above the table
    note: str = ""  # below it
    digits: int = 2  # decimals of floats
    kind: str = ""  # CSS class of the box
    fold: str = ""  # text to click on before the table shows; "" for a table that is open


@dataclass(frozen=True)
class Figure:
    """One figure."""

    svg: str
    caption: str = ""


@dataclass(frozen=True)
class Section:
    """A part of a page under its own heading."""

    title: str
    content: Sequence[str | Table | Figure]

    @property
    def key(self) -> str:
        """The anchor of the section.

        >>> Section("Where time goes", ()).key
        'where-time-goes'
        """
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


@dataclass(frozen=True)
class Page:
    """A whole page."""

    title: str  # also of the window
    lead: str  # a line under it
    sections: Sequence[Section]
    warning: str = ""  # what a reader must know first
    facts: Mapping[str, Any] = field(default_factory=dict)  # name to text, under the lead
    contents: bool = False  # whether to list the sections with links


@dataclass(frozen=True)
class Bar:
    """A cell with a bar: a share of the longest one."""

    share: float
    colour: str = "#3b6ea5"

    def __html__(self) -> str:
        width = f"{BAR * self.share:.1f}"
        bar = f'<rect fill="{self.colour}" height="10" width="{width}"/>'
        return f'<svg width="{BAR}" height="10">{bar}</svg>'


@dataclass(frozen=True)
class Bad:
    """A cell that stands out."""

    value: Any

    def __html__(self) -> str:
        return Markup('<span class="bad">{}</span>').format(cell(self.value))


def percent(value: float) -> str:
    """A share for reading.

    >>> percent(0.1234)
    '12.3%'
    """
    return f"{100 * value:.1f}%"


def cell(value: Any, digits: int = 2) -> Any:
    """What a cell shows; text is escaped by the template.

    >>> cell(1234567), cell(1.5, 1), cell(None), cell(True), cell("a")
    ('1,234,567', '1.5', '–', 'yes', 'a')
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.{digits}f}"
    return value


def render(page: Page) -> str:
    """The page as one HTML file."""
    templates = environment([Path(__file__).parent], autoescape=True)
    templates.filters["cell"] = cell
    return templates.get_template(TEMPLATE).render(page=page)
