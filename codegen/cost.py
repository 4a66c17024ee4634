# SPDX-License-Identifier: Apache-2.0
"""Cycles: iteration counts of every process of the engine, exactly as the C-simulation counts them.

A layer is a sequence of passes (tile, chunk). Within a pass the processes overlap, and so does the
loading of the next pass's weights:
    cycles = load(0) + sum over p of max(body(p), load(p+1)),  body = max over the other processes.
The counts per pass are those of docs/formats.md. Imports numpy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from codegen.numbers import ceil_div
from codegen.packing import BLOCK_CODES, WORD_BYTES, touched_words
from codegen.table import (
    OP_CONV,
    PLACE_CACHE,
    PLACE_DDR,
    Row,
    bias_words,
    kernel_taps,
    rows_needed,
    tile_planes,
    tiles,
)

STAGES = ("load", "read", "unpack", "compute", "finish", "pool", "pack", "write")


@dataclass(frozen=True)
class Engine:
    """The parameters of the engine that cycles depend on."""

    simd: int
    pe: int
    qk_units: int
    weight_ports: int = 1


@dataclass(frozen=True)
class LayerCost:
    """Counts of one layer for a batch.

    Attributes:
        counts: iterations per stage, summed over passes.
        cycles: of the whole layer.
        ddr_read, ddr_written: words of feature maps that pass between DRAM and chip; counts of read
            and write also hold those that stay on chip.
        weight_ports: words of weights that an iteration of `load` brings.
    """

    counts: dict[str, int]
    cycles: int
    ddr_read: int
    ddr_written: int
    weight_ports: int = 1

    @property
    def bytes_read(self) -> int:
        """Bytes of feature maps read from DRAM."""
        return WORD_BYTES * self.ddr_read

    @property
    def bytes_written(self) -> int:
        """Bytes of feature maps written to DRAM."""
        return WORD_BYTES * self.ddr_written

    @property
    def bytes_weights(self) -> int:
        """Bytes of codebooks, weights and biases read, through all ports."""
        return WORD_BYTES * self.weight_ports * self.counts["load"]

    def __add__(self, other: LayerCost) -> LayerCost:
        """Costs of two batches, one after the other."""
        counts = {stage: self.counts[stage] + other.counts[stage] for stage in STAGES}
        return LayerCost(
            counts,
            self.cycles + other.cycles,
            self.ddr_read + other.ddr_read,
            self.ddr_written + other.ddr_written,
            self.weight_ports,
        )

    def times(self, batches: int) -> LayerCost:
        """Cost of equal batches, one after the other."""
        counts = {stage: count * batches for stage, count in self.counts.items()}
        return LayerCost(
            counts,
            self.cycles * batches,
            self.ddr_read * batches,
            self.ddr_written * batches,
            self.weight_ports,
        )


def layer_cost(row: Row, engine: Engine, images: int) -> LayerCost:
    """Iteration counts and cycles of one layer for a batch of images."""
    shape = (tiles(row), row["chunks"])
    blocks = pass_blocks(row, engine)
    counts = {
        stage: np.broadcast_to(values, shape).reshape(-1)
        for stage, values in _pass_counts(row, engine, images, blocks).items()
    }
    for stage, values in _tile_counts(row, engine, images).items():
        grid = np.zeros(shape, dtype=np.int64)
        grid[:, -1] = values
        counts[stage] = grid.reshape(-1)
    body = np.maximum.reduce([counts[stage] for stage in STAGES[1:]])
    load = counts["load"] = counts["load"].copy()
    load[0] += row["weight_table"]  # the codebook, an entry a cycle
    cycles = int(load[0] + np.maximum(body, np.append(load[1:], 0)).sum())
    totals = {stage: int(counts[stage].sum()) for stage in STAGES}
    written = 0 if row["out_chip"] else totals["write"]
    read = images * _ddr_read(row, engine)
    return LayerCost(totals, cycles, read, written, engine.weight_ports)


def input_words(row: Row, second: bool, engine: Engine) -> int:
    """Words of one image that all passes of a layer read of its first or second input."""
    bits = row["in2_bits"] if second else row["in_bits"]
    words = _row_counts(row["rows_used"], row["in_width"], bits)[0]
    if row["op"] == OP_CONV:
        return words * row["blocks"] * tiles(row)
    return words * int(pass_blocks(row, engine).sum())


def cached_words(row: Row) -> int:
    """Words of one image that a layer reads from DRAM where it caches its input: each once."""
    plane = ceil_div(row["rows_used"] * row["in_width"] * row["in_bits"], WORD_BYTES)
    return plane * row["blocks"] * row["conv_groups"]


def _ddr_read(row: Row, engine: Engine) -> int:
    """Words of one image that a layer reads from DRAM."""
    total = 0
    for second in range(row["sources"]):
        place = row["in2_chip"] if second else row["in_chip"]
        if place == PLACE_DDR:
            total += input_words(row, bool(second), engine)
        elif place == PLACE_CACHE:
            total += cached_words(row)
    return total


def batched_cost(row: Row, engine: Engine, images: int, batch: int) -> LayerCost:
    """Cost of `images` images in batches of at most `batch`."""
    full, rest = divmod(images, batch)
    total = layer_cost(row, engine, min(batch, images)).times(max(full, 1))
    return total + layer_cost(row, engine, rest) if full and rest else total


def pass_blocks(row: Row, engine: Engine) -> np.ndarray:
    """int64: channel blocks of each source that a pass reads.

    [chunks] for a convolution, whose tiles are alike; [tiles, 1] for an operation, whose tiles read
    the planes that they write (and a normalisation one more on either side).
    """
    if row["op"] != OP_CONV:
        margin = engine.pe // BLOCK_CODES - tile_planes(row["op"], engine.pe)
        return (written_planes(row, engine) + margin)[:, None]
    bank = engine.simd // BLOCK_CODES
    start = np.arange(row["chunks"], dtype=np.int64) * row["chunk_groups"] * bank
    return np.minimum(row["blocks"] - start, row["chunk_groups"] * bank)


def written_planes(row: Row, engine: Engine) -> np.ndarray:
    """int64 [tiles]: output planes of each tile."""
    step = tile_planes(row["op"], engine.pe)
    first = np.arange(tiles(row), dtype=np.int64) % row["tiles_per_group"] * step
    return np.minimum(step, row["group_out_planes"] - first)


def _pass_counts(
    row: Row, engine: Engine, images: int, blocks: np.ndarray
) -> dict[str, np.ndarray]:
    """Counts of every pass, int64 in the shape of `blocks` each."""
    groups = -(-blocks // (engine.simd // BLOCK_CODES)) * row["sources"]
    load = np.zeros_like(blocks)
    if row["op"] == OP_CONV:
        load = kernel_taps(row) * groups * row["row_words"]
        load[0] += bias_words(engine.pe, engine.weight_ports)
    widths = [row["in_bits"], row["in2_bits"]][: row["sources"]]
    sizes = [_row_counts(row["rows_used"], row["in_width"], bits) for bits in widths]
    return {
        "load": load,
        "read": images * sum(words for words, _ in sizes) * blocks,
        "unpack": images * sum(steps for _, steps in sizes) * blocks,
        "compute": _compute(row, images, blocks * row["sources"], groups),
    }


def _row_counts(rows: int, width: int, bits: int) -> tuple[int, int]:
    """Words and unpacking steps of one plane's rows.

    >>> _row_counts(3, 13, 3), _row_counts(1, 2, 16)
    ((17, 41), (4, 4))
    """
    words = int(touched_words(rows, width, bits).sum())
    if bits > WORD_BYTES:
        return words, words
    offset = np.arange(rows, dtype=np.int64) * (width * bits) % WORD_BYTES
    return words, int((width + (WORD_BYTES - offset < bits)).sum())


def _compute(row: Row, images: int, blocks: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Iterations of the compute process, int64 in the shape of `blocks`."""
    needed = rows_needed(row)
    arriving = np.diff(np.append(needed, row["rows_used"]))  # during each output row
    arriving = arriving.reshape(-1, *([1] * blocks.ndim))
    row_blocks = row["in_width"] * blocks
    work = row["conv_width"] * kernel_taps(row) * groups
    first_rows = int(needed[0])
    last_image = np.maximum(arriving * row_blocks, work).sum(axis=0)
    if not row["prefetch_next"]:
        return np.asarray(images * (first_rows * row_blocks + last_image))
    ahead = arriving.copy()
    ahead[-1] += first_rows
    earlier_image = np.maximum(ahead * row_blocks, work).sum(axis=0)
    return np.asarray(first_rows * row_blocks + (images - 1) * earlier_image + last_image)


def _tile_counts(row: Row, engine: Engine, images: int) -> dict[str, np.ndarray]:
    """Counts of a tile's last chunk, int64 [tiles] each."""
    pixels = images * row["conv_height"] * row["conv_width"]
    stored = images * row["out_height"] * row["out_width"]
    number = np.arange(tiles(row), dtype=np.int64)
    if row["raw"]:
        lanes = np.minimum(engine.pe, row["out_channels"] - number * engine.pe)
        zero = np.zeros_like(number)
        return {
            "finish": zero + pixels,
            "pool": zero,
            "pack": stored * lanes,
            "write": stored * lanes,
        }
    planes = written_planes(row, engine)
    window = row["pool_h"] * row["pool_w"]
    pooled = window > 1 or row["pool_stride_h"] * row["pool_stride_w"] > 1
    steps = 2 if row["out_bits"] > WORD_BYTES else 1
    return {
        "finish": np.full_like(number, pixels * ceil_div(engine.pe, engine.qk_units)),
        "pool": np.full_like(number, pixels + (stored * window if pooled else 0)),
        "pack": stored * (1 + planes * steps) + images * planes,
        "write": images * row["out_plane_words"] * planes,
    }
