# SPDX-License-Identifier: Apache-2.0
"""`make units`: everything about the units of one network, written to build/NET/units/.

rtl/        Verilog, C++ model and black-box description of each unit, and the headers they need
units.json  all figures      units.html  the same for reading      *.svg  the plots
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from codegen import VERSION
from codegen.design.unit_luts import MODEL
from codegen.units import cost, plots
from codegen.units.equivalence import shapes_equal
from codegen.units.published import compare_published, explanation, measure_published
from codegen.units.render import KINDS, Unit, blackbox_json, model_cpp, verilog, write_headers
from codegen.units.report import html, print_summary
from codegen.units.simulate import compare
from codegen.units.sweep import RECORDED, SWEEPS, Sweep, points, recorded, run_sweep, to_json
from codegen.units.synthesis import TARGETS, Cache, Cost, Design, synthesize
from codegen.units.tables import decoder_tables, encoder_tables
from codegen.units.yosys import find_yosys, yosys_version
from formats.build import atomic_dir, write_atomic
from formats.errors import UserError
from formats.network import Network, load
from formats.options import Options

CACHE = "units_cache.json"  # beside the builds: measured modules, by content


def record(sweep: Sweep, folder: Path) -> None:
    """Measure a sweep and keep it with the source: sweep.json, and the formula fitted to it."""
    cache = Cache(folder / CACHE)
    total = len(sweep.targets) * sum(1 for _ in points(sweep))
    with tqdm(total=total, desc="sweep", unit="module", disable=not sys.stderr.isatty()) as bar:
        found = run_sweep(sweep, cache, bar.update)
    write_atomic(RECORDED, to_json(found, yosys_version()))
    write_atomic(MODEL, cost.model_json(found["xc7"], yosys_version()))
    print(f"{RECORDED} and {MODEL} hold {len(found['xc7'])} points a target")


def network_units(network: Network, lanes: int = 1, register: bool = False) -> list[Unit]:
    """The units that a network's nonuniform layers need; UserError where it has none."""
    found = []
    for kind, scheme in KINDS.items():
        if kind.startswith("q"):
            candidates = {kind: encoder_tables(network, scheme)}
        else:
            # an addition decodes two feature maps at once
            candidates = {
                kind: decoder_tables(network, scheme),
                f"{kind}_second": decoder_tables(network, scheme, place=1),
            }
        found += [
            Unit(kind, tables, lanes, register, label)
            for label, tables in candidates.items()
            if tables
        ]
    if not found:
        raise UserError(
            f"{network.folder}: at least one layer must use ENQ or KNQ for values that are not "
            "negative; quantize with SCHEME=knq or SCHEME=enq"
        )
    return found


def units(options: Options) -> int:
    """Render, simulate, prove, synthesize, report; 0, or 1 where anything differs."""
    if options.record:
        record(SWEEPS[options.sweep], options.folder.parent)
    network = load(options.folder / "quantized")
    find_yosys()  # before any work, because nothing goes without it
    units = network_units(network, options.lanes, options.register)
    cache = Cache(options.folder.parent / CACHE)
    sweep = SWEEPS[options.sweep]
    total = len(TARGETS) * len(units) + len(sweep.targets) * sum(1 for _ in points(sweep))
    with tqdm(total=total, desc="synthesis", unit="module", disable=not sys.stderr.isatty()) as bar:
        checks = check(units, options.simulators)
        costs = {
            target: synthesize(
                [Design(u.name, verilog(u)) for u in units], target, cache, bar.update
            )
            for target in TARGETS
        }
        swept = run_sweep(sweep, cache, bar.update)
    gates = measure_published("gates", cache)
    data: dict[str, Any] = {
        "format": 1, "generator": f"codegen {VERSION}", "tool": yosys_version(),
        "network": network.name, "manifest_sha256": network.manifest_sha256,
        "lanes": options.lanes, "register": options.register,
        "units": {unit.name: describe(unit, costs) for unit in units},
        "checks": checks, "published": published_json(gates, cache), "sweep": sweep_json(swept),
        "formula": formula_json(sweep),
    }  # fmt: skip
    pictures = plots.all_plots(recorded()[1], swept, data["published"]["ratios"])
    with atomic_dir(options.folder / "units") as folder:
        write_rtl(units, costs["xc7"], folder / "rtl")
        for name, picture in pictures.items():
            (folder / f"{name}.svg").write_text(picture)
        (folder / "units.json").write_text(json.dumps(data, indent=1) + "\n")
        (folder / "units.html").write_text(html(data, pictures))
    print_summary(data, options.folder / "units" / "units.html")
    failed = [text for texts in checks["mismatches"].values() for text in texts]
    if checks["shapes_equal"] is False:
        failed.append(
            "qk and qk_tree must be the same function, but Yosys found an input that differs"
        )
    for text in failed:
        print(f"FAILED: {text}")
    return 1 if failed else 0


def check(units: list[Unit], engines: tuple[str, ...]) -> dict[str, Any]:
    """Run all inputs on every simulator; prove QK's shapes equal where the network has QK."""
    inputs, mismatches = {}, {}
    for engine in engines:
        outcome = compare(units, engine)
        inputs[engine] = outcome.inputs
        mismatches[engine] = [f"{engine}: {item}" for item in outcome.mismatches]
    knq = next((unit.tables for unit in units if unit.kind == "qk"), None)
    return {"inputs": inputs, "mismatches": mismatches,
            "shapes_equal": shapes_equal(knq) if knq else None}  # fmt: skip


def describe(unit: Unit, costs: dict[str, dict[str, Cost]]) -> dict[str, Any]:
    """A unit in units.json."""
    return {
        "kind": unit.kind, "bits": unit.tables.bits, "qm": unit.tables.qm,
        "layers": [entry.name for entry in unit.tables.entries],
        "cost": {target: asdict(found[unit.name]) for target, found in costs.items()},
    }  # fmt: skip


def published_json(gates: dict[str, Cost], cache: Cache) -> dict[str, Any]:
    """The comparison with table V in units.json."""
    ratios = [
        {**asdict(item), "factor": item.factor, "why": explanation(item, gates)}
        for item in compare_published(gates)
    ]
    fpga = measure_published("xc7", cache)
    return {
        "gates": {name: asdict(item) for name, item in gates.items()},
        "xc7": {name: asdict(item) for name, item in fpga.items()},
        "ratios": ratios,
    }


def sweep_json(swept: dict[str, Any]) -> dict[str, Any]:
    """The measured points in units.json."""
    return {
        target: [{**asdict(point), **asdict(found)} for point, found in sorted(costs.items())]
        for target, costs in swept.items()
    }


def formula_json(sweep: Sweep) -> dict[str, Any]:
    """How far lut_estimate is off on the recorded figures."""
    tool, found = recorded()
    table = cost.errors(found["xc7"])
    return {"tool": tool, "points": len(found["xc7"]),
            "errors": {key: {"points": n, "mean": mean, "largest": largest}
                       for key, (n, mean, largest) in table.items()}}  # fmt: skip


def write_rtl(units: list[Unit], costs: dict[str, Cost], folder: Path) -> None:
    """Write the units and everything that a black box needs into a new folder."""
    folder.mkdir()
    for unit in units:
        found = costs[unit.name]
        (folder / f"{unit.name}.v").write_text(verilog(unit))
        (folder / f"{unit.name}.cpp").write_text(model_cpp(unit))
        (folder / f"{unit.name}.json").write_text(blackbox_json(unit, found.lut, found.ff))
    write_headers(folder)
