# SPDX-License-Identifier: Apache-2.0
"""Renders a conversion unit: Verilog, the Vitis HLS black-box description, its C++ model.

Python computes every number here; the templates in hls_templates/rtl only print. Equal tables give
equal bytes.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from nuq.codegen.emit.render import TEMPLATES, headers
from nuq.codegen.emit.templates import environment
from nuq.codegen.units.tables import Entry, Tables
from nuq.formats.arithmetic import unsigned_bits

ENVIRONMENT = environment([TEMPLATES])
KINDS = {"qe": "enq", "ce": "enq", "qk": "knq", "qk_tree": "knq", "ck": "knq"}


@dataclass(frozen=True)
class Unit:
    """One unit to render."""

    # "qe", "ce", "qk" (parallel comparators), "qk_tree" (binary search), "ck", or "ck_ram", CK's
    # lane with a small memory that is written when a layer begins
    kind: str
    tables: Tables  # of the kind's scheme
    lanes: int = 1  # values converted at once; they share the table of the layer index
    register: bool = False  # whether the result is registered (latency 1) or combinational (0)
    label: str = ""

    @property
    def name(self) -> str:
        """Name of the Verilog module, the C++ function and the files."""
        return self.label or self.kind

    @property
    def encodes(self) -> bool:
        """True for value to code, False for code to value."""
        return self.kind.startswith("q")

    @property
    def widths(self) -> tuple[int, int]:
        """Bits of one lane's input and result."""
        value, code = self.tables.qm, self.tables.bits
        return (value, code) if self.encodes else (code, value)

    @property
    def ports(self) -> tuple[str, str]:
        """Names of input and result."""
        return ("value", "code") if self.encodes else ("code", "value")

    @cached_property
    def words(self) -> dict[str, int]:
        """What the layer index selects in Verilog: name and width."""
        tables = self.tables
        if tables.scheme == "knq":
            if self.encodes:
                return {"threshold": (tables.levels - 1) * tables.table_width}
            return {"centroid": tables.levels * tables.qm}
        rows = [self.row(entry) for entry in tables.entries]
        words = {"shift": unsigned_bits(max(row["shift"][0] for row in rows))}
        if any(row["half"][0] for row in rows):
            words["half"] = tables.qm
            if self.encodes:
                words["largest"] = tables.bits
        return words

    def row(self, entry: Entry) -> dict[str, list[int]]:
        """What a layer's index selects: the items of each word, item 0 in the lowest bits."""
        quantizer, levels = entry.quantizer, self.tables.levels
        if quantizer.centroid is not None and quantizer.threshold is not None:
            if self.encodes:
                table, spare = quantizer.threshold.tolist()[1:], self.tables.never
                return {"threshold": table + [spare] * (levels - 1 - len(table))}
            table = quantizer.centroid.tolist()
            return {"centroid": table + table[-1:] * (levels - len(table))}
        half = quantizer.encode_half if self.encodes else quantizer.decode_half
        row = {"shift": [quantizer.shift], "half": [half]}
        return {**row, "largest": [(1 << quantizer.bits) - 1]} if self.encodes else row

    def literals(self, entry: Entry) -> dict[str, str]:
        """The row of a layer in Verilog."""
        values = {}
        for word, items in self.row(entry).items():
            if word in self.words:
                width = self.words[word] // len(items)
                texts = [f"{width}'d{item}" for item in reversed(items)]
                values[word] = texts[0] if len(texts) == 1 else "{" + ", ".join(texts) + "}"
        return values

    @property
    def columns(self) -> dict[str, list[list[int]]]:
        """The tables of the C++ model: a row for every layer index, 0 where it has no entry.

        A row of thresholds begins with entry 0, which is not used.
        """
        rows = {entry.index: self.row(entry) for entry in self.tables.entries}
        return {
            word: [
                [0] * (word == "threshold") + rows[index][word] if index in rows else [0]
                for index in range(self.tables.layers)
            ]
            for word in next(iter(rows.values()))
        }


def verilog(unit: Unit) -> str:
    """The unit's Verilog file."""
    return ENVIRONMENT.get_template(f"rtl/{unit.kind}.v.j2").render(unit=unit).lstrip("\n")


def model_cpp(unit: Unit) -> str:
    """The C++ function that a black box stands for, made of the unit of conversion_units.hpp."""
    return ENVIRONMENT.get_template("rtl/model.cpp.j2").render(unit=unit)


def blackbox_json(unit: Unit, lut: int, ff: int) -> str:
    """The Vitis HLS black-box description (UG1399, "JSON File for RTL Blackbox").

    Args:
        unit: the unit.
        lut, ff: measured resources, which Vitis HLS adds to its estimate.
    """
    latency = str(int(unit.register))
    chain = ("idle", "start", "ready", "done", "continue")
    description = {
        "c_function_name": unit.name,
        "rtl_top_module_name": unit.name,
        "c_files": [{"c_file": f"{unit.name}.cpp", "cflag": "-std=c++14"}],
        "rtl_files": [f"{unit.name}.v"],
        "c_parameters": [
            {"c_name": name, "c_port_direction": "in", "rtl_ports": {"data_read_in": name}}
            for name in ("layer", unit.ports[0])
        ],
        "c_return": {"c_port_direction": "out", "rtl_ports": {"data_write_out": "ap_return"}},
        "rtl_common_signal": {
            "module_clock": "ap_clk", "module_reset": "ap_rst", "module_clock_enable": "ap_ce",
            **{f"ap_ctrl_chain_protocol_{signal}": "" for signal in chain},
        },
        # 0 and 0 mean a combinational module
        "rtl_performance": {"latency": latency, "II": latency},
        "rtl_resource_usage": {
            "FF": str(ff), "LUT": str(lut), "BRAM": "0", "URAM": "0", "DSP": "0",
        },
    }  # fmt: skip
    return json.dumps(description, indent=2) + "\n"


def write_headers(folder: Path) -> None:
    """Write what a C++ model includes into a folder."""
    for name, text in headers().items():
        (folder / name).write_text(text, encoding="utf-8")
