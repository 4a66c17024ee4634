# SPDX-License-Identifier: Apache-2.0
"""What a conversion unit has to know: which layer index (the papers' Lidx) has which quantizer.

Tables come from a quantized network, from the published figures (published.py) or from a seed.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nuq.formats.arithmetic import unsigned_bits
from nuq.formats.network import Network
from nuq.formats.quantizer import Quantizer, thresholds


@dataclass(frozen=True)
class Entry:
    """One layer index."""

    index: int  # position of the layer in execution order
    name: str  # of the layer
    quantizer: Quantizer  # of its output (encoders) or of its input (decoders)


@dataclass(frozen=True)
class Tables:
    """Everything that one unit computes with; at least one entry."""

    source: str  # where the tables come from, a clause for file heads
    scheme: str  # "enq" or "knq", that of all entries
    layers: int  # number of layer indices, those without an entry included
    entries: tuple[Entry, ...]  # in order of the index

    @cached_property
    def qm(self) -> int:
        """Width of a fixed-point value: the largest qm."""
        return max(entry.quantizer.qm for entry in self.entries)

    @cached_property
    def bits(self) -> int:
        """Width of a code: the largest of all entries."""
        return max(entry.quantizer.bits for entry in self.entries)

    @property
    def levels(self) -> int:
        """Codes of the widest entry."""
        return 1 << self.bits

    @property
    def layer_bits(self) -> int:
        """Width of the layer index."""
        return unsigned_bits(self.layers - 1)

    @property
    def never(self) -> int:
        """A threshold that no value reaches, for entries with fewer codes than `levels`."""
        return 1 << self.qm

    @cached_property
    def table_width(self) -> int:
        """Width of a threshold: one bit more than a value where `never` is needed."""
        return self.qm + any(entry.quantizer.bits < self.bits for entry in self.entries)


def network_tables(network: Network, scheme: str, place: int | None = None) -> Tables | None:
    """Quantizers of the layers' outputs, or of their inputs as the engine decodes them.

    None where no layer uses the scheme; the papers' units know no negative values.

    Args:
        network: the network.
        scheme: "enq" or "knq".
        place: which input of a layer (only additions have a second one, 1); None for the output.
    """
    entries = []
    for index, layer in enumerate(network.layers):
        if place is None:
            quantizer = layer.quantizer
        else:
            sources = layer.inputs[place : place + 1]
            quantizer = network.quantizer(sources[0]) if sources else None
        if quantizer and quantizer.scheme == scheme and not quantizer.y_signed:
            entries.append(Entry(index, layer.name, quantizer))
    source = f"{network.name}, manifest SHA-256 {network.manifest_sha256[:16]}"
    return Tables(source, scheme, len(network.layers), tuple(entries)) if entries else None


class FreeQuantizer(Quantizer):
    """Beyond what a network may have: values of 16 bits, centroids as printed, which may repeat."""

    def __post_init__(self) -> None:
        """Nothing is refused."""


def seeded_quantizer(rng: np.random.Generator, scheme: str, bits: int, qm: int) -> Quantizer:
    """A quantizer drawn at random; KNQ centroids are distinct and start at 0, like fitted ones."""
    if scheme == "enq":
        return FreeQuantizer("enq", bits, qm, 0, "floor")
    others = rng.choice((1 << qm) - 1, size=(1 << bits) - 1, replace=False) + 1
    centroid = np.concatenate([[0], np.sort(others)]).astype(np.int32)
    table = thresholds(centroid, "nearest")
    return FreeQuantizer("knq", bits, qm, 0, rule="nearest", centroid=centroid, threshold=table)


def seeded_tables(scheme: str, bits: int, qm: int, layers: int, seed: int) -> Tables:
    """Tables of a network that does not exist, for the sweep: equal widths in all layers.

    ENQ would be a constant shift then, so its layers take the widths bits, bits - 1, bits - 2 in
    turn, as many as a real network mixes (tables II and III of paper 000).
    """
    rng = np.random.default_rng(seed)
    entries = []
    for index in range(layers):
        width = max(1, bits - index % 3) if scheme == "enq" else bits
        entries.append(Entry(index, f"layer{index}", seeded_quantizer(rng, scheme, width, qm)))
    source = f"{layers} seeded layers, {bits} bits, qm {qm}"
    return Tables(source, scheme, layers, tuple(entries))
