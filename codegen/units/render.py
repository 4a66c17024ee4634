# SPDX-License-Identifier: Apache-2.0
"""Renders a conversion unit: Verilog, the Vitis HLS black-box description, its C++ model.

Python computes every number here; the templates in hls_templates/rtl only print. Equal tables give
equal bytes.
"""

import json
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import jinja2

from codegen.emit import templates
from codegen.emit.render import headers
from codegen.units.tables import Entry, Tables
from formats.arithmetic import unsigned_bits
from formats.errors import UserError

TEMPLATES = Path(__file__).parents[2] / "hls_templates"
HEADERS = ("conversion_units.hpp", "layer.hpp", "layer_desc.hpp")  # what a C++ model includes
KINDS = {"qe": "enq", "ce": "enq", "qk": "knq", "qk_tree": "knq", "ck": "knq"}
MAX_PORT_BITS = 64  # of the simulator's values
DESCRIPTION = "Written by codegen.units for {}."


@dataclass(frozen=True)
class Unit:
    """One unit to render.

    Attributes:
        kind: "qe", "ce", "qk" (parallel comparators), "qk_tree" (binary search) or "ck".
        tables: what it computes with.
        lanes: values converted at once; they share the table of the layer index.
        register: whether the result is registered (latency 1) or combinational (0).
        name: of the Verilog module, the C++ function and the files; the kind if empty.
    """

    kind: str
    tables: Tables
    lanes: int = 1
    register: bool = False
    label: str = ""

    def __post_init__(self) -> None:
        """Refuse what the templates cannot render, by UserError."""
        if self.kind not in KINDS:
            raise UserError(f"unit must be one of {', '.join(KINDS)}, not {self.kind}")
        if KINDS[self.kind] != self.tables.scheme:
            raise UserError(f"unit {self.kind} must have {KINDS[self.kind]} tables, "
                            f"not {self.tables.scheme}")  # fmt: skip
        if self.lanes < 1:
            raise UserError(f"unit {self.kind}: lanes must be at least 1, not {self.lanes}")

    @property
    def name(self) -> str:
        """Name of the Verilog module, the C++ function and the files."""
        return self.label or self.kind

    @property
    def encodes(self) -> bool:
        """True for value to code, False for code to value."""
        return self.kind.startswith("q")

    @property
    def in_width(self) -> int:
        """Bits of one lane's input."""
        return self.tables.qm if self.encodes else self.tables.bits

    @property
    def out_width(self) -> int:
        """Bits of one lane's result."""
        return self.tables.bits if self.encodes else self.tables.qm

    @cached_property
    def words(self) -> dict[str, int]:
        """What the layer index selects: name and width."""
        tables = self.tables
        if self.kind == "ck":
            return {"centroid": tables.levels * tables.qm}
        if tables.scheme == "knq":
            return {"threshold": (tables.levels - 1) * tables.table_width}
        shifts = [entry.quantizer.shift for entry in tables.entries]
        words = {"shift": unsigned_bits(max(shifts))}
        half = max(self._half(entry) for entry in tables.entries)
        if half:
            words["half"] = tables.qm
        if half and self.encodes:
            words["largest"] = tables.bits
        return words

    def _half(self, entry: Entry) -> int:
        """What an ENQ unit adds for one layer."""
        quantizer = entry.quantizer
        return quantizer.encode_half if self.encodes else quantizer.decode_half

    def values(self, entry: Entry) -> dict[str, list[int]]:
        """Table of one layer: the items of each word, item 0 in the lowest bits."""
        tables, quantizer = self.tables, entry.quantizer
        if quantizer.centroid is not None and quantizer.threshold is not None:
            centroid, threshold = quantizer.centroid.tolist(), quantizer.threshold.tolist()
            spare = tables.levels - len(centroid)
            if self.kind == "ck":
                return {"centroid": centroid + spare * centroid[-1:]}
            return {"threshold": threshold[1:] + spare * [tables.never]}
        found = {"shift": quantizer.shift, "half": self._half(entry),
                 "largest": (1 << quantizer.bits) - 1}  # fmt: skip
        return {word: [found[word]] for word in self.words}


@cache
def environment() -> jinja2.Environment:
    """The Jinja2 environment of the unit templates."""
    return templates.environment([TEMPLATES])


def verilog(unit: Unit) -> str:
    """The unit's Verilog file."""
    text = environment().get_template(f"rtl/{unit.kind}.v.j2").render(unit=_context(unit))
    return text.lstrip("\n")


def memory_verilog(name: str, bits: int, qm: int) -> str:
    """CK's lane with a small memory that is written when a layer begins (module `name`)."""
    context = {"name": name, "origin": DESCRIPTION.format(f"{bits}-bit codes, qm {qm}"),
               "levels": 1 << bits, "in_width": bits, "out_width": qm}  # fmt: skip
    return environment().get_template("rtl/ck_ram.v.j2").render(unit=context).lstrip("\n")


def model_cpp(unit: Unit) -> str:
    """The C++ function that a black box stands for, made of the unit of conversion_units.hpp."""
    return environment().get_template("rtl/model.cpp.j2").render(unit=_context(unit))


def blackbox_json(unit: Unit, lut: int, ff: int) -> str:
    """The Vitis HLS black-box description (UG1399, "JSON File for RTL Blackbox").

    Args:
        unit: the unit.
        lut, ff: measured resources, which Vitis HLS adds to its estimate.
    """
    latency = int(unit.register)
    data = "value" if unit.encodes else "code"
    chain = ("idle", "start", "ready", "done", "continue")
    description = {
        "c_function_name": unit.name,
        "rtl_top_module_name": unit.name,
        "c_files": [{"c_file": f"{unit.name}.cpp", "cflag": "-std=c++14"}],
        "rtl_files": [f"{unit.name}.v"],
        "c_parameters": [
            {"c_name": name, "c_port_direction": "in", "rtl_ports": {"data_read_in": name}}
            for name in ("layer", data)
        ],
        "c_return": {"c_port_direction": "out", "rtl_ports": {"data_write_out": "ap_return"}},
        "rtl_common_signal": {
            "module_clock": "ap_clk", "module_reset": "ap_rst", "module_clock_enable": "ap_ce",
            **{f"ap_ctrl_chain_protocol_{signal}": "" for signal in chain},
        },
        # 0 and 0 mean a combinational module
        "rtl_performance": {"latency": str(latency), "II": str(latency)},
        "rtl_resource_usage": {
            "FF": str(ff), "LUT": str(lut), "BRAM": "0", "URAM": "0", "DSP": "0",
        },
    }  # fmt: skip
    return json.dumps(description, indent=2) + "\n"


def _context(unit: Unit) -> dict[str, Any]:
    """Everything that the templates print."""
    tables = unit.tables
    half = "half" in unit.words
    data, result = ("value", "code") if unit.encodes else ("code", "value")
    return {
        "name": unit.name, "function": unit.kind[:2], "scheme": tables.scheme,
        "origin": DESCRIPTION.format(tables.source), "lanes": unit.lanes,
        "register": unit.register, "layers": tables.layers, "layer_bits": tables.layer_bits,
        "levels": tables.levels, "table_width": tables.table_width, "qm": tables.qm,
        "code_bits": tables.bits, "in_width": unit.in_width, "out_width": unit.out_width,
        "in_name": data, "out_name": result, "has_half": half, "rounds": half and unit.encodes,
        "words": [{"name": name, "width": width} for name, width in unit.words.items()],
        "rows": [_row(unit, entry) for entry in tables.entries],
        **_model(unit),
    }  # fmt: skip


def _row(unit: Unit, entry: Entry) -> dict[str, Any]:
    """One case of the table module."""
    tables, quantizer = unit.tables, entry.quantizer
    widths = {**unit.words, "threshold": tables.table_width, "centroid": tables.qm}
    assign = []
    for name, items in unit.values(entry).items():
        literals = [f"{widths[name]}'d{item}" for item in reversed(items)]
        value = literals[0] if len(literals) == 1 else "{" + ", ".join(literals) + "}"
        assign.append({"name": name, "value": value})
    return {
        "case": f"{tables.layer_bits}'d{entry.index}",
        "comment": f"{entry.name}: {quantizer.bits} of {quantizer.qm} bits",
        "assign": assign,
    }


def _model(unit: Unit) -> dict[str, Any]:
    """Tables and call of the C++ model, one row for every layer index."""
    tables, config = unit.tables, f"Config_{unit.name}"
    call = f"{unit.kind[:2].upper()}<{config}>::{'encode' if unit.encodes else 'decode'}"
    if tables.scheme == "knq":
        word = f"{'CENTROID' if unit.kind == 'ck' else 'THRESHOLD'}_{unit.name}"
        kind = f"{config}::{'value_t' if unit.kind == 'ck' else 'quant_t'}"
        found = {entry.index: unit.values(entry) for entry in tables.entries}
        # entry 0 of a threshold table is not used
        rows = [
            [0, *found[i]["threshold"]] if unit.encodes and i in found
            else found[i]["centroid"] if i in found else [0]
            for i in range(tables.layers)
        ]  # fmt: skip
        table = {"type": kind, "name": word, "shape": f"[{tables.levels}]",
                 "rows": [_braces(row) for row in rows]}  # fmt: skip
        return {"config": config, "cpp_tables": [table], "call": f"{call}(in, {word}[l])"}
    found_enq = {entry.index: entry for entry in tables.entries}
    columns = {
        "SHIFT": {i: entry.quantizer.shift for i, entry in found_enq.items()},
        "HALF": {i: unit._half(entry) for i, entry in found_enq.items()},
        "LARGEST": {i: (1 << entry.quantizer.bits) - 1 for i, entry in found_enq.items()},
    }
    if not unit.encodes:
        del columns["LARGEST"]
    cpp_tables = [
        {"type": "int", "name": f"{name}_{unit.name}", "shape": "",
         "rows": [f"{column.get(i, 0)}," for i in range(tables.layers)]}
        for name, column in columns.items()
    ]  # fmt: skip
    arguments = ", ".join(f"{name}_{unit.name}[l]" for name in columns)
    return {"config": config, "cpp_tables": cpp_tables, "call": f"{call}(in, {arguments})"}


def _braces(items: list[int]) -> str:
    """One row of a C++ table."""
    return "{" + ", ".join(str(item) for item in items) + "},"


def write_headers(folder: Path) -> None:
    """Write what a C++ model includes into a folder."""
    texts = headers()
    for name in HEADERS:
        (folder / name).write_text(texts[name], encoding="utf-8")
