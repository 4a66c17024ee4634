# SPDX-License-Identifier: Apache-2.0
"""design.json: what the driver must know of a generated accelerator and its network.

The code generator writes it, the bundle carries it, and the driver on the board reads it.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from formats.errors import UserError, existing
from formats.images import Preprocessing, Reader
from formats.packing import WORD_BYTES, Gather

DESIGN = "design.json"
TRAFFIC = ("bytes_read", "bytes_written", "bytes_weights")  # that cross the memory ports
STAGES = ("load", "read", "unpack", "compute", "finish", "pool", "pack", "write")  # of the engine
COUNTERS = (*TRAFFIC, "cycles", *STAGES)  # of the engine, docs/formats.md section 7


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
        input_shape, input_bits: of the pixels; gather: lane packing; preprocessing: of pictures.
        weight_words, weight_bits: of weights.bin; the widest weight that is stored.
        weight_ports: memory ports for weights, and sections of weights.bin.
        output_frac, output_divisor: value of a logit = accumulator * 2^-frac / divisor.
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
    preprocessing: Preprocessing
    weight_words: int
    weight_bits: int
    weight_ports: int
    output_frac: int
    output_divisor: int
    classes: tuple[str, ...]
    layers: tuple[Layer, ...]
    accuracy: dict[str, Any] | None

    @property
    def reader(self) -> Reader:
        """What reads images for the network."""
        outputs = self.layers[-1].codes
        return Reader(self.network, self.input_shape, outputs, self.preprocessing, self.classes)

    @property
    def identity(self) -> str:
        """The ID in hexadecimal, as messages and reports have it."""
        return f"{self.design_id:08x}"

    def entry(self) -> dict[str, Any]:
        """The fields as JSON holds them."""
        return asdict(self)

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


def read_design(folder: Path) -> Design:
    """design.json of a folder; UserError where a field is missing or unknown."""
    path = existing(folder / DESIGN, "run `make codegen` first")
    try:
        fields = _frozen(json.loads(path.read_text(encoding="utf-8")))
        return Design(
            **{
                **fields,
                "gather": Gather(**fields["gather"]),
                "preprocessing": Preprocessing.of(fields["preprocessing"]),
                "layers": tuple(Layer(**layer) for layer in fields["layers"]),
            }
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"design.json must have this program's fields ({error})") from None


def _frozen(value: Any) -> Any:
    """JSON's lists as tuples.

    >>> _frozen([1, {"a": [2, [3]]}])
    (1, {'a': (2, (3,))})
    """
    if isinstance(value, list):
        return tuple(_frozen(item) for item in value)
    if isinstance(value, dict):
        return {name: _frozen(item) for name, item in value.items()}
    return value
