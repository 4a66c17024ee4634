# SPDX-License-Identifier: Apache-2.0
"""Geometry of pages without a browser: boxes of texts in SVGs, least widths of tables.

Texts are measured in DejaVu Sans, which is wider than what browsers take for system-ui.
"""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import combinations, zip_longest
from math import cos, radians, sin
from typing import Any
from xml.etree import ElementTree

SVG = "{http://www.w3.org/2000/svg}"
TABLE_FONT = 0.86 * 15  # pixels, of the style sheet
PADDING = 2 * 0.45 * 16  # left and right of a cell
Box = tuple[float, float, float, float]  # left, top, right, bottom


@cache
def _font(size: float) -> Any:
    from matplotlib.font_manager import findfont
    from PIL import ImageFont

    return ImageFont.truetype(findfont("DejaVu Sans"), size)


def text_width(text: str, size: float) -> float:
    """Of one line, in the unit of `size`."""
    return float(_font(100).getlength(text)) * size / 100


def _style(element: Any, inherited: dict[str, str]) -> dict[str, str]:
    pairs = re.findall(r"([\w-]+):\s*([^;]+)", element.get("style", ""))
    names = ("font-size", "text-anchor", "font")
    attributes = {name: element.get(name) for name in names if element.get(name)}
    return {**inherited, **attributes, **{name: value.strip() for name, value in pairs}}


def _size(style: dict[str, str]) -> float:
    found = re.search(r"([\d.]+)px", style.get("font", "")) or re.search(
        r"([\d.]+)", style.get("font-size", "10")
    )
    assert found
    return float(found[1])


def _corners(element: Any, style: dict[str, str]) -> list[tuple[float, float]]:
    text, size = "".join(element.itertext()).strip(), _size(style)
    width = text_width(text, size)
    left = {"middle": -width / 2, "end": -width}.get(style.get("text-anchor", ""), 0.0)
    x, y = float(element.get("x", 0)), float(element.get("y", 0))
    rotation = (0.0, 0.0, 0.0)
    for kind, values in re.findall(r"(translate|rotate)\(([^)]*)\)", element.get("transform", "")):
        numbers = [float(number) for number in re.split(r"[ ,]+", values.strip())]
        if kind == "translate":
            x, y = x + numbers[0], y + numbers[1]
        else:
            angle, *centre = numbers
            rotation = (angle, *(centre or (x, y)))  # type: ignore[assignment]
    angle, about_x, about_y = radians(rotation[0]), rotation[1], rotation[2]
    corners = []
    for dx in (left, left + width):
        for dy in (-0.72 * size, 0.15 * size):
            px, py = x + dx - about_x, y + dy - about_y
            corners.append(
                (about_x + px * cos(angle) - py * sin(angle),
                 about_y + px * sin(angle) + py * cos(angle))
            )  # fmt: skip
    return corners


def svg_texts(svg: str) -> Iterator[tuple[str, list[tuple[float, float]]]]:
    """(text, its four corners) of each text of an <svg> element, in its own units."""
    if "xmlns=" not in svg.partition(">")[0]:
        svg = svg.replace("<svg ", f'<svg xmlns="{SVG[1:-1]}" ', 1)
    root = ElementTree.fromstring(re.sub(r"\bxlink:href=", "href=", svg))

    def walk(element: Any, style: dict[str, str]) -> Iterator[tuple[str, Any]]:
        own = _style(element, style)
        if element.tag == f"{SVG}text":
            yield "".join(element.itertext()).strip(), _corners(element, own)
        elif element.tag not in (f"{SVG}title", f"{SVG}defs"):
            for child in element:
                yield from walk(child, own)

    yield from walk(root, {})


def _apart(a: Sequence[tuple[float, float]], b: Sequence[tuple[float, float]]) -> bool:
    """Whether two rectangles, however turned, are apart (separating axes)."""
    for box in (a, b):
        for other in (box[1], box[2]):
            axis = (other[0] - box[0][0], other[1] - box[0][1])
            spans = [[x * axis[0] + y * axis[1] for x, y in corners] for corners in (a, b)]
            if max(spans[0]) <= min(spans[1]) or max(spans[1]) <= min(spans[0]):
                return True
    return False


def overlaps(svg: str) -> list[tuple[str, str]]:
    """Pairs of texts of an <svg> element that cover each other."""
    texts = [(text, corners) for text, corners in svg_texts(svg) if text]
    return [(one, other) for (one, a), (other, b) in combinations(texts, 2) if not _apart(a, b)]


def outside(svg: str) -> list[str]:
    """Texts that the edge of an <svg> element cuts off."""
    found = re.search(r'viewBox="([^"]*)"', svg)
    assert found
    left, top, width, height = map(float, found[1].split())
    return [
        text
        for text, corners in svg_texts(svg)
        if text
        and not all(
            left - 1 <= x <= left + width + 1 and top - 1 <= y <= top + height + 1
            for x, y in corners
        )
    ]


def figures(page: str) -> list[str]:
    """The <svg> elements of a page."""
    return re.findall(r"<svg .*?</svg>", page, re.DOTALL)


def table_width(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> float:
    """Pixels that a table needs: of each column the longest cell, or word of its title."""
    words = [max((*name.split(), ""), key=len) for name in columns]
    return sum(
        PADDING + max(text_width(text, TABLE_FONT) for text in column)
        for column in zip_longest(words, *rows, fillvalue="")
    )
