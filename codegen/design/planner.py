# SPDX-License-Identifier: Apache-2.0
"""The planner: how one network runs on one part, in the fewest cycles that fit.

It chooses lane packing, the weight buffer's depth, chunks of input channels, the batch,
prefetching, and how many QK/QE units finish the pixels; then places feature maps and weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

from codegen.design.chip import MODES, Chip, all_on_chip, choose_chip, depths, set_places
from codegen.design.cost import Engine, LayerCost, batched_cost
from codegen.design.jobs import knq_tables, lrn_layers, make_jobs
from codegen.design.layers import INPUT, Layer, Quantizer
from codegen.design.memory import Arena, allocate, join_concats, lifetimes, peak_words
from codegen.design.network import Network
from codegen.design.numbers import ceil_div, signed_bits, tree_bits, unsigned_bits
from codegen.design.parts import Part
from codegen.design.resources import Resources, Sizes, estimate, line_memories, shortage
from codegen.design.rows import (
    OP_CONV,
    OP_LRN,
    WEIGHT_PORTS,
    Job,
    Row,
    base_row,
    kernel_taps,
    line_entries,
    output_words,
    ring_rows,
    set_chunks,
    tiles,
    weight_words,
)
from formats.errors import UserError
from formats.packing import Gather, plane_words

WEIGHT_ROWS = (256, 512, 1024, 2048, 4096)
LINE_LIMITS = (
    1 << 30,
    8192,
    4096,
    2048,
    1024,
)  # entries of the line buffer: no limit, then ever more chunks
MAX_BATCH = 256
MAX_PIXELS = 8
FINISH_SLACK = 0.002  # of all cycles may be lost to slow QK/QE units
NEAR_BEST = 0.005  # cycles given up for less block RAM
COMPACT_SLACK = 0.02  # cycles given up for a smaller packed input, which may fit on chip
MAX_RESIDENT = 1 << 14  # entries that a line buffer may grow to so that inputs fit it
MIN_LINE_ENTRIES = 512  # the depth of one RAMB18: a smaller line buffer saves nothing
INT32_MAX = (1 << 31) - 1
FEATURE_MAP_PORTS = 1  # fm_in only reads, fm_out only writes: one port's two directions


@dataclass(frozen=True)
class Plan:
    """Everything that rendering and packing need to know.

    Attributes:
        network, part, images: what was asked for.
        engine: SIMD, PE and QK units.
        batch: images per call of the accelerator at most.
        gather: how the host lays out the input.
        jobs, rows, costs: one per layer; costs are for all images.
        knq: quantizers whose tables are rendered, in order.
        lrn: normalisations whose factors are rendered, in order.
        sizes, resources: widths and depths, and what they take.
        arena: feature map addresses in DRAM.
        chip: feature maps on chip.
        peak_words, peak_words_without_input: of all feature maps, live at once.
        input_words, weight_words: 64-bit words of one packed input, of weights.bin.
    """

    network: Network
    part: Part
    images: int
    engine: Engine
    batch: int
    gather: Gather
    jobs: tuple[Job, ...]
    rows: tuple[Row, ...]
    costs: tuple[LayerCost, ...]
    knq: tuple[Quantizer, ...]
    lrn: tuple[Layer, ...]
    sizes: Sizes
    resources: Resources
    arena: Arena
    chip: Chip
    peak_words: int
    peak_words_without_input: int
    input_words: int
    weight_words: int

    @property
    def cycles(self) -> int:
        """Cycles for all images."""
        return sum(cost.cycles for cost in self.costs)

    def efficiency(self, *kinds: str) -> float:
        """Share of the multipliers' cycles that layers of these kinds use; all layers for none."""
        chosen = [
            (job.layer.macs, cost.cycles)
            for job, cost in zip(self.jobs, self.costs, strict=True)
            if not kinds or job.layer.kind in kinds
        ]
        macs, cycles = (sum(column) for column in zip(*chosen, strict=True)) if chosen else (0, 1)
        return self.engine.efficiency(macs * self.images, cycles)

    @property
    def seconds(self) -> float:
        """Estimated time for all images: cycles or memory traffic, whichever takes longer."""
        total = 0.0
        for cost in self.costs:
            moved = cost.bytes_read + cost.bytes_written + cost.bytes_weights
            total += max(
                cost.cycles / (self.part.clock_mhz * 1e6), moved / (self.part.ddr_gbs * 1e9)
            )
        return total


@dataclass(frozen=True)
class Candidate:
    """One way to cut the network: rows with chunks, and the buffers they need."""

    rows: tuple[Row, ...]
    weight_rows: int
    batch: int
    cycles: int


@dataclass(frozen=True)
class Fitting:
    """A candidate that fits the part."""

    candidate: Candidate
    engine: Engine
    sizes: Sizes
    bram36: int


def plan(
    network: Network,
    part: Part,
    simd: int = 8,
    pe: int = 24,
    images: int = 1,
    fm: str = "auto",
    weight_ports: int = 1,
    pixels: int = 1,
) -> Plan:
    """Plan a network; UserError says what is short where nothing fits the part.

    With fm "auto" feature maps are on chip as far as CHIP_SHARE of the block RAM goes; "chip"
    demands that all are, in all of the part; "ddr" has none there.
    """
    if fm not in MODES:
        raise UserError(f"FM must be one of {', '.join(MODES)}, not {fm!r}")
    check_ports(part, weight_ports)
    made = _plan(network, part, simd, pe, images, fm, weight_ports, pixels)
    if fm == "ddr":
        return made
    compact = _plan(network, part, simd, pe, images, fm, weight_ports, pixels, compact=True)
    missing, still_missing = (all_on_chip(network.layers, item.rows) for item in (made, compact))
    fewer_bytes = activation_bytes(compact) < activation_bytes(made)
    as_fast = compact.cycles <= made.cycles * (1 + COMPACT_SLACK)
    if (missing and not still_missing and fm == "chip") or (fewer_bytes and as_fast):
        made, missing = compact, still_missing
    if fm == "chip" and missing is not None:
        raise UserError(
            f"{network.name} with FM=chip: {part.name} must have room on chip for {missing}; "
            "use FM=auto, fewer IMAGES or PE, or a larger PART"
        )
    return made


def activation_bytes(made: Plan) -> int:
    """Bytes of feature maps between DRAM and chip, for all images."""
    return sum(cost.bytes_read + cost.bytes_written for cost in made.costs)


def _plan(
    network: Network,
    part: Part,
    simd: int,
    pe: int,
    images: int,
    fm: str,
    weight_ports: int,
    pixels: int,
    compact: bool = False,
) -> Plan:
    """The plan with one lane packing: the fastest, or the most compact."""
    check_array(simd, pe, pixels)
    if images < 1:
        raise UserError(f"IMAGES must be 1 or more, not {images}")
    jobs, gather = make_jobs(network, simd, pe, WEIGHT_ROWS[0], compact, pixels)
    base = [base_row(job, simd, pe, weight_ports) for job in jobs]
    engine = Engine(simd, pe, pe, pixels, weight_ports)
    reasons: list[tuple[int, str]] = []
    for limit in LINE_LIMITS:
        fitting: list[Fitting] = []
        for candidate in _candidates(base, engine, images, limit):
            for chosen in _unit_choices(candidate, engine, images):
                sizes = sizes_of(jobs, candidate, chosen)
                reason = shortage(sizes, part)
                if reason is None:
                    fitting.append(Fitting(candidate, chosen, sizes, estimate(sizes, part).bram36))
                    break
                reasons.append((estimate(sizes, part).bram36, reason))
        if fitting:
            for best in _order(fitting, fm):
                made = assemble(
                    network, part, images, best.engine, best.candidate, gather, jobs, best.sizes, fm
                )
                if fm != "chip" or all_on_chip(network.layers, made.rows) is None:
                    break
            return made
    if not reasons:
        raise UserError(f"{network.name}: {_too_large(base, jobs)}")
    point = f"SIMD={simd} PE={pe}" + (f" PIXELS={pixels}" if pixels > 1 else "")
    raise UserError(
        f"{network.name} with {point} must fit {part.name}: "
        f"{min(reasons)[1]}; use a smaller PE or SIMD, or a larger PART"
    )


def check_array(simd: int | None, pe: int | None, pixels: int | None) -> None:
    """UserError where a size of the multiplier array is none; None is not checked."""
    for name, value in (("SIMD", simd), ("PE", pe)):
        if value is not None and (value < 8 or value % 8):
            raise UserError(f"{name} must be a positive multiple of 8, not {value}")
    if pixels is not None and not 1 <= pixels <= MAX_PIXELS:
        raise UserError(f"PIXELS must be 1..{MAX_PIXELS}, not {pixels}")


def check_ports(part: Part, weight_ports: int) -> None:
    """UserError where the part has too few memory ports."""
    room = [q for q in WEIGHT_PORTS if q + FEATURE_MAP_PORTS <= part.ports]
    if weight_ports not in room:
        raise UserError(
            f"WEIGHT_PORTS must be one of {', '.join(map(str, room))} on {part.name}, whose "
            f"{part.ports} memory ports also serve the feature maps, not {weight_ports}"
        )


def _best(fitting: list[Fitting]) -> Fitting:
    """The one with the fewest BRAM36 among those within NEAR_BEST of the fewest cycles."""
    fewest = min(item.candidate.cycles for item in fitting)
    near = [item for item in fitting if item.candidate.cycles <= fewest * (1 + NEAR_BEST)]
    return min(near, key=lambda item: (item.bram36, item.candidate.cycles))


def _order(fitting: list[Fitting], fm: str) -> list[Fitting]:
    """The best first; where all feature maps must be on chip also the others, the fastest first."""
    others = sorted(fitting, key=lambda item: item.candidate.cycles)
    return [_best(fitting), *(others if fm == "chip" else [])]


def _candidates(base: list[Row], engine: Engine, images: int, limit: int) -> Iterator[Candidate]:
    batches = {min(images, MAX_BATCH)}
    while min(batches) > 1:
        batches.add(min(batches) // 2)
    for weight_rows, batch in product(WEIGHT_ROWS, sorted(batches)):
        cut = [dict(row) for row in base]
        if not all(set_chunks(row, engine.simd, weight_rows, limit) for row in cut):
            continue
        for capacity in line_capacities(cut, batch):
            rows = [dict(row) for row in cut]
            use_line_buffer(rows, batch, capacity)
            cycles = sum(batched_cost(row, engine, images, batch).cycles for row in rows)
            yield Candidate(tuple(rows), weight_rows, batch, cycles)


def line_capacities(rows: list[Row], batch: int) -> list[int]:
    """Sizes of the line buffer worth a try: what the largest layer needs, or what costs no more;
    and, where it is larger, what the inputs of the fully connected layers need to be read once."""
    least = max(MIN_LINE_ENTRIES, *(line_entries(row) for row in rows))
    whole = [
        batch * row["rows_used"] * row["in_width"] * row["blocks"]
        for row in rows
        if row["op"] == OP_CONV and row["conv_height"] * row["conv_width"] == row["chunks"] == 1
    ]
    return [least, *sorted({size for size in whole if least < size <= MAX_RESIDENT})]


def use_line_buffer(rows: list[Row], batch: int, capacity: int) -> None:
    """Let layers use what is free of a line buffer of `capacity` entries.

    A layer of one chunk whose whole input fits reads it once, not for every tile; another takes in
    the first rows of the next image or pass early.
    """
    for row in rows:
        passes = tiles(row) * row["chunks"]
        whole = {**row, "ring_rows": batch * row["rows_used"], "prefetch_next": 1, "resident": 1}
        deeper = {**row, "ring_rows": ring_rows(row, prefetch=True), "prefetch_next": 1}
        single = row["op"] == OP_CONV and row["conv_groups"] == row["chunks"] == 1
        if single and passes > 1 and line_entries(whole) <= capacity:
            row.update(whole)
        elif (batch > 1 or passes > 1) and line_entries(deeper) <= capacity:
            row.update(deeper)


def _pick_units(candidate: Candidate, engine: Engine, images: int) -> Engine:
    """The fewest QK/QE units that lose at most FINISH_SLACK of all cycles."""
    for units in range(1, engine.pe + 1):
        if engine.pe % units:
            continue
        slower = replace(engine, qk_units=units)
        cycles = sum(
            batched_cost(row, slower, images, candidate.batch).cycles for row in candidate.rows
        )
        if cycles <= candidate.cycles * (1 + FINISH_SLACK):
            return slower
    return engine


def _unit_choices(candidate: Candidate, engine: Engine, images: int) -> Iterator[Engine]:
    """The fastest sensible number of QK/QE units, then fewer, each of which takes less room."""
    best = _pick_units(candidate, engine, images)
    for units in range(best.qk_units, 0, -1):
        if engine.pe % units == 0:
            yield replace(engine, qk_units=units)


def sizes_of(jobs: list[Job], candidate: Candidate, engine: Engine) -> Sizes:
    """Widths and depths that a candidate needs."""
    rows = candidate.rows
    sources = [source for job in jobs for source in job.sources]
    value_bits = max(signed_bits(*source.value_range) for source in sources)
    layers = [job.layer for job in jobs]
    stored = [layer.quantizer for layer in layers if layer.quantizer]
    weighted = [job for job in jobs if job.layer.weighted]
    weight_bits = max([job.layer.weight_bits for job in weighted], default=2)
    tables = [row["weight_table"] for row in rows]
    widths = [source.bits for source in sources] + [row["out_bits"] for row in rows]
    chunked = [row for row in rows if row["chunks"] > 1]
    pooled = [row for row in rows if _is_pooled(row)]
    # one more than y_max: the threshold that no value reaches
    limits = (min(row["y_min"] for row in rows), max(row["y_max"] for row in rows) + 1)
    signed = any(item.signed for item in stored)
    low_bits, high_blocks = split_line(rows, max(widths))
    return Sizes(
        simd=engine.simd,
        pe=engine.pe,
        weight_bits=weight_bits,
        value_bits=value_bits,
        # an aligned value passes where a sum of products does
        tree_bits=max(
            tree_bits(weight_bits, value_bits, engine.simd),
            value_bits + max(shift for layer in layers for shift in layer.in_aligns),
        ),
        acc_bits=max(job.layer.acc_bits for job in jobs),
        quant_bits=signed_bits(*limits) if signed else unsigned_bits(limits[1]),
        quant_signed=signed,
        code_bits=max(widths),
        gear_bits=max(gear_bits(width) for width in widths if width),
        weight_rows=candidate.weight_rows,
        line_blocks=max(line_entries(row) for row in rows),
        line_low_bits=low_bits,
        line_high_blocks=high_blocks,
        psum_groups=max(
            (
                candidate.batch * row["conv_height"] * ceil_div(row["conv_width"], engine.pixels)
                for row in chunked
            ),
            default=1,
        ),
        qk_units=engine.qk_units,
        knq_levels=max((1 << item.bits for item in stored if item.scheme == "knq"), default=1),
        knq_tables=sum(item.scheme == "knq" for item in stored),
        enq_bits=max((item.bits for item in stored if item.scheme == "enq"), default=0),
        decoders=max(row["sources"] for row in rows),
        pool_pixels=max((row["pool_h"] for row in pooled), default=0)
        * max((row["conv_width"] for row in pooled), default=0),
        pack_width=max(row["out_width"] for row in rows),
        wide_bits=wide_bits(rows, jobs),
        lrn_reach=max(row["lrn_size"] // 2 for row in rows),
        lrn_tables=sum(row["op"] == OP_LRN for row in rows),
        averages=any(row["reciprocal"] or row["exclude_pad"] for row in rows),
        weight_ports=engine.weight_ports,
        weight_widths=tuple(sorted({row["weight_bits"] for row in rows if row["row_words"]})),
        table_entries=max(tables),
        plain_weights=any(job.storage.table is None for job in weighted),
        pixels=engine.pixels,
    )


def split_line(rows: tuple[Row, ...], code_bits: int) -> tuple[int, int]:
    """(low bits, entries of the rest) of the cheapest line buffer.

    The network's input has the widest codes, but few channels: its upper bits get a shallow memory
    of their own.
    """
    blocks = max(line_entries(row) for row in rows)
    options = []
    for low in sorted({code_bits, *(_in_bits(row) for row in rows)}, reverse=True):
        high = max((line_entries(row) for row in rows if _in_bits(row) > low), default=1)
        parts = line_memories(blocks, low, high, code_bits=code_bits)
        options.append((sum(part.bram18 for part in parts), -low, high))
    _, low, high = min(options)
    return -low, high


def _in_bits(row: Row) -> int:
    """Width of the codes that a layer reads, of the wider input of two."""
    return max(row["in_bits"], row["in2_bits"])


def gear_bits(width: int) -> int:
    """Bits of a gearbox between 64-bit words and blocks of `width` bytes.

    At most 8 - g bytes are left over when a block of `width` bytes joins them, g being what every
    offset is a multiple of. One bit more than a word, so that shifting a word out is defined.

    >>> [gear_bits(width) for width in (1, 3, 8, 10, 16)]
    [72, 80, 72, 128, 128]
    """
    step = 8 if width % 8 == 0 else width & -width
    return max(72, 8 * (8 - step + width))


def _is_pooled(row: Row) -> bool:
    sizes = ("pool_h", "pool_w", "pool_stride_h", "pool_stride_w")
    return any(row[name] > 1 for name in sizes)


def wide_bits(rows: tuple[Row, ...], jobs: tuple[Job, ...] | list[Job]) -> int:
    """Width that holds acc + 2^(s-1), acc << -s and y_max without overflow, over all layers.

    acc is the accumulator times the factor of an average pool or of a normalisation.
    """
    needed = [2]
    for row, job in zip(rows, jobs, strict=True):
        shift, acc = row["requant_shift"], job.layer.product_bits
        needed.append(max(acc, shift) + 1 if shift > 0 else acc - shift)
        needed.append(row["y_max"].bit_length() + 1)
    return max(needed)


def assemble(
    network: Network,
    part: Part,
    images: int,
    engine: Engine,
    candidate: Candidate,
    gather: Gather,
    jobs: list[Job],
    sizes: Sizes,
    fm: str = "ddr",
) -> Plan:
    """The plan of a candidate: addresses of feature maps and weights, and its costs."""
    rows = candidate.rows
    planes = ceil_div(gather.packed_shape[0], 8)
    input_words = planes * plane_words(*gather.packed_shape[1:], network.in_bits)
    tensors = lifetimes(network.layers, input_words, [output_words(row) for row in rows])
    tensors = join_concats(tensors, network.layers, network.concats)
    chip = choose_chip(network, tensors, rows, engine, part, sizes, candidate.batch, fm)
    sizes = replace(sizes, chip_words=depths(chip.words, candidate.batch))
    arena = allocate([tensor for tensor in tensors if tensor.name not in chip.memory])
    address = 0
    for row, job in zip(rows, jobs, strict=True):
        for key, name in zip(("in_addr", "in2_addr"), job.layer.inputs, strict=False):
            row[key] = arena.address.get(name, 0)
        row["out_addr"] = arena.address.get(job.layer.name, 0)
        row["weight_addr"] = address
        address += weight_words(row, engine.simd, engine.pe, engine.weight_ports)
    set_places(network.layers, rows, chip)
    if max(address, arena.words * candidate.batch) > INT32_MAX:
        raise UserError(
            f"{network.name}: memories must have fewer than 2^31 words; use fewer IMAGES"
        )
    if max(wide_bits(rows, jobs), sizes.tree_bits, sizes.acc_bits) > 64:
        raise UserError(
            f"{network.name}: accumulators must fit 64 bits; use fewer WEIGHT bits or QM"
        )
    costs = tuple(batched_cost(row, engine, images, candidate.batch) for row in rows)
    return Plan(
        network=network,
        part=part,
        images=images,
        engine=engine,
        batch=candidate.batch,
        gather=gather,
        jobs=tuple(jobs),
        rows=rows,
        costs=costs,
        knq=knq_tables(network),
        lrn=lrn_layers(network),
        sizes=sizes,
        resources=estimate(sizes, part),
        arena=arena,
        chip=chip,
        peak_words=peak_words(tensors),
        peak_words_without_input=peak_words([item for item in tensors if item.name != INPUT]),
        input_words=input_words,
        weight_words=address * engine.weight_ports,
    )


def _too_large(base: list[Row], jobs: list[Job]) -> str:
    """Which layer's kernel does not fit the largest weight buffer."""
    for row, job in zip(base, jobs, strict=True):
        if kernel_taps(row) > WEIGHT_ROWS[-1]:
            return (
                f"the kernel of layer {job.layer.name} must have at most {WEIGHT_ROWS[-1]} "
                f"taps, not {row['kernel_h']}x{row['kernel_w']}"
            )
    return f"input rows must fit a line buffer of {LINE_LIMITS[0]} entries"
