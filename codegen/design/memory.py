# SPDX-License-Identifier: Apache-2.0
"""The feature map memory ("arena") of one image, and the memory figures of the reports.

A feature map lives from the layer that writes it until its last reader has run; maps whose lives
meet never overlap. The parts of a concat lie behind each other in one region, which lives as long
as any of them. NB is the papers' figure: elements times bits, summed over the layers (IEEE
papers 000/001, table V).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from formats.errors import UserError
from formats.network import Layer
from formats.rules import INPUT


@dataclass(frozen=True)
class Tensor:
    """A feature map of `words` words, written by layer `birth` (-1: input), read until `death`.

    `members` are the feature maps inside a region, each with its offset in words.
    """

    name: str
    words: int
    birth: int
    death: int
    members: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Arena:
    """Where each feature map is, in words.

    Attributes:
        address: by feature map.
        words: of an image's arena.
    """

    address: dict[str, int]
    words: int


def lifetimes(layers: tuple[Layer, ...], input_words: int, output_words: list[int]) -> list[Tensor]:
    """Feature maps with their lives; unread ones live while their layer runs."""
    last_read = {name: index for index, layer in enumerate(layers) for name in layer.inputs}
    tensors = [Tensor(INPUT, input_words, -1, last_read.get(INPUT, -1))]
    for index, (layer, words) in enumerate(zip(layers, output_words, strict=True)):
        death = len(layers) - 1 if index == len(layers) - 1 else last_read.get(layer.name, index)
        tensors.append(Tensor(layer.name, words, index, death))
    return tensors


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
    """
    by_name = {tensor.name: tensor for tensor in tensors}
    last_read = {name: index for index, layer in enumerate(layers) for name in layer.inputs}
    offset: dict[str, int] = {}  # of parts and concats from their region's first word
    regions: list[set[str]] = []
    for concat, parts in concats.items():
        starts, end = [], 0
        for part in parts:
            starts.append(end)
            end += by_name[part].words
        known = [offset[part] - start for part, start in zip(parts, starts, strict=True)
                 if part in offset]  # fmt: skip
        base = known[0] if known else 0
        region = next((item for item in regions if any(part in item for part in parts)), set())
        strangers = any(part in item for item in regions if item is not region for part in parts)
        if strangers or any(base != other for other in known) or len(set(parts)) < len(parts):
            raise UserError(
                f"concat {concat}: its parts must not lie at other places in another concat; "
                "store a copy of the layers that both share"
            )
        if not region:
            regions.append(region)
        region.update((concat, *parts))
        offset[concat] = base
        offset.update({part: base + start for part, start in zip(parts, starts, strict=True)})
    joined = [tensor for tensor in tensors if tensor.name not in offset]
    for region in regions:
        joined.append(_region(region, offset, by_name, last_read))
    return sorted(joined, key=lambda tensor: tensor.birth)


def _region(
    names: set[str], offset: dict[str, int], by_name: dict[str, Tensor], last_read: dict[str, int]
) -> Tensor:
    """One tensor for everything that lies at fixed distances."""
    parts = [by_name[name] for name in names if name in by_name]
    first = min(offset[name] for name in names)
    ordered = sorted(parts, key=lambda tensor: offset[tensor.name])
    for left, right in zip(ordered, ordered[1:], strict=False):
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
    names: dict[str, int] = {}
    for tensor, address in placed:
        members = tensor.members or ((tensor.name, 0),)
        names.update({name: address + offset for name, offset in members})
    return Arena(names, end)


def peak_words(tensors: list[Tensor]) -> int:
    """Words that are live at once at the worst moment.

    >>> peak_words([Tensor("a", 4, 0, 1), Tensor("b", 6, 1, 2), Tensor("c", 3, 2, 3)])
    10
    """
    steps = range(-1, max((tensor.death for tensor in tensors), default=-1) + 1)
    return max(sum(t.words for t in tensors if t.birth <= step <= t.death) for step in steps)


@dataclass(frozen=True)
class Footprint:
    """Bits of a set of activations.

    Attributes:
        activations: how many there are.
        nb_bits: sum of elements times bits of their code.
        half_bits: the same in half precision.
    """

    activations: int
    nb_bits: int
    half_bits: int

    @property
    def ratio(self) -> float:
        """nb_bits / half_bits."""
        return self.nb_bits / self.half_bits if self.half_bits else 0.0


def stored_footprint(layers: tuple[Layer, ...]) -> Footprint:
    """What is stored: every quantized output after its pool. The raw last layer does not count."""
    return _footprint([(layer.out_shape, layer) for layer in layers])


def paper_footprint(layers: tuple[Layer, ...]) -> Footprint:
    """The papers' count: outputs of the convolutional layers before their pool."""
    return _footprint([(layer.conv_shape, layer) for layer in layers if layer.kind == "conv"])


def _footprint(items: list[tuple[tuple[int, int, int], Layer]]) -> Footprint:
    activations = bits = 0
    for (channels, height, width), layer in items:
        if layer.quantizer:
            activations += channels * height * width
            bits += channels * height * width * layer.quantizer.bits
    return Footprint(activations, bits, 16 * activations)
