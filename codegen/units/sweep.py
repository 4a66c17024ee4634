# SPDX-License-Identifier: Apache-2.0
"""Measures the units over scheme x bits x qm x number of layers, whole and in parts.

A unit is a table (layer index to constants) and a lane (what converts one value). Engines hold the
table in registers and have several lanes, so both are measured on their own too. The figures of the
largest sweep are kept in sweep.json; cost.py fits its formula to them.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from codegen.units.render import KINDS, Unit, memory_verilog, verilog
from codegen.units.synthesis import TARGETS, Cache, Cost, Design, synthesize
from codegen.units.tables import seeded_tables
from formats.errors import UserError

RECORDED = Path(__file__).with_name("sweep.json")
PARTS = ("unit", "lane", "table")
FIELDS = ("kind", "part", "bits", "qm", "layers")


@dataclass(frozen=True)
class Sweep:
    """The points of a sweep.

    Attributes:
        bits, qm, layers: values to combine; bits above qm are left out.
        targets: synthesis targets.
        more: a coarser grid beyond this one, on the same targets.
    """

    bits: tuple[int, ...]
    qm: tuple[int, ...]
    layers: tuple[int, ...]
    targets: tuple[str, ...]
    more: "Sweep | None" = None


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
    """One module of a sweep.

    Attributes:
        kind: "qe", "ce", "qk", "qk_tree", "ck", or "ck_ram" (a CK lane with a small memory).
        part: "unit", "lane" or "table".
        bits, qm: widths of code and value.
        layers: number of layer indices; 0 for lanes, which do not depend on it.
    """

    kind: str
    part: str
    bits: int
    qm: int
    layers: int

    @property
    def name(self) -> str:
        """A Verilog name."""
        return f"{self.kind}_b{self.bits}_q{self.qm}_l{self.layers}"

    def design(self) -> Design:
        """The module to synthesize; its tables are seeded by the point."""
        if self.kind == "ck_ram":
            return Design(self.name, memory_verilog(self.name, self.bits, self.qm))
        seed = 1 + self.bits + 32 * self.qm + 1024 * self.layers
        layers = self.layers or 3
        tables = seeded_tables(KINDS[self.kind], self.bits, self.qm, layers, seed)
        text = verilog(Unit(self.kind, tables, label=self.name))
        if self.part == "unit":
            return Design(self.name, text)
        # a name of its own, because the unit may be measured in the same run
        inner, top = f"{self.name}_{self.part}", f"{self.part}_{self.name}"
        return Design(top, module_text(text, inner).replace(inner, top))


def module_text(text: str, name: str) -> str:
    """One module out of a Verilog file.

    >>> module_text("module a;\\nendmodule\\nmodule b;\\nendmodule\\n", "b")
    'module b;\\nendmodule\\n'
    """
    found = re.search(rf"^module {re.escape(name)}\b.*?^endmodule$", text, re.DOTALL | re.MULTILINE)
    if found is None:
        raise UserError(f"the Verilog text must have a module {name}")
    return found.group(0) + "\n"


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


def run_sweep(sweep: Sweep, cache: Cache, progress: Callable[[int], object] = lambda n: None
              ) -> dict[str, dict[Point, Cost]]:  # fmt: skip
    """Measure every point on every target of the sweep."""
    found: dict[str, dict[Point, Cost]] = {}
    for target in sweep.targets:
        designs = {point: point.design() for point in points(sweep)}
        costs = synthesize(designs.values(), target, cache, progress)
        found[target] = {point: costs[design.top] for point, design in designs.items()}
    return found


def to_json(found: dict[str, dict[Point, Cost]], version: str) -> str:
    """sweep.json: one row a point."""
    cost_fields = tuple(asdict(Cost(0, 0, 0, 0, 0.0, 0, 0.0)))
    lines = []
    for target, costs in found.items():
        rows = ",\n".join(
            f"    {json.dumps([*asdict(point).values(), *asdict(cost).values()])}"
            for point, cost in sorted(costs.items())
        )
        lines.append(f'  "{target}": [\n{rows}\n  ]')
    columns = json.dumps([*FIELDS, *cost_fields])
    head = f'  "tool": {json.dumps(version)},\n  "columns": {columns},\n'
    return "{\n" + head + ",\n".join(lines) + "\n}\n"


def recorded(path: Path = RECORDED) -> tuple[str, dict[str, dict[Point, Cost]]]:
    """The tool's version and the kept figures of the largest sweep, by target."""
    data = json.loads(path.read_text(encoding="utf-8"))
    split = len(FIELDS)
    found = {
        target: {Point(*row[:split]): Cost(*row[split:]) for row in rows}
        for target, rows in data.items()
        if isinstance(rows, list) and target != "columns"
    }
    return data["tool"], found
