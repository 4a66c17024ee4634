# SPDX-License-Identifier: Apache-2.0
"""The report of a plan: what was generated and what it costs.

Memory figures follow the papers (NB, elements times bits summed over the layers, and its ratio to
half precision: IEEE papers 000/001, table V) and the memory map (packed bytes, peak live bytes).
What the driver must know, too, is read from the driver's view of the design.
"""

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from nuq.codegen import VERSION
from nuq.codegen.design.design import Design
from nuq.codegen.design.rows import Place, Row
from nuq.codegen.emit import golden
from nuq.codegen.emit.codes import occurring
from nuq.codegen.emit.report_model import Footprint, Layer, Report
from nuq.formats import design as board
from nuq.formats import network
from nuq.formats.arithmetic import ceil_div
from nuq.formats.packing import WORD_BYTES
from nuq.formats.rules import INPUT


def build_report(plan: Design, driver: board.Design, settings_sha256: str) -> Report:
    """The report of a plan and of its design.json, before any C-simulation."""
    array = plan.array
    with golden.open_vectors(plan.network.folder) as vectors:
        layers = [_layer(plan, index, one, vectors) for index, one in enumerate(driver.layers)]
    schemes = {layer.scheme for layer in driver.layers} - {"raw"}
    content = {
        "generator": f"codegen {VERSION}",
        "settings_sha256": settings_sha256,
        "arrays_sha256": plan.network.arrays_sha256,
        "network": driver.network,
        "weights": plan.network.weights,
        "engine_id": driver.engine_id,
        "network_id": driver.network_id,
        "preprocessing": driver.preprocessing,
        "calibration": plan.network.calibration,
        "part": driver.part,
        "scheme": "mixed" if len(schemes) > 1 else "".join(schemes) or "raw",
        "images": plan.images,
        "engine": {
            "simd": array.simd,
            "pe": array.pe,
            "pixels": array.pixels,
            "weight_bits": plan.sizes.weight_bits,
            "weight_ports": array.weight_ports,
            "batch": plan.batch,
        },
        "layers": layers,
        "memory": _memory(plan, driver),
        "performance": _performance(plan),
        "resources": _resources(plan),
        "accuracy": driver.accuracy,
    }
    return Report.model_validate(content)


def _layer(
    plan: Design, index: int, stored: board.Layer, vectors: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    layer, row, cost = plan.network.layers[index], plan.rows[index], plan.costs[index]
    shared = {name: value for name, value in vars(stored).items() if name in Layer.model_fields}
    weights = {
        "bits": stored.weight_bits, "table_entries": row.weight_table,
        "scaled": layer.weight_scale is not None,
    }  # fmt: skip
    return {
        **shared,
        "conv_shape": layer.conv_shape,
        "activations": stored.codes,
        "weights": weights if layer.has_weights else None,
        "sqnr_db": layer.sqnr_db,
        "nb_bits": stored.codes * stored.bits if layer.quantizer else None,
        "packed_bytes": stored.out_words * WORD_BYTES,
        "memory": {"inputs": _inputs(row), "output": stored.memory},
        "chunks": row.chunks,
        "seconds": plan.part.seconds(cost.cycles, cost.bytes_moved),
        "dram_bound": layer.name in plan.dram_bound,
        "utilisation": plan.array.efficiency(layer.macs * plan.images, cost.cycles),
        "counts": cost.counts,
        "codes": layer.quantizer and occurring(layer.quantizer, vectors[layer.name][: plan.images]),
    }


def _inputs(row: Row) -> list[str]:
    """Where the inputs of a layer are: "ddr", "A" or "B"; "copy" of a DDR input."""
    memory = "AB"[row.chip_swap]
    names = {Place.DDR: "ddr", Place.CHIP: memory, Place.CACHE: f"ddr, copy in {memory}"}
    return [names[Place(place)] for place in (row.in_chip, row.in2_chip)[: row.sources]]


def ddr_traffic(plan: Design) -> dict[str, int]:
    """Bytes of feature maps between DRAM and chip, for all images: input, results, the rest."""
    pairs = list(zip(plan.layers, plan.costs, strict=True))
    reads = sum(cost.bytes_read for layer, cost in pairs if INPUT in layer.inputs)
    writes = sum(cost.bytes_written for layer, cost in pairs if layer.quantizer is None)
    return {
        "input_bytes": reads,
        "output_bytes": writes,
        "other_bytes": plan.activation_bytes - reads - writes,
    }


def _memory(plan: Design, driver: board.Design) -> dict[str, Any]:
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
        "program_bytes": driver.program_bytes,
        "weight_bytes": plan.weight_words * WORD_BYTES,
        "weight_section_bytes": plan.weight_words // plan.array.weight_ports * WORD_BYTES,
        "conv_before_pool": paper_footprint(layers),
    }


def stored_footprint(layers: tuple[network.Layer, ...]) -> Footprint:
    """What is stored: every quantized output after its pool. Heads, which are raw, do not count."""
    return _footprint([(layer.out_shape, layer) for layer in layers])


def paper_footprint(layers: tuple[network.Layer, ...]) -> Footprint:
    """The papers' count: outputs of the convolutional layers before their pool."""
    return _footprint([(layer.conv_shape, layer) for layer in layers if layer.kind == "conv"])


def _footprint(items: list[tuple[tuple[int, int, int], network.Layer]]) -> Footprint:
    counts = [(prod(shape), item.quantizer.bits) for shape, item in items if item.quantizer]
    activations, bits = sum(count for count, _ in counts), sum(map(prod, counts))
    half = 16 * activations
    ratio = bits / half if half else 0.0
    return Footprint(activations=activations, nb_bits=bits, half_precision_bits=half, ratio=ratio)


def _performance(plan: Design) -> dict[str, Any]:
    macs = sum(layer.macs for layer in plan.layers) * plan.images
    return {
        "clock_mhz": plan.part.clock_mhz,
        "dram_gbs": plan.part.sustained_gbs,
        "cycles": plan.cycles,
        "efficiency": ceil_div(macs, plan.array.products) / plan.cycles,
        "seconds": plan.seconds,
        "images_per_second": plan.images / plan.seconds,
    }


def _resources(plan: Design) -> dict[str, Any]:
    return {
        "estimate": plan.resources,
        "available": plan.part,
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
