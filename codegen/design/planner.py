# SPDX-License-Identifier: Apache-2.0
"""The planner: how one network runs on one part with one array, in the fewest cycles that fit.

It chooses lane packing, the weight buffer's depth, chunks of input channels, the batch,
prefetching, and how many QK/QE units finish the pixels; then places feature maps and weights.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

from nuq.codegen.design.array import Array
from nuq.codegen.design.cost import batched_cost
from nuq.codegen.design.design import Design, assemble
from nuq.codegen.design.engine import Engine
from nuq.codegen.design.lowering import Lowered, lower
from nuq.codegen.design.memory import all_on_chip
from nuq.codegen.design.resources import estimate, shortage
from nuq.codegen.design.rows import Row
from nuq.codegen.design.sizes import Sizes, sizes_of
from nuq.formats.errors import UserError
from nuq.formats.hardware import Part
from nuq.formats.network import Network

WEIGHT_ROWS = (256, 512, 1024, 2048, 4096)
# entries of the line buffer: no limit, then ever more chunks
LINE_LIMITS = (1 << 30, 8192, 4096, 2048, 1024)
MAX_BATCH = 256
FINISH_SLACK = 0.002  # of all cycles may be lost to slow QK/QE units
NEAR_BEST = 0.005  # cycles given up for less block RAM
COMPACT_SLACK = 0.02  # cycles given up for a smaller packed input, which may fit on chip
MAX_RESIDENT = 1 << 14  # entries that a line buffer may grow to so that inputs fit it
MIN_LINE_ENTRIES = 512  # the depth of one RAMB18: a smaller line buffer saves nothing


@dataclass(frozen=True)
class Candidate:
    """One way to cut the network into chunks."""

    rows: tuple[Row, ...]
    sizes: Sizes
    cycles: int


def plan(network: Network, part: Part, array: Array | None = None, images: int = 1) -> Design:
    """Plan a network; UserError says what is short where nothing fits the part.

    With FM "auto" feature maps are on chip as far as the part goes; "chip" demands that all are;
    "ddr" has none there. No design takes more than `part.limit` of any resource.
    """
    array = array or Array()
    array.check_ports(part)
    if images < 1:
        raise UserError(f"BATCH must be 1 or more, not {images}")
    array = replace(array, qk_units=array.pe, factor_units=array.pe)
    lowered = lower(network, array, WEIGHT_ROWS[0])
    design = _plan(lowered, part, images)
    if array.fm == "ddr":
        return design
    packed = lower(network, array, WEIGHT_ROWS[0], compact=True)
    compact = design if packed.gather == lowered.gather else _plan(packed, part, images)
    missing, still_missing = (all_on_chip(network.layers, item.rows) for item in (design, compact))
    fewer_bytes = compact.activation_bytes < design.activation_bytes
    as_fast = compact.cycles <= design.cycles * (1 + COMPACT_SLACK)
    if (missing and not still_missing and array.fm == "chip") or (fewer_bytes and as_fast):
        design, missing = compact, still_missing
    if array.fm == "chip" and missing is not None:
        raise UserError(
            f"{network.name} with FM=chip: {part.name} must have room on chip for {missing}; "
            "use FM=auto, a smaller BATCH or PE, or a larger PART"
        )
    return design


def _plan(lowered: Lowered, part: Part, images: int) -> Design:
    """The design with one lane packing: the fastest, or the most compact."""
    network, base = lowered.network, lowered.rows()
    reasons: list[tuple[int, str]] = []
    for limit in LINE_LIMITS:
        fitting = []
        for candidate in _candidates(lowered, base, images, limit):
            for sizes in _unit_choices(candidate, images):
                reason = shortage(sizes, part)
                if reason is None:
                    fitting.append(replace(candidate, sizes=sizes))
                    break
                reasons.append((estimate(sizes, part).bram36, reason))
        for best in _order(fitting, part):
            design = assemble(lowered, part, images, best.rows, best.sizes)
            if lowered.array.fm != "chip" or all_on_chip(network.layers, design.rows) is None:
                break
        if fitting:
            return design
    if not reasons:
        raise UserError(f"{network.name}: {_too_large(lowered, base)}")
    raise UserError(
        f"{network.name} with {lowered.array} must fit {part.name}: "
        f"{min(reasons)[1]}; use a smaller PE or SIMD, or a larger PART"
    )


def plan_for(
    network: Network,
    engine: Engine,
    images: int = 1,
    fm: str = "auto",
    batches: Sequence[int] = (),
    ahead: bool = True,
) -> Design:
    """Plan a network for an engine that exists; UserError names all that it lacks.

    Args:
        network: to plan.
        engine: that runs it.
        images: for all calls together.
        fm: "auto": feature maps are on chip as far as the engine's memories go.
        batches: images a call worth a try; none given: what is sensible.
        ahead: use what is free of the line buffer.
    """  # fmt: skip
    if images < 1:
        raise UserError(f"BATCH must be 1 or more, not {images}")
    array, sizes = replace(engine.sizes.array, fm=fm), engine.sizes
    fitting: list[Design] = []
    refused: list[list[str]] = []
    for compact, batch in product((False, True), batches or _batches(min(images, sizes.batch))):
        lowered = lower(network, array, sizes.weight_rows, compact, sizes.weight_widths)
        rows = fit_rows(lowered, engine, batch if ahead else 0)
        steps = max((row.steps(row.chunk_blocks, array) for row in rows if row.is_conv), default=1)
        needed = sizes_of(lowered, rows, array, steps, batch, sizes.line_low_bits)
        lacks = engine.lacks(needed)
        if not lacks:
            design = assemble(lowered, engine.part, images, rows, needed, engine)
            missing = all_on_chip(network.layers, design.rows) if fm == "chip" else None
            lacks = [f"room on chip for {missing}"] if missing else []
        if lacks:
            refused.append(lacks)
        else:
            fitting.append(design)
    if fitting:
        return min(fitting, key=lambda design: (design.seconds, design.activation_bytes))
    _, shortest = min((len(lacks), lacks) for lacks in refused)
    raise UserError(
        f"{network.name}: the engine must have {'; '.join(shortest)}; "
        "leave ENGINE out, or make an engine that has"
    )


def fit_rows(lowered: Lowered, engine: Engine, batch: int) -> list[Row]:
    """The rows cut for an engine's buffers; where that cannot be, for larger ones.

    What is free of the line buffer is for `batch` images; 0: for nothing.
    """
    sizes, rows = engine.sizes, []
    for row in lowered.rows():
        wide = row.code_bits > sizes.line_low_bits
        limit = sizes.line_high_blocks if wide else sizes.line_blocks
        cut = row.cut(lowered.array, sizes.weight_rows, limit)
        if cut is not None and batch:
            cut = use_line_buffer(cut, batch, limit)
        cut = cut or row.cut(lowered.array, WEIGHT_ROWS[-1], LINE_LIMITS[0])
        if cut is None:
            raise UserError(f"{lowered.network.name}: {_too_large(lowered, lowered.rows())}")
        rows.append(cut)
    return rows


def _batches(most: int) -> list[int]:
    """Images a call worth a try, fewest first.

    >>> _batches(5)
    [1, 2, 5]
    """
    batches = {most}
    while min(batches) > 1:
        batches.add(min(batches) // 2)
    return sorted(batches)


def _order(fitting: list[Candidate], part: Part) -> list[Candidate]:
    """The one with the fewest BRAM36 within NEAR_BEST of the fewest cycles; then the fastest."""
    limit = min((item.cycles for item in fitting), default=0) * (1 + NEAR_BEST)

    def rank(item: Candidate) -> tuple[bool, int, int]:
        return item.cycles > limit, estimate(item.sizes, part).bram36, item.cycles

    return [*sorted(fitting, key=rank)[:1], *sorted(fitting, key=lambda item: item.cycles)]


def _candidates(
    lowered: Lowered, base: Sequence[Row], images: int, limit: int
) -> Iterator[Candidate]:
    """Every depth of the weight buffer with every batch and every useful line buffer."""
    array = lowered.array
    depths = []
    for weight_rows in WEIGHT_ROWS:
        cut = [row.cut(array, weight_rows, limit) for row in base]
        whole = [row for row in cut if row is not None]
        if len(whole) == len(cut):
            depths.append((weight_rows, whole))
    for (weight_rows, whole), batch in product(depths, _batches(min(images, MAX_BATCH))):
        for capacity in line_capacities(whole, batch):
            rows = tuple(use_line_buffer(row, batch, capacity) for row in whole)
            sizes = sizes_of(lowered, rows, array, weight_rows, batch)
            yield Candidate(rows, sizes, _cycles(rows, sizes, images))


def _cycles(rows: Sequence[Row], sizes: Sizes, images: int) -> int:
    return sum(batched_cost(row, sizes.array, images, sizes.batch).cycles for row in rows)


def line_capacities(rows: Sequence[Row], batch: int) -> list[int]:
    """Sizes of the line buffer worth a try: what the largest layer needs, or what costs no more;
    and, where it is larger, what the inputs of the fully connected layers need to be read once."""
    least = max(MIN_LINE_ENTRIES, *(row.line_entries for row in rows))
    whole = [
        batch * row.rows_used * row.in_width * row.blocks
        for row in rows
        if row.is_conv and row.conv_height * row.conv_width == row.chunks == 1
    ]
    return [least, *sorted({size for size in whole if least < size <= MAX_RESIDENT})]


def use_line_buffer(row: Row, batch: int, capacity: int) -> Row:
    """Let a layer use what is free of a line buffer of `capacity` entries.

    A layer of one chunk whose whole input fits reads it once, not for every tile; another takes in
    the first rows of the next image or pass early.
    """
    if row.is_conv and row.conv_groups == row.chunks == 1 and row.passes > 1:
        whole = replace(row, ring_rows=batch * row.rows_used, prefetch_next=1, resident=1)
        if whole.line_entries <= capacity:
            return whole
    if batch > 1 or row.passes > 1:
        deeper = replace(row, ring_rows=row.ring(prefetch=True), prefetch_next=1)
        if deeper.line_entries <= capacity:
            return deeper
    return row


def _unit_choices(candidate: Candidate, images: int) -> Iterator[Sizes]:
    """The fewest QK/QE units that lose at most FINISH_SLACK of all cycles, then ever fewer."""
    array = candidate.sizes.array
    choices = [
        replace(candidate.sizes, array=replace(array, qk_units=units, factor_units=units))
        for units in range(1, array.pe + 1)
        if array.pe % units == 0
    ]
    limit = candidate.cycles * (1 + FINISH_SLACK)
    for sizes in _fewest(choices, candidate, images, limit):
        most = max(limit, _cycles(candidate.rows, sizes, images) * (1 + FINISH_SLACK))
        yield from _factor_choices(candidate, sizes, images, most)


def _factor_choices(
    candidate: Candidate, sizes: Sizes, images: int, most: float
) -> Iterator[Sizes]:
    """The fewest units of a wide factor that take at most so many cycles, then ever fewer."""
    array = sizes.array
    choices = [
        replace(sizes, array=replace(array, factor_units=units))
        for units in range(1, array.qk_units + 1)
        if array.pe % units == 0
    ]
    if not (sizes.averages or sizes.lrn or sizes.products):
        choices = choices[-1:]
    yield from _fewest(choices, candidate, images, most)


def _fewest(
    choices: Sequence[Sizes], candidate: Candidate, images: int, most: float
) -> Sequence[Sizes]:
    """Of choices with ever more units the first of at most so many cycles, then those before it."""
    enough = bisect_left(
        choices, True, key=lambda sizes: _cycles(candidate.rows, sizes, images) <= most
    )
    return choices[enough::-1] if enough < len(choices) else choices[::-1]


def _too_large(lowered: Lowered, base: Sequence[Row]) -> str:
    """Which layer's kernel does not fit the largest weight buffer."""
    for row, layer in zip(base, lowered.layers, strict=True):
        if row.kernel_taps > WEIGHT_ROWS[-1]:
            return (
                f"the kernel of layer {layer.name} must have at most {WEIGHT_ROWS[-1]} "
                f"taps, not {row.kernel_h}x{row.kernel_w}"
            )
    return f"input rows must fit a line buffer of {LINE_LIMITS[0]} entries"
