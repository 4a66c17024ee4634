# SPDX-License-Identifier: Apache-2.0
"""How the report's figures look, and matplotlib figures as inline SVG.

One colour a scheme throughout; text stays text; no frames, no marks that carry no number.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from codegen.emit.page import Figure as Figure
from codegen.emit.plots import INK as INK
from codegen.emit.plots import SOFT as SOFT
from codegen.emit.plots import drawing as drawing
from codegen.emit.plots import level as level
from codegen.emit.plots import name_ticks as name_ticks
from codegen.emit.plots import short as short

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


def label(key: str) -> str:
    """A scheme's name for reading."""
    return NAMES.get(key, key)


def line(axis: Any, key: str, x: Any, y: Any, **more: Any) -> None:
    """A line with markers in the scheme's colour."""
    more.setdefault("label", label(key))
    axis.plot(x, y, marker=MARKERS.get(key, "o"), color=COLOURS.get(key, INK), **more)


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
