# SPDX-License-Identifier: Apache-2.0
"""What an exploration leaves: explore.json, explore.html with its pictures,
the terminal's table.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from codegen.design.bounds import CAUSES, LayerTime, layer_times
from codegen.design.design import Design
from codegen.design.search import Exploration
from codegen.emit.explore_plots import figures
from formats.build import atomic_dir

HTML_TEMPLATE = "explore.html.j2"
FOLDER = "explore"


def summary(plan: Design, times: Sequence[LayerTime]) -> dict[str, Any]:
    """Speed of a plan, convolutions alone and with everything, and the multipliers' efficiency."""
    clock = plan.part.clock_mhz * 1e6
    kinds = {layer.name: layer.kind for layer in plan.layers}
    groups = {
        "convolutions": [time for time in times if kinds[time.name] == "conv"],
        "all": list(times),
    }
    entry: dict[str, Any] = {"images": plan.images, "batch": plan.batch}
    for name, chosen in groups.items():
        seconds, macs = sum(time.seconds for time in chosen), sum(time.macs for time in chosen)
        if not seconds:
            continue
        entry[name] = {
            "milliseconds_per_image": 1e3 * seconds / plan.images,
            "images_per_second": plan.images / seconds,
            "gops": 2 * macs / seconds / 1e9,
            "efficiency": macs / (plan.array.multipliers * clock * seconds),
        }
    return entry


def design_entry(design: Design) -> dict[str, Any]:
    """One design as JSON."""
    axes = ("simd", "pe", "pixels", "weight_ports", "fm")
    return {
        "point": {name: getattr(design.array, name) for name in axes},
        "qk_units": design.array.qk_units,
        "batch": design.batch,
        "seconds": design.seconds,
        "images_per_second": design.images / design.seconds,
        "resources": {name: getattr(design.resources, name) for name in design.use},
        "use": design.use,
    }


def as_json(found: Exploration, limit: float) -> dict[str, Any]:
    """Everything an exploration found."""
    plan = found.best
    times = layer_times(plan)
    return {
        "network": plan.network.name,
        "manifest_sha256": plan.network.manifest_sha256,
        "part": plan.part.name,
        "clock_mhz": plan.part.clock_mhz,
        "ddr_gbs": plan.part.ddr_gbs,
        "limit": limit,
        "images": plan.images,
        "points": found.points,
        "planned": found.planned,
        "best": design_entry(found.best),
        "speed": summary(plan, times),
        "front": [design_entry(design) for design in found.front],
        "layers": [
            {"name": time.name, "bound": time.bound, "seconds": time.seconds, "gops": time.gops,
             "operations_per_byte": time.intensity if time.bytes_moved else None,
             "causes": time.causes}
            for time in times
        ],
    }  # fmt: skip


def write(build: Path, found: Exploration, limit: float) -> Path:
    """Write build/NET/explore/ (explore.json, explore.html, pictures); return the page's path."""
    entry = as_json(found, limit)
    drawn = figures(found.best, layer_times(found.best))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True, autoescape=True,
    )  # fmt: skip
    environment.filters["percent"] = lambda value: f"{100 * value:.1f}%"
    page = environment.get_template(HTML_TEMPLATE).render(
        found=entry, causes=CAUSES, pictures={name: svg for name, (svg, _) in drawn.items()}
    )
    with atomic_dir(build / FOLDER) as folder:
        for name, (svg, png) in drawn.items():
            (folder / f"{name}.svg").write_text(svg, encoding="utf-8")
            (folder / f"{name}.png").write_bytes(png)
        (folder / "explore.json").write_text(json.dumps(entry, indent=1) + "\n", encoding="utf-8")
        (folder / "explore.html").write_text(page, encoding="utf-8")
    return build / FOLDER / "explore.html"


def table(found: Exploration) -> str:
    """The Pareto front and the pick, for a terminal."""
    plan = found.best
    names = list(found.best.use)
    head = f"{'SIMD':>4s} {'PE':>3s} {'pixels':>6s} {'ports':>5s} {'units':>5s} {'frames/s':>9s}"
    lines = [
        f"{plan.network.name} on {plan.part.name} at {plan.part.clock_mhz:g} MHz, "
        f"batch of {plan.images}: {found.points} points, {found.planned} planned",
        head + "".join(f" {name.upper():>7s}" for name in names),
    ]
    for design in found.front:
        array = design.array
        lines.append(
            f"{array.simd:4d} {array.pe:3d} {array.pixels:6d} {array.weight_ports:5d} "
            f"{array.qk_units:5d} {design.images / design.seconds:9.2f}"
            + "".join(f" {share:7.1%}" for share in design.use.values())
            + ("  <- fastest" if design is found.front[0] else "")
        )
    speed = summary(plan, layer_times(plan))
    for name, entry in speed.items():
        if isinstance(entry, dict):
            lines.append(
                f"{name}: {entry['gops']:.1f} GOP/s, {entry['milliseconds_per_image']:.2f} ms an "
                f"image, multipliers {entry['efficiency']:.1%} busy"
            )
    return "\n".join(lines)
