# SPDX-License-Identifier: Apache-2.0
"""design.json: what the driver must know of a network and the engine it is planned for.

The code generator writes it, the bundle carries it, and the driver on the board reads it.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nuq.formats import ending
from nuq.formats.arithmetic import scale_channels
from nuq.formats.build import sha256_file, sources_digest
from nuq.formats.ending import apply, class_values, decides, ending_of
from nuq.formats.errors import UserError, call, existing
from nuq.formats.images import Preprocessing, Reader
from nuq.formats.packing import WORD_BYTES, Gather
from nuq.formats.schema import parse

DESIGN = "design.json"
TRAFFIC = ("bytes_read", "bytes_written", "bytes_weights")  # that cross the memory ports
STAGES = ("load", "read", "unpack", "compute", "finish", "pool", "pack", "write")  # of the engine
COUNTERS = (*TRAFFIC, "cycles", *STAGES)  # of the engine, docs/formats.md section 7
PROGRAM_PORT = "program"  # pointer to the program
MAP_PORTS = ("fm_in", "fm_out")  # pointers to feature maps: one only reads, one only writes
SCALARS = ("first", "last", "images")  # the other arguments of the accelerator


def weight_pointers(count: int) -> tuple[str, ...]:
    """Names of the pointers to weights, one a memory port.

    None ends in _1 or _2, which are the halves of a pointer in the register map.

    >>> weight_pointers(3)
    ('w0', 'w1', 'w2')
    """
    return tuple(f"w{q}" for q in range(count))


def pointers(weight_ports: int) -> tuple[str, ...]:
    """Names of all pointers, in the order of the accelerator's arguments."""
    return (*weight_pointers(weight_ports), PROGRAM_PORT, *MAP_PORTS)


@dataclass(frozen=True)
class Layer:
    """One layer; addresses and sizes in words of 8 bytes."""

    name: str  # this and the next: as in the quantized network
    kind: str
    out_address: int  # place of its output in an image's part of the memory
    out_words: int
    out_shape: tuple[int, int, int]  # C, H, W
    memory: str  # where the output is: "ddr", or on-chip memory "A" or "B"
    bits: int  # T of a stored code, 64 for raw accumulators
    scheme: str  # of the output's quantizer, "raw" for a head
    qm: int | None  # None for a head
    weight_address: int  # its place in every port's section of weights.bin
    weight_words: int  # in all sections
    bias_words: int  # those of them that hold biases and the codebook
    weight_bits: int  # of a stored weight or index; 0 where there is none
    weight_crc: int  # CRC-32 of its words, section after section
    macs: int  # of one image
    cycles: int  # this and the next three: predicted for `Design.predicted_images`
    bytes_read: int
    bytes_written: int
    bytes_weights: int

    @property
    def on_chip(self) -> bool:
        """Whether the output stays in the accelerator."""
        return self.memory != "ddr"

    @property
    def bytes_moved(self) -> int:
        """Bytes from and to DRAM, predicted for `Design.predicted_images`."""
        return self.bytes_read + self.bytes_written + self.bytes_weights

    @property
    def codes(self) -> int:
        """Activations that the layer stores, of one image."""
        return self.out_shape[0] * self.out_shape[1] * self.out_shape[2]


@dataclass(frozen=True, kw_only=True)
class Output(ending.Output):
    """One output of the network, and what its integers stand for."""

    shape: tuple[int, int, int]  # C, H, W of the head
    frac: int  # value = accumulator * factor * 2^-frac / divisor
    divisor: int
    factors: tuple[int, ...]  # of each channel, the head's weight scale; none: 1

    @property
    def scale(self) -> float:
        """Value of one unit of what `predict` returns."""
        return float(2.0**-self.frac) / self.divisor

    def integers(self, raw: np.ndarray) -> np.ndarray:
        """What `predict` returns for accumulators [N, C, H, W]: those times their factors.

        [N, C] where the head has single pixels.
        """
        scaled = scale_channels(raw, self.factors) if self.factors else raw
        return scaled.reshape(scaled.shape[:2]) if self.shape[1:] == (1, 1) else scaled

    def finished(self, logits: np.ndarray) -> np.ndarray:
        """The network's own output, [N, ...], of what `predict` returns: behind its ending."""
        return apply(self.ending, logits * self.scale)


@dataclass(frozen=True)
class Design:
    """A network as an engine runs it."""

    network: str
    part: str
    engine_id: str  # what the ID register must say: 8 hexadecimal digits
    network_id: str  # of program and weights, likewise
    clock_mhz: float  # of the engine
    dram_gbs: float  # bandwidth of the DRAM that it can count on, 10^9 bytes a second
    predicted_images: int  # images of the predictions
    batch: int  # images that one call can take
    arena_words: int  # the feature map memory of one image
    input_address: int
    chip_words: tuple[int, int]  # of one image, in on-chip memories A and B
    input_words: int
    input_shape: tuple[int, int, int]  # of the pixels
    input_bits: int
    gather: Gather  # lane packing
    preprocessing: Preprocessing  # of pictures
    program_words: int  # of program.bin
    weight_words: int  # of weights.bin
    weight_bits: int  # the widest weight that is stored
    weight_ports: int  # memory ports for weights, and sections of weights.bin
    outputs: tuple[Output, ...]  # in the order of the network's file
    classes: tuple[str, ...]  # names, may be none
    layers: tuple[Layer, ...]  # in execution order
    accuracy: dict[str, Any] | None  # of the reference, in percent

    @property
    def reader(self) -> Reader:
        """What reads images for the network."""
        outputs = sum(head.codes for head in self.heads)
        outputs = 2 if decides(ending_of(self.outputs), outputs) else outputs
        return Reader(self.network, self.input_shape, outputs, self.preprocessing, self.classes)

    @property
    def arena_bytes(self) -> int:
        """Feature map memory of one image."""
        return self.arena_words * WORD_BYTES

    @property
    def weight_bytes(self) -> int:
        """Size of weights.bin."""
        return self.weight_words * WORD_BYTES

    @property
    def program_bytes(self) -> int:
        """Size of program.bin."""
        return self.program_words * WORD_BYTES

    def seconds(self, cycles: float, moved: float) -> float:
        """Model's time of so many cycles, or of so many bytes from and to DRAM if that is longer.

        Layers overlap neither, so a network takes the sum over its layers.
        """
        return max(cycles / (self.clock_mhz * 1e6), moved / (self.dram_gbs * 1e9))

    def is_dram_bound(self, cycles: float, moved: float) -> bool:
        """Whether it is the bytes that take longer."""
        return self.seconds(cycles, moved) > cycles / (self.clock_mhz * 1e6)

    @property
    def predicted_seconds(self) -> float:
        """Model's time of one image."""
        times = (self.seconds(layer.cycles, layer.bytes_moved) for layer in self.layers)
        return sum(times) / self.predicted_images

    @property
    def heads(self) -> tuple[Layer, ...]:
        """The layers whose accumulators leave the engine, in execution order."""
        return tuple(layer for layer in self.layers if layer.scheme == "raw")

    def by_output(self, raw: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Integers of the outputs, by name, of accumulators [N, C, H, W] by head."""
        return {output.name: output.integers(raw[output.layer]) for output in self.outputs}

    @property
    def classifies(self) -> bool:
        """Whether the output is a number for each class, not several outputs or a map."""
        return len(self.heads) == 1 and self.heads[0].out_shape[1:] == (1, 1)

    def answers(self, logits: np.ndarray) -> np.ndarray:
        """[N, classes], the largest the answer, of the integers [N, ...] of a classifier."""
        rows = logits.reshape(len(logits), math.prod(logits.shape[1:]))  # N may be 0
        return class_values(ending_of(self.outputs), rows)

    def layer_index(self, name: str) -> int:
        """Place of a layer; UserError where there is none of that name."""
        names = [layer.name for layer in self.layers]
        if name not in names:
            raise UserError(f"layer must be one of {', '.join(names)}, not {name}")
        return names.index(name)

    def weight_words_at(self, bits: int) -> int:
        """Words of weights.bin if no weight took more than `bits` bits; biases stay as they are."""
        words = 0
        for layer in self.layers:
            rows = layer.weight_words - layer.bias_words
            stored = max(1, layer.weight_bits)
            words += layer.bias_words + -(-rows * min(bits, stored) // stored)
        return words


def write_stamp(folder: Path, build: Path, **more: Any) -> None:
    """Say in design.json of a folder what its reports or its bitstream were made from.

    Args:
        folder: whose .bit and .hwh are named with their SHA-256, where there are any.
        build: the generated design.
        more: other entries.
    """
    made_from = {
        "engine_id": read_design(build).engine_id,
        "sources_sha256": sources_digest(build / "hls"),
        **more,
    }
    files = {
        path.name: sha256_file(path)
        for path in sorted(folder.iterdir())
        if path.suffix in (".bit", ".hwh")
    }
    entry = {**made_from, "files": files} if files else made_from
    (folder / DESIGN).write_text(json.dumps(entry, indent=1) + "\n", encoding="utf-8")


def read_stamp(folder: Path) -> dict[str, Any] | None:
    """What `write_stamp` has left in a folder; None where there is nothing."""
    path = folder / DESIGN
    if not path.is_file():
        return None
    try:
        stamp: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} must be JSON ({error}); run the tool again") from None
    return stamp


def check_bitstream(path: Path, build: Path) -> None:
    """UserError where a .bit, or the .hwh beside it, is not that of a build's design.

    The design.json beside it, which `make bitstream` writes, says what it was made from.
    """
    remedy = f"run {call('bitstream')}, or leave BITSTREAM out and remove that folder"
    stamp = read_stamp(path.parent)
    if stamp is None or "files" not in stamp:
        raise UserError(
            f"{path} must have the {DESIGN} beside it that says of which design it is; {remedy}"
        )
    engine_id = read_design(build).engine_id
    if stamp["engine_id"] != engine_id:
        raise UserError(
            f"{path} must be of engine {engine_id}, which {build} is planned for, not of "
            f"{stamp['engine_id']}; {remedy}"
        )
    if stamp["sources_sha256"] != sources_digest(build / "hls"):
        raise UserError(f"{path} must be made from the sources in {build / 'hls'}; {remedy}")
    for file in (path, path.with_suffix(".hwh")):
        if stamp["files"].get(file.name) != sha256_file(file):
            raise UserError(f"{file} must be as it was made; copy it again with its {DESIGN}")


def read_design(folder: Path) -> Design:
    """design.json of a folder; UserError where a field is missing, unknown or wrong."""
    path = existing(folder / DESIGN, f"run {call('codegen')} first")
    try:
        design: Design = parse(Design, path.read_bytes())
    except ValueError as error:
        raise UserError(f"design.json must have this program's fields ({error})") from None
    return design
