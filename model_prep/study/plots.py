# SPDX-License-Identifier: Apache-2.0
"""How the report's figures look, and matplotlib figures as inline SVG.

One colour a scheme throughout; text stays text; no frames, no marks that carry no number.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

INK, SOFT, GRID = "#1f2933", "#6b7785", "#e4e8ed"
COLOURS = {
    "knq": "#0f6e84", "enq": "#e07b28", "uniform": "#8793a2", "clnq": "#5c4b99", "half": "#b9c1cb",
    "budget": "#b23a60", "refined": "#2f9463", "dynamic": "#8793a2", "linear": "#e07b28",
    "gaussian": "#b23a60", "kmeans": "#0f6e84", "float": "#1f2933", "equal": "#8793a2",
    "optimised": "#0f6e84", "measured": "#0f6e84", "predicted": "#e07b28",
}  # fmt: skip
MARKERS = {
    "knq": "o", "enq": "s", "uniform": "^", "clnq": "D", "half": "v", "budget": "P", "refined": "*",
    "dynamic": "^", "linear": "s", "gaussian": "D", "kmeans": "o", "equal": "^", "optimised": "o",
    "measured": "o", "predicted": "s",
}  # fmt: skip
NAMES = {
    "knq": "KNQ", "enq": "ENQ", "uniform": "uniform", "clnq": "CLNQ", "half": "half precision",
    "kmeans": "k-means", "gaussian": "Gaussian",
}  # fmt: skip
_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": 9,
    "text.color": INK, "axes.edgecolor": SOFT, "axes.labelcolor": INK, "axes.titlesize": 9,
    "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.8,
    "axes.grid": True, "grid.color": GRID, "grid.linewidth": 0.8, "axes.axisbelow": True,
    "xtick.color": SOFT, "ytick.color": SOFT, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "legend.frameon": False, "lines.linewidth": 1.6, "lines.markersize": 4.5,
    "svg.fonttype": "none", "figure.constrained_layout.use": True,
}  # fmt: skip
_LONG = 17  # characters of a layer's name in a figure
_ID = re.compile(r'(\bid="|href="#|url\(#)')


@dataclass(frozen=True)
class Figure:
    """One figure of the page: SVG text and a plain caption."""

    svg: str
    caption: str


@contextmanager
def drawing(name: str, rows: int = 1, columns: int = 1, size: tuple[float, float] = (6.4, 3.4),
            share: bool = False) -> Iterator[tuple[Any, list[str]]]:  # fmt: skip
    """Axes [rows, columns] to draw on, and a list that holds the SVG afterwards.

    Args:
        name: unique on the page, which ids begin with.
        rows, columns: of axes.
        size: of the whole figure, inches.
        share: whether axes share both scales.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    done: list[str] = []
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure, axes = pyplot.subplots(
            rows, columns, figsize=size, squeeze=False, sharex=share, sharey=share
        )
        try:
            yield axes, done
            done.append(_inline(figure, name))
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


def label(key: str) -> str:
    """A scheme's name for reading."""
    return NAMES.get(key, key)


def short(name: str) -> str:
    """A layer's name that fits below an axis: the end of it, where it differs from others'.

    >>> short("conv1"), short("body_body_10_expand3_conv")
    ('conv1', '…_10_expand3_conv')
    """
    return name if len(name) <= _LONG else "…" + name[1 - _LONG :]


def name_ticks(axis: Any, names: Sequence[str]) -> None:
    """One tick a layer; slanted where there are many."""
    many = len(names) > 8
    axis.set_xticks(
        range(len(names)), [short(name) for name in names], fontsize=7.5, rotation=60 * many,
        ha="right" if many else "center", rotation_mode="anchor" if many else "default",
    )  # fmt: skip


def line(axis: Any, key: str, x: Any, y: Any, **more: Any) -> None:
    """A line with markers in the scheme's colour."""
    more.setdefault("label", label(key))
    axis.plot(x, y, marker=MARKERS.get(key, "o"), color=COLOURS.get(key, INK), **more)


def level(axis: Any, value: float, text: str) -> None:
    """A thin dashed line for a value to compare with, named at its right end."""
    axis.axhline(value, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
    axis.annotate(
        text, (1, value), xycoords=("axes fraction", "data"), xytext=(0, 3),
        textcoords="offset points", ha="right", fontsize=8, color=INK,
    )  # fmt: skip


def logarithmic(axis: Any) -> None:
    """A logarithmic horizontal axis with plain numbers at 1, 2 and 5."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())


def heat(axis: Any, values: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> None:
    """A table as coloured cells with their numbers, dark is large; NaN stays empty."""
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("teal", ["#f4f8f9", "#7fb5c1", "#0b4a59"])
    axis.grid(visible=False)
    shown = np.clip(values, 0, 1)
    edges = [np.arange(size + 1) - 0.5 for size in values.shape]
    axis.pcolormesh(
        edges[1], edges[0], shown, cmap=colours, vmin=0, vmax=1, edgecolor="white", linewidth=0.8
    )
    axis.invert_yaxis()
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            colour = "white" if shown[row, column] > 0.6 else INK
            axis.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7.5,
                      color=colour)  # fmt: skip
    axis.set_xticks(range(len(columns)), columns)
    axis.set_yticks(range(len(rows)), [short(row) for row in rows])
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
