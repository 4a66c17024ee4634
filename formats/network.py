# SPDX-License-Identifier: Apache-2.0
"""`Network`: a quantized network in integers, which is manifest.json and arrays.npz.

Section 1 of docs/formats.md as classes: what they hold is what the files hold, so the JSON schema
is theirs (`python -m nuq.formats.network` prints it). `save` writes a folder, `load` reads one and
checks everything that its readers rely on.
"""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from nuq.formats.activation import Activation
from nuq.formats.arithmetic import (
    LRN_ENTRIES,
    LRN_FACTOR_BITS,
    MAX_ACC_BITS,
    MAX_LRN_FRAC,
    RECIPROCAL_BITS,
    SCALE_BITS,
    Average,
    Lrn,
    Pads,
    Pair,
    Shape,
    Size,
    Upscale,
    Window,
    reciprocal,
    scale_channels,
)  # fmt: skip
from nuq.formats.build import atomic_dir, sha256_file
from nuq.formats.ending import Output
from nuq.formats.errors import UserError, call, existing
from nuq.formats.images import Preprocessing, look_up
from nuq.formats.quantizer import Quantizer
from nuq.formats.rules import INPUT, KINDS, WEIGHTED, check_layer, check_network
from nuq.formats.schema import (
    DRAFT,
    Limits,
    absent,
    arrays_in,
    check,
    from_json,
    schema_of,
    stored,
    to_json,
)

STORAGE_SCHEMES = ("uniform", "dynamic", "kmeans", "linear", "gaussian")  # of weights
# the arrays of a layer, in the order of the archive
ARRAYS = {
    "weight": np.int16, "bias": np.int32, "weight_table": np.int32, "weight_scale": np.uint8,
    "lrn_table": np.int32, "scale": np.float32, "centroid": np.int32, "threshold": np.int32,
}  # fmt: skip
TITLE = "Quantized network, see docs/formats.md 1.1"

Name = Annotated[str, Limits(pattern="^[a-z][a-z0-9_]*$")]
Hash = Annotated[str, Limits(pattern="^[0-9a-f]{64}$")]
Percent = Annotated[float, Limits(minimum=0, maximum=100)] | None


@dataclass(frozen=True, eq=False)
class InputFormat:
    """The network's input: signed fixed point from a table."""

    shape: Shape  # channels, rows, columns
    bits: Annotated[int, Limits(minimum=2, maximum=16)]
    frac: int  # a code stands for code * 2^-frac
    # int16 [channels, 256], the code of each pixel value; normalisation is folded in
    table: np.ndarray = stored(array="input/table")
    # from an image file to pixels, for who reads images later
    preprocessing: Preprocessing  # type: ignore[misc]  # `stored` gives the table no default

    @property
    def magnitude(self) -> int:
        """Largest magnitude that a code of `bits` bits can have."""
        return 1 << (self.bits - 1)

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        """Codes (int16 [N, C, H, W]) of pixels (uint8, same shape)."""
        return look_up(self.table, pixels)


@dataclass(frozen=True, eq=False)
class Storage:
    """How a layer's weights are stored: `bits` each, as integers or as indices into `table`."""

    scheme: Annotated[str, Limits(enum=[*STORAGE_SCHEMES])]  # who chose them, for reports
    bits: Annotated[int, Limits(minimum=1, maximum=16)]  # of a stored weight or index
    table: np.ndarray | None = stored(  # int32 [2^bits], strictly increasing
        array="weight_table", kind=bool, write=lambda table: table is not None, default=None
    )


@dataclass(frozen=True, eq=False)
class LrnTable(Lrn):
    """A normalisation in fixed point: int32 factors [LRN_ENTRIES] of `table_frac` fraction bits."""

    table_frac: Annotated[int, Limits(maximum=MAX_LRN_FRAC)]
    table: np.ndarray = stored(array="lrn_table")


@dataclass(frozen=True)
class Divisor:
    """What an average pool divides by: whether window elements outside the map count."""

    count_include_pad: bool


@dataclass(frozen=True, eq=False, kw_only=True)
class Layer:
    """One layer in integers: a convolution or an operation without weights, encoder, max pool."""

    name: Name
    kind: Annotated[str, Limits(enum=[*KINDS])]
    # feature maps that it reads: layers, concats or INPUT; two for "add" and "mul"
    inputs: Annotated[tuple[Name, ...], Limits(minItems=1)]
    in_shape: Shape
    conv_shape: Shape  # before the max pool, out_shape behind it and what enlarges
    out_shape: Shape = field(init=False)
    kernel: Pair  # this and the next three: of the convolution or the average pool
    stride: Pair
    dilation: Pair
    pads: Pads
    groups: Size
    activation: Activation | None  # what follows, in front of the max pool
    macs: int = -1  # multiply-accumulates for one image, padding included; 0 without weights
    pool: Window | None  # the max pool, fused or all there is of a layer
    upscale: Upscale | None = None  # behind the pool: how its pixels are stored
    weight_bits: Annotated[int, Limits(minimum=0, maximum=16)]
    # a weight that is multiplied stands for w * 2^-weight_frac, times its channel's weight_scale
    weight_frac: int
    weight_storage: Storage | None = None  # None: as integers of weight_bits
    # uint8 [out], 1..255: m of docs/formats.md 2.3; None for 1 everywhere
    weight_scale: np.ndarray | None = stored(
        array="weight_scale", kind=bool, write=lambda scale: scale is not None, default=None
    )
    bias_bits: Annotated[int, Limits(minimum=0, maximum=32)]
    bias_frac: int
    bias_shift: Annotated[int, Limits(minimum=0, maximum=62)]  # the sum begins at b << bias_shift
    # signed width that no input can overflow
    acc_bits: Annotated[int, Limits(minimum=1, maximum=MAX_ACC_BITS)]
    requant_shift: int | None  # s of docs/formats.md 2.3; None for a head
    quantizer: Quantizer | None  # of the stored output; None for a head
    in_aligns: Annotated[  # add: left shift of each input
        tuple[Annotated[int, Limits(minimum=0, maximum=52)], ...], {"minItems": 1, "maxItems": 2}
    ] = (0,)
    average: Divisor | None = None
    lrn: LrnTable | None = None
    out_frac: int  # F of the stored values
    sqnr_db: float | None = None  # of the output against float on calibration images
    weight: np.ndarray = stored(  # int16 [out, in / groups, kernel rows, kernel columns]
        array="weight", default_factory=lambda: np.zeros((0, 0, 1, 1), np.int16)
    )
    # int32 [out]
    bias: np.ndarray = stored(array="bias", default_factory=lambda: np.zeros(0, np.int32))
    # float32 [C], stored values are the float network's times this; None for 1
    scale: np.ndarray | None = stored(array="scale", default=None)

    def __post_init__(self) -> None:
        """Fill in what follows from the other fields."""
        shape = (self.conv_shape[0], *self.pooled_size)
        object.__setattr__(self, "out_shape", self.upscale.shape(shape) if self.upscale else shape)
        if self.macs < 0:
            size = self.conv_shape[1] * self.conv_shape[2]
            object.__setattr__(self, "macs", int(self.weight.size) * size)

    @property
    def has_weights(self) -> bool:
        """Whether the layer is a convolution (or fully connected)."""
        return self.kind in WEIGHTED

    @property
    def pooled_size(self) -> Pair:
        """Rows and columns behind the max pool, before they are enlarged."""
        return self.pool.out_size(*self.conv_shape[1:]) if self.pool else self.conv_shape[1:]

    @property
    def source(self) -> str:
        """The first feature map that it reads."""
        return self.inputs[0]

    @property
    def stored(self) -> Storage:
        """How its weights are stored."""
        return self.weight_storage or Storage("uniform", self.weight_bits)

    @property
    def averaging(self) -> Average | None:
        """The window of an avgpool, or None."""
        if self.average is None:
            return None
        return Average(self.kernel, self.stride, self.pads, self.average.count_include_pad)

    @property
    def exclude_pad(self) -> bool:
        """Whether the average pool's divisor depends on the window's place."""
        average = self.averaging
        return bool(average and (average.divisors(*self.in_shape[1:]) != average.size).any())

    @property
    def y_range(self) -> tuple[int, int] | None:
        """(smallest, largest) requantized integer; None for a head.

        A ReLU ends at 0 also where the quantizer, shared with other layers, is signed.
        """
        if self.quantizer is None:
            return None
        rectifies = self.activation is not None and self.activation.rectifies
        ends_at_0 = rectifies and self.kind != "maxpool"
        return 0 if ends_at_0 else self.quantizer.y_min, self.quantizer.y_max

    @property
    def reciprocal(self) -> int:
        """R of an average pool that divides by the same n everywhere, else 0."""
        average = self.averaging
        return 0 if average is None or self.exclude_pad else int(reciprocal(average.size))

    @property
    def product_bits(self) -> int:
        """Signed width of what is requantized: the accumulator, times a factor where there is one.

        R <= 2^24 takes 25 bits, a normalisation factor 16, a weight scale 8; all are positive.
        """
        if self.quantizer is None:
            return self.acc_bits
        if self.average:
            most = 1 << RECIPROCAL_BITS if self.exclude_pad else self.reciprocal
            return self.acc_bits + most.bit_length()
        if self.weight_scale is not None:
            return self.acc_bits + SCALE_BITS
        return self.acc_bits + (LRN_FACTOR_BITS if self.lrn else 0)

    def outputs(self, raw: np.ndarray) -> np.ndarray:
        """Raw accumulators [N, C, ...] in units of 2^-out_frac: times the weight scale, if any."""
        return raw if self.weight_scale is None else scale_channels(raw, self.weight_scale)

    @cached_property
    def lowest_weight(self) -> int:
        """The smallest weight of a layer that has some."""
        return int(self.weight.min())


@dataclass
class CalibrationEntry:
    """What a network's tables were measured on."""

    source: str
    images: Size
    labels: bool
    includes_test_images: bool
    refine: list[str] = field(default_factory=list)


@dataclass
class AccuracyEntry:
    """Percentages of some images; top-5 is None for 10 classes or fewer."""

    images: Size
    float_top1: Percent
    float_top5: Percent
    integer_top1: Percent
    integer_top5: Percent
    agreement: Percent


@dataclass
class ConcatEntry:
    """A channel concatenation of layers."""

    name: Name
    parts: Annotated[list[Name], Limits(minItems=1)]


@dataclass(frozen=True, eq=False, kw_only=True)
class Network:
    """A network in integers, with where it came from."""

    format: Literal[1] = field(default=1, init=False)  # version of the files
    name: Name = stored(name="network")
    weights: Annotated[str, Limits(enum=["published", "file", "seeded", "trained"])]
    weights_sha256: Hash  # of the float32 parameters
    arrays_sha256: Hash = ""  # of arrays.npz, once it is written
    # of everything that the folder depends on, so that it can be left alone
    settings_sha256: Hash = ""
    qm: Annotated[int, Limits(minimum=2, maximum=16)]  # width of a decoded activation
    input: InputFormat
    # in execution order; heads, the last one among them, are not quantized
    layers: Annotated[tuple[Layer, ...], Limits(minItems=1)]
    concats: dict[str, tuple[str, ...]] = stored(  # names of layers by name
        kind=list[ConcatEntry],
        write=lambda concats: [{"name": n, "parts": list(parts)} for n, parts in concats.items()],
        read=lambda entries: {entry["name"]: tuple(entry["parts"]) for entry in entries},
        default_factory=dict,
    )
    # in the file's order; none are given: the values of the last layer
    outputs: tuple[Output, ...] = ()
    classes: list[str] | None = None
    calibration: dict[str, Any] = stored(kind=CalibrationEntry, default_factory=dict)
    accuracy: dict[str, Any] | None = stored(kind=AccuracyEntry | None, default=None)
    folder: Path = absent(default=Path())  # this and the next: of a network that was read
    manifest_sha256: str = absent(default="")

    def __post_init__(self) -> None:
        """Let a network whose outputs are not given have one."""
        if self.layers and not self.outputs:
            outputs = (Output("output", self.layers[-1].name),)
            object.__setattr__(self, "outputs", outputs)

    @property
    def heads(self) -> tuple[str, ...]:
        """The layers whose accumulators leave the engine, in execution order."""
        return tuple(layer.name for layer in self.ends)

    @property
    def ends(self) -> tuple[Layer, ...]:
        """The heads as layers."""
        return tuple(layer for layer in self.layers if layer.quantizer is None)

    @property
    def classifies(self) -> bool:
        """Whether the output is a number for each class, not several outputs or a map."""
        return len(self.ends) == 1 and self.ends[0].out_shape[1:] == (1, 1)

    def parts_of(self, name: str) -> tuple[str, ...]:
        """The layers behind a name: a concat's parts, or the name itself."""
        return self.concats.get(name, (name,))

    def shape(self, name: str) -> Shape:
        """(channels, rows, columns) of the feature map called `name`."""
        if name == INPUT:
            return self.input.shape
        parts = self.parts_of(name)
        shapes = {layer.name: layer.out_shape for layer in self.layers if layer.name in parts}
        return (sum(shapes[part][0] for part in parts), *shapes[parts[0]][1:])

    def quantizer(self, name: str) -> Quantizer | None:
        """The quantizer of the feature map called `name`; None for the input and heads."""
        first = self.parts_of(name)[0]
        return next((layer.quantizer for layer in self.layers if layer.name == first), None)


def _arrays(network: Network) -> dict[str, np.ndarray]:
    """The contents of arrays.npz."""
    arrays = {"input/table": network.input.table.astype(np.int16)}
    for layer in network.layers:
        own = arrays_in(layer)
        for key, kind in ARRAYS.items():
            if key in own and (layer.has_weights or key not in ("weight", "bias")):
                arrays[f"{layer.name}/{key}"] = own[key].astype(kind)
    return arrays


def save(network: Network, vectors: Mapping[str, np.ndarray], folder: Path) -> None:
    """Write manifest.json, arrays.npz and vectors.npz; the folder appears complete or not at all.

    Args:
        vectors: the contents of vectors.npz, docs/formats.md 1.3.
        folder: is replaced where it exists; UserError where it cannot be written.
    """
    with atomic_dir(folder) as temporary:
        np.savez(temporary / "arrays.npz", **_arrays(network))
        np.savez(temporary / "vectors.npz", **vectors)
        entry = to_json(replace(network, arrays_sha256=sha256_file(temporary / "arrays.npz")))
        fault = check(schema(), entry)
        if fault is not None:  # of this program, not of its user
            raise ValueError(f"manifest.json must follow its schema: {fault}")
        text = json.dumps(entry, indent=2) + "\n"
        (temporary / "manifest.json").write_text(text, encoding="utf-8")


@cache
def schema() -> dict[str, Any]:
    """The JSON schema of manifest.json."""
    return {"$schema": DRAFT, "title": TITLE, **schema_of(Network)}


def read_manifest(folder: Path) -> dict[str, Any]:
    """The contents of folder/manifest.json, checked against the schema; UserError if it fails."""
    path = existing(folder / "manifest.json", f"run {call('quantize')} first")
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} must be a readable JSON file, not one with: {error}") from None
    fault = check(schema(), manifest)
    if fault is not None:
        raise UserError(f"{path} must follow its schema: {fault}; quantize again")
    return manifest


def load(folder: Path) -> Network:
    """Read and check manifest.json and arrays.npz in `folder`; UserError names what is wrong."""
    manifest = read_manifest(folder)
    path = existing(folder / "arrays.npz", f"run {call('quantize')} again")
    digest = sha256_file(path)
    if digest != manifest["arrays_sha256"]:
        raise UserError(
            f"{path} must have the SHA-256 {manifest['arrays_sha256'][:16]}... that its "
            f"manifest.json states, not {digest[:16]}...; quantize again"
        )
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (ValueError, zipfile.BadZipFile, EOFError) as error:
        raise UserError(f"{path} must be an npz archive ({error}); quantize again") from None
    shape = (manifest["input"]["shape"][0], 256)
    table = _array(arrays, "input/table", shape)
    network: Network = from_json(Network, {**manifest, "layers": []}, {"input/table": table})
    layers = tuple(_layer(entry, arrays) for entry in manifest["layers"])
    network = replace(
        network, layers=layers, folder=folder, manifest_sha256=sha256_file(folder / "manifest.json")
    )
    check_network(network)
    return network


def _layer(entry: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Layer:
    """One layer from its JSON object and its arrays."""
    name, storage, quantizer = entry["name"], entry.get("weight_storage"), entry["quantizer"]
    shapes: dict[str, tuple[int, ...]] = {}
    if entry["kind"] in WEIGHTED:
        out = entry["conv_shape"][0]
        shapes["weight"] = (out, entry["in_shape"][0] // entry["groups"], *entry["kernel"])
        shapes["bias"] = (out,)
    if storage and storage["table"]:
        shapes["weight_table"] = (1 << storage["bits"],)
    if entry.get("weight_scale"):
        shapes["weight_scale"] = (entry["conv_shape"][0],)
    if quantizer and quantizer["scheme"] == "knq":
        shapes["centroid"] = shapes["threshold"] = (1 << quantizer["bits"],)
    if entry.get("lrn"):
        shapes["lrn_table"] = (LRN_ENTRIES,)
    if f"{name}/scale" in arrays:
        shapes["scale"] = (entry["out_shape"][0],)
    own = {key: _array(arrays, f"{name}/{key}", shape) for key, shape in shapes.items()}
    try:
        layer: Layer = from_json(Layer, entry, own)
    except UserError as error:
        raise UserError(f"layer {name}: {error}; quantize again") from None
    check_layer(layer, tuple(entry["out_shape"]))
    return layer


def _array(arrays: Mapping[str, np.ndarray], key: str, shape: tuple[int, ...]) -> np.ndarray:
    if key not in arrays:
        raise UserError(f"arrays.npz must hold {key}; quantize again")
    if arrays[key].shape != shape:
        raise UserError(f"arrays.npz: {key} must have shape {shape}, not {arrays[key].shape}")
    return arrays[key]


if __name__ == "__main__":
    print(json.dumps(schema(), indent=2))
