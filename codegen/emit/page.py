# SPDX-License-Identifier: Apache-2.0
"""The HTML pages: each is a Page of sections, which hold paragraphs, tables and figures.

One template with one style sheet renders them all into files that need no network. Everything but
SVG made here is escaped.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from markupsafe import Markup

from nuq.codegen.emit.plots import themed, width_pixels
from nuq.codegen.emit.templates import environment

TEMPLATE = "page.html.j2"
_WORD = re.compile(r"[A-Za-z]")
_FIGURE = re.compile(r"[-+]?[0-9][0-9.,]*(%|×| |$)")


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
    # of each row: what shows below it after a click on its name; none for a row without
    details: Sequence[Sequence[Any]] = ()

    @property
    def opened(self) -> list[tuple[Sequence[Any], Sequence[Any]]]:
        """(cells, details) of each row."""
        return list(zip(self.rows, self.details or [()] * len(self.rows), strict=True))

    @property
    def left(self) -> set[int]:
        """Columns of words, which begin at the left; those of figures end at the right.

        >>> Table(("", "a", "b"), [("x", "conv", "12.3%"), ("y", None, "1 of 2")]).left
        {1}
        """
        return {
            place
            for place in range(1, len(self.columns))
            if any(_WORD.match(row[place]) for row in self.rows if isinstance(row[place], str))
            and all(
                row[place] is None or isinstance(row[place], str) and not _FIGURE.match(row[place])
                for row in self.rows
            )
        }


@dataclass(frozen=True)
class Figure:
    """One figure."""

    svg: str
    caption: str = ""

    @property
    def width(self) -> int:
        """Pixels at its own size."""
        return width_pixels(self.svg)


@dataclass(frozen=True)
class Tile:
    """A result that a page opens with."""

    title: str
    value: str
    text: str = ""
    bars: Sequence[tuple[str, float, str]] = ()  # (name, share of all there is, in words)


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
    summary: Sequence[Tile] = ()


@dataclass(frozen=True)
class Bar:
    """A cell with a bar under its value: a share of the longest one."""

    value: Any
    share: float
    kind: str = ""  # CSS class

    def __html__(self) -> str:
        style = f"--share: {percent(self.share)}"
        return Markup('<span class="bar {}" style="{}">{}</span>').format(
            self.kind, style, cell(self.value)
        )


@dataclass(frozen=True)
class Bad:
    """A cell that stands out."""

    value: Any

    def __html__(self) -> str:
        return Markup('<span class="bad">{}</span>').format(cell(self.value))


def runs(content: Sequence[str | Table | Figure]) -> list[tuple[bool, list[Any]]]:
    """Content in runs: (whether they stand side by side, what they are).

    Figures and tables do where there is room; paragraphs, and tables to click on, do not.
    """

    def beside(item: str | Table | Figure) -> bool:
        return isinstance(item, Figure) or isinstance(item, Table) and not item.fold

    return [(side, list(items)) for side, items in groupby(content, beside)]


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
    templates.filters.update(cell=cell, percent=percent, runs=runs, themed=themed)
    return templates.get_template(TEMPLATE).render(page=page)
