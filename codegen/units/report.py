# SPDX-License-Identifier: Apache-2.0
"""units.html, one file without references to others, and the summary on the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2

TEMPLATE = Path(__file__).with_name("units.html.j2")


def html(data: dict[str, Any], pictures: dict[str, str]) -> str:
    """The report for reading; `data` is units.json."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=True,
                                     trim_blocks=True, lstrip_blocks=True)  # fmt: skip
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(data=data, pictures=pictures)


def print_summary(data: dict[str, Any], path: Path) -> None:
    """The figures that matter, a line each."""
    print(f"Conversion units of {data['network']}, {data['tool']}:")
    for name, unit in data["units"].items():
        fpga, gates = unit["cost"]["xc7"], unit["cost"]["gates"]
        print(
            f"  {name:8} {unit['bits']}-bit codes, qm {unit['qm']}, {len(unit['layers'])} layers: "
            f"{fpga['lut']} LUT, {fpga['levels']} levels; {gates['area']:.0f} NAND2, "
            f"{gates['delay']:.1f} FO4"
        )
    for engine, inputs in data["checks"]["inputs"].items():
        wrong = len(data["checks"]["mismatches"][engine])
        print(f"  {engine}: {inputs:,} inputs, {f'{wrong} units differ' if wrong else 'all equal'}")
    proved = data["checks"]["shapes_equal"]
    if proved is not None:
        print(f"  QK parallel = QK tree: {'proved' if proved else 'REFUTED'}")
    print("Ratios of the published VGG-16 units (paper, here, here with a rounding QE):")
    for item in data["published"]["ratios"]:
        figures = " ".join(f"{item[key]:6.2f}" for key in ("paper", "measured", "rounding"))
        far = "  differs by more than 2x, see the report" if item["why"] else ""
        print(f"  {item['name']:12} {figures}{far}")
    print(f"Report: {path}")
