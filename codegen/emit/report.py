# SPDX-License-Identifier: Apache-2.0
"""report.json and report.html: what was generated, what it costs, what the C-simulation found.

Memory figures follow the papers (NB, ratio to half precision) and the memory map (packed bytes,
peak live bytes).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jinja2
import jsonschema

from codegen import VERSION
from codegen.design.constants import bounds, design_id
from codegen.design.design import Design
from codegen.design.layers import INPUT
from codegen.design.memory import Footprint, paper_footprint, stored_footprint
from codegen.design.resources import memories
from codegen.design.rows import Place, Row
from formats.arithmetic import ceil_div
from formats.build import write_atomic
from formats.errors import UserError
from formats.packing import WORD_BYTES

SCHEMA = Path(__file__).with_name("schemas") / "report.schema.json"
HTML_TEMPLATE = "report.html.j2"


def build_report(plan: Design, settings_sha256: str) -> dict[str, Any]:
    """The report of a plan, before any C-simulation (`csim` is null)."""
    network, part, array = plan.network, plan.part, plan.array
    gather = plan.gather
    return {
        "format": 1,
        "generator": f"codegen {VERSION}",
        "settings_sha256": settings_sha256,
        "network": network.name,
        "weights": {"source": network.weights, "sha256": network.weights_sha256},
        "manifest_sha256": network.manifest_sha256,
        "design_id": design_id(plan),
        "part": part.name,
        "scheme": _scheme(plan),
        "images": plan.images,
        "engine": {
            "simd": array.simd,
            "pe": array.pe,
            "pixels": array.pixels,
            "qk_units": array.qk_units,
            "weight_bits": plan.sizes.weight_bits,
            "weight_ports": array.weight_ports,
            "batch": plan.batch,
            "constants": {name: value for name, (value, _) in bounds(plan).items()},
        },
        "input": {
            "shape": list(network.in_shape),
            "bits": network.in_bits,
            "frac": network.in_frac,
            "gather": {
                "taps": list(gather.taps),
                "steps": list(gather.steps),
                "pads": list(gather.pads),
                "packed_shape": list(gather.packed_shape),
            },
        },
        "output": _output(plan),
        "layers": [_layer(plan, index) for index in range(len(plan.rows))],
        "memory": _memory(plan),
        "performance": _performance(plan),
        "resources": _resources(plan),
        "calibration": dict(network.calibration),
        "accuracy": dict(network.accuracy) if network.accuracy else None,
        "csim": None,
        "vendor": None,
    }


def _scheme(plan: Design) -> str:
    """The scheme of all quantized layers, or "mixed"."""
    found = {layer.quantizer.scheme for layer in plan.layers if layer.quantizer}
    return found.pop() if len(found) == 1 else "mixed" if found else "raw"


def _output(plan: Design) -> dict[str, Any]:
    """How the host reads the raw result: value = accumulator * 2^-frac / count."""
    layer = plan.network.layers[-1]
    count = layer.averaging.size if layer.kind == "avgpool" else 1
    return {"shape": list(layer.out_shape), "frac": layer.out_frac, "count": count}


def _layer(plan: Design, index: int) -> dict[str, Any]:
    layer, row, cost = plan.network.layers[index], plan.rows[index], plan.costs[index]
    quantizer = layer.quantizer
    channels, height, width = layer.out_shape
    activations = channels * height * width
    return {
        "name": layer.name,
        "kind": layer.kind,
        "inputs": list(layer.inputs),
        "in_shape": list(layer.in_shape),
        "conv_shape": list(layer.conv_shape),
        "out_shape": list(layer.out_shape),
        "kernel": list(layer.kernel),
        "stride": list(layer.stride),
        "groups": layer.groups,
        "macs": layer.macs,
        "parameters": int(layer.weight.size + layer.bias.size),
        "activations": activations,
        "bits": quantizer.bits if quantizer else 64,
        "scheme": quantizer.scheme if quantizer else "raw",
        "signed": bool(quantizer and quantizer.signed),
        "rule": quantizer.rule if quantizer else None,
        "variant": quantizer.variant if quantizer else None,
        "qm": quantizer.qm if quantizer else None,
        "weights": _weights(plan, index),
        "sqnr_db": layer.sqnr_db,
        "nb_bits": activations * quantizer.bits if quantizer else None,
        "packed_bytes": row.output_words * WORD_BYTES,
        "address": {
            "input": row.in_addr,
            "output": row.out_addr,
            "weights": row.weight_addr,
        },
        "memory": _places(row),
        "tiles": row.tiles,
        "chunks": row.chunks,
        "bytes_read": cost.bytes_read,
        "bytes_written": cost.bytes_written,
        "bytes_weights": cost.bytes_weights,
        "cycles": cost.cycles,
        "utilisation": plan.array.efficiency(layer.macs * plan.images, cost.cycles),
        "counts": dict(cost.counts),
    }


def _places(row: Row) -> dict[str, Any]:
    """Where the inputs and the output of a layer are: "ddr", "A" or "B"; "copy" of a DDR input."""
    read, written = ("B", "A") if row.chip_swap else ("A", "B")
    names: dict[int, str] = {
        Place.DDR: "ddr",
        Place.CHIP: read,
        Place.CACHE: f"ddr, copy in {read}",
    }
    places = [row.in_chip, row.in2_chip][: row.sources]
    return {
        "inputs": [names[place] for place in places],
        "output": written if row.out_chip else "ddr",
    }


def ddr_traffic(plan: Design) -> dict[str, int]:
    """Bytes of feature maps between DRAM and chip, for all images: input, result, the rest."""
    reads = writes = 0
    for layer, cost in zip(plan.layers, plan.costs, strict=True):
        if INPUT in layer.inputs:
            reads += cost.bytes_read
        writes += cost.bytes_written if layer is plan.layers[-1] else 0
    return {
        "input_bytes": reads,
        "output_bytes": writes,
        "other_bytes": plan.activation_bytes - reads - writes,
    }


def _weights(plan: Design, index: int) -> dict[str, Any] | None:
    """How a layer's weights are stored; None where it has none."""
    layer, row, array = plan.layers[index], plan.rows[index], plan.array
    if not layer.weighted:
        return None
    stored = layer.stored
    return {
        "scheme": stored.scheme,
        "bits": stored.bits,
        "multiplied_bits": layer.weight_bits,
        "table_entries": 0 if stored.table is None else int(stored.table.size),
        "bytes": row.weight_words(array) * array.weight_ports * WORD_BYTES,
    }


def _memory(plan: Design) -> dict[str, Any]:
    layers = plan.network.layers
    stored = stored_footprint(layers)
    packed = [row.output_words for row in plan.rows if not row.raw]
    return {
        "activations": stored.activations,
        "nb_bits": stored.nb_bits,
        "half_precision_bits": stored.half_bits,
        "ratio": stored.ratio,
        "packed_bytes": sum(packed) * WORD_BYTES,
        "peak_live_bytes": plan.peak_words() * WORD_BYTES,
        "peak_live_bytes_without_input": plan.peak_words(with_input=False) * WORD_BYTES,
        "arena_bytes": plan.arena.words * WORD_BYTES,
        "chip_bytes": sum(plan.sizes.chip_words) * WORD_BYTES if plan.chip.words != (0, 0) else 0,
        "ddr": ddr_traffic(plan),
        "input_bytes": plan.input_words * WORD_BYTES,
        "weight_bytes": plan.weight_words * WORD_BYTES,
        "weight_section_bytes": plan.weight_words // plan.array.weight_ports * WORD_BYTES,
        "conv_before_pool": _footprint(paper_footprint(layers)),
    }


def _footprint(part: Footprint) -> dict[str, Any]:
    return {
        "activations": part.activations,
        "nb_bits": part.nb_bits,
        "half_precision_bits": part.half_bits,
        "ratio": part.ratio,
    }


def _performance(plan: Design) -> dict[str, Any]:
    macs = sum(layer.macs for layer in plan.layers) * plan.images
    ideal = ceil_div(macs, plan.array.multipliers)
    return {
        "clock_mhz": plan.part.clock_mhz,
        "ddr_gbs": plan.part.ddr_gbs,
        "macs": macs,
        "cycles": plan.cycles,
        "ideal_cycles": ideal,
        "efficiency": ideal / plan.cycles,
        "conv_efficiency": plan.efficiency("conv"),
        "seconds": plan.seconds,
        "images_per_second": plan.images / plan.seconds,
    }


def _resources(plan: Design) -> dict[str, Any]:
    used, part = plan.resources, plan.part
    return {
        "estimate": {
            "dsp": used.dsp,
            "bram36": used.bram36,
            "lut": used.lut,
            "ff": used.ff,
            "uram": used.uram,
        },
        "available": {
            "dsp": part.dsp,
            "bram36": part.bram36,
            "lut": part.lut,
            "ff": part.ff,
            "uram": part.uram,
        },
        "memories": [
            {
                "name": item.name,
                "banks": item.banks * item.copies,
                "depth": item.depth,
                "width": item.width,
                "bram36": item.bram18 / 2,
                "uram": item.uram,
            }
            for item in memories(plan.sizes, part)
        ],
    }


def read_report(build: Path) -> dict[str, Any]:
    """report.json of a build folder; UserError where there is none."""
    path = build / "report.json"
    if not path.is_file():
        raise UserError(f"{path} must exist; run `nuq codegen` first")
    try:
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} must be JSON ({error}); generate again") from None
    check_report(report, path)
    return report


def check_report(report: dict[str, Any], path: Path) -> None:
    """UserError where a report does not follow codegen/emit/schemas/report.schema.json."""
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    validator = jsonschema.validators.validator_for(schema)(schema)
    error = jsonschema.exceptions.best_match(validator.iter_errors(report))
    if error is not None:
        where = "/".join(str(part) for part in error.absolute_path) or "top level"
        raise UserError(f"{path} must follow its schema: {where}: {error.message}; generate again")


def write_report(build: Path, report: dict[str, Any]) -> None:
    """Validate and write report.html, then report.json."""
    path = build / "report.json"
    check_report(report, path)
    write_atomic(build / "report.html", render_html(report))
    write_atomic(path, json.dumps(report, indent=1) + "\n")


def render_html(report: dict[str, Any]) -> str:
    """The report as one self-contained page; all text is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=True,
    )
    environment.filters["count"] = lambda value: f"{value:,}"
    environment.filters["percent"] = lambda value: f"{100 * value:.1f}%"
    longest = max(layer["cycles"] for layer in report["layers"])
    most = max(layer["packed_bytes"] for layer in report["layers"])
    return environment.get_template(HTML_TEMPLATE).render(report=report, longest=longest, most=most)
