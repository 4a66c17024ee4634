# SPDX-License-Identifier: Apache-2.0
"""Cycles: iteration counts of every process of the engine, exactly as the C-simulation counts them.

A layer is a sequence of passes (tile, chunk). Within a pass the processes overlap, and so does the
loading of the next pass's weights:
    cycles = load(0) + sum over p of max(body(p), load(p+1)),  body = max over the other processes.
The counts per pass are those of docs/formats.md, section 7.
"""

from dataclasses import dataclass, fields
from functools import lru_cache
from operator import attrgetter

import numpy as np

from nuq.codegen.design.array import Array
from nuq.codegen.design.rows import Place, Row
from nuq.formats.arithmetic import BLOCK_CODES, ceil_div
from nuq.formats.design import STAGES, TRAFFIC
from nuq.formats.packing import WORD_BYTES, touched_words

# Steps of `compute` between writing a sum that waits for the next pass and reading it, at the
# least: the stages of its pipeline between these two, and some to spare.
SUM_DISTANCE = 16

_COUNTED = tuple(item.name for item in fields(Row) if item.metadata["cost"])
_counted = attrgetter(*_COUNTED)


@dataclass(frozen=True)
class LayerCost:
    """Counts of one layer for some images."""

    counts: dict[str, int]  # iterations of each stage, in all passes
    cycles: int
    # words of feature maps between DRAM and chip: `counts` hold those that stay on chip, too
    ddr_read: int
    ddr_written: int
    weight_ports: int = 1  # words of weights that an iteration of `load` brings

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

    @property
    def bytes_moved(self) -> int:
        """Bytes between DRAM and chip."""
        return self.bytes_read + self.bytes_written + self.bytes_weights

    @property
    def totals(self) -> dict[str, int]:
        """What the C-simulation counts beside the stages, by the names of report and design."""
        return {name: getattr(self, name) for name in ("cycles", *TRAFFIC)}


def layer_cost(row: Row, array: Array, images: int) -> LayerCost:
    """Counts of one layer for a batch; kept, as the planner asks for one layer in many designs."""
    return _layer_cost(_counted(row), array, images)


@lru_cache(maxsize=1 << 14)
def _layer_cost(counted: tuple[int, ...], array: Array, images: int) -> LayerCost:
    row = Row(**dict(zip(_COUNTED, counted, strict=True)))
    counts = stage_counts(row, array, images)
    load = counts["load"]
    body = np.maximum.reduce([counts[stage] for stage in STAGES[1:]])
    cycles = int(load[0] + np.maximum(body, np.append(load[1:], 0)).sum())
    totals = {stage: int(counts[stage].sum()) for stage in STAGES}
    written = 0 if row.out_chip else totals["write"]
    read = images * _ddr_read(row, array)
    return LayerCost(totals, cycles, read, written, array.weight_ports)


def stage_counts(row: Row, array: Array, images: int) -> dict[str, np.ndarray]:
    """Iterations of every stage in every pass, int64 [passes] each."""
    counts = _pass_counts(row, array, images)
    chunks = row.chunks
    for stage, values in _tile_counts(row, array, images).items():
        counts[stage] = np.zeros_like(counts["load"])
        counts[stage][chunks - 1 :: chunks] = values
    waiting = np.arange(len(counts["compute"])) % chunks != chunks - 1
    counts["compute"] = counts["compute"] + SUM_DISTANCE * waiting
    counts["load"] = counts["load"].copy()
    counts["load"][0] += row.weight_table  # the codebook, an entry a cycle
    return counts


def array_work(row: Row, array: Array, images: int) -> np.ndarray:
    """Cycles in which the multiplier array has something to do, int64 [passes]."""
    steps = np.array([row.steps(int(blocks), array) for blocks in pass_blocks(row, array)])
    return images * row.pixel_groups(array) * steps


def input_words(row: Row, second: bool, array: Array) -> int:
    """Words of one image that all passes of a layer read of its first or second input."""
    words = _source_counts(row, second, row.rows_used)[0]
    if row.is_conv:
        return words * row.blocks * (1 if row.resident else row.tiles)
    return words * int(pass_blocks(row, array).sum())


def cached_words(row: Row) -> int:
    """Words of one image that a layer reads from DRAM where it caches its input: each once."""
    plane = ceil_div(row.rows_used * row.in_width * row.in_bits, WORD_BYTES)
    return plane * row.blocks * row.conv_groups


def _ddr_read(row: Row, array: Array) -> int:
    """Words of one image that a layer reads from DRAM."""
    total = 0
    for second in range(row.sources):
        place = row.in2_chip if second else row.in_chip
        if place == Place.DDR:
            total += input_words(row, bool(second), array)
        elif place == Place.CACHE:
            total += cached_words(row)
    return total


def batches(images: int, batch: int) -> list[tuple[int, int]]:
    """(images, how many) of the batches of at most `batch` images.

    >>> batches(7, 3), batches(2, 3)
    ([(3, 2), (1, 1)], [(2, 1)])
    """
    sizes = ((batch, images // batch), (images % batch, 1))
    return [(size, times) for size, times in sizes if size and times]


def batched_cost(row: Row, array: Array, images: int, batch: int) -> LayerCost:
    """Cost of `images` images in batches of at most `batch`."""
    costs = [(layer_cost(row, array, size), times) for size, times in batches(images, batch)]
    return LayerCost(
        {stage: sum(times * cost.counts[stage] for cost, times in costs) for stage in STAGES},
        sum(times * cost.cycles for cost, times in costs),
        sum(times * cost.ddr_read for cost, times in costs),
        sum(times * cost.ddr_written for cost, times in costs),
        array.weight_ports,
    )


def pass_blocks(row: Row, array: Array) -> np.ndarray:
    """int64 [passes]: channel blocks of each source that a pass reads.

    The tiles of a convolution are alike; those of an operation read the planes that they write (and
    a normalisation one more on either side).
    """
    if not row.is_conv:
        return np.asarray(written_planes(row, array) + row.margin(array))
    return np.tile(np.array(row.chunk_sizes, dtype=np.int64), row.tiles)


def written_planes(row: Row, array: Array) -> np.ndarray:
    """int64 [tiles]: output planes of each tile."""
    step = row.planes(array)
    first = np.arange(row.tiles, dtype=np.int64) % row.tiles_per_group * step
    return np.minimum(step, row.group_out_planes - first)


def _pass_counts(row: Row, array: Array, images: int) -> dict[str, np.ndarray]:
    """Counts of every pass, int64 [passes] each."""
    blocks = pass_blocks(row, array)
    distinct, kind = np.unique(blocks, return_inverse=True)
    lengths = np.array([row.steps(int(item), array) for item in distinct])
    load = np.zeros_like(blocks)
    if row.is_conv:
        load = lengths[kind] * row.row_words
        load[:: row.chunks] += row.head_words(array)
    first_rows = int(row.rows_needed[0])
    # a pass takes in the first rows of the next one, whose blocks `following` has
    ahead = row.is_conv and row.prefetch_next and not row.resident
    following = np.append(blocks[1:], 0) if ahead else np.zeros_like(blocks)
    counts = {"load": load, "read": np.zeros_like(blocks), "unpack": np.zeros_like(blocks)}
    for second in [False, True][: row.sources]:
        whole = _source_counts(row, second, row.rows_used)
        part = _source_counts(row, second, first_rows)
        for stage, every, first in zip(("read", "unpack"), whole, part, strict=True):
            counts[stage] += images * every * blocks + first * following
            counts[stage][1:] -= first * following[:-1]
    compute = [_compute(row, array, images, int(item), int(length))
               for item, length in zip(distinct, lengths, strict=True)]  # fmt: skip
    width = row.in_width
    counts["compute"], work, last = np.array(compute)[kind].T
    counts["compute"] += np.maximum(last + first_rows * width * following, work)
    counts["compute"] -= np.maximum(last, work)
    if ahead:
        counts["compute"][1:] -= first_rows * width * blocks[1:]
    if row.resident:
        counts["read"][1:] = counts["unpack"][1:] = 0
        counts["compute"][1:] = images * row.conv_height * work[1:]
    return counts


def _source_counts(row: Row, second: bool, rows: int) -> tuple[int, int]:
    """Words and unpacking steps of so many rows of a plane of one of the inputs.

    >>> _source_counts(Row(in_width=13, in2_bits=12, in2_repeat=1), True, 3)
    (6, 42)
    """
    if second and row.in2_repeat:  # its words for every row, a step for every column
        words = ceil_div(row.in2_bits, WORD_BYTES)
        return rows * words, rows * (row.in_width + words - 1)
    return _row_counts(rows, row.in_width, row.in2_bits if second else row.in_bits)


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


def _compute(row: Row, array: Array, images: int, blocks: int, length: int) -> tuple[int, int, int]:
    """The compute process in a pass of so many blocks, `length` cycles a group of pixels.

    Returns:
        Its cycles where no other pass helps, the multipliers' for one output row, and the blocks
        taken in during the last row of the last image.
    """
    needed = row.rows_needed
    row_blocks = row.in_width * blocks * row.sources
    work = row.groups(array) * length
    # blocks that arrive during each output row
    arriving = np.diff(np.append(needed, row.rows_used)) * row_blocks
    first_rows = int(needed[0]) * row_blocks
    last = int(arriving[-1])
    rows = int(np.maximum(arriving[:-1], work).sum())
    if row.prefetch_next:
        others = (images - 1) * (rows + max(last + first_rows, work))
        return first_rows + others + rows + max(last, work), work, last
    return images * (first_rows + rows + max(last, work)), work, last


def _tile_counts(row: Row, array: Array, images: int) -> dict[str, np.ndarray]:
    """Counts of a tile's last chunk, int64 [tiles] each."""
    pixels = images * row.conv_height * row.conv_width
    stored = images * row.out_height * row.out_width
    number = np.arange(row.tiles, dtype=np.int64)
    if row.raw:
        lanes = row.planes(array) * BLOCK_CODES
        words = stored * np.minimum(lanes, row.out_channels - number * lanes)
        finish, pool = np.full_like(number, pixels), np.zeros_like(number)
        return {"finish": finish, "pool": pool, "pack": words, "write": words}
    planes = written_planes(row, array)
    window = row.pool_h * row.pool_w if row.pooled else 0
    steps = 2 if row.out_bits > WORD_BYTES else 1
    return {
        "finish": np.full_like(number, pixels * row.pixel_steps(array)),
        "pool": np.full_like(number, pixels + stored * window),
        # a row of several planes, or that is stored at several places, is collected first
        "pack": stored * (((planes > 1) | (row.places > 1)) + planes * steps * row.places)
        + images * planes,
        "write": images * row.out_plane_words // max(1, row.interleave) * planes,
    }
