# SPDX-License-Identifier: Apache-2.0
"""`make units`: everything about the units of one network, written to build/NET/units/.

rtl/        Verilog, C++ model and black-box description of each unit, and the headers they need
units.json  all figures      units.html  the same for reading      *.svg  the plots
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from nuq.codegen import VERSION
from nuq.codegen.design.engine import Engine
from nuq.codegen.design.search import choose
from nuq.codegen.design.unit_luts import MODEL
from nuq.codegen.emit.generate import axes, existing_engine
from nuq.codegen.units import plots, sweep
from nuq.codegen.units.checks import compare, shapes_equal
from nuq.codegen.units.netlist import Cost
from nuq.codegen.units.published import compare_published, measure_published
from nuq.codegen.units.recurrences import measure_recurrences
from nuq.codegen.units.render import KINDS, Unit, blackbox_json, model_cpp, verilog, write_headers
from nuq.codegen.units.report import html, print_summary
from nuq.codegen.units.stage_checks import check_stages
from nuq.codegen.units.stages import measure_stages, measured_stages
from nuq.codegen.units.synthesis import TARGETS, find_yosys, synthesize, yosys_version
from nuq.codegen.units.tables import network_tables
from nuq.formats.build import atomic_dir, write_atomic
from nuq.formats.errors import UserError
from nuq.formats.hardware import clocked, find_part
from nuq.formats.network import Network, load
from nuq.formats.options import Options

CACHE = "units_cache.json"  # beside the builds: measured modules, by content


def network_units(network: Network, lanes: int = 1, register: bool = False) -> list[Unit]:
    """The units that a network's nonuniform layers need; UserError where it has none."""
    units = []
    for kind, scheme in KINDS.items():
        # an addition decodes two feature maps at once
        places = {kind: None} if kind.startswith("q") else {kind: 0, f"{kind}_second": 1}
        for label, place in places.items():
            if tables := network_tables(network, scheme, place):
                units.append(Unit(kind, tables, lanes, register, label))
    if not units:
        raise UserError(
            f"{network.folder}: at least one layer must use ENQ or KNQ for values that are not "
            "negative; quantize with SCHEME=knq or SCHEME=enq"
        )
    return units


def units(options: Options) -> int:
    """Render, simulate, prove, synthesize, report; 0, or 1 where anything differs.

    Raises:
        UserError: a recurrence of the engine takes longer than its part's cycle.
    """
    network = load(options.folder / "quantized")
    find_yosys()  # before any work, because nothing goes without it
    units = network_units(network, options.lanes, options.register)
    engine = engine_of(options, network)
    recurrences = measure_recurrences(engine)  # first: one that is too long ends it
    cache = options.folder.parent / CACHE
    grid = sweep.SWEEPS[options.sweep]
    total = len(measured_stages())
    total += len(TARGETS) * len(units) + len(grid.targets) * len(list(sweep.points(grid)))
    with tqdm(total=total, desc="synthesis", unit="module", disable=None) as bar:
        checks = check(units, options.simulators)
        modules = {unit.name: verilog(unit) for unit in units}
        costs = {target: synthesize(modules, target, cache, bar.update) for target in TARGETS}
        stages = measure_stages(cache, bar.update)
        swept = sweep.run_sweep(grid, cache, bar.update)
    if options.record:
        record(swept)
    data = {
        "format": 1, "generator": f"codegen {VERSION}", "tool": yosys_version(),
        "network": network.name, "manifest_sha256": network.manifest_sha256,
        "lanes": options.lanes, "register": options.register,
        "units": {unit.name: describe(unit, costs) for unit in units},
        "engine": {"part": engine.part.name, "array": str(engine.sizes.array)},
        "recurrences": recurrences, "stages": stages, "checks": checks,
        **figures(swept, cache),
    }  # fmt: skip
    pictures = plots.all_plots(sweep.recorded()[1], swept, data["published"]["ratios"])
    with atomic_dir(options.folder / "units") as folder:
        write_rtl(units, costs["xc7"], folder / "rtl")
        for name, picture in pictures.items():
            (folder / f"{name}.svg").write_text(picture)
        (folder / "units.json").write_text(json.dumps(data, indent=1) + "\n")
        (folder / "units.html").write_text(html(data, pictures))
    print_summary(data, options.folder / "units" / "units.html")
    failed = [text for texts in checks["mismatches"].values() for text in texts]
    failed += checks["stages"]["mismatches"]
    if checks["shapes_equal"] is False:
        failed.append(
            "qk and qk_tree must be the same function, but Yosys found an input that differs"
        )
    for text in failed:
        print(f"FAILED: {text}")
    return 1 if failed else 0


def engine_of(options: Options, network: Network) -> Engine:
    """The engine of ENGINE, else the one that `make codegen` makes with the same options."""
    part = clocked(find_part(options.part), options.clock)
    made = existing_engine(options)
    return made or choose(network, part, options.batch or 1, axes(options)).engine


def check(units: Sequence[Unit], engines: Sequence[str]) -> dict[str, Any]:
    """Run all inputs on every simulator; prove QK's shapes equal where the network has QK."""
    outcomes = {engine: compare(units, engine) for engine in engines}
    knq = next((unit.tables for unit in units if unit.kind == "qk"), None)
    return {
        "stages": check_stages(),
        "inputs": {engine: inputs for engine, (inputs, _) in outcomes.items()},
        "mismatches": {
            engine: [f"{engine}: {text}" for text in texts]
            for engine, (_, texts) in outcomes.items()
        },
        "shapes_equal": shapes_equal(knq) if knq else None,
    }


def record(swept: Mapping[str, Mapping[sweep.Point, Cost]]) -> None:
    """Keep a sweep with the source: sweep.json, and the formula fitted to it."""
    write_atomic(sweep.RECORDED, sweep.to_json(swept, yosys_version()))
    write_atomic(MODEL, sweep.model_json(swept["xc7"], yosys_version()))
    print(f"{sweep.RECORDED} and {MODEL} hold {len(swept['xc7'])} points a target")


def describe(unit: Unit, costs: Mapping[str, Mapping[str, Cost]]) -> dict[str, Any]:
    """A unit in units.json."""
    return {
        "kind": unit.kind, "bits": unit.tables.bits, "qm": unit.tables.qm,
        "layers": [entry.name for entry in unit.tables.entries],
        "cost": {target: asdict(measured[unit.name]) for target, measured in costs.items()},
    }  # fmt: skip


def figures(swept: Mapping[str, Mapping[sweep.Point, Cost]], cache: Path) -> dict[str, Any]:
    """In units.json: table V, the measured points, how far the formula is off the kept ones."""
    gates = measure_published("gates", cache)
    published = {"gates": gates, "xc7": measure_published("xc7", cache)}
    tool, kept = sweep.recorded()
    return {
        "published": {
            **{target: {name: asdict(cost) for name, cost in costs.items()}
               for target, costs in published.items()},
            "ratios": [asdict(ratio) for ratio in compare_published(gates)],
        },
        "sweep": {
            target: [{**asdict(point), **asdict(cost)} for point, cost in sorted(costs.items())]
            for target, costs in swept.items()
        },
        "formula": {
            "tool": tool, "points": len(kept["xc7"]),
            "errors": {key: {"points": count, "mean": mean, "largest": largest}
                       for key, (count, mean, largest) in sweep.errors(kept["xc7"]).items()},
        },
    }  # fmt: skip


def write_rtl(units: Sequence[Unit], costs: Mapping[str, Cost], folder: Path) -> None:
    """Write the units and everything that a black box needs into a new folder."""
    folder.mkdir()
    for unit in units:
        cost = costs[unit.name]
        (folder / f"{unit.name}.v").write_text(verilog(unit))
        (folder / f"{unit.name}.cpp").write_text(model_cpp(unit))
        (folder / f"{unit.name}.json").write_text(blackbox_json(unit, cost.lut, cost.ff))
    write_headers(folder)
