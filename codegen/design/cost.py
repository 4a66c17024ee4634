# SPDX-License-Identifier: Apache-2.0
"""Cycles: iteration counts of every process of the engine, exactly as the C-simulation counts them.

A layer is a sequence of passes (tile, chunk). Within a pass the processes overlap, and so does the
loading of the next pass's weights:
    cycles = load(0) + sum over p of max(body(p), load(p+1)),  body = max over the other processes.
The counts per pass are those of docs/formats.md, section 7.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from codegen.design.numbers import ceil_div
from codegen.design.rows import (
    OP_CONV,
    PLACE_CACHE,
    PLACE_DDR,
    Row,
    bias_words,
    chunk_sizes,
    rows_needed,
    steps,
    tile_planes,
    tiles,
)
from formats.packing import BLOCK_CODES, WORD_BYTES, touched_words

# Fields of the layer table that no count depends on.
_FREE = """
    in_addr out_addr in2_addr weight_addr bias_shift requant_shift y_max y_min
    in_shift in_half in_table out_shift out_half out_table in2_shift in2_half in2_table
"""
FREE_FIELDS = frozenset(_FREE.split())
STAGES = ("load", "read", "unpack", "compute", "finish", "pool", "pack", "write")


@dataclass(frozen=True)
class Engine:
    """The parameters of the engine that cycles depend on."""

    simd: int
    pe: int
    qk_units: int
    pixels: int = 1
    weight_ports: int = 1

    @property
    def multipliers(self) -> int:
        """Multiply-accumulates a cycle.

        >>> Engine(24, 8, 4, pixels=2).multipliers
        384
        """
        return self.simd * self.pe * self.pixels

    def efficiency(self, macs: int, cycles: int) -> float:
        """Share of the multiplier array's capacity that `macs` multiply-accumulates use."""
        return macs / (self.multipliers * cycles)


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
    """Iteration counts and cycles of one layer for a batch of images.

    Results are kept: the planner asks for the same layer in many designs.
    """
    key = tuple(item for item in row.items() if item[0] not in FREE_FIELDS)
    return _layer_cost(key, engine, images)


@lru_cache(maxsize=1 << 14)
def _layer_cost(key: tuple[tuple[str, int], ...], engine: Engine, images: int) -> LayerCost:
    row = dict(key)
    counts = stage_counts(row, engine, images)
    load = counts["load"]
    body = np.maximum.reduce([counts[stage] for stage in STAGES[1:]])
    cycles = int(load[0] + np.maximum(body, np.append(load[1:], 0)).sum())
    totals = {stage: int(counts[stage].sum()) for stage in STAGES}
    written = 0 if row["out_chip"] else totals["write"]
    read = images * _ddr_read(row, engine)
    return LayerCost(totals, cycles, read, written, engine.weight_ports)


def stage_counts(row: Row, engine: Engine, images: int) -> dict[str, np.ndarray]:
    """Iterations of every stage in every pass, int64 [passes] each."""
    counts = _pass_counts(row, engine, images)
    chunks = row["chunks"]
    for stage, values in _tile_counts(row, engine, images).items():
        counts[stage] = np.zeros_like(counts["load"])
        counts[stage][chunks - 1 :: chunks] = values
    counts["load"] = counts["load"].copy()
    counts["load"][0] += row["weight_table"]  # the codebook, an entry a cycle
    return counts


def array_work(row: Row, engine: Engine, images: int) -> np.ndarray:
    """Cycles in which the multiplier array has something to do, int64 [passes]."""
    groups = images * row["conv_height"] * ceil_div(row["conv_width"], engine.pixels)
    blocks = pass_blocks(row, engine)
    return groups * np.array([steps(row, int(item), engine.simd) for item in blocks])


def input_words(row: Row, second: bool, engine: Engine) -> int:
    """Words of one image that all passes of a layer read of its first or second input."""
    bits = row["in2_bits"] if second else row["in_bits"]
    words = _row_counts(row["rows_used"], row["in_width"], bits)[0]
    if row["op"] == OP_CONV:
        return words * row["blocks"] * (1 if row["resident"] else tiles(row))
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
    """int64 [passes]: channel blocks of each source that a pass reads.

    The tiles of a convolution are alike; those of an operation read the planes that they write (and
    a normalisation one more on either side).
    """
    if row["op"] != OP_CONV:
        margin = engine.pe // BLOCK_CODES - tile_planes(row["op"], engine.pe)
        return np.asarray(written_planes(row, engine) + margin)
    return np.tile(np.array(chunk_sizes(row), dtype=np.int64), tiles(row))


def written_planes(row: Row, engine: Engine) -> np.ndarray:
    """int64 [tiles]: output planes of each tile."""
    step = tile_planes(row["op"], engine.pe)
    first = np.arange(tiles(row), dtype=np.int64) % row["tiles_per_group"] * step
    return np.minimum(step, row["group_out_planes"] - first)


def _pass_counts(row: Row, engine: Engine, images: int) -> dict[str, np.ndarray]:
    """Counts of every pass, int64 [passes] each."""
    blocks = pass_blocks(row, engine)
    distinct, kind = np.unique(blocks, return_inverse=True)
    lengths = np.array([steps(row, int(item), engine.simd) for item in distinct])
    load = np.zeros_like(blocks)
    if row["op"] == OP_CONV:
        load = lengths[kind] * row["row_words"]
        load[:: row["chunks"]] += bias_words(engine.pe, engine.weight_ports)
    first_rows = int(rows_needed(row)[0])
    # a pass takes in the first rows of the next one, whose blocks `following` has
    ahead = row["op"] == OP_CONV and row["prefetch_next"] and not row["resident"]
    following = np.append(blocks[1:], 0) if ahead else np.zeros_like(blocks)
    counts = {"load": load, "read": np.zeros_like(blocks), "unpack": np.zeros_like(blocks)}
    for bits in [row["in_bits"], row["in2_bits"]][: row["sources"]]:
        whole = _row_counts(row["rows_used"], row["in_width"], bits)
        part = _row_counts(first_rows, row["in_width"], bits)
        for stage, every, first in zip(("read", "unpack"), whole, part, strict=True):
            counts[stage] += images * every * blocks + first * following
            counts[stage][1:] -= first * following[:-1]
    compute = [_compute(row, engine, images, int(item), int(length))
               for item, length in zip(distinct, lengths, strict=True)]  # fmt: skip
    width = row["in_width"]
    last = np.array([item.last_arriving for item in compute])[kind]
    work = np.array([item.row_work for item in compute])[kind]
    counts["compute"] = np.array([item.cycles for item in compute])[kind]
    counts["compute"] += np.maximum(last + first_rows * width * following, work)
    counts["compute"] -= np.maximum(last, work)
    if ahead:
        counts["compute"][1:] -= first_rows * width * blocks[1:]
    if row["resident"]:
        counts["read"][1:] = counts["unpack"][1:] = 0
        counts["compute"][1:] = images * row["conv_height"] * work[1:]
    return counts


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


@dataclass(frozen=True)
class _Compute:
    """The compute process in a pass that no other pass helps.

    Attributes:
        cycles: of the whole pass.
        row_work: cycles of the multiplier array for one output row.
        last_arriving: blocks taken in during the last row of the last image.
    """

    cycles: int
    row_work: int
    last_arriving: int


def _compute(row: Row, engine: Engine, images: int, blocks: int, length: int) -> _Compute:
    """Iterations of the compute process in a pass of so many blocks, `length` cycles a group."""
    needed = rows_needed(row)
    row_blocks = row["in_width"] * blocks * row["sources"]
    work = ceil_div(row["conv_width"], engine.pixels) * length
    # blocks that arrive during each output row
    arriving = np.diff(np.append(needed, row["rows_used"])) * row_blocks
    first_rows = int(needed[0]) * row_blocks
    last = int(arriving[-1])
    rows = int(np.maximum(arriving[:-1], work).sum())
    if row["prefetch_next"]:
        others = (images - 1) * (rows + max(last + first_rows, work))
        return _Compute(first_rows + others + rows + max(last, work), work, last)
    return _Compute(images * (first_rows + rows + max(last, work)), work, last)


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
