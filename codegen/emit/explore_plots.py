# SPDX-License-Identifier: Apache-2.0
"""Pictures of an exploration: what bounds each layer (stacked bars), and the roofline.

Drawn as SVG texts and PNG bytes.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from codegen.design.bounds import CAUSES, LayerTime
from codegen.design.design import Design
from formats.errors import UserError

COLOURS = ("#2f6690", "#a9c9e0", "#7d8597", "#d1603d", "#e9b44c", "#6a4c93", "#4f9d69", "#9bc1a0",
           "#8d2b2b")  # fmt: skip
NAMES_WITHOUT_TURNING = 10


def figures(plan: Design, times: Sequence[LayerTime]) -> dict[str, tuple[str, bytes]]:
    """(SVG text, PNG bytes) by name: "bounds" and "roofline"."""
    try:
        import matplotlib
    except ImportError:
        raise UserError(
            "plots need the package matplotlib; install it with pip install matplotlib"
        ) from None
    matplotlib.use("agg")
    with matplotlib.rc_context({"svg.hashsalt": "explore", "font.size": 9}):
        return {"bounds": _both(stacked(plan, times)), "roofline": _both(roofline(plan, times))}


def _both(figure: Any) -> tuple[str, bytes]:
    """The figure as SVG (equal figures give equal texts) and as PNG; closes it."""
    import matplotlib.pyplot as plt

    text, picture = io.StringIO(), io.BytesIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    figure.savefig(picture, format="png", dpi=120)
    plt.close(figure)
    svg = text.getvalue()
    return svg[svg.index("<svg") :], picture.getvalue()


def stacked(plan: Design, times: Sequence[LayerTime]) -> Any:
    """One bar a layer: milliseconds for an image, by cause."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(
        figsize=(max(6.0, 0.34 * len(times) + 2), 3.6), layout="constrained"
    )
    below = np.zeros(len(times))
    for cause, colour in zip(CAUSES, COLOURS, strict=True):
        values = np.array([1e3 * time.causes[cause] / plan.images for time in times])
        if values.any():
            axis.bar(range(len(times)), values, bottom=below, color=colour, label=cause)
        below += values
    turned = 0 if len(times) <= NAMES_WITHOUT_TURNING else 70
    axis.set_xticks(range(len(times)), [time.name for time in times], rotation=turned)
    axis.set_ylabel(f"ms an image, batch of {plan.batch}")
    axis.legend(frameon=False, fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def roofline(plan: Design, times: Sequence[LayerTime]) -> Any:
    """Attained 10^9 operations a second against operations per byte of DRAM traffic."""
    import matplotlib.pyplot as plt

    clock, bandwidth = plan.part.clock_mhz * 1e6, plan.part.ddr_gbs
    peak = 2 * plan.array.multipliers * clock / 1e9
    shown = [time for time in times if time.macs and np.isfinite(time.intensity)]
    figure, axis = plt.subplots(figsize=(6.0, 4.2), layout="constrained")
    lowest = min([time.intensity for time in shown] + [peak / bandwidth]) / 2
    highest = max([time.intensity for time in shown] + [peak / bandwidth]) * 2
    x = np.geomspace(lowest, highest, 200)
    axis.loglog(x, np.minimum(peak, bandwidth * x), color="#1c2430", linewidth=1.4)
    axis.annotate(f"{plan.array.multipliers} multipliers at {plan.part.clock_mhz:g} MHz: "
                  f"{peak:.1f} GOP/s", (highest, peak), ha="right", va="bottom")  # fmt: skip
    axis.annotate(f"DRAM {bandwidth:g} GB/s", (lowest * 1.3, bandwidth * lowest * 1.8),
                  rotation=35)  # fmt: skip
    for index, time in enumerate(shown):
        colour = COLOURS[CAUSES.index(time.bound)]
        axis.plot(time.intensity, time.gops, "o", color=colour, markersize=5)
        axis.annotate(time.name, (time.intensity, time.gops), xytext=(4, -9 if index % 2 else 4),
                      textcoords="offset points", fontsize=7)  # fmt: skip
    axis.set_xlabel("operations per byte of DRAM traffic")
    axis.set_ylabel("GOP/s (two operations a multiply-accumulate)")
    axis.spines[["top", "right"]].set_visible(False)
    return figure
