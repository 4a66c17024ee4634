# SPDX-License-Identifier: Apache-2.0
"""The plots of units.html, as SVG texts: cost against bits and qm, and the ratios of table V.

Equal figures give equal texts.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from codegen.units.sweep import Point
from codegen.units.synthesis import Cost
from formats.errors import UserError

LABELS = {"qk": "QK parallel", "qk_tree": "QK tree", "ck": "CK multiplexer", "ck_ram": "CK memory",
          "qe": "QE", "ce": "CE"}  # fmt: skip
Figures = Mapping[str, Mapping[Point, Cost]]


def all_plots(recorded: Figures, swept: Figures, ratios: list[dict[str, Any]]) -> dict[str, str]:
    """SVG texts by file name; the larger sweep of the two is drawn."""
    chosen = {
        target: max((recorded.get(target, {}), swept.get(target, {})), key=len)
        for target in ("xc7", "gates")
    }
    return {
        "lut_lane": _against(chosen["xc7"], "lane", "bits", "lut", "LUT of a lane (7-series)"),
        "lut_unit": _against(chosen["xc7"], "unit", "bits", "lut", "LUT of a unit (7-series)"),
        "area_unit": _against(chosen["gates"], "unit", "bits", "area", "area of a unit (NAND2)"),
        "delay_unit": _against(chosen["gates"], "unit", "bits", "delay", "path of a unit (FO4)"),
        "area_layers": _against(
            chosen["gates"], "unit", "layers", "area", "area of a unit (NAND2)"
        ),
        "area_qm": _against(chosen["gates"], "unit", "qm", "area", "area of a unit (NAND2)"),
        "ratios": _ratios(ratios),
    }


def _against(costs: Mapping[Point, Cost], part: str, axis: str, field: str, title: str) -> str:
    """A field against one axis, the others near the papers' 5 bits, qm 12, 16 layers."""
    center = {"bits": 5, "qm": 12, "layers": 16}
    fixed = {}
    for name in center.keys() - {axis}:
        known = sorted({getattr(point, name) for point in costs if point.part == part})
        near = center[name]
        fixed[name] = min(known, key=lambda value: abs(value - near)) if known else near
    where = ", ".join(f"{name} {value}" for name, value in sorted(fixed.items()) if value)
    figure, axes = _figure(f"{title}; {where}", axis)
    for kind, label in LABELS.items():
        chosen = sorted(
            (getattr(point, axis), getattr(cost, field))
            for point, cost in costs.items()
            if (point.kind, point.part) == (kind, part)
            and all(getattr(point, name) == value for name, value in fixed.items())
        )
        if chosen:
            axes.plot(*zip(*chosen, strict=True), marker="o", label=label)
    axes.set_yscale("log" if field in ("lut", "area") else "linear")
    axes.legend(fontsize=8)
    return _svg(figure)


def _ratios(ratios: list[dict[str, Any]]) -> str:
    """Bars: the papers' ratios beside the measured ones."""
    figure, axes = _figure("ratios of table V", "")
    places = range(len(ratios))
    series = (("paper", "paper"), ("measured", "measured"), ("rounding", "measured, QE rounds"))
    for shift, (key, label) in enumerate(series):
        axes.bar([place + 0.28 * (shift - 1) for place in places], [item[key] for item in ratios],
                 width=0.26, label=label)  # fmt: skip
    axes.set_xticks(list(places), [item["name"] for item in ratios], rotation=35, ha="right",
                    fontsize=7)  # fmt: skip
    axes.set_yscale("log")
    axes.legend(fontsize=8)
    return _svg(figure)


def _figure(title: str, x_label: str) -> tuple[Any, Any]:
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("matplotlib must be installed for the plots of the conversion units; "
                        "`pip install matplotlib`") from None  # fmt: skip
    # element names of the SVG would differ from run to run
    matplotlib.rcParams["svg.hashsalt"] = "units"
    figure = Figure(figsize=(5.4, 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=9)
    axes.set_xlabel(x_label)
    axes.grid(True, which="both", alpha=0.3)
    return figure, axes


def _svg(figure: Any) -> str:
    """The figure as SVG, without the date and the lines that only a file of its own needs."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    picture = text.getvalue()
    return picture[picture.index("<svg") :]
