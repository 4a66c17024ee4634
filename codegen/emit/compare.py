# SPDX-License-Identifier: Apache-2.0
"""Builds side by side: settings that differ, widths, memory, accuracy, speed, resources."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nuq.codegen.emit import summary
from nuq.codegen.emit.page import Bar, Page, Section, Table, Tile, percent, render
from nuq.codegen.emit.report_model import Layer, Report, read_report
from nuq.formats import settings
from nuq.formats.build import write_atomic
from nuq.formats.errors import UserError, call
from nuq.formats.network import read_manifest
from nuq.formats.options import table

PAGE = "compare.html"
FOLDER = Path("build") / "compare"
LEAD = (
    "Speed is that of the cycle model, resources are estimates; behind a figure: how much it is of "
    "the first build's. Accuracy is of the images that stand beside it."
)


@dataclass(frozen=True)
class Build:
    """A build as its folder tells."""

    folder: Path
    report: Report
    settings: Mapping[str, Any]
    measured: Mapping[str, Any] | None  # accuracy.json of its network


def read_build(folder: Path) -> Build:
    """What is compared of a build.

    Raises:
        UserError: it has not been generated, or not since it was quantized again.
    """
    report = read_report(folder)
    if (folder / "quantized").is_dir():
        manifest = read_manifest(folder / "quantized")
        now = manifest["arrays_sha256"], manifest["accuracy"]
        if now != (report.arrays_sha256, report.accuracy):
            raise UserError(
                f"{folder / 'report.json'} must be of the network in {folder / 'quantized'}, "
                "which has been quantized again since, with other options or images; run "
                f"{call(f'codegen OUT={folder}')}"
            )
    measured = summary.measured(folder, report.arrays_sha256)
    return Build(folder, report, settings.read(folder), measured)


def names(builds: Sequence[Build]) -> list[str]:
    """What builds are called: their folders' names, or paths where two have the same name."""
    short = [build.folder.resolve().name for build in builds]
    return short if len(set(short)) == len(short) else [str(build.folder) for build in builds]


Quantity = tuple[str, Callable[[Build], float | None], Callable[[float], str]]


def _whole(value: float) -> str:
    return f"{value:,.0f}"


@dataclass(frozen=True)
class Accuracy:
    """Top-1 in percent, and what it was measured on."""

    integer: float
    floating: float
    file: str  # that says so
    images: int
    data: str


def accuracy_of(build: Build) -> Accuracy | None:
    """Of accuracy.json where that is of this network, else of report.json; None where neither."""
    entry, report = build.measured, build.report
    file, found = (summary.ACCURACY, entry) if entry else ("report.json", report.accuracy)
    if not found or found.get("integer_top1") is None:
        return None
    data = found.get("data") or report.calibration.get("source", "unknown images")
    return Accuracy(found["integer_top1"], found["float_top1"], file, found["images"], data)


def accuracies(builds: Sequence[Build]) -> list[tuple[str, ...]]:
    """Rows of top-1 with the number of images, and where it is from; none where no build has it."""
    found = [accuracy_of(build) for build in builds]
    if not any(found):
        return []

    def row(name: str, show: Callable[[Accuracy], str]) -> tuple[str, ...]:
        return (name, *("–" if one is None else show(one) for one in found))

    return [
        row("top-1 %, integer network", lambda one: f"{one.integer:.2f} of {one.images:,} images"),
        row("top-1 %, float", lambda one: f"{one.floating:.2f} of {one.images:,} images"),
        row("images of", lambda one: f"{Path(one.data).name} ({one.file})"),
    ]


def notes(builds: Sequence[Build]) -> list[str]:
    """What must be known to read the accuracies: sentences, none where all is well."""
    found = [one for one in map(accuracy_of, builds) if one]
    said = []
    if len({(one.data, one.images) for one in found}) > 1:
        said.append(
            "WARNING: these accuracies are of different images and cannot be compared; measure "
            f"each build with {call('accuracy OUT=...')}, the same DATA and the same IMAGES"
        )
    for build in builds:
        path = build.folder / summary.ACCURACY
        if build.measured is None and path.is_file():
            said.append(
                f"{path} is of another network than this build's and left out; run "
                f"{call(f'accuracy OUT={build.folder}')}"
            )
    return said


def _dram_share(build: Build) -> float:
    layers = build.report.layers
    bound = sum(layer.seconds for layer in layers if layer.dram_bound)
    return bound / sum(layer.seconds for layer in layers)


def _resource(name: str) -> Callable[[Build], float | None]:
    return lambda build: float(getattr(build.report.resources.estimate, name))


QUANTITIES: tuple[Quantity, ...] = (
    ("NB, bits of an image", lambda b: b.report.memory.nb_bits, _whole),
    ("of 16 bits", lambda b: b.report.memory.ratio, percent),
    ("bytes of weights", lambda b: b.report.memory.weight_bytes, _whole),
    ("DRAM bytes of feature maps, an image",
     lambda b: sum(dict(b.report.memory.ddr).values()) / b.report.images, _whole),
    ("cycles of an image", lambda b: b.report.performance.cycles / b.report.images, _whole),
    ("clock, MHz", lambda b: b.report.performance.clock_mhz, "{:g}".format),
    ("ms an image", lambda b: 1e3 * b.report.performance.seconds / b.report.images,
     "{:,.2f}".format),
    ("frames/s", lambda b: b.report.performance.images_per_second, "{:,.1f}".format),
    ("time that DRAM binds", _dram_share, percent),
    ("multipliers busy", lambda b: b.report.performance.efficiency, percent),
    *((name.upper(), _resource(name), _whole) for name in ("dsp", "bram36", "lut", "ff", "uram")),
)  # fmt: skip
SHARES = {"of 16 bits", "time that DRAM binds", "multipliers busy", "clock, MHz"}  # as they are


def quantities(builds: Sequence[Build]) -> list[tuple[str, ...]]:
    """A row a quantity: its name, and what it is in each build; what none has is left out."""
    rows = []
    for name, read, show in QUANTITIES:
        values = [read(build) for build in builds]
        if not any(values):
            continue
        first, texts = values[0], []
        for place, value in enumerate(values):
            text = "–" if value is None else show(value)
            plain = place == 0 or value is None or not first or name in SHARES
            texts.append(text if plain or not first else f"{text} (×{value / first:.2f})")  # type: ignore[operator]
        rows.append((name, *texts))
    design = [
        (build.report.engine, build.report.part, build.report.scheme, build.report.network)
        for build in builds
    ]
    return [
        ("network", *(network for *_, network in design)),
        ("part", *(part for _, part, _, _ in design)),
        ("products a cycle", *(f"{one.simd} × {one.pe} × {one.pixels}" for one, *_ in design)),
        ("scheme", *(scheme for _, _, scheme, _ in design)),
        *accuracies(builds),
        *rows,
        ("C-simulation", *(_simulated(build) for build in builds)),
    ]


def _simulated(build: Build) -> str:
    done = build.report.csim
    if done is None:
        return f"not run: {call(f'csim OUT={build.folder}')}"
    wrong = done.mismatches
    return f"{wrong:,} mismatches" if wrong else f"bit-exact, {done.images} image(s)"


def differing(builds: Sequence[Build]) -> list[tuple[str, ...]]:
    """A row an option that the builds were not made with alike: NAME and the values."""
    rows = []
    for name in table():
        values = [build.settings.get(name, settings.default(name)) for build in builds]
        if any(value != values[0] for value in values):
            rows.append(
                (name, *(settings.word(name, one).removeprefix(f"{name}=") for one in values))
            )
    return [(name, *(text.removeprefix(f"{name} ") for text in rest)) for name, *rest in rows]


def _width(layer: Layer) -> str:
    weights = f", weights {layer.weights.bits}" if layer.weights else ""
    return f"{layer.bits} {layer.scheme}{weights}"


def layers(builds: Sequence[Build], called: Sequence[str]) -> Table | str:
    """Widths, SQNR and cycles of the layers that all builds have."""
    each = [{layer.name: layer for layer in build.report.layers} for build in builds]
    common = [name for name in each[0] if all(name in other for other in each)]
    if not common:
        return "The networks have no layer of one name."
    per = [build.report.images for build in builds]
    longest = max(one[name].cycles / n for one, n in zip(each, per, strict=True) for name in common)
    rows: list[tuple[Any, ...]] = []
    for name in common:
        these = [one[name] for one in each]
        cycles = [layer.cycles // n for layer, n in zip(these, per, strict=True)]
        rows.append((
            name,
            *map(_width, these),
            *(layer.sqnr_db for layer in these),
            *(Bar(count, count / longest) for count in cycles),
        ))  # fmt: skip
    columns = [f"{what} {name}" for what in ("bits", "SQNR dB", "cycles") for name in called]
    return Table(
        ("layer", *columns), rows, digits=1, note="Bits of a stored value, its scheme, bits of a "
        "weight; SQNR on the images of calibration; cycles of an image.",
    )  # fmt: skip


def page(builds: Sequence[Build]) -> str:
    """compare.html of two builds or more."""
    called = names(builds)
    settings_rows = differing(builds)
    tiles = [
        Tile(
            name, summary.accuracy_texts(build.report, build.measured)[0],
            f"NB {percent(build.report.memory.ratio)} of 16 bits, "
            f"{build.report.performance.images_per_second:,.1f} frames/s",
            [
                (key, used / has, percent(used / has))
                for key, (used, has) in summary.resource_shares(build.report).items()
            ],
        )
        for name, build in zip(called, builds, strict=True)
    ]  # fmt: skip
    sections = (
        Section("Side by side", (*notes(builds), Table(("", *called), quantities(builds)))),
        Section(
            "Settings that differ",
            (Table(("option", *called), settings_rows) if settings_rows else "None.",),
        ),
        Section("Layers", (layers(builds, called),)),
    )
    return render(Page(f"Builds compared: {', '.join(called)}", LEAD, sections, summary=tiles))


def text(builds: Sequence[Build]) -> str:
    """The same for a terminal, without the layers."""
    called = names(builds)
    rows = [("", *called), *quantities(builds)]
    rows += [(f"{name} =", *values) for name, *values in differing(builds)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = [
        f"{row[0]:<{widths[0]}}"
        + "".join(f"  {one:>{wide}}" for one, wide in zip(row[1:], widths[1:], strict=True))
        for row in rows
    ]
    return "\n".join([*lines, *notes(builds)])


def as_json(builds: Sequence[Build]) -> dict[str, Any]:
    """What is shown of builds: names, rows of quantities and of settings that differ."""
    return {
        "builds": names(builds), "folders": [str(build.folder) for build in builds],
        "quantities": quantities(builds), "settings": differing(builds), "notes": notes(builds),
    }  # fmt: skip


def compare(folders: Sequence[Path], out: Path | None) -> tuple[str, Path]:
    """Write the page of some builds, and compare.json beside it.

    Returns:
        The table for a terminal, and where the page is.

    Raises:
        UserError: fewer than two builds, or one that has not been generated.
    """
    if len(folders) < 2:
        raise UserError(
            "A and B must be set, as in A=build/x B=build/y; B takes several, with commas"
        )
    builds = [read_build(folder) for folder in folders]
    path = (out or FOLDER) / PAGE
    write_atomic(path.with_suffix(".json"), json.dumps(as_json(builds), indent=1) + "\n")
    write_atomic(path, page(builds))
    return text(builds), path
