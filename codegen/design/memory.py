# SPDX-License-Identifier: Apache-2.0
"""Feature map memories: the arena of one image in DRAM, and which maps stay on chip, and where.

A feature map lives from the layer that writes it until its last reader has run; maps whose lives
meet never overlap. The parts of a concat lie behind each other in one region, which lives as long
as any of them.

On chip a layer reads one memory and writes the other (a dataflow process must have an array for
itself), so maps are coloured A or B such that no layer's output has the colour of an input. Of the
coloured maps those that save most DRAM traffic per word are taken as long as the design fits. An
input in DRAM that several tiles read may have a copy on chip instead, which the first tile fills.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise

from nuq.codegen.design.array import Array
from nuq.codegen.design.cost import cached_words, input_words
from nuq.codegen.design.resources import shortage
from nuq.codegen.design.rows import Place, Row
from nuq.codegen.design.sizes import Sizes
from nuq.formats.errors import UserError
from nuq.formats.hardware import Part
from nuq.formats.network import Layer, Network
from nuq.formats.packing import WORD_BYTES
from nuq.formats.rules import INPUT

A, B = 0, 1  # the memories on chip
COPY = "copy for "  # no layer's name has a space


@dataclass(frozen=True)
class Tensor:
    """A feature map, or a region of several."""

    name: str
    words: int
    birth: int  # the layer that writes it; -1: the input
    death: int  # its last reader
    members: tuple[tuple[str, int], ...] = ()  # maps inside a region, each with its offset in words

    @property
    def places(self) -> tuple[tuple[str, int], ...]:
        """Every feature map in it, with its offset in words."""
        return self.members or ((self.name, 0),)


@dataclass(frozen=True)
class Arena:
    """Where each feature map is, in words."""

    address: dict[str, int]  # by feature map
    words: int  # of an image's arena


def lifetimes(layers: tuple[Layer, ...], input_words: int, output_words: list[int]) -> list[Tensor]:
    """Feature maps with their lives; heads', which the host reads, last to the end.

    Other unread ones live while their layer runs.
    """
    last_read = _last_readers(layers)
    tensors = [Tensor(INPUT, input_words, -1, last_read.get(INPUT, -1))]
    for index, (layer, words) in enumerate(zip(layers, output_words, strict=True)):
        head = layer.quantizer is None
        death = len(layers) - 1 if head else last_read.get(layer.name, index)
        tensors.append(Tensor(layer.name, words, index, death))
    return tensors


def _last_readers(layers: tuple[Layer, ...]) -> dict[str, int]:
    return {name: index for index, layer in enumerate(layers) for name in layer.inputs}


def join_concats(
    tensors: list[Tensor], layers: tuple[Layer, ...], concats: Mapping[str, tuple[str, ...]]
) -> list[Tensor]:
    """Replace the parts of concats by regions that hold them in order.

    Concats that share parts share a region, where one order of them serves all; UserError where
    none does.

    >>> parts = [Tensor("a", 4, 0, 0), Tensor("b", 6, 1, 1), Tensor("c", 2, 2, 2)]
    >>> region, c = join_concats(parts, (), {"ab": ("a", "b")})
    >>> region.words, region.birth, region.death, region.members
    (10, 0, 1, (('ab', 0), ('a', 0), ('b', 4)))
    >>> parts.append(Tensor("d", 1, 3, 3))
    >>> (region,) = join_concats(parts, (), {"ab": "ab", "cd": "cd", "bcd": "bcd"})
    >>> region.members
    (('ab', 0), ('a', 0), ('bcd', 4), ('b', 4), ('cd', 10), ('c', 10), ('d', 12))
    """
    by_name = {tensor.name: tensor for tensor in tensors}
    last_read = _last_readers(layers)
    offset: dict[str, int] = {}  # of parts and concats from one place of their region
    regions: list[set[str]] = []
    for concat, parts in concats.items():
        ends = accumulate((by_name[part].words for part in parts), initial=0)
        starts = dict(zip(parts, ends, strict=False))
        region = {concat, *parts}
        others = [item for item in regions if not region.isdisjoint(item)]
        begins = [
            {offset[part] - start for part, start in starts.items() if part in other}
            for other in others
        ]
        if len(starts) < len(parts) or any(len(begin) > 1 for begin in begins):
            raise UserError(
                f"concat {concat}: its parts must not lie at other places in another concat; "
                "store a copy of the layers that both share"
            )
        for other, begin in zip(others, begins, strict=True):
            offset.update({name: offset[name] - min(begin) for name in other})
            regions.remove(other)
            region |= other
        regions.append(region)
        offset.update({concat: 0, **starts})
    joined = [tensor for tensor in tensors if tensor.name not in offset]
    joined += [_region(region, offset, by_name, last_read) for region in regions]
    return sorted(joined, key=lambda tensor: tensor.birth)


def _region(
    names: set[str], offset: dict[str, int], by_name: dict[str, Tensor], last_read: dict[str, int]
) -> Tensor:
    """One tensor for everything that lies at fixed distances."""
    parts = [by_name[name] for name in names if name in by_name]
    first = min(offset[name] for name in names)
    ordered = sorted(parts, key=lambda tensor: offset[tensor.name])
    for left, right in pairwise(ordered):
        if offset[left.name] + left.words > offset[right.name]:
            raise UserError(
                f"layers {left.name} and {right.name} must not share a place in their concats; "
                "store a copy of the layers that the concats share"
            )
    members = sorted(names, key=lambda name: (offset[name], name in by_name))
    return Tensor(
        ordered[0].name,
        max(offset[part.name] + part.words for part in parts) - first,
        min(part.birth for part in parts),
        max([part.death for part in parts] + [last_read.get(name, -1) for name in names]),
        tuple((name, offset[name] - first) for name in members),
    )


def allocate(tensors: list[Tensor]) -> Arena:
    """Place every tensor: largest first, each at the lowest address free during its whole life.

    >>> arena = allocate([Tensor("a", 4, 0, 1), Tensor("b", 6, 1, 2), Tensor("c", 3, 2, 3)])
    >>> arena.address, arena.words
    ({'b': 0, 'a': 6, 'c': 6}, 10)
    """
    placed: list[tuple[Tensor, int]] = []
    for tensor in sorted(tensors, key=lambda item: (-item.words, item.birth)):
        address = 0
        for other, start in sorted(placed, key=lambda item: item[1]):
            meet = tensor.birth <= other.death and other.birth <= tensor.death
            if meet and start < address + tensor.words and address < start + other.words:
                address = start + other.words
        placed.append((tensor, address))
    end = max(address + tensor.words for tensor, address in placed)
    names = {name: start + offset for tensor, start in placed for name, offset in tensor.places}
    return Arena(names, end)


def peak_words(tensors: list[Tensor]) -> int:
    """Words that are live at once at the worst moment.

    >>> peak_words([Tensor("a", 4, 0, 1), Tensor("b", 6, 1, 2), Tensor("c", 3, 2, 3)])
    10
    """
    steps = range(-1, max((tensor.death for tensor in tensors), default=-1) + 1)
    return max(sum(t.words for t in tensors if t.birth <= step <= t.death) for step in steps)


@dataclass(frozen=True)
class Chip:
    """What is on chip."""

    memory: dict[str, int] = field(default_factory=dict)  # A or B, by feature map or concat
    address: dict[str, int] = field(default_factory=dict)  # words in that memory, likewise
    # (memory, word address) of the copy that a layer reads, by layer
    cache: dict[str, tuple[int, int]] = field(default_factory=dict)
    words: tuple[int, int] = (0, 0)  # of one image in A and in B


@dataclass(frozen=True)
class Item:
    """Something that could be on chip: a feature map (or a region of them), or a layer's copy."""

    tensor: Tensor  # a copy lives while its layer runs
    memories: tuple[int, ...]  # those that it may be in
    saved: int  # words of DRAM traffic that it saves, for one image
    copy_for: Layer | None = None  # the layer whose input it is a copy of


def colours(layers: Sequence[Layer], tensors: Sequence[Tensor]) -> dict[str, int]:
    """A memory for every tensor that can have one, in the order of their births.

    The network's input and the heads' outputs are in DRAM, where the host is.
    """
    region = {name: tensor.name for tensor in tensors for name, _ in tensor.places}
    reads = [{region[name] for name in layer.inputs} for layer in layers]
    writes = [region[layer.name] for layer in layers]
    heads = {layer.name for layer in layers if layer.quantizer is None}
    colour: dict[str, int] = {}

    def allowed() -> bool:
        """Whether every layer reads one memory at most, and writes none that it reads."""
        for inputs, output in zip(reads, writes, strict=True):
            read = {colour[name] for name in inputs if name in colour}
            if len(read) > 1 or colour.get(output) in read:
                return False
        return True

    for tensor in sorted(tensors, key=lambda item: item.birth):
        if tensor.birth < 0 or tensor.name in heads:
            continue
        sources = reads[writes.index(tensor.name)]
        before = {colour[name] for name in sources if name in colour}
        for memory in (A, B) if before != {A} else (B, A):
            colour[tensor.name] = memory
            if allowed():
                break
            del colour[tensor.name]
    return colour


def candidates(
    layers: Sequence[Layer], tensors: Sequence[Tensor], rows: Sequence[Row], array: Array
) -> list[Item]:
    """Everything that could be on chip, the most DRAM words saved per word first."""
    memory, items = colours(layers, tensors), []
    output: dict[str, int] = {}  # memory of a layer's output
    for tensor in tensors:
        if tensor.name not in memory:
            continue
        inside, traffic = {name for name, _ in tensor.places}, 0
        output.update(dict.fromkeys(inside, memory[tensor.name]))
        for layer, row in zip(layers, rows, strict=True):
            for index, source in enumerate(layer.inputs):
                traffic += input_words(row, index > 0, array) if source in inside else 0
            traffic += row.output_words if layer.name in inside else 0
        items.append(Item(tensor, (memory[tensor.name],), traffic))
    for index, (layer, row) in enumerate(zip(layers, rows, strict=True)):
        if row.is_conv and row.tiles_per_group > 1:
            words = row.in_plane_words * row.blocks * row.conv_groups
            free = (1 - output[layer.name],) if layer.name in output else (A, B)
            saved = input_words(row, False, array) - cached_words(row)
            items.append(Item(Tensor(COPY + layer.name, words, index, index), free, saved, layer))
    return sorted(items, key=lambda item: (-item.saved / item.tensor.words, item.tensor.birth))


def choose(items: Sequence[Item], fits: Callable[[tuple[int, int]], bool]) -> Chip:
    """Take items as long as `fits` says that memories A and B of so many words an image do.

    A map on chip makes the copies of it pointless, which are given up for it.
    """
    taken: list[tuple[Item, int]] = []
    chip = Chip()
    for item in items:
        if item.copy_for and item.copy_for.source in chip.memory:
            continue
        names = {name for name, _ in item.tensor.places}
        useful = [
            (other, memory)
            for other, memory in taken
            if not (other.copy_for and other.copy_for.source in names)
        ]
        for memory in item.memories:
            placed = _place([*useful, (item, memory)])
            if fits(placed.words):
                taken, chip = [*useful, (item, memory)], placed
                break
    return chip


def _place(taken: list[tuple[Item, int]]) -> Chip:
    """Addresses of what was taken."""
    chip, words = Chip(), [0, 0]
    for memory in (A, B):
        items = [item for item, where in taken if where == memory]
        if not items:
            continue
        arena = allocate([item.tensor for item in items])
        words[memory] = arena.words
        for item in items:
            if item.copy_for:
                chip.cache[item.copy_for.name] = (memory, arena.address[item.tensor.name])
            for name, _ in () if item.copy_for else item.tensor.places:
                chip.memory[name], chip.address[name] = memory, arena.address[name]
    return replace(chip, words=(words[A], words[B]))


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
    """None where DRAM sees the input once and the results; else what is not on chip."""
    for layer, row in zip(layers, rows, strict=True):
        if row.out_chip != Place.CHIP and layer.quantizer is not None:
            return f"the output of layer {layer.name} ({row.output_words * WORD_BYTES:,} bytes)"
        readers = row.tiles_per_group * max(1, row.interleave)
        if INPUT in layer.inputs and row.in_chip == Place.DDR and readers > 1:
            return f"the input of layer {layer.name}, which {readers} tiles read"
    if sum(layer.inputs.count(INPUT) for layer in layers) > 1:
        return "the network's input, which several layers read"
    return None


def depths(words: tuple[int, int], batch: int) -> tuple[int, int]:
    """Depths of memories A and B; one word an image where they are not used."""
    return max(1, words[0]) * batch, max(1, words[1]) * batch


def choose_chip(
    network: Network,
    tensors: list[Tensor],
    rows: Sequence[Row],
    sizes: Sizes,
    part: Part,
    chip_words: tuple[int, int] | None = None,
) -> Chip:
    """The feature maps that fit beside everything else on the part, or memories that exist."""
    if sizes.array.fm == "ddr":
        return Chip()
    items = candidates(network.layers, tensors, rows, sizes.array)
    if chip_words is not None:
        deep_a, deep_b = chip_words
        return choose(items, lambda words: words[0] * sizes.batch <= deep_a
                      and words[1] * sizes.batch <= deep_b)  # fmt: skip
    return choose(
        items,
        lambda words: shortage(replace(sizes, chip_words=depths(words, sizes.batch)), part) is None,
    )
