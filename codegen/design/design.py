# SPDX-License-Identifier: Apache-2.0
"""Design: an array, a row for each layer, and the memories: all that rendering and packing need."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from nuq.codegen.design import memory
from nuq.codegen.design.array import Array
from nuq.codegen.design.cost import LayerCost, batched_cost
from nuq.codegen.design.engine import Engine
from nuq.codegen.design.lowering import Lowered
from nuq.codegen.design.resources import RESOURCES, Resources
from nuq.codegen.design.rows import Row
from nuq.codegen.design.sizes import Memory, Sizes
from nuq.formats.arithmetic import BLOCK_CODES, ceil_div
from nuq.formats.errors import UserError
from nuq.formats.hardware import Part
from nuq.formats.network import Layer, Network
from nuq.formats.packing import Gather, plane_words
from nuq.formats.rules import INPUT

INT32_MAX = (1 << 31) - 1


@dataclass(frozen=True)
class Design:
    """How one network runs on one engine."""

    network: Network
    engine: Engine
    images: int
    batch: int  # images per call of the accelerator at most
    layers: tuple[Layer, ...]  # the network's, lowered to what the engine runs
    gather: Gather  # how the host lays out the input
    rows: tuple[Row, ...]  # one for each layer
    tensors: tuple[memory.Tensor, ...]  # feature maps and regions of them, with their lives
    arena: memory.Arena  # feature maps in DRAM
    chip: memory.Chip  # feature maps on chip

    @property
    def part(self) -> Part:
        """The engine's part."""
        return self.engine.part

    @property
    def sizes(self) -> Sizes:
        """The engine's widths and depths."""
        return self.engine.sizes

    @property
    def array(self) -> Array:
        """The engine's lanes, pixels and ports."""
        return self.sizes.array

    @property
    def memories(self) -> tuple[Memory, ...]:
        """The engine's on-chip memories."""
        return self.engine.memories

    @property
    def resources(self) -> Resources:
        """What the engine takes of the part."""
        return self.engine.resources

    @cached_property
    def costs(self) -> tuple[LayerCost, ...]:
        """Of each layer, for all images."""
        return tuple(batched_cost(row, self.array, self.images, self.batch) for row in self.rows)

    @property
    def input_words(self) -> int:
        """64-bit words of one packed input."""
        return packed_words(self.gather, self.network.input.bits)

    @property
    def chip_strides(self) -> tuple[int, int]:
        """64-bit words from image to image in on-chip memories A and B."""
        return strides(self.chip)

    @property
    def weight_words(self) -> int:
        """64-bit words of weights.bin."""
        return self.array.weight_ports * sum(row.weight_words(self.array) for row in self.rows)

    @property
    def activation_bytes(self) -> int:
        """Bytes of feature maps between DRAM and chip, for all images."""
        return sum(cost.bytes_read + cost.bytes_written for cost in self.costs)

    def peak_words(self, with_input: bool = True) -> int:
        """64-bit words of feature maps that are live at once at the worst moment."""
        return memory.peak_words(
            [item for item in self.tensors if with_input or item.name != INPUT]
        )

    @property
    def cycles(self) -> int:
        """Cycles for all images."""
        return sum(cost.cycles for cost in self.costs)

    @cached_property
    def seconds(self) -> float:
        """Estimated time for all images: cycles or memory traffic, whichever takes longer."""
        return sum(self.part.seconds(cost.cycles, cost.bytes_moved) for cost in self.costs)

    @property
    def dram_bound(self) -> list[str]:
        """Names of the layers whose memory traffic takes longer than their cycles."""
        clock = self.part.clock_mhz * 1e6
        return [
            layer.name
            for layer, cost in zip(self.network.layers, self.costs, strict=True)
            if self.part.seconds(cost.cycles, cost.bytes_moved) > cost.cycles / clock
        ]

    @property
    def use(self) -> dict[str, float]:
        """Fraction of each resource of the part."""
        return {
            name: getattr(self.resources, name) / getattr(self.part, name)
            for name in RESOURCES
            if getattr(self.part, name)
        }

    def efficiency(self, *kinds: str) -> float:
        """Share of the multipliers' cycles that layers of these kinds use; all layers for none."""
        macs = cycles = 0
        for layer, cost in zip(self.layers, self.costs, strict=True):
            if not kinds or layer.kind in kinds:
                macs, cycles = macs + layer.macs, cycles + cost.cycles
        return self.array.efficiency(macs * self.images, max(1, cycles))


def packed_words(gather: Gather, bits: int) -> int:
    """64-bit words of one packed input."""
    channels, rows, columns = gather.packed_shape
    return ceil_div(channels, BLOCK_CODES) * plane_words(rows, columns, bits)


def strides(chip: memory.Chip) -> tuple[int, int]:
    """64-bit words from image to image in on-chip memories A and B, 1 where nothing is there."""
    return max(1, chip.words[0]), max(1, chip.words[1])


def assemble(
    lowered: Lowered,
    part: Part,
    images: int,
    rows: Sequence[Row],
    sizes: Sizes,
    engine: Engine | None = None,
) -> Design:
    """The design of rows that are cut into chunks: places of feature maps and weights.

    Args:
        lowered: the network as the array runs it.
        part: what the engine is made for.
        images: for all calls together.
        rows: cut into chunks.
        sizes: that they need.
        engine: that exists and has these sizes; None: one is made of them.
    """  # fmt: skip
    network = lowered.network
    words = [row.output_words for row in rows]
    tensors = memory.lifetimes(
        network.layers, packed_words(lowered.gather, network.input.bits), words
    )
    tensors = memory.join_concats(tensors, network.layers, network.concats)
    room = engine.sizes.chip_words if engine else None
    chip = memory.choose_chip(network, tensors, rows, sizes, part, room)
    sizes = replace(sizes, chip_words=memory.depths(chip.words, sizes.batch))
    arena = memory.allocate([tensor for tensor in tensors if tensor.name not in chip.memory])
    chip_words = strides(chip)
    addresses = {**arena.address, **chip.address}
    placed, weights = [], 0
    for layer, row in zip(network.layers, rows, strict=True):
        fields = {"out_addr": addresses[layer.name], "weight_addr": weights}
        for name, source in zip(("in_addr", "in2_addr"), layer.inputs, strict=False):
            fields[name] = addresses[source]
        row = replace(row, **fields, **memory.place_fields(layer, chip), map_words=arena.words)
        read, written = chip_words[:: -1 if row.chip_swap else 1]
        row = replace(row, chip_words=read, out_words=written if row.out_chip else arena.words)
        placed.append(row.with_products(sizes.array))
        weights += row.weight_words(sizes.array)
    if max(weights, arena.words * sizes.batch) > INT32_MAX:
        raise UserError(
            f"{network.name}: memories must have fewer than 2^31 words; use a smaller BATCH"
        )
    if max(sizes.wide_bits, sizes.tree_bits, sizes.acc_bits) > 64:
        raise UserError(
            f"{network.name}: accumulators must fit 64 bits; use fewer WEIGHT bits or QM"
        )
    return Design(
        network=network,
        engine=engine or Engine(part, sizes),
        images=images,
        batch=sizes.batch,
        layers=lowered.layers,
        gather=lowered.gather,
        rows=tuple(placed),
        tensors=tuple(tensors),
        arena=arena,
        chip=chip,
    )
