# SPDX-License-Identifier: Apache-2.0
"""Which feature maps stay on chip, in which of two memories, and where in them.

A layer reads one memory and writes the other (a dataflow process must have an array for itself),
so maps are coloured A or B such that no layer's output has the colour of an input. Of the coloured
maps those that save most DRAM traffic per word are taken as long as the design fits. An input in
DRAM that several tiles read may have a copy on chip instead, which the first tile fills.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from codegen.design.array import Array
from codegen.design.cost import cached_words, input_words
from codegen.design.memory import Tensor, allocate
from codegen.design.resources import shortage
from codegen.design.rows import Place, Row
from codegen.design.sizes import Sizes
from formats.hardware import Part
from formats.network import Layer, Network
from formats.packing import WORD_BYTES
from formats.rules import INPUT

A, B = 0, 1
# Share of the block RAM that may be used to keep feature maps on chip; beyond it routing suffers.
CHIP_SHARE = 0.9
COPY = "copy for "  # no layer's name has a space


@dataclass(frozen=True)
class Chip:
    """What is on chip.

    Attributes:
        memory: 0 (A) or 1 (B), by feature map; concats are maps, too.
        address: word address in that memory, by feature map.
        cache: (memory, word address) of the copy that a layer reads, by layer.
        words: of one image in A and in B.
    """

    memory: dict[str, int] = field(default_factory=dict)
    address: dict[str, int] = field(default_factory=dict)
    cache: dict[str, tuple[int, int]] = field(default_factory=dict)
    words: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Item:
    """Something that could be on chip: a feature map (or a region of them), or a layer's copy.

    Attributes:
        tensor: words and life; a copy lives while its layer runs.
        memories: those that it may be in.
        saved: words of DRAM traffic that it saves, for one image.
        copy_for: the layer whose input it is a copy of, or None.
    """

    tensor: Tensor
    memories: tuple[int, ...]
    saved: int
    copy_for: Layer | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The feature maps in it."""
        return tuple(name for name, _ in self.tensor.members) or (self.tensor.name,)


class Graph:
    """Who reads and who writes which tensor."""

    def __init__(self, layers: Sequence[Layer], tensors: Sequence[Tensor]) -> None:
        self.tensors = {tensor.name: tensor for tensor in tensors}
        region = {
            name: tensor.name
            for tensor in tensors
            for name, _ in (tensor.members or ((tensor.name, 0),))
        }
        self.inputs = [{region[name] for name in layer.inputs} for layer in layers]
        self.output = [region[layer.name] for layer in layers]

    def allowed(self, colour: dict[str, int]) -> bool:
        """Whether every layer reads one memory at most, and writes none that it reads."""
        for inputs, output in zip(self.inputs, self.output, strict=True):
            read = {colour[name] for name in inputs if name in colour}
            if len(read) > 1 or colour.get(output) in read:
                return False
        return True

    def colours(self) -> dict[str, int]:
        """A memory for every tensor that can have one, in the order of their births.

        The network's input and the last layer's output are in DRAM, where the host is.
        """
        found: dict[str, int] = {}
        ends = {INPUT, self.output[-1]}
        for tensor in sorted(self.tensors.values(), key=lambda item: item.birth):
            if tensor.name in ends or tensor.birth < 0:
                continue
            sources = self.inputs[self.output.index(tensor.name)]
            before = {found[name] for name in sources if name in found}
            for memory in (A, B) if before != {A} else (B, A):
                if self.allowed({**found, tensor.name: memory}):
                    found[tensor.name] = memory
                    break
        return found


def candidates(
    layers: Sequence[Layer], tensors: Sequence[Tensor], rows: Sequence[Row], array: Array
) -> list[Item]:
    """Everything that could be on chip, the most DRAM words saved per word first."""
    graph = Graph(layers, tensors)
    colours = graph.colours()
    items = []
    for name, memory in colours.items():
        tensor, traffic = graph.tensors[name], 0
        inside = {part for part, _ in tensor.members} or {name}
        for layer, row in zip(layers, rows, strict=True):
            for index, source in enumerate(layer.inputs):
                traffic += input_words(row, index > 0, array) if source in inside else 0
            traffic += row.output_words if layer.name in inside else 0
        items.append(Item(tensor, (memory,), traffic))
    for index, (layer, row) in enumerate(zip(layers, rows, strict=True)):
        if not row.is_conv or row.tiles_per_group < 2:
            continue
        words = row.in_plane_words * row.blocks * row.conv_groups
        output = colours.get(graph.output[index])
        memories = (A, B) if output is None else (1 - output,)
        saved = input_words(row, False, array) - cached_words(row)
        items.append(Item(Tensor(COPY + layer.name, words, index, index), memories, saved, layer))
    return sorted(items, key=lambda item: (-item.saved / item.tensor.words, item.tensor.birth))


def choose(items: Sequence[Item], fits: Callable[[tuple[int, int]], bool]) -> Chip:
    """Take items as long as `fits` says that memories A and B of so many words an image do.

    A map on chip makes the copies of it pointless, which are given up for it.
    """
    taken: list[tuple[Item, int]] = []
    made = Chip()
    for item in items:
        if item.copy_for and item.copy_for.source in made.memory:
            continue
        for memory in item.memories:
            tried = [
                (other, where)
                for other, where in taken
                if not (other.copy_for and other.copy_for.source in item.names)
            ]
            tried.append((item, memory))
            placed = _place(tried)
            if fits(placed.words):
                taken, made = tried, placed
                break
    return made


def _place(taken: list[tuple[Item, int]]) -> Chip:
    """Addresses of what was taken."""
    made = Chip()
    words = [0, 0]
    for memory in (A, B):
        items = [item for item, where in taken if where == memory]
        if not items:
            continue
        arena = allocate([item.tensor for item in items])
        words[memory] = arena.words
        for item in items:
            if item.copy_for:
                made.cache[item.copy_for.name] = (memory, arena.address[item.tensor.name])
            for name in () if item.copy_for else item.names:
                made.memory[name], made.address[name] = memory, arena.address[name]
    return replace(made, words=(words[A], words[B]))


def place_fields(layer: Layer, chip: Chip) -> dict[str, int]:
    """in_chip … cache_addr of a layer's row."""
    places = [Place.CHIP if name in chip.memory else Place.DDR for name in layer.inputs]
    read = {chip.memory[name] for name in layer.inputs if name in chip.memory}
    fields: dict[str, int] = {"out_chip": int(layer.name in chip.memory)}
    if layer.name in chip.cache:
        places[0] = Place.CACHE
        memory, fields["cache_addr"] = chip.cache[layer.name]
        read = {memory}
    fields.update(zip(("in_chip", "in2_chip"), places, strict=False))
    swap = read == {B} if read else chip.memory.get(layer.name, B) == A
    fields["chip_swap"] = int(swap)
    return fields


def all_on_chip(layers: Sequence[Layer], rows: Sequence[Row]) -> str | None:
    """None where DRAM sees the input once and the result; else what is not on chip."""
    for layer, row in zip(layers, rows, strict=True):
        if row.out_chip != Place.CHIP and layer is not layers[-1]:
            return f"the output of layer {layer.name} ({row.output_words * WORD_BYTES:,} bytes)"
        if INPUT in layer.inputs and row.in_chip == Place.DDR and row.tiles_per_group > 1:
            return f"the input of layer {layer.name}, which {row.tiles_per_group} tiles read"
    if sum(layer.inputs.count(INPUT) for layer in layers) > 1:
        return "the network's input, which several layers read"
    return None


def depths(words: tuple[int, int], batch: int) -> tuple[int, int]:
    """Depths of memories A and B; one word an image where they are not used."""
    return max(1, words[0]) * batch, max(1, words[1]) * batch


def choose_chip(
    network: Network, tensors: list[Tensor], rows: Sequence[Row], sizes: Sizes, part: Part
) -> Chip:
    """The feature maps that fit beside everything else."""
    fm = sizes.array.fm
    if fm == "ddr":
        return Chip()
    share = 1.0 if fm == "chip" or part.reserved else CHIP_SHARE
    room = replace(part, bram36=int(part.bram36 * share), uram=int(part.uram * share))
    items = candidates(network.layers, tensors, rows, sizes.array)
    return choose(
        items,
        lambda words: shortage(replace(sizes, chip_words=depths(words, sizes.batch)), room) is None,
    )
