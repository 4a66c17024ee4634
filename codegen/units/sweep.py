# SPDX-License-Identifier: Apache-2.0
"""Measures the units over scheme x bits x qm x number of layers, whole and in parts.

A unit is a table (layer index to constants) and a lane (what converts one value). Engines hold the
table in registers and have several lanes, so both are measured on their own too. The figures of the
largest sweep are kept in sweep.json, and the formulas of design/unit_luts.py are fitted to them:
lut_model.json.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np

from nuq.codegen.design.unit_luts import TERMS, formula
from nuq.codegen.units.netlist import Cost
from nuq.codegen.units.render import KINDS, Unit, verilog
from nuq.codegen.units.synthesis import TARGETS, synthesize
from nuq.codegen.units.tables import seeded_tables

RECORDED = Path(__file__).with_name("sweep.json")


@dataclass(frozen=True)
class Sweep:
    """The points of a sweep."""

    # values to combine; bits above qm are left out
    bits: tuple[int, ...]
    qm: tuple[int, ...]
    layers: tuple[int, ...]
    targets: tuple[str, ...]  # of synthesis
    more: "Sweep | None" = None  # a coarser grid beyond this one, on the same targets


SWEEPS = {
    "small": Sweep((2, 3, 5), (8, 12), (1, 16), ("xc7", "gates")),
    # what sweep.json keeps
    "medium": Sweep(
        (2, 3, 4, 5, 6),
        (8, 12, 16),
        (1, 4, 16),
        ("xc7", "gates"),
        more=Sweep((7, 8), (12,), (16,), ()),
    ),
    "full": Sweep(tuple(range(2, 9)), tuple(range(8, 17)), (1, 2, 4, 8, 16, 32), TARGETS),
}


@dataclass(frozen=True, order=True)
class Point:
    """One module of a sweep."""

    kind: str  # of a unit, see render
    part: str  # "unit", "lane" or "table"
    bits: int  # width of a code
    qm: int  # width of a value
    layers: int  # number of layer indices; 0 for lanes, which do not depend on it

    def module(self) -> tuple[str, str]:
        """Name and Verilog of the module to synthesize; its tables are seeded by the point."""
        name = f"{self.kind}_b{self.bits}_q{self.qm}_l{self.layers}"
        scheme = KINDS.get(self.kind, "knq")
        seed = 1 + self.bits + 32 * self.qm + 1024 * self.layers
        tables = seeded_tables(scheme, self.bits, self.qm, self.layers or 3, seed)
        if self.kind == "ck_ram":
            tables = replace(tables, source=f"{self.bits}-bit codes, qm {self.qm}")
        text = verilog(Unit(self.kind, tables, label=name))
        if self.part == "unit" or self.kind == "ck_ram":
            return name, text
        # a name of its own, because the unit may be measured in the same run
        inner, top = f"{name}_{self.part}", f"{self.part}_{name}"
        return top, module_text(text, inner).replace(inner, top)


def module_text(text: str, name: str) -> str:
    """One module out of a Verilog file.

    >>> module_text("module a (\\nendmodule\\nmodule b (\\nendmodule\\n", "b")
    'module b (\\nendmodule\\n'
    """
    end = "\nendmodule\n"
    start = text.index(f"module {name} (")
    return text[start : text.index(end, start) + len(end)]


def points(sweep: Sweep) -> Iterator[Point]:
    """All modules of a sweep, the cheap ones first."""
    for bits in sweep.bits:
        for qm in (value for value in sweep.qm if value >= bits):
            for kind in KINDS:
                yield Point(kind, "lane", bits, qm, 0)
                for layers in sweep.layers:
                    yield Point(kind, "unit", bits, qm, layers)
                    if kind in ("qk", "ck") and layers > 1:
                        yield Point(kind, "table", bits, qm, layers)
            yield Point("ck_ram", "lane", bits, qm, 0)
    if sweep.more:
        yield from points(sweep.more)


def run_sweep(sweep: Sweep, cache_file: Path, progress: Callable[[int], object]
              ) -> dict[str, dict[Point, Cost]]:  # fmt: skip
    """Measure every point on every target of the sweep."""
    modules = {point: point.module() for point in points(sweep)}
    swept = {}
    for target in sweep.targets:
        costs = synthesize(dict(modules.values()), target, cache_file, progress)
        swept[target] = {point: costs[top] for point, (top, _) in modules.items()}
    return swept


def to_json(swept: Mapping[str, Mapping[Point, Cost]], version: str) -> str:
    """sweep.json: one row a point."""
    # no unit has a multiplier
    figures = [field.name for field in fields(Cost) if field.name != "dsp"]
    columns = [*(field.name for field in fields(Point)), *figures]
    lines = [f'  "tool": {json.dumps(version)}', f'  "columns": {json.dumps(columns)}']
    for target, costs in swept.items():
        lists = (
            [*asdict(point).values(), *(getattr(cost, name) for name in figures)]
            for point, cost in sorted(costs.items())
        )
        rows = ",\n".join(f"    {json.dumps(values)}" for values in lists)
        lines.append(f'  "{target}": [\n{rows}\n  ]')
    return "{\n" + ",\n".join(lines) + "\n}\n"


def recorded() -> tuple[str, dict[str, dict[Point, Cost]]]:
    """The tool's version and the kept figures of the largest sweep, by target."""
    data = json.loads(RECORDED.read_text(encoding="utf-8"))
    split = len(fields(Point))
    costs = {
        target: {Point(*row[:split]): Cost(*row[split:]) for row in data[target]}
        for target in TARGETS
        if target in data
    }
    return data["tool"], costs


def fit(costs: Mapping[Point, Cost]) -> dict[str, dict[str, list[float]]]:
    """Coefficients by formula and number of layers (0 for lanes), by least relative squares."""
    model: dict[str, dict[str, list[float]]] = {}
    for key, (_, terms) in TERMS.items():
        chosen = [point for point in costs if f"{point.kind} {point.part}" == key]
        model[key] = {}
        for layers in sorted({point.layers for point in chosen}):
            rows = [point for point in chosen if point.layers == layers]
            measured = np.array([max(1, costs[point].lut) for point in rows], float)
            design = np.array([terms(point.bits, point.qm) for point in rows], float)
            # a line of relative errors: what matters is the share that an estimate is off
            solution = np.linalg.lstsq(design / measured[:, None], np.ones(len(rows)), rcond=None)
            model[key][str(layers)] = [round(float(value), 4) for value in solution[0]]
    return model


def model_json(costs: Mapping[Point, Cost], tool: str) -> str:
    """lut_model.json: the coefficients, and what they were fitted to."""
    terms = [f"{json.dumps(key)}: {json.dumps(text)}" for key, (text, _) in TERMS.items()]
    model = [f"{json.dumps(key)}: {json.dumps(sizes)}" for key, sizes in fit(costs).items()]
    lines = [f'  "tool": {json.dumps(tool + ", synth_xilinx -family xc7")}']
    lines.append(f'  "points": {len(costs)}')
    for name, rows in (("terms", terms), ("model", model)):
        lines.append(f'  "{name}": {{\n    ' + ",\n    ".join(rows) + "\n  }")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def errors(costs: Mapping[Point, Cost]) -> dict[str, tuple[int, float, float]]:
    """By formula: points, mean and largest share that the formula is off; 4 LUTs are forgiven."""
    shares: dict[str, list[float]] = {}
    for point, cost in costs.items():
        key = f"{point.kind} {point.part}"
        if key in TERMS:
            estimate = formula(point.kind, point.part, point.bits, point.qm, point.layers)
            off = max(0.0, abs(estimate - cost.lut) - 4)
            shares.setdefault(key, []).append(off / max(1, cost.lut))
    return {key: (len(items), float(np.mean(items)), max(items)) for key, items in shares.items()}
