# SPDX-License-Identifier: Apache-2.0
"""How all figures look: matplotlib figures as inline SVG, whose names and labels never overlap.

Text stays text; equal figures give equal texts. matplotlib is imported when a figure is drawn.
"""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from math import cos, pi, sin
from typing import Any

import numpy as np

from nuq.formats.errors import UserError

INK, SOFT, GRID = "#1f2933", "#6b7785", "#e4e8ed"
CYCLE = ("#2f6690", "#a9c9e0", "#7d8597", "#d1603d", "#e9b44c", "#6a4c93", "#4f9d69", "#9bc1a0",
         "#8d2b2b")  # fmt: skip
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": 9,
    "text.color": INK, "axes.edgecolor": SOFT, "axes.labelcolor": INK, "axes.titlesize": 9,
    "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.8,
    "axes.grid": True, "grid.color": GRID, "grid.linewidth": 0.8, "axes.axisbelow": True,
    "xtick.color": SOFT, "ytick.color": SOFT, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "legend.frameon": False, "legend.fontsize": 8, "lines.linewidth": 1.6, "lines.markersize": 4.5,
    "svg.fonttype": "none", "figure.constrained_layout.use": True,
}  # fmt: skip
LONG = 17  # characters of a layer's name in a figure
UPRIGHT = 8  # names that fit under an axis without being slanted
RADII = (6, 9, 13, 18, 24, 32, 42, 54, 68, 84, 102)  # points between a mark and its label
ANGLES = 12
NEAR = 13  # of RADII: up to here a text needs no line to its mark
TOUCH = 7  # points between marks that share a text
NAMES = 3  # on a line of such a text
# What of a figure follows the page's colours: texts and lines, and the ground, which has none.
THEME = {INK: f"var(--ink, {INK})", SOFT: f"var(--soft, {SOFT})", GRID: f"var(--line, {GRID})",
         'style="fill: #ffffff"': 'style="fill: none"'}  # fmt: skip
PIXELS = 4 / 3  # of a point
DARK = "#12181f"  # --ground of a dark page
CONTRAST = 4.0  # of lines and areas against it; WCAG asks for 3
_DRAWN = re.compile(r"<(?:path|use)\b[^>]*>")
_COLOUR = re.compile(r"\b(fill|stroke): (#[0-9a-f]{6})\b")
_ID = re.compile(r'(\bid="|href="#|url\(#)')


@contextmanager
def drawing(name: str, rows: int = 1, columns: int = 1, size: tuple[float, float] = (6.4, 3.4),
            share: bool = False, png: bool = False) -> Iterator[tuple[Any, list[Any]]]:  # fmt: skip
    """Axes [rows, columns] to draw on, and a list that holds the SVG text afterwards.

    Ids begin with `name`, unique on the page; `size` is the whole figure's, in inches; `share`:
    axes share both scales; `png`: the list holds PNG bytes, too.
    """
    try:
        import matplotlib
    except ImportError:
        raise UserError(
            "plots need the package matplotlib; install it with pip install matplotlib"
        ) from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    pictures: list[Any] = []
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        figure, axes = pyplot.subplots(
            rows, columns, figsize=size, squeeze=False, sharex=share, sharey=share
        )
        try:
            yield axes, pictures
            pictures.append(_inline(figure, name))
            if png:
                stream = io.BytesIO()
                figure.savefig(stream, format="png", dpi=120)
                pictures.append(stream.getvalue())
        finally:
            pyplot.close(figure)


def _inline(figure: Any, name: str) -> str:
    """The figure as an <svg> element, without prologue and metadata, its ids made unique."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = _ID.sub(lambda found: f"{found.group(1)}{name}-", text)
    return text.replace("<svg ", '<svg role="img" ', 1)


def themed(svg: str) -> str:
    """A figure for a page that is dark or light: what is drawn in INK, SOFT and GRID follows it.

    Other lines and areas get a second colour for the dark page; texts, which may stand on them,
    do not.

    >>> themed('<path style="fill: #ffffff"/><text style="fill: #1f2933"/>')
    '<path style="fill: none"/><text style="fill: var(--ink, #1f2933)"/>'
    >>> themed('<path style="fill: #2f6690"/>')
    '<path style="fill: #2f6690; fill: light-dark(#2f6690, #4e7da1)"/>'
    """
    for plain, variable in THEME.items():
        svg = svg.replace(plain, variable)
    return _DRAWN.sub(lambda tag: _COLOUR.sub(_both, tag[0]), svg)


def _both(found: re.Match[str]) -> str:
    name, colour = found.groups()
    return f"{name}: {colour}; {name}: light-dark({colour}, {on_dark(colour)})"


def luminance(colour: str) -> float:
    """Relative luminance of "#rrggbb", from 0 to 1 (WCAG 2.1)."""
    channels = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one: str, other: str) -> float:
    """Contrast of two colours, from 1 to 21 (WCAG 2.1).

    >>> round(contrast("#000000", "#ffffff"))
    21
    """
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def on_dark(colour: str) -> str:
    """A colour with so much white in it that it can be seen on the dark page."""
    channels = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)])
    for white in np.linspace(0, 1, 21):
        mixed = np.round(channels + (255 - channels) * white).astype(int)
        lighter = "#" + "".join(f"{value:02x}" for value in mixed)
        if contrast(lighter, DARK) >= CONTRAST:
            break
    return lighter


def width_pixels(svg: str) -> int:
    """How wide an <svg> element is by itself, in pixels; 0 where it does not say.

    >>> width_pixels('<svg role="img" width="576pt" height="36pt">')
    768
    """
    found = re.match(r'<svg [^>]*?\bwidth="([0-9.]+)(pt|px)?"', svg)
    return round(float(found[1]) * (PIXELS if found[2] == "pt" else 1)) if found else 0


def short(name: str) -> str:
    """A layer's name that fits below an axis: the end of it, where it differs from others'.

    >>> short("conv1"), short("body_body_10_expand3_conv")
    ('conv1', '…_10_expand3_conv')
    """
    return name if len(name) <= LONG else "…" + name[1 - LONG :]


def name_ticks(axis: Any, names: Sequence[str]) -> None:
    """One tick a layer, its name ending under its bar; slanted where there are many."""
    many = len(names) > UPRIGHT or sum(map(len, map(short, names))) > 60
    axis.set_xticks(
        range(len(names)), [short(name) for name in names], fontsize=7.5, rotation=60 * many,
        ha="right" if many else "center", rotation_mode="anchor" if many else "default",
    )  # fmt: skip


def stacked(
    axis: Any, names: Sequence[str], parts: Sequence[tuple[str, str, Sequence[float]]]
) -> None:
    """One bar a name; parts: (label, colour, value of each name), from the bottom up."""
    below = [0.0] * len(names)
    for label, colour, values in parts:
        if any(values):
            axis.bar(range(len(names)), values, bottom=below, color=colour, label=label)
        below = [low + value for low, value in zip(below, values, strict=True)]
    name_ticks(axis, names)
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1))


def label_points(axis: Any, points: Sequence[tuple[float, float]], names: Sequence[str]) -> None:
    """Name points [(x, y)] so that no name covers another text, a point, a line or the axes' edge.

    Each name takes the free place next to its point, with a line to it where that is not near,
    which crosses no text. Points whose marks touch have one text, some names a line. What finds no
    place is left out.
    """
    figure = axis.figure
    figure.draw_without_rendering()  # places are in pixels, which the layout decides
    renderer = figure.canvas.get_renderer()
    scale = figure.dpi / 72
    marks = [axis.transData.transform(point) for point in points]
    taken = [text.get_window_extent(renderer) for text in axis.texts]
    reach = 4 * scale
    places = list(marks)
    for line in (line for line in axis.lines if len(line.get_xdata()) > 1):
        path = line.get_transform().transform_path(line.get_path())
        places += list(path.interpolated(60).vertices)
    for group in _touching(marks, TOUCH * scale):
        at = marks[group[0]]
        name = _lines([names[index] for index in group])
        for radius, step in product(RADII, range(ANGLES)):
            angle = 2 * pi * step / ANGLES
            text = axis.annotate(
                name, points[group[0]], (radius * cos(angle), radius * sin(angle)), fontsize=7,
                textcoords="offset points", va="center",
                ha="left" if cos(angle) > 0.1 else "right" if cos(angle) < -0.1 else "center",
                arrowprops={"arrowstyle": "-", "color": SOFT, "linewidth": 0.5} if radius > NEAR
                else None,
            )  # fmt: skip
            text.set_in_layout(False)
            box = _text_box(text, renderer).padded(1.5 * scale)
            leader = leader_points(at, box) if radius > NEAR else np.empty((0, 2))
            inside = all(axis.bbox.contains(*corner) for corner in (box.min, box.max))
            crossed = any(other.contains(*spot) for other in taken for spot in leader)
            if inside and not crossed and not box.count_overlaps(taken):
                near = np.array(places).reshape(-1, 2)
                covered = (box.min - reach < near) & (near < box.max + reach)
                if not covered.all(axis=1).any():
                    taken.append(box)
                    places += list(leader)
                    break
            text.remove()


def _touching(marks: Sequence[np.ndarray], distance: float) -> list[list[int]]:
    """Indices of marks [2] in groups that reach each other in steps, from left to right."""
    groups: list[list[int]] = []
    for index in sorted(range(len(marks)), key=lambda index: tuple(marks[index])):
        near = [
            group
            for group in groups
            if any(np.hypot(*(marks[index] - marks[one])) < distance for one in group)
        ]
        groups = [group for group in groups if group not in near]
        groups.append(sorted([*sum(near, []), index]))
    return groups


def _lines(names: Sequence[str]) -> str:
    """Names with commas, NAMES on a line.

    >>> _lines(["a", "b", "c", "d", "e"])
    'a, b, c,\\nd, e'
    """
    parts = [", ".join(names[at : at + NAMES]) for at in range(0, len(names), NAMES)]
    return ",\n".join(parts)


def leader_points(at: np.ndarray, box: Any) -> np.ndarray:
    """Points [n, 2] of the line from a mark at [2] to the box of its text, in pixels."""
    end = np.clip(at, box.min, box.max)
    return at + (end - at) * np.linspace(0.05, 0.95, 40)[:, None]


def _text_box(text: Any, renderer: Any) -> Any:
    """The box of an annotation's text without its line."""
    from matplotlib.text import Text

    text.update_positions(renderer)
    return Text.get_window_extent(text, renderer)


def level(axis: Any, value: float, text: str) -> None:
    """A thin dashed line for a value to compare with, named at its right end."""
    axis.axhline(value, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
    axis.annotate(
        text, (1, value), xycoords=("axes fraction", "data"), xytext=(0, 3),
        textcoords="offset points", ha="right", fontsize=8, color=INK,
    )  # fmt: skip
