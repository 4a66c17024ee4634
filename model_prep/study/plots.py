# SPDX-License-Identifier: Apache-2.0
"""Figures of the study as data, which study.json keeps, and how they are drawn.

One colour a scheme throughout; no marks that carry no number.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nuq.codegen.emit import page
from nuq.codegen.emit.plots import INK, drawing, level, name_ticks, short

STYLES = {  # colour, marker, name
    "knq": ("#0f6e84", "o", "KNQ"),
    "enq": ("#e07b28", "s", "ENQ"),
    "uniform": ("#8793a2", "^", "uniform"),
    "uniform_one": ("#b9c1cb", "^", "uniform, one F"),
    "uniform_steps": ("#c9d2da", "v", "uniform, steps of qm"),
    "clnq": ("#5c4b99", "D", "CLNQ"),
    "knq_floor": ("#7fb5c1", "o", "KNQ, floor"),
    "knq_own": ("#2f9463", "o", "KNQ, own F"),
    "knq_defaults": ("#b23a60", "o", "KNQ, defaults"),
    "enq_one": ("#f3c08f", "s", "ENQ, one qm"),
    "half": ("#b9c1cb", "v", "half precision"),
    "budget": ("#b23a60", "P", "KNQ, widths for output SQNR"),
    "refined": ("#2f9463", "*", "refined"),
    "dynamic": ("#8793a2", "^", "dynamic"),
    "linear": ("#e07b28", "s", "linear"),
    "gaussian": ("#b23a60", "D", "Gaussian"),
    "kmeans": ("#0f6e84", "o", "k-means"),
    "none": ("#c9d2da", "", "without bound"),
    "network": ("#7fb5c1", "", "bound M of the network's F"),
    "error": ("#0f6e84", "", "bound of least error by layer"),
    "equal": ("#8793a2", "^", "equal widths"),
    "optimised": ("#0f6e84", "o", "optimised"),
    "measured": ("#0f6e84", "o", "measured"),
    "predicted": ("#e07b28", "s", "predicted, measured steps"),
    "best": (INK, "", "_best"),  # which a legend leaves out
}
PLAIN = 300  # ends of a vertical logarithmic scale apart, up to which it has plain numbers
ON_LIGHT = "#20303a"  # text on light cells, which a dark page does not change
KINDS: Mapping[str, dict[str, Any]] = {  # of lines
    "line": {},
    "steps": {"drawstyle": "steps-mid"},
    "front": {"drawstyle": "steps-post", "linewidth": 1, "zorder": 1},
    "points": {"linestyle": "none", "markersize": 5.5},
    "stars": {"linestyle": (0, (2, 2)), "marker": "*", "markersize": 9},
}

Numbers = Sequence[float] | Sequence[float | None] | np.ndarray


@dataclass(frozen=True)
class Series:
    """Numbers y over x of one scheme."""

    key: str  # of STYLES; of a row of a heat map its name
    x: Numbers
    y: Numbers
    label: str = ""  # instead of the key's
    kind: str = "line"  # of KINDS
    ends: Sequence[Numbers] = ()  # lower and upper ends of intervals


@dataclass(frozen=True)
class Panel:
    """One pair of axes."""

    series: Sequence[Series]
    title: str = ""
    x_label: str = ""
    y_label: str = ""
    kind: str = "lines"  # of DRAW
    names: Sequence[str] = ()  # at 0, 1 and so on of x
    level: float | None = None  # float's own
    logarithmic: str = ""  # "x" or "y"
    integers: str = ""  # the axis, "x" or "y", that has whole numbers only
    limits: Sequence[float | None] = ()  # of y
    legend: int = 0  # its columns
    digits: int | None = None  # of numbers on bars


@dataclass(frozen=True)
class Figure:
    """Panels side by side."""

    caption: str
    panels: Sequence[Panel]
    size: tuple[float, float]  # inches
    columns: int = 0  # panels in a row; 0: all
    share: bool = False  # one scale


def label(key: str) -> str:
    """A scheme's name for reading."""
    return STYLES[key][2] if key in STYLES else key


def draw(name: str, figure: Mapping[str, Any]) -> page.Figure:
    """A figure of study.json as SVG; `name` is unique on the page."""
    panels = [
        Panel(**{**panel, "series": [Series(**one) for one in panel["series"]]})
        for panel in figure["panels"]
    ]
    columns = figure["columns"] or len(panels)
    rows = -(-len(panels) // columns)
    with drawing(name, rows, columns, figure["size"], figure["share"]) as (axes, pictures):
        for axis in axes.flat[len(panels) :]:
            axis.set_visible(False)
        for number, (axis, panel) in enumerate(zip(axes.flat, panels, strict=False)):
            DRAW[panel.kind](axis, panel)
            _dress(axis, panel)
            # what the panel to the left or below says is said once
            if not number % columns or panel.y_label != panels[number - 1].y_label:
                axis.set_ylabel(panel.y_label)
            below = panels[number + columns :]
            if not below or panel.x_label != below[0].x_label:
                axis.set_xlabel(panel.x_label)
    return page.Figure(pictures[0], figure["caption"])


def _dress(axis: Any, panel: Panel) -> None:
    """Title, scales, level and legend."""
    bold = panel.kind in ("heat", "histogram")
    axis.set_title(panel.title, loc="left", fontweight="bold" if bold else "normal")
    if panel.logarithmic:
        _logarithmic(axis, panel.logarithmic)
    if panel.integers:
        getattr(axis, f"{panel.integers}axis").get_major_locator().set_params(integer=True)
    if panel.limits:
        axis.set_ylim(*panel.limits)
    if panel.level is not None:
        level(axis, panel.level, "float")
    if panel.legend:
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.1)}
        axis.legend(ncols=panel.legend, **(below if panel.kind == "bars" else {}))


def _logarithmic(axis: Any, name: str) -> None:
    """A logarithmic scale, "x" or "y": plain numbers at 1, 2 and 5, or powers where it is long."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    getattr(axis, f"set_{name}scale")("log")
    scale = getattr(axis, f"{name}axis")
    low, high = getattr(axis, f"get_{name}lim")()
    if name == "x" or high < PLAIN * low:
        scale.set_major_locator(LogLocator(subs=(1, 2, 5)))
        scale.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    scale.set_minor_formatter(NullFormatter())


def _lines(axis: Any, panel: Panel) -> None:
    for one in panel.series:
        colour, marker, name = STYLES[one.key]
        y = np.array(one.y, np.float64)
        style = {"color": colour, "marker": marker, "label": one.label or name, **KINDS[one.kind]}
        if len(one.ends):
            low, high = np.array(one.ends)
            axis.errorbar(one.x, y, yerr=[y - low, high - y], capsize=2.5, elinewidth=1, **style)
        else:
            axis.plot(one.x, y, **style)
    if panel.names:
        name_ticks(axis, panel.names)


def _bars(axis: Any, panel: Panel) -> None:
    """A group of bars a name, one of each series."""
    step = 0.8 / len(panel.series)
    for number, one in enumerate(panel.series):
        places = np.array(one.x) + (number - (len(panel.series) - 1) / 2) * step
        colour, _, name = STYLES[one.key]
        heights = np.array(one.y, np.float64)
        bars = axis.bar(places, heights, 0.9 * step, color=colour, label=one.label or name)
        if panel.digits is not None:
            axis.bar_label(bars, fmt=f"{{:.{panel.digits}f}}", fontsize=7, padding=2)
    axis.set_xticks(range(len(panel.names)), panel.names)
    axis.grid(axis="x", visible=False)


def _histogram(axis: Any, panel: Panel) -> None:
    """Shares y between edges x of the first series, values x of the second as ticks below."""
    bins, marks = panel.series
    shares = np.array(bins.y, np.float64)
    floor = max(1e-6, float(shares[shares > 0].min(initial=1.0)) / 2)
    axis.stairs(np.maximum(shares, floor), bins.x, baseline=floor, fill=True, color="#9fc3cc")
    axis.vlines(
        marks.x, 0, 0.09, transform=axis.get_xaxis_transform(), color=STYLES["enq"][0],
        linewidth=1.3,
    )  # fmt: skip
    axis.grid(axis="x", visible=False)


def _heat(axis: Any, panel: Panel) -> None:
    """A row of coloured cells with their numbers each, dark is large; None stays empty."""
    from matplotlib.colors import LinearSegmentedColormap

    values = np.array([one.y for one in panel.series], np.float64)
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
            colour = "white" if shown[row, column] > 0.6 else ON_LIGHT
            axis.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7.5,
                      color=colour)  # fmt: skip
    axis.set_xticks(range(len(panel.names)), panel.names)
    axis.set_yticks(range(len(values)), [short(one.key) for one in panel.series])
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)


DRAW = {"lines": _lines, "bars": _bars, "heat": _heat, "histogram": _histogram}
