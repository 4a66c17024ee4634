# SPDX-License-Identifier: Apache-2.0
"""The report of a plan: what was generated and what it costs.

Memory figures follow the papers (NB, elements times bits summed over the layers, and its ratio to
half precision: IEEE papers 000/001, table V) and the memory map (packed bytes, peak live bytes).
"""

from dataclasses import asdict
from math import prod
from typing import Any

from codegen import VERSION
from codegen.design.constants import design_id
from codegen.design.design import Design
from codegen.design.resources import RESOURCES
from codegen.design.rows import Place, Row
from codegen.emit.report_model import Footprint, Report
from formats.arithmetic import ceil_div
from formats.network import Layer
from formats.packing import WORD_BYTES
from formats.rules import INPUT


def build_report(plan: Design, settings_sha256: str) -> Report:
    """The report of a plan, before any C-simulation."""
    network, part, array = plan.network, plan.part, plan.array
    content = {
        "generator": f"codegen {VERSION}",
        "settings_sha256": settings_sha256,
        "network": network.name,
        "weights": network.weights,
        "design_id": design_id(plan),
        "part": part.name,
        "scheme": _scheme(plan),
        "images": plan.images,
        "engine": {
            "simd": array.simd,
            "pe": array.pe,
            "pixels": array.pixels,
            "weight_bits": plan.sizes.weight_bits,
            "weight_ports": array.weight_ports,
            "batch": plan.batch,
        },
        "layers": [_layer(plan, index) for index in range(len(plan.rows))],
        "memory": _memory(plan),
        "performance": _performance(plan),
        "resources": _resources(plan),
        "accuracy": dict(network.accuracy) if network.accuracy else None,
    }
    return Report.model_validate(content)


def _scheme(plan: Design) -> str:
    """The scheme of all quantized layers, or "mixed"."""
    found = {layer.quantizer.scheme for layer in plan.layers if layer.quantizer}
    return found.pop() if len(found) == 1 else "mixed" if found else "raw"


def _layer(plan: Design, index: int) -> dict[str, Any]:
    layer, row, cost = plan.network.layers[index], plan.rows[index], plan.costs[index]
    quantizer = layer.quantizer
    channels, height, width = layer.out_shape
    activations = channels * height * width
    return {
        "name": layer.name,
        "kind": layer.kind,
        "conv_shape": list(layer.conv_shape),
        "out_shape": list(layer.out_shape),
        "macs": layer.macs,
        "activations": activations,
        "bits": quantizer.bits if quantizer else 64,
        "scheme": quantizer.scheme if quantizer else "raw",
        "weights": _weights(plan, index),
        "sqnr_db": layer.sqnr_db,
        "nb_bits": activations * quantizer.bits if quantizer else None,
        "packed_bytes": row.output_words * WORD_BYTES,
        "memory": _places(row),
        "chunks": row.chunks,
        **cost.totals,
        "utilisation": plan.array.efficiency(layer.macs * plan.images, cost.cycles),
        "counts": dict(cost.counts),
    }


def _places(row: Row) -> dict[str, Any]:
    """Where the inputs and the output of a layer are: "ddr", "A" or "B"; "copy" of a DDR input."""
    read = "AB"[row.chip_swap]
    names = {Place.DDR: "ddr", Place.CHIP: read, Place.CACHE: f"ddr, copy in {read}"}
    places = [row.in_chip, row.in2_chip][: row.sources]
    return {"inputs": [names[Place(place)] for place in places], "output": row.output_place}


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
    layer = plan.layers[index]
    if not layer.has_weights:
        return None
    stored = layer.stored
    return {
        "bits": stored.bits,
        "table_entries": 0 if stored.table is None else int(stored.table.size),
    }


def _memory(plan: Design) -> dict[str, Any]:
    layers = plan.network.layers
    packed = [row.output_words for row in plan.rows if not row.raw]
    return {
        **dict(stored_footprint(layers)),
        "packed_bytes": sum(packed) * WORD_BYTES,
        "peak_live_bytes": plan.peak_words() * WORD_BYTES,
        "peak_live_bytes_without_input": plan.peak_words(with_input=False) * WORD_BYTES,
        "arena_bytes": plan.arena.words * WORD_BYTES,
        "chip_bytes": sum(plan.sizes.chip_words) * WORD_BYTES if plan.chip.words != (0, 0) else 0,
        "ddr": ddr_traffic(plan),
        "weight_bytes": plan.weight_words * WORD_BYTES,
        "weight_section_bytes": plan.weight_words // plan.array.weight_ports * WORD_BYTES,
        "conv_before_pool": paper_footprint(layers),
    }


def stored_footprint(layers: tuple[Layer, ...]) -> Footprint:
    """What is stored: every quantized output after its pool. The raw last layer does not count."""
    return _footprint([(layer.out_shape, layer) for layer in layers])


def paper_footprint(layers: tuple[Layer, ...]) -> Footprint:
    """The papers' count: outputs of the convolutional layers before their pool."""
    return _footprint([(layer.conv_shape, layer) for layer in layers if layer.kind == "conv"])


def _footprint(items: list[tuple[tuple[int, int, int], Layer]]) -> Footprint:
    counts = [(prod(shape), item.quantizer.bits) for shape, item in items if item.quantizer]
    activations, bits = sum(count for count, _ in counts), sum(map(prod, counts))
    half = 16 * activations
    ratio = bits / half if half else 0.0
    return Footprint(activations=activations, nb_bits=bits, half_precision_bits=half, ratio=ratio)


def _performance(plan: Design) -> dict[str, Any]:
    macs = sum(layer.macs for layer in plan.layers) * plan.images
    ideal = ceil_div(macs, plan.array.multipliers)
    return {
        "clock_mhz": plan.part.clock_mhz,
        "cycles": plan.cycles,
        "efficiency": ideal / plan.cycles,
        "seconds": plan.seconds,
        "images_per_second": plan.images / plan.seconds,
    }


def _resources(plan: Design) -> dict[str, Any]:
    used, part = plan.resources, plan.part
    return {
        "estimate": asdict(used),
        "available": {name: getattr(part, name) for name in RESOURCES},
        "memories": [
            {
                "name": item.name,
                "banks": item.banks * item.copies,
                "depth": item.depth,
                "width": item.width,
                "bram36": item.bram18 / 2,
                "uram": item.uram,
            }
            for item in plan.memories
        ],
    }
