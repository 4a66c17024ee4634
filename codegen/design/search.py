# SPDX-License-Identifier: Apache-2.0
"""Exact search of the design space: the fastest design that fits, and the Pareto front.

A point of the space is an Array but for its QK units: what the planner chooses by itself (buffer
depths, chunks, QK units, batch, lane packing) is no axis. Points come in order of a lower bound of
their time. One is planned unless a design that fits, has no more multipliers and is at least as
fast as the bound is known: then it can be neither the fastest nor on the front of time against
multipliers.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from math import prod
from typing import Any

from tqdm import tqdm

from nuq.codegen.design import planner
from nuq.codegen.design.array import MAX_PIXELS, Array, part_ports
from nuq.codegen.design.design import Design
from nuq.codegen.design.lowering import has_single_channels, lower, source
from nuq.codegen.design.resources import multiplier_blocks
from nuq.codegen.design.rows import Row
from nuq.codegen.design.sizes import AP_INT_BITS, operand_bits, packed_bits
from nuq.formats.arithmetic import BLOCK_CODES
from nuq.formats.errors import UserError
from nuq.formats.hardware import Part
from nuq.formats.network import Network
from nuq.formats.packing import WORD_BYTES
from nuq.formats.rules import INPUT

MAX_LANES = 128  # of SIMD and of PE: beyond, nothing fans out to so many multipliers

Axes = Mapping[str, int | str]  # what the user has set of an array, by field; the rest is free


@dataclass(frozen=True)
class Exploration:
    """What a search found."""

    best: Design  # the fastest
    front: tuple[Design, ...]  # that no other one beats in time and in all resources, fastest first
    points: int  # of the space
    planned: int  # how many of them were planned; the bound decided on the others


@dataclass(frozen=True)
class Operands:
    """Widths of what the multipliers of a network are given."""

    weight_bits: int  # the widest, of a layer alone on its multipliers
    value_bits: int  # likewise
    pair_bits: int = 0  # of weights of which two share a multiplier; 0: none can
    kernel_rows: tuple[int, ...] = ()  # heights of depthwise kernels


def smallest(axes: Axes, part: Part, pair_bits: int = 0) -> Array:
    """The smallest array with these axes; UserError where an engine cannot have a value."""
    stage, chosen = axes.get("stage"), {name: axes[name] for name in axes if name != "stage"}
    if stage != "pairs":
        return Array(**{"pe": BLOCK_CODES, **chosen})  # type: ignore[arg-type]
    pairs = pair_fields(part, pair_bits)
    return Array(**{"pe": 2 * BLOCK_CODES, **chosen, **pairs})  # type: ignore[arg-type]


def pair_fields(part: Part, bits: int) -> dict[str, Any]:
    """Fields of an array on which weights of so many bits share multipliers; 0: none do."""
    return {"pair_bits": bits, "pair_shift": part.multiplier[0] - bits if bits else 0}


def points(part: Part, operands: Operands, axes: Axes) -> Iterator[Array]:
    """Every array whose multipliers and weight buffer the part could hold.

    With and without lanes that are channels, where the network has depthwise layers for them.
    """
    most = part.room("dsp") // multiplier_blocks(operands.weight_bits, operands.value_bits, part)
    lanes = range(BLOCK_CODES, MAX_LANES + 1, BLOCK_CODES)
    free: dict[str, Sequence[Any]] = {
        "simd": lanes, "pe": lanes, "pixels": range(1, MAX_PIXELS + 1),
        "weight_ports": part_ports(part), "qk_units": (0,), "fm": ("auto",),
    }  # fmt: skip
    row_bits = 72 * part.room("bram36")  # of weights, read at once: a BRAM36 has 72 bits
    values: list[Any] = [[axes[name]] if name in axes else free[name] for name in free]
    choices: Sequence[Any] = (0, *operands.kernel_rows)
    choices = [axes["kernel_rows"]] if "kernel_rows" in axes else choices
    for pair_bits in _pair_choices(part, operands, axes):
        for choice in product(*values):
            fields = dict(zip(free, choice, strict=True))
            if pair_bits and fields["pe"] % (2 * BLOCK_CODES) and "pe" not in axes:
                continue
            array = Array(**fields, **pair_fields(part, pair_bits))
            bits = packed_bits(array, operands.weight_bits)
            if array.pe // array.shared * bits > AP_INT_BITS and "pe" not in axes:
                continue
            if array.multipliers <= most and array.multipliers // array.pixels * bits <= row_bits:
                for rows in choices:
                    yield replace(array, kernel_rows=rows)


def _pair_choices(part: Part, operands: Operands, axes: Axes) -> list[int]:
    """`pair_bits` worth a try: 0 for one product a multiplier."""
    stage = axes.get("stage", "auto")
    alone = multiplier_blocks(operands.weight_bits, operands.value_bits, part) == 1
    shared = operands.pair_bits if alone else 0
    odd = stage == "auto" and int(axes.get("pe", 0)) % (2 * BLOCK_CODES)
    if stage == "single" or odd or not shared:
        return [0]
    return [shared] if stage == "pairs" else [0, shared]


def check_stage(network: Network, part: Part, axes: Axes) -> int:
    """pair_bits of a network; UserError where STAGE asks for pairs and no layer has any."""
    shared = pair_bits(network, part)
    if axes.get("stage") == "pairs" and not shared:
        raise UserError(
            f"{network.name} with STAGE=pairs: a layer must have weights and values of which two "
            f"products fit the {part.multiplier[0]} bits of a multiplier of {part.name}; quantize "
            "it with WEIGHT_BITS=8 QM=9, or use STAGE=single"
        )
    return shared


def pair_bits(network: Network, part: Part) -> int:
    """Width of the weights that share multipliers of a part: the one that most products gain by.

    Two weights of W bits and a value of V bits take 2W + V - 1 of a multiplier's larger operand.
    """
    _, small = part.multiplier
    gains: dict[int, int] = {}
    layers = [
        (layer.weight_bits, max(source(network, name).value_bits for name in layer.inputs), layer)
        for layer in network.layers
        if layer.has_weights
    ]
    for bits in {width for width, *_ in layers}:
        array = Array(pe=2 * BLOCK_CODES, **pair_fields(part, bits))
        gains[bits] = sum(
            layer.macs
            for width, value, layer in layers
            if array.can_pair(width, value) and value <= small
        )
    best = max(gains, key=lambda bits: (gains[bits], -bits), default=0)
    return best if best and gains[best] else 0


def kernel_rows(network: Network) -> tuple[int, ...]:
    """Heights of the depthwise kernels of a network that lanes which are channels can take."""
    return tuple(
        sorted(
            {
                layer.kernel[0]
                for layer in network.layers
                if has_single_channels(layer) and layer.kernel[0] <= BLOCK_CODES
            }
        )
    )


class Bound:
    """Lower bounds of the time of points, without planning them."""

    def __init__(self, network: Network, part: Part, images: int) -> None:
        self.network, self.part, self.images = network, part, images
        lowered = lower(network, Array(BLOCK_CODES, BLOCK_CODES), planner.WEIGHT_ROWS[0])
        self.operands = Operands(
            *operand_bits(lowered), pair_bits(network, part), kernel_rows(network)
        )
        self.rows = cache(self._rows)

    def _rows(self, lanes: Array) -> list[Row]:
        """The layers as an engine of these lanes sees them, before chunks."""
        return lower(self.network, lanes, planner.WEIGHT_ROWS[0]).rows()

    def seconds(self, array: Array) -> float:
        """No design is faster: multipliers and weights of each layer, whichever takes longer.

        Chunks, first rows and the other processes only add to it. Arrays whose lanes suit no
        layout of the network (a normalisation needs PE of 24) have no rows: UserError.
        """
        total = 0.0
        # what depthwise layers do depends on the pixels, too
        pixels = array.pixels if array.kernel_rows else 1
        lanes = replace(array, pixels=pixels, weight_ports=1, qk_units=0, fm="auto")
        for layer, row in zip(self.network.layers, self.rows(lanes), strict=True):
            if not row.is_conv:
                continue
            steps = row.steps(row.blocks, array)
            if layer.source == INPUT:
                # its taps may be laid out in several ways, none of which saves products
                channels = layer.in_shape[0] // layer.groups * prod(layer.kernel)
                steps = min(steps, array.steps(1, channels))
            steps *= row.tiles
            words = steps * row.row_words  # of all ports: the rows are lowered for one
            compute = steps * row.pixel_groups(array) * self.images
            cycles = max(compute, words / array.weight_ports)
            total += self.part.seconds(cycles, words * WORD_BYTES)
        return total


def explore(
    network: Network, part: Part, images: int = 1, axes: Axes | None = None, front: bool = True
) -> Exploration:
    """Search the whole space for a batch of images, within `part.limit` of each resource.

    Without `front` designs are left out that the best one is faster than.

    Raises:
        UserError: no design fits; the sentence is of the smallest one.
    """
    if not 0 < part.limit <= 1:
        raise UserError(f"LIMIT must be above 0 and at most 1, not {part.limit:g}")
    bound = Bound(network, part, images)
    ranked = _ranked(part, bound, axes or {})
    fitting: list[Design] = []
    reasons: list[tuple[int, str]] = []
    planned = 0
    quiet = not sys.stderr.isatty()
    for least, array in tqdm(ranked, desc="designs", unit="point", disable=quiet, leave=False):
        if any(
            other.seconds <= least
            and other.array.multipliers <= array.multipliers
            or (other.seconds < least and not front)
            for other in fitting
        ):
            continue
        planned += 1
        try:
            fitting.append(planner.plan(network, part, array, images))
        except UserError as error:
            reasons.append((array.multipliers, str(error)))
            continue
    if not fitting:
        reason = min(reasons)[1] if reasons else f"{part.name} has too few DSP blocks or ports"
        raise UserError(f"{network.name} must fit {part.limit:.0%} of {part.name}: {reason}")
    return Exploration(min(fitting, key=_order), pareto(fitting), len(ranked), planned)


def choose(network: Network, part: Part, images: int, axes: Axes) -> Design:
    """The design that code is generated for: the fastest array that agrees with `axes`.

    Raises:
        UserError: a value of `axes` is none, or nothing fits: the sentence says what is short.
    """
    shared = check_stage(network, part, axes)
    least = smallest(axes, part, shared)
    least.check_ports(part)
    if images < 1:
        raise UserError(f"BATCH must be 1 or more, not {images}")
    try:
        return explore(network, part, images, axes, front=False).best
    except UserError:
        if axes:  # the smallest such array says what is short
            return planner.plan(network, part, least, images)
        raise


def _ranked(part: Part, bound: Bound, axes: Axes) -> list[tuple[float, Array]]:
    """Arrays with their lower bounds, shortest first; of equals the ones with few multipliers."""
    ranked = []
    for array in points(part, bound.operands, axes):
        try:
            ranked.append((bound.seconds(array), array))
        except UserError:
            continue
    return sorted(ranked, key=lambda item: (item[0], item[1].multipliers, item[1]))


def _order(design: Design) -> tuple[float, float, Array]:
    return design.seconds, sum(design.use.values()), design.array


def dominates(a: Design, b: Design) -> bool:
    """Whether `a` is nowhere worse than `b`, and somewhere better."""
    left = (a.seconds, *a.use.values())
    right = (b.seconds, *b.use.values())
    return left != right and all(x <= y for x, y in zip(left, right, strict=True))


def pareto(designs: Iterable[Design]) -> tuple[Design, ...]:
    """Those that no other one dominates, fastest first; one of equals."""
    kept: dict[tuple[float, ...], Design] = {}
    every = sorted(designs, key=_order)
    for design in every:
        if not any(dominates(other, design) for other in every):
            kept.setdefault((design.seconds, *design.use.values()), design)
    return tuple(kept.values())
