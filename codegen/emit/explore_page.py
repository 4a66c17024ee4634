# SPDX-License-Identifier: Apache-2.0
"""What an exploration leaves: explore.json, explore.html with its pictures,
the terminal's table.
"""

import json
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from nuq.codegen.design.bounds import CAUSES, LayerTime, layer_times
from nuq.codegen.design.design import Design
from nuq.codegen.design.search import Exploration
from nuq.codegen.emit import plots
from nuq.codegen.emit.page import Figure, Page, Section, Table, Tile, percent, render
from nuq.codegen.emit.plots import CYCLE, drawing
from nuq.formats.build import atomic_dir

FOLDER = "explore"
SEEN = 0.0005  # the least share that one decimal shows
ROOFLINE_SIZE = (8.0, 5.0)  # inches
BOUNDS_CAPTION = (
    "multiply: useful work of the multipliers. idle lanes: steps in which some have none. first "
    "rows: waiting for a pass's first input rows. DRAM: bytes moved at what it sustains take "
    "longer than all cycles."
)
ROOFLINE_CAPTION = "Each point is a layer, coloured by what takes most of its time."


def speeds(plan: Design, times: Sequence[LayerTime]) -> dict[str, dict[str, float]]:
    """Speed of a plan, convolutions alone and with everything, and the multipliers' efficiency."""
    clock = plan.part.clock_mhz * 1e6
    convolutions = {layer.name for layer in plan.layers if layer.kind == "conv"}
    groups = {
        "convolutions": [time for time in times if time.name in convolutions],
        "all": list(times),
    }
    entry = {}
    for name, chosen in groups.items():
        seconds, macs = sum(time.seconds for time in chosen), sum(time.macs for time in chosen)
        if seconds:
            entry[name] = {
                "milliseconds_per_image": 1e3 * seconds / plan.images,
                "images_per_second": plan.images / seconds,
                "gops": 2 * macs / seconds / 1e9,
                "efficiency": macs / (plan.array.products * clock * seconds),
            }
    return entry


def design_entry(design: Design) -> dict[str, Any]:
    """One design as JSON."""
    axes = ("simd", "pe", "pixels", "weight_ports", "stage", "fm", "kernel_rows")
    return {
        "point": {name: getattr(design.array, name) for name in axes},
        "qk_units": design.array.qk_units,
        "batch": design.batch,
        "seconds": design.seconds,
        "images_per_second": design.images / design.seconds,
        "resources": {name: getattr(design.resources, name) for name in design.use},
        "use": design.use,
    }


def as_json(found: Exploration) -> dict[str, Any]:
    """Everything an exploration found."""
    plan = found.best
    times = layer_times(plan)
    return {
        "network": plan.network.name,
        "manifest_sha256": plan.network.manifest_sha256,
        "part": plan.part.name,
        "clock_mhz": plan.part.clock_mhz,
        "ddr_gbs": plan.part.sustained_gbs,
        "limit": found.best.part.limit,
        "images": plan.images,
        "points": found.points,
        "planned": found.planned,
        "best": design_entry(plan),
        "speed": {"images": plan.images, "batch": plan.batch, **speeds(plan, times)},
        "front": [design_entry(design) for design in found.front],
        "layers": [
            {"name": time.name, "bound": time.bound, "seconds": time.seconds, "gops": time.gops,
             "operations_per_byte": time.intensity if time.bytes_moved else None,
             "causes": time.causes}
            for time in times
        ],
    }  # fmt: skip


def page(entry: dict[str, Any], pictures: dict[str, str]) -> str:
    """explore.html of explore.json's content and the SVG texts of `figures`."""
    best, front = entry["best"], entry["front"]
    designs = Table(
        (
            "SIMD × PE × pixels",
            "stage",
            "depthwise rows",
            "weight ports",
            "QK/QE units",
            "frames/s",
            *map(str.upper, best["use"]),
        ),
        [
            (
                " × ".join(str(design["point"][axis]) for axis in ("simd", "pe", "pixels")),
                design["point"]["stage"],
                design["point"]["kernel_rows"],
                design["point"]["weight_ports"],
                design["qk_units"],
                design["images_per_second"],
                *map(percent, design["use"].values()),
            )
            for design in front
        ],
        note="Designs that no other one beats in time and in all resources; the first is the pick. "
        "Depthwise rows: of a kernel that are multiplied at once where lanes are channels.",
    )
    speed = Table(
        ("", "GOP/s", "of the peak", "ms an image", "frames/s"),
        [
            (
                name,
                f"{group['gops']:.1f}",
                percent(group["efficiency"]),
                group["milliseconds_per_image"],
                group["images_per_second"],
            )
            for name, group in entry["speed"].items()
            if isinstance(group, dict)
        ],
    )
    causes = [
        cause
        for cause in CAUSES
        if any(layer["causes"][cause] >= SEEN * layer["seconds"] for layer in entry["layers"])
    ]
    times = Table(
        ("layer", "most time", "ms, all images", "GOP/s", "operations per byte", *causes),
        [
            (
                layer["name"],
                layer["bound"],
                1e3 * layer["seconds"],
                layer["gops"],
                layer["operations_per_byte"],
                *(percent(layer["causes"][cause] / layer["seconds"]) for cause in causes),
            )
            for layer in entry["layers"]
        ],
        note="Share of a layer's time; what takes none in any layer is left out.",
    )
    lead = (
        f"{entry['clock_mhz']:g} MHz, DRAM {entry['ddr_gbs']:.4g} GB/s (sustained), batch of "
        f"{entry['images']}, at most {percent(entry['limit'])} of each resource; "
        f"{entry['points']} designs, {entry['planned']} of them planned, a lower bound decided on "
        "the others. Times are the cycle model's; resources are estimates."
    )
    sections = (
        Section("Pareto front", (designs,)),
        Section("Speed of the pick", (speed,)),
        Section("What bounds each layer", (Figure(pictures["bounds"], BOUNDS_CAPTION), times)),
        Section("Roofline", (Figure(pictures["roofline"], ROOFLINE_CAPTION),)),
    )
    title = f"{entry['network']} on {entry['part']}: designs"
    return render(Page(title, lead, sections, summary=_summary(entry)))


def _summary(entry: dict[str, Any]) -> list[Tile]:
    """The fastest design: what it is, its speed, what bounds it, what it takes."""
    best, speed, layers = entry["best"], entry["speed"]["all"], entry["layers"]
    point, use = best["point"], best["use"]
    total = sum(layer["seconds"] for layer in layers)
    causes = {cause: sum(one["causes"][cause] for one in layers) / total for cause in CAUSES}
    most = max(use, key=lambda name: use[name])
    return [
        Tile(
            "Fastest design", " × ".join(str(point[axis]) for axis in ("simd", "pe", "pixels")),
            f"SIMD × PE × pixels, stage {point['stage']}, {point['weight_ports']} weight port(s)",
        ),
        Tile(
            "Speed, by the cycle model", f"{speed['images_per_second']:,.1f} frames/s",
            f"{speed['gops']:.1f} GOP/s, {speed['milliseconds_per_image']:.2f} ms an image",
        ),
        Tile(
            "Where time goes", max(causes, key=lambda name: causes[name]), "",
            [(cause, share, percent(share)) for cause, share in causes.items() if share >= SEEN],
        ),
        Tile(
            f"Resources of {entry['part']}, estimated", f"{percent(use[most])} {most.upper()}", "",
            [(name.upper(), share, percent(share)) for name, share in use.items()],
        ),
    ]  # fmt: skip


def figures(plan: Design, times: Sequence[LayerTime]) -> dict[str, tuple[str, bytes]]:
    """(SVG text, PNG bytes) by name: "bounds" and "roofline"."""
    with drawing("bounds", size=bounds_size(len(times)), png=True) as (axes, bounds):
        causes = [
            (cause, colour, [1e3 * time.causes[cause] / plan.images for time in times])
            for cause, colour in zip(CAUSES, CYCLE, strict=True)
        ]
        plots.stacked(axes[0, 0], [time.name for time in times], causes)
        axes[0, 0].set_ylabel(f"ms an image, batch of {plan.batch}")
    with drawing("roofline", size=ROOFLINE_SIZE, png=True) as (axes, roof):
        roofline(axes[0, 0], plan, times)
    return {"bounds": (bounds[0], bounds[1]), "roofline": (roof[0], roof[1])}


def bounds_size(layers: int) -> tuple[float, float]:
    """Inches of the figure of causes."""
    return max(7.0, 0.34 * layers + 3), 3.6


def roofline(axis: Any, plan: Design, times: Sequence[LayerTime]) -> None:
    """Attained 10^9 operations a second against operations per byte of DRAM traffic."""
    bandwidth = plan.part.sustained_gbs
    peak = 2 * plan.array.products * plan.part.clock_mhz / 1e3
    shown = [time for time in times if time.macs and isfinite(time.intensity)]
    knee = peak / bandwidth
    lowest = min([knee, *(time.intensity for time in shown)]) / 2
    highest = max([knee, *(time.intensity for time in shown)]) * 2
    axis.loglog([lowest, knee, highest], [bandwidth * lowest, peak, peak], color=plots.INK)
    axis.margins(y=0.12)
    axis.annotate(
        f"{plan.array.products} products a cycle at {plan.part.clock_mhz:g} MHz: {peak:.1f} GOP/s",
        (highest, peak), (0, 3), textcoords="offset points", ha="right", va="bottom",
    )  # fmt: skip
    axis.annotate(
        f"DRAM {bandwidth:g} GB/s", (lowest, bandwidth * lowest), (10, 0),
        textcoords="offset points", va="center",
    )  # fmt: skip
    for time in shown:
        colour = CYCLE[CAUSES.index(time.bound)]
        axis.plot(time.intensity, time.gops, "o", color=colour, markersize=5)
    axis.set_xlabel("operations per byte of DRAM traffic")
    axis.set_ylabel("GOP/s (two operations a multiply-accumulate)")
    points = [(time.intensity, time.gops) for time in shown]
    plots.label_points(axis, points, [time.name for time in shown])


def write(build: Path, found: Exploration) -> Path:
    """Write build/NET/explore/ (explore.json, explore.html, pictures); return the page's path."""
    entry = as_json(found)
    drawn = figures(found.best, layer_times(found.best))
    text = page(entry, {name: svg for name, (svg, _) in drawn.items()})
    with atomic_dir(build / FOLDER) as folder:
        for name, (svg, png) in drawn.items():
            (folder / f"{name}.svg").write_text(svg, encoding="utf-8")
            (folder / f"{name}.png").write_bytes(png)
        (folder / "explore.json").write_text(json.dumps(entry, indent=1) + "\n", encoding="utf-8")
        (folder / "explore.html").write_text(text, encoding="utf-8")
    return build / FOLDER / "explore.html"


def summary_text(found: Exploration) -> str:
    """The Pareto front and the pick, for a terminal."""
    plan = found.best
    names = list(found.best.use)
    head = f"{'SIMD':>4s} {'PE':>3s} {'pixels':>6s} {'stage':>6s} {'rows':>4s} {'ports':>5s} "
    head += f"{'units':>5s} {'frames/s':>9s}"
    lines = [
        f"{plan.network.name} on {plan.part.name} at {plan.part.clock_mhz:g} MHz, "
        f"batch of {plan.images}: {found.points} points, {found.planned} planned",
        head + "".join(f" {name.upper():>7s}" for name in names),
    ]
    for design in found.front:
        array = design.array
        lines.append(
            f"{array.simd:4d} {array.pe:3d} {array.pixels:6d} {array.stage:>6s} "
            f"{array.kernel_rows:4d} {array.weight_ports:5d} "
            f"{array.qk_units:5d} {design.images / design.seconds:9.2f}"
            + "".join(f" {share:7.1%}" for share in design.use.values())
            + ("  <- fastest" if design is found.front[0] else "")
        )
    for name, speed in speeds(plan, layer_times(plan)).items():
        lines.append(
            f"{name}: {speed['gops']:.1f} GOP/s, {speed['milliseconds_per_image']:.2f} ms an "
            f"image, {speed['efficiency']:.1%} of the peak"
        )
    return "\n".join(lines)
