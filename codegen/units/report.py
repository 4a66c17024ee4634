# SPDX-License-Identifier: Apache-2.0
"""units.html, one file without references to others, and the summary on the terminal."""

from pathlib import Path
from typing import Any

from markupsafe import Markup

from nuq.codegen.emit.page import Bad, Figure, Page, Section, Table, Tile, percent, render

LEAD = (
    "{lanes} lane(s), {how}. LUT counts are before any packing of two small LUTs into one; levels "
    "count every LUT, multiplexer and carry block on the longest path. Areas are transistor counts "
    "in NAND2 equivalents, paths are in FO4 by logical effort."
)
TABLE_V = (
    "VGG-16 as published: ENQ widths of table III (index 6), KNQ centroids of table IV, 12-bit "
    "values, one lane, combinational, generic gates."
)
SWEEP = (
    "The plots show the larger of two sweeps: the one kept with the source, and the one measured "
    "in this run. This run measured:"
)
STAGES = (
    "SIMD multipliers of one pixel with their trees and accumulators: of one output channel "
    "(single) or of two that share them (pairs). Yosys puts registers into DSP48E1 blocks only."
)
RECURRENCES = (
    "What a pipelined loop computes from its registers back into them, within a cycle: the longest "
    "path of the same step in Verilog, mapped by Yosys."
)
FORMULA = (
    "lut_estimate against the {points} 7-series figures that it was fitted to ({tool}); "
    "differences up to 4 LUTs count as none."
)


def html(data: dict[str, Any], pictures: dict[str, str]) -> str:
    """The report for reading; `data` is units.json."""
    how = "registered" if data["register"] else "combinational"
    lead = f"{data['generator']}, {data['tool']}, manifest {data['manifest_sha256'][:16]}. "
    figures = [Figure(picture) for picture in pictures.values()]
    sections = (
        Section("The network's units", (_units(data["units"]),)),
        Section("Compute stages", (STAGES, _stages(data["stages"]))),
        Section("Recurrences", (_recurrences(data["engine"], data["recurrences"]),)),
        Section("Checks", (_checks(data["checks"]),)),
        Section("Table V of the paper, as ratios", (TABLE_V, *_published(data["published"]))),
        Section("Cost against bits, qm and layers", (*figures, SWEEP, *_sweeps(data["sweep"]))),
        Section(
            "The planner's formula",
            (FORMULA.format(**data["formula"]), _formula(data["formula"]["errors"])),
        ),
    )
    lead += LEAD.format(lanes=data["lanes"], how=how)
    title = f"Conversion units of {data['network']}"
    return render(Page(title, lead, sections, summary=_summary(data)))


def _summary(data: dict[str, Any]) -> list[Tile]:
    """What the checks say, the slowest recurrence, the LUTs of the units."""
    checks, units = data["checks"], data["units"]
    wrong = [*checks["mismatches"].values(), checks["stages"]["mismatches"]]
    differ = sum(map(len, wrong)) + (checks["shapes_equal"] is False)
    slowest = max(data["recurrences"], key=lambda row: row["ns"])
    luts = {name: unit["cost"]["xc7"]["lut"] for name, unit in units.items()}
    most = max(luts.values(), default=0) or 1
    return [
        Tile(
            "Checks", f"{differ} differ" if differ else "all equal",
            f"{sum(checks['inputs'].values()):,} inputs of the units, "
            f"{checks['stages']['edges']:,} clock edges of the compute stages",
        ),
        Tile(
            "Slowest recurrence", f"{slowest['ns']:.2f} ns",
            f"{slowest['name']}, at most {slowest['limit']} ns on {data['engine']['part']}",
        ),
        Tile(
            "LUTs of a unit, 7 series", f"{most:,}", "",
            [(name, lut / most, f"{lut:,}") for name, lut in luts.items()],
        ),
    ]  # fmt: skip


def _units(units: dict[str, Any]) -> Table:
    """Costs of the network's units."""
    shown = {
        "xc7": {"lut": "7-series LUT", "carry": "carry", "mux": "MUXF", "ff": "FF",
                "levels": "levels"},
        "xcup": {"lut": "UltraScale+ LUT", "levels": "levels"},
        "gates": {"area": "NAND2", "levels": "gate levels", "delay": "FO4"},
    }  # fmt: skip
    rows = [
        (name, unit["bits"], unit["qm"], len(unit["layers"]),
         *(unit["cost"][target][key] for target, titles in shown.items() for key in titles))
        for name, unit in units.items()
    ]  # fmt: skip
    titles = (title for titles in shown.values() for title in titles.values())
    return Table(("unit", "bits", "qm", "layers", *titles), rows, digits=1)


def _stages(stages: list[dict[str, Any]]) -> Table:
    titles = {
        "stage": "stage", "block": "multiplier", "simd": "SIMD", "weight_bits": "weight bits",
        "value_bits": "value bits", "dsp": "DSP", "lut": "LUT", "estimate": "LUT by formula",
        "carry": "carry", "ff": "FF",
    }  # fmt: skip
    return Table(tuple(titles.values()), [[row[key] for key in titles] for row in stages])


def _recurrences(engine: dict[str, Any], rows: list[dict[str, Any]]) -> Table:
    titles = {"name": "recurrence", "file": "C++", "ns": "ns", "from": "from", "to": "to",
              "path": "through"}  # fmt: skip
    note = (
        f"{RECURRENCES} Engine: {engine['array']} on {engine['part']}, at most "
        f"{rows[0]['limit']} ns with {rows[0]['net']} ns a net."
    )
    return Table(
        tuple(titles.values()), [tuple(row[key] for key in titles) for row in rows], note=note
    )


def _checks(checks: dict[str, Any]) -> Table:
    rows: list[tuple[Any, ...]] = []
    for engine, inputs in checks["inputs"].items():
        wrong = checks["mismatches"][engine]
        equal = "all equal to the integer reference"
        rows.append((engine, inputs, Bad("; ".join(wrong)) if wrong else equal))
    stages = checks["stages"]
    wrong = Bad("; ".join(stages["mismatches"])) if stages["mismatches"] else "all equal"
    rows.append(("compute stages: clock edges against integer sums", stages["edges"], wrong))
    proved = checks["shapes_equal"]
    if proved is not None:
        name = "parallel comparators and binary search are the same function (Yosys SAT)"
        rows.append((name, None, "proved" if proved else Bad("refuted")))
    note = "Inputs: every value and code of every layer."
    return Table(("check", "inputs", "result"), rows, note=note)


def _published(published: dict[str, Any]) -> tuple[Table, Table]:
    keys = ("name", "paper", "measured", "rounding", "factor")
    why = Markup('<span class="text">{}</span>')
    ratios = Table(
        ("ratio", "paper (TSMC 90 nm)", "here", "here, QE rounds and saturates", "factor", "why"),
        [(*(item[key] for key in keys), why.format(item["why"])) for item in published["ratios"]],
    )
    rows = []
    for name, gates in published["gates"].items():
        fpga = published["xc7"][name]
        own = (gates["area"], gates["levels"], gates["delay"])
        rows.append((name, *own, fpga["lut"], fpga["levels"]))
    titles = ("published unit", "NAND2", "gate levels", "FO4", "7-series LUT", "levels")
    return ratios, Table(titles, rows, digits=1)


def _sweeps(sweeps: dict[str, Any]) -> list[Table]:
    titles = {
        "kind": "module", "part": "part", "bits": "bits", "qm": "qm", "layers": "layers",
        "lut": "LUT", "carry": "carry", "mux": "MUXF", "ff": "FF", "area": "NAND2",
        "levels": "levels", "delay": "FO4",
    }  # fmt: skip
    return [
        Table(
            tuple(titles.values()),
            [[row[key] for key in titles] for row in rows],
            fold=f"{target}: {len(rows)} modules",
        )
        for target, rows in sweeps.items()
    ]


def _formula(errors: dict[str, Any]) -> Table:
    return Table(
        ("formula", "points", "mean error", "largest error"),
        [
            (key, row["points"], percent(row["mean"]), percent(row["largest"]))
            for key, row in errors.items()
        ],
    )


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
    for row in data["stages"]:
        print(
            f"  {row['stage']:8} {row['simd']} multipliers, {row['weight_bits']}-bit weights, "
            f"{row['value_bits']}-bit values: {row['dsp']} {row['block']}, {row['lut']} LUT, "
            f"by formula {row['estimate']}"
        )
    part, array = data["engine"]["part"], data["engine"]["array"]
    limit, net = (data["recurrences"][0][key] for key in ("limit", "net"))
    print(f"Recurrences of {array} on {part}, at most {limit} ns with {net} ns a net:")
    for row in data["recurrences"]:
        print(
            f"  {row['name']:16} {row['ns']:5.2f} ns, {row['from']} to {row['to']}: {row['path']}"
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
