# SPDX-License-Identifier: Apache-2.0
"""What the driver knows about a network: design.json, tables.npz, and the bundle's manifest.

A bundle is a folder whose manifest.json names every file with its SHA-256; nothing is used before
its digest has been compared.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from board.errors import BundleError
from formats.build import sha256_file
from formats.packing import Gather

MANIFEST = "manifest.json"
DESIGN = "parameters/design.json"
TABLES = "parameters/tables.npz"
WEIGHTS = "parameters/weights.bin"
IMAGES = "images.npz"
BITSTREAM = "accelerator.bit"
HANDOFF = "accelerator.hwh"
FORMAT = 1
WORD_BYTES = 8
COUNTERS = (
    "bytes_read",
    "bytes_written",
    "bytes_weights",
    "cycles",
    "load",
    "read",
    "unpack",
    "compute",
    "finish",
    "pool",
    "pack",
    "write",
)


@dataclass(frozen=True)
class Layer:
    """One layer; addresses and sizes in words of 8 bytes.

    Attributes:
        name, kind: as in the quantized network.
        out_address, out_words: place of its output in an image's part of the memory.
        out_shape: [C, H, W]; bits: T of a stored code, 64 for raw accumulators.
        memory: where the output is: "ddr", or on-chip memory "A" or "B".
        scheme, qm: of the output's quantizer, "raw" and None for the last layer.
        weight_address: its place in every port's section of weights.bin.
        weight_words, bias_words: its words in all sections; those of biases and codebook.
        weight_bits: of a stored weight or index; 0 where there is none.
        weight_crc: CRC-32 of its words, section after section.
        macs: of one image.
        cycles, bytes_read, bytes_written, bytes_weights: predicted for `Design.predicted_images`.
    """

    name: str
    kind: str
    out_address: int
    out_words: int
    out_shape: tuple[int, int, int]
    memory: str
    bits: int
    scheme: str
    qm: int | None
    weight_address: int
    weight_words: int
    bias_words: int
    weight_bits: int
    weight_crc: int
    macs: int
    cycles: int
    bytes_read: int
    bytes_written: int
    bytes_weights: int

    @property
    def on_chip(self) -> bool:
        """Whether the output stays in the accelerator."""
        return self.memory != "ddr"

    @property
    def codes(self) -> int:
        """Activations that the layer stores, of one image."""
        return self.out_shape[0] * self.out_shape[1] * self.out_shape[2]


@dataclass(frozen=True)
class Design:
    """The network as the accelerator was generated for it.

    Attributes:
        network, part: names; design_id: what the ID register must say.
        clock_mhz: the engine's clock; predicted_images: images of the predictions.
        batch: images that one call can take.
        arena_words, input_address, input_words: the feature map memory of one image.
        chip_words: of one image, in on-chip memories A and B.
        input_shape, input_bits: of the pixels; gather: lane packing.
        weight_words, weight_bits: of weights.bin; the widest weight that is stored.
        weight_ports: memory ports for weights, and sections of weights.bin.
        output_frac, output_divisor: value of a logit = accumulator * 2^-frac / divisor.
        clnq_bits: widths of the papers' CLNQ for the convolutions, None where not published.
        classes: names of the classes, may be empty.
        layers: in execution order.
        accuracy: of the reference, in percent, or None.
    """

    network: str
    part: str
    design_id: int
    clock_mhz: float
    predicted_images: int
    batch: int
    arena_words: int
    input_address: int
    chip_words: tuple[int, int]
    input_words: int
    input_shape: tuple[int, int, int]
    input_bits: int
    gather: Gather
    weight_words: int
    weight_bits: int
    weight_ports: int
    output_frac: int
    output_divisor: int
    clnq_bits: tuple[int, ...] | None
    classes: tuple[str, ...]
    layers: tuple[Layer, ...]
    accuracy: dict[str, Any] | None

    @property
    def arena_bytes(self) -> int:
        """Feature map memory of one image."""
        return self.arena_words * WORD_BYTES

    @property
    def weight_bytes(self) -> int:
        """Size of weights.bin."""
        return self.weight_words * WORD_BYTES

    @property
    def predicted_seconds(self) -> float:
        """Model's time of one image."""
        cycles = sum(layer.cycles for layer in self.layers)
        return cycles / self.predicted_images / (self.clock_mhz * 1e6)

    @property
    def output_scale(self) -> float:
        """Value of one unit of the accumulators that `predict` returns."""
        return float(2.0**-self.output_frac) / self.output_divisor

    def layer_index(self, name: str) -> int:
        """Place of a layer; BundleError where there is none of that name."""
        names = [layer.name for layer in self.layers]
        if name not in names:
            raise BundleError(f"layer must be one of {', '.join(names)}, not {name}")
        return names.index(name)

    def weight_words_at(self, bits: int) -> int:
        """Words of weights.bin if no weight took more than `bits` bits; biases stay as they are."""
        words = 0
        for layer in self.layers:
            rows = layer.weight_words - layer.bias_words
            stored = max(1, layer.weight_bits)
            words += layer.bias_words + -(-rows * min(bits, stored) // stored)
        return words


def manifest_digest(manifest: dict[str, Any]) -> str:
    """SHA-256 of a manifest without its own digest, keys sorted."""
    content = {key: value for key, value in manifest.items() if key != "manifest_sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_manifest(folder: Path) -> dict[str, Any]:
    """manifest.json of an unpacked bundle, its own digest compared."""
    path = folder / MANIFEST
    if not path.is_file():
        raise BundleError(f"{path} must exist; unpack bundle.zip and give the folder it makes")
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        digest, version = manifest["manifest_sha256"], manifest["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{path} must be a bundle's manifest ({error}); copy it again") from None
    if version != FORMAT:
        raise BundleError(f"{path}: format must be {FORMAT}, not {version}; make the bundle again")
    if digest != manifest_digest(manifest):
        raise BundleError(f"{path} must be unchanged since it was made; copy the bundle again")
    return manifest


def check_files(folder: Path, manifest: dict[str, Any]) -> None:
    """BundleError with the file's name where any byte of any file has changed."""
    for name, entry in sorted(manifest["files"].items()):
        path = folder / name
        if not path.is_file():
            raise BundleError(f"{path} must exist; copy the bundle again")
        if path.stat().st_size != entry["bytes"] or sha256_file(path) != entry["sha256"]:
            raise BundleError(f"{path} must be unchanged since it was made; copy the bundle again")


def parse_design(data: dict[str, Any]) -> Design:
    """A Design of design.json's content; BundleError where a field is missing or unknown."""
    try:
        fields = dict(data)
        fields["design_id"] = int(fields["design_id"], 16)
        fields["layers"] = tuple(
            Layer(**{**layer, "out_shape": tuple(layer["out_shape"])}) for layer in data["layers"]
        )
        for name in (
            "input_shape",
            "classes",
            "chip_words",
        ):
            fields[name] = tuple(data[name])
        fields["gather"] = Gather(**{name: tuple(value) for name, value in data["gather"].items()})
        if data["clnq_bits"] is not None:
            fields["clnq_bits"] = tuple(data["clnq_bits"])
        return Design(**fields)
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{DESIGN} must have this driver's fields ({error})") from None


def read_design(folder: Path) -> Design:
    """design.json of an unpacked bundle."""
    return parse_design(json.loads((folder / DESIGN).read_text(encoding="utf-8")))


def read_tables(folder: Path) -> dict[str, np.ndarray]:
    """tables.npz: `input/table` int16 [C][256]; `NAME/centroid` and `NAME/threshold` int32."""
    with np.load(folder / TABLES, allow_pickle=False) as tables:
        return {name: tables[name] for name in tables.files}


def read_images(folder: Path) -> dict[str, np.ndarray]:
    """images.npz: `images` uint8 [N,C,H,W], `labels` int64 [N], `logits` int64 [N,...]."""
    with np.load(folder / IMAGES, allow_pickle=False) as images:
        return {name: images[name] for name in images.files}
