# SPDX-License-Identifier: Apache-2.0
"""What a conversion unit has to know: which layer index (the papers' Lidx) has which quantizer.

Tables come from a quantized network, from the published figures (published/ilnq.json, paper 000
tables III-V) or from a seed.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from formats.arithmetic import unsigned_bits
from formats.errors import UserError
from formats.network import Network
from formats.quantizer import Quantizer, thresholds

PUBLISHED = Path(__file__).parent / "published" / "ilnq.json"
PUBLISHED_QM = 12


@dataclass(frozen=True)
class Entry:
    """One layer index.

    Attributes:
        index: position of the layer in execution order.
        name: the layer's name.
        quantizer: of its output (encoders) or of its input (decoders).
    """

    index: int
    name: str
    quantizer: Quantizer


@dataclass(frozen=True)
class Tables:
    """Everything that one unit computes with.

    Attributes:
        source: where the tables come from, a clause for file heads.
        scheme: "enq" or "knq", that of all entries.
        layers: number of layer indices, those without an entry included.
        entries: in order of the index.
    """

    source: str
    scheme: str
    layers: int
    entries: tuple[Entry, ...]

    def __post_init__(self) -> None:
        """Refuse an empty table, by UserError."""
        if not self.entries:
            raise UserError(f"{self.source}: a unit must have at least one {self.scheme} layer")

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


def encoder_tables(network: Network, scheme: str) -> Tables | None:
    """Quantizer of each layer's output; None where no layer uses the scheme."""
    found = [(i, layer.name, layer.quantizer) for i, layer in enumerate(network.layers)]
    return _from_network(network, scheme, found)


def decoder_tables(network: Network, scheme: str, place: int = 0) -> Tables | None:
    """Quantizer of each layer's input, as the engine decodes it; None without the scheme.

    Args:
        network: the network.
        scheme: "enq" or "knq".
        place: which input of a layer; only additions have a second one, 1.
    """
    found = [
        (i, layer.name, network.quantizer(layer.inputs[place]))
        for i, layer in enumerate(network.layers)
        if len(layer.inputs) > place
    ]
    return _from_network(network, scheme, found)


def _from_network(
    network: Network, scheme: str, found: list[tuple[int, str, Quantizer | None]]
) -> Tables | None:
    """Tables of the scheme's quantizers; the papers' units know no negative values."""
    entries = tuple(
        Entry(i, name, q) for i, name, q in found if q and q.scheme == scheme and not q.signed
    )
    if not entries:
        return None
    source = f"{network.name}, manifest SHA-256 {network.manifest_sha256[:16]}"
    return Tables(source, scheme, len(network.layers), entries)


def published() -> dict[str, Any]:
    """The published figures, as published/ilnq.json has them."""
    data: dict[str, Any] = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    return data


def published_knq(rule: str) -> Tables:
    """VGG-16 with the centroids of table IV.

    The table has no row for conv1_1, whose index is left without an entry. Its 4096 is one above
    the largest 12-bit value; the paper clips at M = 2^12 - 1, so 4095 is what is meant. The row
    conv1_2 begins with thirteen zeros, which are kept: its codes 0 to 11 are never given.

    Args:
        rule: "floor", the paper as written, or "nearest".
    """
    rows = published()["vgg16_knq_centroids"]
    entries = []
    for index, (name, row) in enumerate(rows.items(), start=1):
        centroid = np.minimum(np.array(row, np.int32), (1 << PUBLISHED_QM) - 1)
        quantizer = PublishedQuantizer(
            "knq", len(row).bit_length() - 1, PUBLISHED_QM, 0,
            rule=rule, centroid=centroid, threshold=thresholds(centroid, rule),
        )  # fmt: skip
        entries.append(Entry(index, name, quantizer))
    return Tables(f"VGG-16, paper table IV, rule {rule}", "knq", len(rows) + 1, tuple(entries))


def published_enq(variant: str) -> Tables:
    """VGG-16's convolutional layers with the code widths of table III, index 6."""
    widths = published()["vgg16_enq_bits"]
    entries = tuple(
        Entry(index, name, Quantizer("enq", bits, PUBLISHED_QM, 0, variant))
        for index, (name, bits) in enumerate(widths.items())
        if name.startswith("conv")
    )
    return Tables(
        f"VGG-16, paper table III index 6, variant {variant}", "enq", len(entries), entries
    )


class PublishedQuantizer(Quantizer):
    """KNQ with a centroid table as printed, which need not increase strictly."""

    def _check_tables(self) -> None:
        """Nothing: the table is what it is."""


def seeded_quantizer(rng: np.random.Generator, scheme: str, bits: int, qm: int) -> Quantizer:
    """A quantizer drawn at random; KNQ centroids are distinct and start at 0, like fitted ones."""
    if scheme == "enq":
        return Quantizer("enq", bits, qm, 0, "floor")
    others = rng.choice((1 << qm) - 1, size=(1 << bits) - 1, replace=False) + 1
    centroid = np.concatenate([[0], np.sort(others)]).astype(np.int32)
    table = thresholds(centroid, "nearest")
    return Quantizer("knq", bits, qm, 0, rule="nearest", centroid=centroid, threshold=table)


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
