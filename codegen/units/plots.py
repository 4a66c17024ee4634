# SPDX-License-Identifier: Apache-2.0
"""The plots of units.html, as SVG texts: cost against bits and qm, and the ratios of table V."""

from collections.abc import Mapping
from typing import Any

from nuq.codegen.emit.plots import drawing
from nuq.codegen.units.netlist import Cost
from nuq.codegen.units.sweep import Point

LABELS = {"qk": "QK parallel", "qk_tree": "QK tree", "ck": "CK multiplexer", "ck_ram": "CK memory",
          "qe": "QE", "ce": "CE"}  # fmt: skip
CENTRE = {"bits": 5, "qm": 12, "layers": 16}  # the papers' units, about
SIZE = (5.4, 3.6)
# name: target, part, axis, field of Cost, title
AGAINST = {
    "lut_lane": ("xc7", "lane", "bits", "lut", "LUT of a lane (7-series)"),
    "lut_unit": ("xc7", "unit", "bits", "lut", "LUT of a unit (7-series)"),
    "area_unit": ("gates", "unit", "bits", "area", "area of a unit (NAND2)"),
    "delay_unit": ("gates", "unit", "bits", "delay", "path of a unit (FO4)"),
    "area_layers": ("gates", "unit", "layers", "area", "area of a unit (NAND2)"),
    "area_qm": ("gates", "unit", "qm", "area", "area of a unit (NAND2)"),
}
Figures = Mapping[str, Mapping[Point, Cost]]


def all_plots(recorded: Figures, swept: Figures, ratios: list[dict[str, Any]]) -> dict[str, str]:
    """SVG texts by file name; the larger sweep of the two is drawn."""
    pictures = {}
    for name, (target, *what) in AGAINST.items():
        costs = max((recorded.get(target, {}), swept.get(target, {})), key=len)
        with drawing(name, size=SIZE) as (axes, drawn):
            _against(axes[0, 0], costs, *what)
        pictures[name] = drawn[0]
    with drawing("ratios", size=SIZE) as (axes, drawn):
        _ratios(axes[0, 0], ratios)
    return {**pictures, "ratios": drawn[0]}


def _against(
    axes: Any, costs: Mapping[Point, Cost], part: str, axis: str, field: str, title: str
) -> None:
    """A field against one axis, the others near CENTRE."""
    fixed = {}
    for name in CENTRE.keys() - {axis}:
        values = sorted({getattr(point, name) for point in costs if point.part == part})
        near = CENTRE[name]
        fixed[name] = min(values, key=lambda value: abs(value - near)) if values else near
    where = ", ".join(f"{name} {value}" for name, value in sorted(fixed.items()) if value)
    for kind, label in LABELS.items():
        chosen = sorted(
            (getattr(point, axis), getattr(cost, field))
            for point, cost in costs.items()
            if (point.kind, point.part) == (kind, part)
            and all(getattr(point, name) == value for name, value in fixed.items())
        )
        if chosen:
            axes.plot(*zip(*chosen, strict=True), marker="o", label=label)
    axes.set(title=f"{title}; {where}", xlabel=axis)
    axes.set_yscale("log" if field in ("lut", "area") else "linear")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))


def _ratios(axes: Any, ratios: list[dict[str, Any]]) -> None:
    """Bars: the papers' ratios beside the measured ones."""
    series = (("paper", "paper"), ("measured", "measured"), ("rounding", "measured, QE rounds"))
    for shift, (key, label) in enumerate(series):
        places = [place + 0.28 * (shift - 1) for place in range(len(ratios))]
        axes.bar(places, [item[key] for item in ratios], width=0.26, label=label)
    axes.set_title("ratios of table V")
    axes.set_xticks(range(len(ratios)), [item["name"] for item in ratios], rotation=35, ha="right",
                    fontsize=7, rotation_mode="anchor")  # fmt: skip
    axes.set_yscale("log")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
