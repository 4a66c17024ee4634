# SPDX-License-Identifier: Apache-2.0
"""params/program.bin of a design: a record for each layer, its row and its tables.

KNQ tables have as many entries as the engine's largest.
"""

import numpy as np

from nuq.codegen.design.design import Design
from nuq.formats.build import digest
from nuq.formats.network import Layer
from nuq.formats.program import Program, Record
from nuq.formats.quantizer import Quantizer


def make_program(design: Design, engine_id: str, weight_checks: list[int]) -> Program:
    """The program of a design; its network ID stands for records and weights.

    Args:
        design: what is to run.
        engine_id: of the engine, 8 hexadecimal digits.
        weight_checks: CRC-32 of each layer's weights.
    """
    records = [
        Record(row.values, layer_tables(design, layer), bool(row.chip_swap))
        for layer, row in zip(design.layers, design.rows, strict=True)
    ]
    content = [design.network.name, weight_checks, [record.words.tolist() for record in records]]
    return Program.of(int(engine_id, 16), int(digest(content)[:8], 16), records)


def layer_tables(design: Design, layer: Layer) -> list[np.ndarray]:
    """What follows the row: centroids of each input, thresholds, factors of a normalisation."""
    levels = design.sizes.knq_levels
    sources = [design.network.quantizer(name) for name in layer.inputs]
    tables = [centroids(item, levels) for item in sources if item and item.scheme == "knq"]
    if layer.quantizer and layer.quantizer.scheme == "knq":
        tables.append(thresholds(layer.quantizer, levels))
    if layer.lrn:
        tables.append(layer.lrn.table)
    return tables


def centroids(quantizer: Quantizer, levels: int) -> np.ndarray:
    """int32 [levels]: the value of each code; those of no code repeat the last."""
    if quantizer.centroid is None:
        raise ValueError("a KNQ quantizer has centroids")
    return np.pad(quantizer.centroid, (0, levels - quantizer.centroid.size), "edge")


def thresholds(quantizer: Quantizer, levels: int) -> np.ndarray:
    """int32 [levels]: the smallest value of each code; of no code y_max + 1, never reached."""
    if quantizer.threshold is None:
        raise ValueError("a KNQ quantizer has thresholds")
    missing = levels - quantizer.threshold.size
    return np.pad(quantizer.threshold, (0, missing), constant_values=quantizer.y_max + 1)
