# SPDX-License-Identifier: Apache-2.0
"""What a command has left in a build's folder, as objects that print and show themselves.

A `Result` has the command's JSON file as `data`, the few facts that people look for, and tables; in
a notebook it is shown with them and, where it has one, its picture. Imports no other package, but
draws with matplotlib where that is installed.
"""

import base64
import html
import io
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Cell = str | int | float | None  # None: not measured
Json = Any


@dataclass(frozen=True)
class Table:
    """A table: a title, a head with units, rows."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""  # what must be known to read it, a line behind it

    def text(self) -> str:
        """The table in columns, the first on the left, the others on the right.

        >>> print(Table("bits", ("layer", "bits"), [("conv1", 4), ("fc2", None)]).text())
        layer  bits
        conv1     4
        fc2       -
        """
        cells = [list(self.head), *([shown(cell) for cell in row] for row in self.rows)]
        wide = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(
                cell.rjust(width) if place else cell.ljust(width)
                for place, (cell, width) in enumerate(zip(row, wide, strict=True))
            ).rstrip()
            for row in cells
        ]
        return "\n".join([*lines, *([self.note] if self.note else [])])

    def _repr_html_(self) -> str:
        """The table for a notebook."""
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in self.head)
        rows = "".join(
            f"<tr>{''.join(f'<td>{html.escape(shown(cell))}</td>' for cell in row)}</tr>"
            for row in self.rows
        )
        title = "; ".join(text for text in (self.title, self.note) if text)
        return (
            f"<table><caption>{html.escape(title)}</caption><thead><tr>{head}</tr></thead>"
            f"<tbody>{rows}</tbody></table>"
        )


def shown(cell: Cell) -> str:
    """A cell as text.

    >>> shown(12345), shown(0.123456), shown(98.5), shown(None), shown("conv1")
    ('12,345', '0.1235', '98.5', '-', 'conv1')
    """
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return f"{cell:.4g}"
    return cell if isinstance(cell, str) else f"{cell:,}"


@dataclass(frozen=True)
class Result:
    """What a command has found."""

    title: str
    folder: Path  # of the build
    data: Json = field(default_factory=dict, repr=False)  # the command's JSON file
    facts: Mapping[str, str] = field(default_factory=dict)
    tables: Sequence[Table] = ()
    page: Path | None = None  # HTML, to be opened in a browser
    draw: Callable[[], Any] | None = field(default=None, repr=False)  # a matplotlib Figure
    printed: str = field(default="", repr=False)  # by the command, where it was quiet

    def __getitem__(self, key: str) -> Any:
        """An entry of the JSON file."""
        return self.data[key]

    def table(self) -> str:
        """Its tables as text."""
        return "\n\n".join(table.text() for table in self.tables)

    def plot(self) -> Any:
        """Its picture, a matplotlib Figure; None where it has none."""
        return self.draw() if self.draw else None

    def __str__(self) -> str:
        facts = [f"{name}: {text}" for name, text in self.facts.items()]
        page = [f"page: {self.page}"] if self.page else []
        return "\n".join([self.title, *facts, *([self.table()] if self.tables else []), *page])

    def _repr_html_(self) -> str:
        """Facts, tables and picture for a notebook."""
        facts = "".join(
            f"<li>{html.escape(name)}: <b>{html.escape(text)}</b></li>"
            for name, text in self.facts.items()
        )
        tables = "".join(table._repr_html_() for table in self.tables)
        page = f"<p>{html.escape(str(self.page))}</p>" if self.page else ""
        return f"<h4>{html.escape(self.title)}</h4><ul>{facts}</ul>{tables}{self._picture()}{page}"

    def _picture(self) -> str:
        """The picture as a PNG in the page; nothing without matplotlib."""
        if self.draw is None:
            return ""
        try:
            figure = self.draw()
        except ImportError:
            return ""
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=80)
        sys.modules["matplotlib.pyplot"].close(figure)  # or the notebook shows it once more
        return f'<img src="data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}">'


def percent(value: float | None, images: int) -> str:
    """A share of images, with its number.

    >>> percent(98.888, 360), percent(None, 0)
    ('98.89% of 360 images', 'not measured')
    """
    return "not measured" if value is None else f"{value:.2f}% of {images:,} images"


def load(path: Path) -> Json:
    """A JSON file; nothing where there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def quantized(folder: Path) -> Result:
    """quantized/manifest.json: how each layer is stored, and the accuracy on the test images."""
    data = load(folder / "quantized" / "manifest.json")
    facts = {"weights": data["weights"], "calibrated on": calibration(data["calibration"])}
    if measured := data["accuracy"]:
        for name in ("float", "integer"):
            facts[f"{name} top-1"] = percent(measured[f"{name}_top1"], measured["images"])
    rows = []
    for layer in data["layers"]:
        chosen = layer["quantizer"] or {"scheme": "raw", "bits": None}
        rows.append((
            layer["name"], layer["kind"], shape(layer["out_shape"]), chosen["scheme"],
            chosen["bits"], layer["out_frac"], layer.get("weight_bits"), layer["sqnr_db"],
        ))  # fmt: skip
    head = ("layer", "kind", "output", "scheme", "bits", "F", "weight bits", "SQNR dB")
    title = f"{data['network']}, quantized"
    return Result(title, folder, data, facts, [Table("layers", head, rows)])


def calibration(entry: Mapping[str, Any]) -> str:
    """What the tables were measured on."""
    return f"{entry['images']:,} images of {entry['source']}" if entry else "unknown images"


def shape(sizes: Sequence[int]) -> str:
    """Channels x rows x columns.

    >>> shape((24, 8, 8))
    '24x8x8'
    """
    return "x".join(map(str, sizes))


def report(folder: Path) -> Result:
    """report.json: each layer on the hardware; the C-simulation, where it has run."""
    data = load(folder / "report.json")
    memory, speed = data["memory"], data["performance"]
    csim = data["csim"] or {"layers": []}
    wrong = {layer["name"]: layer["mismatches"] for layer in csim["layers"]}
    rows = [
        (
            layer["name"], shape(layer["out_shape"]), layer["scheme"], layer["bits"],
            layer["sqnr_db"], layer["bytes_read"], layer["bytes_written"], layer["bytes_weights"],
            layer["cycles"], 1e3 * layer["seconds"] / data["images"],
            "DRAM" if layer["dram_bound"] else "engine", 100 * layer["utilisation"],
            wrong.get(layer["name"]),
        )
        for layer in data["layers"]
    ]  # fmt: skip
    head = (
        "layer", "output", "scheme", "bits", "SQNR dB", "bytes read", "written", "of weights",
        "cycles", "ms an image", "bound by", "utilisation %", "mismatches",
    )  # fmt: skip
    facts = {
        "activations": f"{memory['nb_bits'] / 8e3:,.1f} kB an image, {100 * memory['ratio']:.1f}% "
        "of 16 bits",
        "speed": f"{speed['images_per_second']:,.1f} images/s at {speed['clock_mhz']:g} MHz by the "
        f"cycle model, {100 * speed['efficiency']:.1f}% of the array's products",
        "resources": resources(data["resources"]),
        "C-simulation": simulation(csim),
    }
    if agreement := csim.get("accuracy"):
        facts["top-1"] = percent(agreement["csim_top1"], agreement["images"])
    title = f"{data['network']} on {data['part']}"
    note = f"bytes and cycles of {data['images']:,} image(s) together"
    tables = [Table("layers", head, rows, note)]
    page = folder / "report.html"
    return Result(title, folder, data, facts, tables, page, lambda: layer_bars(data))


def resources(entry: Mapping[str, Any]) -> str:
    """The estimate against the part, in blocks."""
    used, there = entry["estimate"], entry["available"]
    names = {"dsp": "DSP", "bram36": "BRAM36", "lut": "LUT"}
    return ", ".join(f"{used[key]:,}/{there[key]:,} {name}" for key, name in names.items())


def simulation(csim: Mapping[str, Any]) -> str:
    """What the C-simulation found."""
    if "mismatches" not in csim:
        return "not run"
    layers = len(csim["layers"])
    equal = csim["mismatches"] == 0
    return f"{layers} layers " + ("bit-exact" if equal else f"with {csim['mismatches']} mismatches")


def layer_bars(data: Json) -> Any:
    """Bits, bytes moved and time of each layer of a report, as the board's own figure has them."""
    from nuq.board.plots import layer_bars as bars

    layers = [
        {**layer, "mean_ms": 1e3 * layer["seconds"] / data["images"]} for layer in data["layers"]
    ]
    stored = [layer for layer in layers if layer["scheme"] != "raw"]
    return bars({"layers": stored}, {"layers": layers, "batch": data["images"], "time": "model"})


def accuracy(folder: Path) -> Result:
    """accuracy.json: float and integer network on the same images."""
    data = load(folder / "accuracy.json")
    layers = [(layer["name"], layer["sqnr_db"]) for layer in data["layers"]]
    about = {
        "data": f"{data['images']:,} images of {data['data']}, others than the "
        f"{data['calibration_images']:,} calibrated on",
    }
    if "outputs" in data:  # of a network that does not answer by classes
        near = [(one["name"], one["sqnr_db"], one["agreement"]) for one in data["outputs"]]
        tables = [
            Table("outputs", ("output", "SQNR dB", "agreement %"), near),
            Table("layers", ("layer", "SQNR dB"), layers),
        ]
        return Result(f"{data['network']}: accuracy", folder, data, about, tables)
    gap = data["divergence"]
    facts = {
        **about,
        "same first answer": percent(data["agreement"], data["images"]),
        "divergence": f"{gap['mean']:.4f} nats, 95% interval {gap['low']:.4f} to {gap['high']:.4f}",
    }
    tops = ["top1"] + ["top5"] * (data["float_top5"] is not None)
    rows: list[tuple[Cell, ...]] = [
        (name, *(data[f"{name}_{top}"] for top in tops)) for name in ("float", "integer")
    ]
    if simulated := data.get("csim"):
        rows.append(("C-simulation", *(simulated[top] for top in tops)))
    head = ("network", *(f"top-{top[3:]} %" for top in tops))
    tables = [
        Table("accuracy", head, rows),
        Table("layers", ("layer", "SQNR dB"), layers),
    ]
    return Result(f"{data['network']}: accuracy", folder, data, facts, tables)


def allocation(folder: Path) -> Result:
    """allocation.json: the width of each layer; plan.toml is for PLAN."""
    plans = sorted(folder.glob("plan*.toml"))
    data = load(folder / "allocation.json")
    widths = data.get("widths", {})
    table = Table("widths", ("layer", "bits"), list(widths.items()))
    facts = {"plan": ", ".join(map(str, plans))}
    if "nb" in data:
        facts["activations"] = f"{data['nb'] / 8e3:,.1f} kB an image"
    return Result("a width per layer", folder, data, facts, [table] if widths else [])


def comparison(folder: Path) -> Result:
    """compare.json: builds side by side, and the settings that differ."""
    data = load(folder / "compare.json")
    head = ("", *data["builds"])
    tables = [Table("side by side", head, data["quantities"])]
    if data["settings"]:
        tables.append(Table("settings that differ", head, data["settings"]))
    title = f"builds compared: {', '.join(data['builds'])}"
    facts = {f"note {place}": said for place, said in enumerate(data["notes"], 1)}
    return Result(title, folder, data, facts, tables, page=folder / "compare.html")


def plain(title: str, file: str, page: str | None = None) -> Callable[[Path], Result]:
    """What reads a command's JSON file, whose plain entries are the facts."""

    def read(folder: Path) -> Result:
        data = load(folder / file)
        entries = data.items() if isinstance(data, dict) else ()
        facts = {
            key: shown(value)
            for key, value in entries
            if isinstance(value, (str, int, float)) and not isinstance(value, bool)
        }
        return Result(title, folder, data, facts, page=folder / page if page else None)

    return read


# What reads a command's result; others have none but what they print.
READERS: Mapping[str, Callable[[Path], Result]] = {
    "quantize": quantized,
    "codegen": report,
    "csim": report,
    "report": report,
    "accuracy": accuracy,
    "allocate": allocation,
    "compare": comparison,
    "explore": plain("designs", "explore/explore.json", "explore/explore.html"),
    "finetune": plain("fine-tuned", "finetuned/finetune.json"),
    "study": plain("study", "study/study.json", "study/report.html"),
    "units": plain("conversion units", "units/units.json", "units/units.html"),
    "measure": plain("measured", "measure.json"),
}


def read(command: str, folder: Path, printed: str = "") -> Result:
    """What a command has left in a folder."""
    found = READERS.get(command, plain(command, f"{command}.json"))(folder)
    return Result(**{**vars(found), "printed": printed})
