# SPDX-License-Identifier: Apache-2.0
"""`QuantizedNetwork`, and its folder: manifest.json, arrays.npz, vectors.npz (docs/formats.md 1).

The only hand-over from model preparation to the code generator.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np

from formats.arithmetic import Average, Lrn, Window
from formats.build import atomic_dir, sha256_file
from formats.errors import UserError
from formats.images import Preprocessing, look_up
from formats.quantizer import Quantizer
from model_prep.graph import WEIGHTED

FORMAT = 1
_SCHEMA = Path(__file__).parents[1] / "schemas" / "manifest.schema.json"


@dataclass(frozen=True, eq=False)
class InputFormat:
    """The network's input: signed fixed point from a table.

    Attributes:
        shape: (channels, rows, columns).
        bits: width of a code.
        frac: a code stands for code * 2^-frac.
        table: int16 [channels, 256], the code of each pixel value; normalisation is folded in.
        preprocessing: from an image file to pixels, for who reads images later.
    """

    shape: tuple[int, int, int]
    bits: int
    frac: int
    table: np.ndarray
    preprocessing: Preprocessing

    @property
    def magnitude(self) -> int:
        """Largest magnitude that a code of `bits` bits can have."""
        return 1 << (self.bits - 1)

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        """Codes (int16 [N, C, H, W]) of pixels (uint8, same shape)."""
        return look_up(self.table, pixels)


@dataclass(frozen=True, eq=False)
class QuantizedLayer:
    """One layer in integers; the fields are those of docs/formats.md 1.1.

    Attributes:
        name, kind, inputs, in_shape, conv_shape, stride, pads, dilation, groups, relu, pool: as in
            `model_prep.graph.Layer`.
        weight: int16 [out, in / groups, kernel rows, kernel columns].
        bias: int32 [out].
        weight_bits, weight_frac: a weight stands for w * 2^-weight_frac.
        weight_scheme, weight_table, stored_bits: how weights are stored, see WeightFormat: table
            int32 [2^stored_bits] or None; 0 bits: weight_bits.
        bias_bits, bias_frac, bias_shift: a bias enters the accumulator as b << bias_shift.
        acc_bits: signed width that no input can overflow.
        requant_shift: s of docs/formats.md 2.3; None for the last layer.
        quantizer: of the stored output; None for the last layer.
        out_frac: F of the stored values.
        in_aligns: add: left shift of each input.
        average: of an avgpool, or None.
        lrn, table_frac, lrn_table: of an lrn: its table int32 [LRN_ENTRIES]; or None.
        sqnr_db: output SQNR against float on calibration images, or None.
        scale: float32 [C], stored values are the float network's times this; None for 1.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    in_shape: tuple[int, int, int]
    conv_shape: tuple[int, int, int]
    stride: tuple[int, int]
    pads: tuple[int, int, int, int]
    dilation: tuple[int, int]
    groups: int
    relu: bool
    pool: Window | None
    weight: np.ndarray
    bias: np.ndarray
    weight_bits: int
    weight_frac: int
    bias_bits: int
    bias_frac: int
    bias_shift: int
    acc_bits: int
    requant_shift: int | None
    quantizer: Quantizer | None
    out_frac: int
    sqnr_db: float | None = None
    in_aligns: tuple[int, ...] = (0,)
    average: Average | None = None
    lrn: Lrn | None = None
    table_frac: int = 0
    lrn_table: np.ndarray | None = None
    weight_scheme: str = "uniform"
    weight_table: np.ndarray | None = None
    stored_bits: int = 0
    scale: np.ndarray | None = None

    @property
    def has_weights(self) -> bool:
        """Whether the layer is a convolution (or fully connected)."""
        return self.kind in WEIGHTED

    @property
    def y_range(self) -> tuple[int, int] | None:
        """(smallest, largest) requantized integer; None for the last layer.

        A ReLU ends at 0 also where the quantizer, shared with other layers, is signed.
        """
        if self.quantizer is None:
            return None
        low = self.quantizer.y_min
        if self.relu and self.kind in (*WEIGHTED, "add"):
            low = 0
        return low, self.quantizer.y_max

    @property
    def kernel(self) -> tuple[int, int]:
        """(rows, columns) of the convolution's or the average pool's kernel; (1, 1) for others."""
        if self.average:
            return self.average.kernel
        return int(self.weight.shape[2]), int(self.weight.shape[3])

    @property
    def out_shape(self) -> tuple[int, int, int]:
        """(channels, rows, columns) of what is stored: after the pool."""
        channels, height, width = self.conv_shape
        return (channels, *self.pool.out_size(height, width)) if self.pool else self.conv_shape

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image, padding included; 0 without weights."""
        _, height, width = self.conv_shape
        return int(self.weight.size) * height * width


@dataclass(frozen=True, eq=False)
class QuantizedNetwork:
    """A network in integers, with where it came from.

    Attributes:
        name: of the network.
        weights: origin: "published", "file", "seeded" or "trained".
        weights_sha256: of the float32 parameters.
        qm: width of a decoded activation.
        input: format of the network's input.
        layers: in execution order; the last one is not quantized.
        concats: channel concatenations, names of layers by name.
        classes: class names, or None.
        calibration: {source, images, labels, ...}.
        accuracy: None or percentages, see docs/formats.md 1.1.
        settings_sha256: of everything that the folder depends on, so that it can be left alone.
    """

    name: str
    weights: str
    weights_sha256: str
    qm: int
    input: InputFormat
    layers: list[QuantizedLayer]
    classes: list[str] | None = None
    calibration: dict[str, Any] = field(default_factory=dict)
    accuracy: dict[str, Any] | None = None
    settings_sha256: str = ""
    concats: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def parts_of(self, name: str) -> tuple[str, ...]:
        """The layers behind a name: a concat's parts, or the name itself."""
        return self.concats.get(name, (name,))


@cache
def schema() -> dict[str, Any]:
    """The JSON schema of manifest.json."""
    loaded: dict[str, Any] = json.loads(_SCHEMA.read_text(encoding="utf-8"))
    return loaded


def _layer_entry(layer: QuantizedLayer) -> dict[str, Any]:
    """The JSON object of one layer."""
    quantizer = layer.quantizer
    return {
        "name": layer.name, "kind": layer.kind, "inputs": list(layer.inputs),
        "in_shape": list(layer.in_shape), "conv_shape": list(layer.conv_shape),
        "out_shape": list(layer.out_shape), "kernel": list(layer.kernel),
        "stride": list(layer.stride), "dilation": list(layer.dilation), "pads": list(layer.pads),
        "groups": layer.groups, "relu": layer.relu, "macs": layer.macs,
        "pool": None if layer.pool is None else {k: list(v) for k, v in asdict(layer.pool).items()},
        "weight_bits": layer.weight_bits, "weight_frac": layer.weight_frac,
        "weight_storage": {
            "scheme": layer.weight_scheme, "bits": layer.stored_bits or layer.weight_bits,
            "table": layer.weight_table is not None,
        } if layer.has_weights else None,
        "bias_bits": layer.bias_bits, "bias_frac": layer.bias_frac, "bias_shift": layer.bias_shift,
        "acc_bits": layer.acc_bits, "requant_shift": layer.requant_shift,
        "quantizer": None if quantizer is None else {
            "scheme": quantizer.scheme, "bits": quantizer.bits, "qm": quantizer.qm,
            "frac": quantizer.frac, "variant": quantizer.variant, "rule": quantizer.rule,
            "signed": quantizer.signed,
        },
        "in_aligns": list(layer.in_aligns),
        "average": layer.average and {"count_include_pad": layer.average.count_include_pad},
        "lrn": layer.lrn and {**asdict(layer.lrn), "table_frac": layer.table_frac},
        "out_frac": layer.out_frac, "sqnr_db": layer.sqnr_db,
    }  # fmt: skip


def _arrays(network: QuantizedNetwork) -> dict[str, np.ndarray]:
    """The contents of arrays.npz."""
    arrays = {"input/table": network.input.table.astype(np.int16)}
    for layer in network.layers:
        if layer.has_weights:
            arrays[f"{layer.name}/weight"] = layer.weight.astype(np.int16)
            arrays[f"{layer.name}/bias"] = layer.bias.astype(np.int32)
        if layer.weight_table is not None:
            arrays[f"{layer.name}/weight_table"] = layer.weight_table.astype(np.int32)
        if layer.lrn_table is not None:
            arrays[f"{layer.name}/lrn_table"] = layer.lrn_table.astype(np.int32)
        if layer.scale is not None:
            arrays[f"{layer.name}/scale"] = layer.scale.astype(np.float32)
        quantizer = layer.quantizer
        if quantizer and quantizer.centroid is not None and quantizer.threshold is not None:
            arrays[f"{layer.name}/centroid"] = quantizer.centroid.astype(np.int32)
            arrays[f"{layer.name}/threshold"] = quantizer.threshold.astype(np.int32)
    return arrays


def to_json(network: QuantizedNetwork, arrays_sha256: str) -> dict[str, Any]:
    """The contents of manifest.json, checked against the schema.

    Raises:
        jsonschema.ValidationError: a field is missing or out of range; a fault of this program.
    """
    source = network.input
    entry = {
        "format": FORMAT,
        "network": network.name,
        "weights": network.weights,
        "weights_sha256": network.weights_sha256,
        "arrays_sha256": arrays_sha256,
        "settings_sha256": network.settings_sha256,
        "qm": network.qm,
        "input": {
            "shape": list(source.shape),
            "bits": source.bits,
            "frac": source.frac,
            "preprocessing": source.preprocessing.entry(),
        },
        "layers": [_layer_entry(layer) for layer in network.layers],
        "concats": [{"name": n, "parts": list(parts)} for n, parts in network.concats.items()],
        "classes": network.classes,
        "calibration": network.calibration,
        "accuracy": network.accuracy,
    }
    jsonschema.validate(entry, schema())
    return entry


def save(network: QuantizedNetwork, vectors: dict[str, np.ndarray], folder: Path) -> None:
    """Write the three files; the folder appears complete or not at all.

    Args:
        network: what to save.
        vectors: the contents of vectors.npz, docs/formats.md 1.3.
        folder: is replaced where it exists.

    Raises:
        UserError: the folder cannot be written.
    """
    with atomic_dir(folder) as temporary:
        np.savez(temporary / "arrays.npz", **_arrays(network))
        np.savez(temporary / "vectors.npz", **vectors)
        entry = to_json(network, sha256_file(temporary / "arrays.npz"))
        text = json.dumps(entry, indent=2) + "\n"
        (temporary / "manifest.json").write_text(text, encoding="utf-8")


def read_manifest(folder: Path) -> dict[str, Any]:
    """The contents of folder/manifest.json, checked against the schema; UserError if it fails."""
    path = folder / "manifest.json"
    try:
        entry: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        jsonschema.validate(entry, schema())
    except FileNotFoundError:
        raise UserError(f"{path} must exist; run nuq quantize first") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} must be a readable JSON file, not one with: {error}") from None
    except jsonschema.ValidationError as error:
        raise UserError(
            f"{path} must follow its schema: {error.json_path}: {error.message}"
        ) from None
    return entry


def _load_layer(entry: dict[str, Any], arrays: dict[str, np.ndarray]) -> QuantizedLayer:
    """One layer from its JSON object and the arrays."""
    name, quantizer, pool, lrn = (entry[key] for key in ("name", "quantizer", "pool", "lrn"))
    tables: dict[str, Any] = {
        table: arrays[f"{name}/{table}"]
        for table in ("centroid", "threshold")
        if f"{name}/{table}" in arrays
    }
    same = ("kind", "groups", "relu", "weight_bits", "weight_frac", "bias_bits", "bias_frac",
            "bias_shift", "acc_bits", "requant_shift", "out_frac", "sqnr_db")  # fmt: skip
    tuples = ("inputs", "in_shape", "conv_shape", "stride", "pads", "dilation", "in_aligns")
    values: dict[str, Any] = {key: entry[key] for key in same}
    values.update({key: tuple(entry[key]) for key in tuples})
    values.update(_load_storage(entry, arrays))
    return QuantizedLayer(
        name=name,
        pool=Window(**{key: tuple(value) for key, value in pool.items()}) if pool else None,
        weight=arrays.get(f"{name}/weight", np.zeros((0, 0, 1, 1), np.int16)),
        bias=arrays.get(f"{name}/bias", np.zeros(0, np.int32)),
        quantizer=Quantizer(**quantizer, **tables) if quantizer else None,
        average=_load_average(entry),
        lrn=lrn and Lrn(lrn["size"], lrn["alpha"], lrn["beta"], lrn["k"]),
        table_frac=lrn["table_frac"] if lrn else 0,
        lrn_table=arrays.get(f"{name}/lrn_table"),
        scale=arrays.get(f"{name}/scale"),
        **values,
    )


def _load_storage(entry: dict[str, Any], arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """The fields that say how a layer's weights are stored, checked against the weights."""
    name, stored = entry["name"], entry.get("weight_storage")
    if stored is None:
        return {}
    fields = {"weight_scheme": stored["scheme"], "stored_bits": stored["bits"]}
    if not stored["table"]:
        return fields
    table = arrays.get(f"{name}/weight_table")
    if table is None or table.shape != (1 << stored["bits"],) or (np.diff(table) < 1).any():
        raise UserError(
            f"layer {name}: {name}/weight_table must be {1 << stored['bits']} increasing entries; "
            "run nuq quantize again"
        )
    known = np.zeros(1 << 16, bool)
    known[table & 0xFFFF] = True
    good = known[arrays[f"{name}/weight"].reshape(-1).view(np.uint16)]
    if not good.all():
        wrong = int(arrays[f"{name}/weight"].reshape(-1)[good.argmin()])
        raise UserError(
            f"layer {name}: weights must be entries of its weight table, not {wrong}; "
            "run nuq quantize again"
        )
    return {**fields, "weight_table": table}


def _load_average(entry: dict[str, Any]) -> Average | None:
    """The average pool of a layer's JSON object."""
    if entry["average"] is None:
        return None
    kernel, stride, pads = (tuple(entry[key]) for key in ("kernel", "stride", "pads"))
    return Average(kernel, stride, pads, entry["average"]["count_include_pad"])


def load(folder: Path) -> QuantizedNetwork:
    """Read back what `save` wrote; UserError if a file is missing, damaged or does not belong."""
    entry = read_manifest(folder)
    path = folder / "arrays.npz"
    if not path.is_file():
        raise UserError(f"{path} must exist; run nuq quantize again")
    if sha256_file(path) != entry["arrays_sha256"]:
        raise UserError(f"{path} must belong to its manifest.json, not differ from its hash")
    with np.load(path) as stored:
        arrays = {key: stored[key] for key in stored.files}
    shape = tuple(entry["input"]["shape"])
    return QuantizedNetwork(
        name=entry["network"],
        input=InputFormat(
            (shape[0], shape[1], shape[2]),
            entry["input"]["bits"], entry["input"]["frac"], arrays["input/table"],
            Preprocessing.of(entry["input"]["preprocessing"]),
        ),
        layers=[_load_layer(layer, arrays) for layer in entry["layers"]],
        concats={item["name"]: tuple(item["parts"]) for item in entry["concats"]},
        **{key: entry[key] for key in
           ("weights", "weights_sha256", "qm", "classes", "calibration", "accuracy",
            "settings_sha256")},
    )  # fmt: skip
