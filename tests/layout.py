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

import numpy as np

SVG = "{http://www.w3.org/2000/svg}"
TABLE_FONT = 0.86 * 15  # pixels, of the style sheet
PADDING = 2 * 0.45 * 16  # left and right of a cell
Point = tuple[float, float]


@cache
def _font(size: float) -> Any:
    from matplotlib.font_manager import findfont
    from PIL import ImageFont

    return ImageFont.truetype(findfont("DejaVu Sans"), size, layout_engine=ImageFont.Layout.BASIC)


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


def _matrix(transform: str) -> np.ndarray:
    """The 3x3 matrix of a transform attribute."""
    made = np.eye(3)
    for kind, values in re.findall(r"(\w+)\(([^)]*)\)", transform):
        numbers = [float(number) for number in re.split(r"[ ,]+", values.strip())]
        step = np.eye(3)
        if kind == "translate":
            step[:2, 2] = (*numbers, 0.0)[:2]
        elif kind == "scale":
            step[0, 0], step[1, 1] = numbers[0], numbers[-1]
        else:
            assert kind == "rotate", kind
            angle, about = radians(numbers[0]), np.array([*numbers[1:], 0.0, 0.0][:2])
            step[:2, :2] = [[cos(angle), -sin(angle)], [sin(angle), cos(angle)]]
            step[:2, 2] = about - step[:2, :2] @ about
        made = made @ step
    return made


def _runs(element: Any, style: dict[str, str]) -> Iterator[tuple[float, float, float, float]]:
    """(left, right, baseline, size) of each run of a <text>, in its own units."""
    for part in list(element.iter(f"{SVG}tspan")) or [element]:
        own, text = _style(part, style), " ".join("".join(part.itertext()).split())
        size, places = _size(own), [float(x) for x in part.get("x", "0").split()]
        last = text[len(places) - 1 :] if len(places) > 1 else text
        left = {"middle": -0.5, "end": -1.0}.get(own.get("text-anchor", ""), 0.0)
        shift = left * text_width(text, size)
        end = places[-1] + shift + text_width(last, size)
        yield places[0] + shift, end, float(part.get("y", 0)), size


def _corners(element: Any, style: dict[str, str], place: np.ndarray) -> list[Point]:
    """The corners of a <text>, where `place` puts it."""
    runs = np.array(list(_runs(element, style)))
    left, right = runs[:, 0].min(), runs[:, 1].max()
    top, bottom = (runs[:, 2] - 0.72 * runs[:, 3]).min(), (runs[:, 2] + 0.15 * runs[:, 3]).max()
    box = np.array([[left, left, right, right], [top, bottom, top, bottom], [1, 1, 1, 1]])
    return [(float(x), float(y)) for x, y in (place @ box)[:2].T]


def svg_texts(svg: str) -> Iterator[tuple[str, list[Point]]]:
    """(text, its four corners) of each text of an <svg> element, in its own units."""
    if "xmlns=" not in svg.partition(">")[0]:
        svg = svg.replace("<svg ", f'<svg xmlns="{SVG[1:-1]}" ', 1)
    root = ElementTree.fromstring(re.sub(r"\bxlink:href=", "href=", svg))

    def walk(element: Any, style: dict[str, str], place: np.ndarray) -> Iterator[tuple[str, Any]]:
        own, here = _style(element, style), place @ _matrix(element.get("transform", ""))
        if element.tag == f"{SVG}text":
            yield "".join(element.itertext()).strip(), _corners(element, own, here)
        elif element.tag not in (f"{SVG}title", f"{SVG}defs"):
            for child in element:
                yield from walk(child, own, here)

    yield from walk(root, {}, np.eye(3))


def _apart(a: Sequence[Point], b: Sequence[Point]) -> bool:
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
