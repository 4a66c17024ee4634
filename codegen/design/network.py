# SPDX-License-Identifier: Apache-2.0
"""Reads a quantized network (docs/formats.md section 1) into frozen dataclasses.

Everything is checked here and in checks.py, once: schema, hashes, shapes, ranges and accumulator
widths, so the rest of the package may trust what it gets.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np

from codegen.design.checks import check_concat, check_layer, check_squares, needed_bits
from codegen.design.layers import INPUT, WEIGHTED, Layer, Lrn, Shape, Storage
from formats.arithmetic import ENTRY_BITS, LRN_ENTRIES, MAX_INDEX_BITS, Window
from formats.build import sha256_file
from formats.errors import UserError
from formats.images import Preprocessing
from formats.quantizer import Quantizer

MANIFEST_SCHEMA = Path(__file__).parents[2] / "model_prep" / "schemas" / "manifest.schema.json"


@dataclass(frozen=True)
class Network:
    """A quantized network as the planner sees it.

    `concats` maps a name to the layers whose channels follow each other under it.
    """

    name: str
    weights: str
    weights_sha256: str
    manifest_sha256: str
    in_shape: Shape
    in_bits: int
    in_frac: int
    preprocessing: Preprocessing
    input_table: np.ndarray
    layers: tuple[Layer, ...]
    classes: tuple[str, ...] | None
    calibration: Mapping[str, Any]
    accuracy: Mapping[str, Any] | None
    folder: Path
    concats: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def parts(self, name: str) -> tuple[str, ...]:
        """The layers behind a name: a concat's parts, or the name itself."""
        return self.concats.get(name, (name,))

    def quantizer(self, name: str) -> Quantizer | None:
        """The quantizer of the feature map called `name`; None for the input and the last layer."""
        first = self.parts(name)[0]
        return next((layer.quantizer for layer in self.layers if layer.name == first), None)


def load(folder: Path) -> Network:
    """Read and check manifest.json and arrays.npz in `folder`; UserError names what is wrong."""
    path = folder / "manifest.json"
    if not path.is_file():
        raise UserError(f"{path} must exist; run `nuq quantize` first")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} must be JSON ({error}); quantize again") from None
    _validate(manifest, path)
    arrays_path = folder / "arrays.npz"
    if not arrays_path.is_file():
        raise UserError(f"{arrays_path} must exist; quantize again")
    found = sha256_file(arrays_path)
    if found != manifest["arrays_sha256"]:
        raise UserError(
            f"{arrays_path} must have the SHA-256 {manifest['arrays_sha256'][:16]}... that the "
            f"manifest states, not {found[:16]}...; quantize again"
        )
    try:
        with np.load(arrays_path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (ValueError, zipfile.BadZipFile, EOFError) as error:
        raise UserError(f"{arrays_path} must be an npz archive ({error}); quantize again") from None
    return _build(manifest, arrays, folder, sha256_file(path))


def _validate(manifest: Any, path: Path) -> None:
    if MANIFEST_SCHEMA.is_file():
        schema = json.loads(MANIFEST_SCHEMA.read_text(encoding="utf-8"))
        validator = jsonschema.validators.validator_for(schema)(schema)
        error = jsonschema.exceptions.best_match(validator.iter_errors(manifest))
        if error is not None:
            where = "/".join(str(part) for part in error.absolute_path) or "top level"
            raise UserError(f"{path} must follow its schema: {where}: {error.message}")
    if not isinstance(manifest, dict) or manifest.get("format") != 1:
        raise UserError(f"{path} must have format 1; quantize again with this version")


def _build(
    manifest: dict[str, Any], arrays: dict[str, np.ndarray], folder: Path, digest: str
) -> Network:
    spec = manifest["input"]
    in_shape = _triple(spec["shape"])
    entries = manifest["layers"]
    if not entries:
        raise UserError(f"{folder / 'manifest.json'} must have at least one layer")
    layers, concats = _layers(manifest, arrays, in_shape)
    table = _array(arrays, "input/table", (in_shape[0], 256))
    return Network(
        name=manifest["network"],
        weights=manifest["weights"],
        weights_sha256=manifest["weights_sha256"],
        manifest_sha256=digest,
        in_shape=in_shape,
        in_bits=spec["bits"],
        in_frac=spec["frac"],
        preprocessing=Preprocessing.of(spec["preprocessing"]),
        input_table=table,
        layers=layers,
        classes=tuple(manifest["classes"]) if manifest.get("classes") else None,
        calibration=manifest.get("calibration") or {},
        accuracy=manifest.get("accuracy"),
        folder=folder,
        concats=concats,
    )


def _layers(
    manifest: dict[str, Any], arrays: dict[str, np.ndarray], in_shape: Shape
) -> tuple[tuple[Layer, ...], dict[str, tuple[str, ...]]]:
    """All layers in order, and the concats, checked against what comes before them."""
    entries, waiting = manifest["layers"], list(manifest.get("concats") or [])
    shapes: dict[str, Shape] = {INPUT: in_shape}
    magnitudes = {INPUT: 1 << (manifest["input"]["bits"] - 1)}
    made: dict[str, Layer] = {}
    concats: dict[str, tuple[str, ...]] = {}
    for index, entry in enumerate(entries):
        for concat in [item for item in waiting if set(item["parts"]) <= set(made)]:
            waiting.remove(concat)
            name, parts = concat["name"], [made[part] for part in concat["parts"]]
            if name in shapes:
                raise UserError(f"concat {name}: its name must be no other feature map's")
            shapes[name] = check_concat(name, parts)
            magnitudes[name] = magnitudes[parts[0].name] if parts else 0
            concats[name] = tuple(concat["parts"])
        layer = _layer(entry, arrays, last=index == len(entries) - 1)
        if layer.name in shapes:
            raise UserError(f"layer {layer.name}: its name must be no other feature map's")
        check_layer(layer)
        for source in layer.inputs:
            if shapes.get(source) != layer.in_shape:
                raise UserError(
                    f"layer {layer.name}: input must be an earlier feature map of shape "
                    f"{layer.in_shape}, not {source}"
                )
        reach = [magnitudes[source] for source in layer.inputs]
        needed = needed_bits(layer, reach)
        check_squares(layer, reach[0])
        if not layer.weighted:
            layer = replace(layer, acc_bits=max(layer.acc_bits, needed))
        elif layer.acc_bits < needed:
            raise UserError(
                f"layer {layer.name}: acc_bits must be at least {needed}, "
                f"not {layer.acc_bits}; quantize again"
            )
        shapes[layer.name] = layer.out_shape
        magnitudes[layer.name] = layer.quantizer.magnitude if layer.quantizer else 0
        made[layer.name] = layer
    if waiting:
        raise UserError(
            f"concat {waiting[0]['name']}: parts must be layers, not "
            f"{', '.join(waiting[0]['parts'])}"
        )
    return tuple(made.values()), concats


def _layer(entry: dict[str, Any], arrays: dict[str, np.ndarray], last: bool) -> Layer:
    name, kind = entry["name"], entry["kind"]
    pool = entry.get("pool")
    if last != (entry["quantizer"] is None) or (last and pool):
        raise UserError(
            f"layer {name}: the last layer, and only it, must have no quantizer and no pool"
        )
    conv_shape = _triple(entry["conv_shape"])
    in_shape = _triple(entry["in_shape"])
    weight, bias = np.zeros((0, 0, 1, 1), np.int16), np.zeros(0, np.int32)
    bits, storage = entry["weight_bits"], None
    if kind in WEIGHTED:
        shape = (conv_shape[0], in_shape[0] // entry["groups"], *entry["kernel"])
        weight = _array(arrays, f"{name}/weight", shape)
        bias = _array(arrays, f"{name}/bias", (conv_shape[0],))
        if weight.min() < -(1 << (bits - 1)) or weight.max() >= 1 << (bits - 1):
            raise UserError(f"layer {name}: weights must fit {bits} bits; quantize again")
        storage = _storage(entry, arrays, weight)
    shift = entry["requant_shift"]
    average = entry.get("average")
    return Layer(
        name=name,
        kind=kind,
        inputs=tuple(entry["inputs"]),
        in_shape=in_shape,
        conv_shape=conv_shape,
        out_shape=_triple(entry["out_shape"]),
        kernel=_pair(entry["kernel"]),
        stride=_pair(entry["stride"]),
        dilation=_pair(entry["dilation"]),
        pads=_quad(entry["pads"]),
        groups=entry["groups"],
        macs=entry["macs"],
        pool=_pool(pool) if pool else None,
        weight_bits=bits,
        bias_shift=entry["bias_shift"],
        acc_bits=entry["acc_bits"],
        requant_shift=0 if shift is None else shift,
        quantizer=None if last else _quantizer(name, entry["quantizer"], arrays),
        out_frac=entry["out_frac"],
        sqnr_db=entry.get("sqnr_db"),
        weight=weight,
        bias=bias,
        relu=entry["relu"],
        in_aligns=tuple(entry.get("in_aligns") or [0] * len(entry["inputs"])),
        count_pad=bool(average and average["count_include_pad"]),
        lrn=_lrn(name, entry.get("lrn"), arrays),
        storage=storage,
    )


def _storage(
    entry: dict[str, Any], arrays: dict[str, np.ndarray], weight: np.ndarray
) -> Storage | None:
    """How the weights are stored; every one of them must be storable."""
    name, stored = entry["name"], entry.get("weight_storage")
    if stored is None:
        return None
    bits, scheme = stored["bits"], stored["scheme"]
    if not stored["table"]:
        if bits != entry["weight_bits"]:
            raise UserError(
                f"layer {name}: weights without a table must be stored in their "
                f"{entry['weight_bits']} bits, not {bits}; quantize again"
            )
        return Storage(bits, scheme)
    if bits > MAX_INDEX_BITS or entry["weight_bits"] > ENTRY_BITS:
        raise UserError(
            f"layer {name}: a weight table must have at most 2^{MAX_INDEX_BITS} entries of "
            f"{ENTRY_BITS} bits; quantize again"
        )
    table = _array(arrays, f"{name}/weight_table", (1 << bits,)).astype(np.int32)
    half = 1 << (entry["weight_bits"] - 1)
    if (np.diff(table) < 1).any() or table[0] < -half or table[-1] >= half:
        raise UserError(
            f"layer {name}: the weight table must increase strictly within "
            f"{-half}..{half - 1}; quantize again"
        )
    known = np.zeros(2 * half, dtype=bool)
    known[table + half] = True
    good = known[weight.reshape(-1) + half] if weight.size else np.ones(1, bool)
    if not good.all():
        raise UserError(
            f"layer {name}: weights must be entries of its weight table, not "
            f"{int(weight.reshape(-1)[good.argmin()])}; quantize again"
        )
    return Storage(bits, scheme, table)


def _lrn(name: str, entry: dict[str, Any] | None, arrays: dict[str, np.ndarray]) -> Lrn | None:
    if entry is None:
        return None
    table = _array(arrays, f"{name}/lrn_table", (LRN_ENTRIES,))
    if table.min() < 0 or table.max() >= 1 << 16:
        raise UserError(f"layer {name}: factors of a normalisation must fit 16 bits")
    return Lrn(entry["size"], entry["table_frac"], table)


def _quantizer(name: str, entry: dict[str, Any], arrays: dict[str, np.ndarray]) -> Quantizer:
    tables: dict[str, Any] = {}
    if entry["scheme"] == "knq":
        shape = (1 << entry["bits"],)
        keys = ("centroid", "threshold")
        tables = {key: _array(arrays, f"{name}/{key}", shape) for key in keys}
    try:
        return Quantizer(**entry, **tables)
    except UserError as error:
        raise UserError(f"layer {name}: {error}; quantize again") from None


def _array(arrays: dict[str, np.ndarray], key: str, shape: tuple[int, ...]) -> np.ndarray:
    if key not in arrays:
        raise UserError(f"arrays.npz must hold {key}; quantize again")
    if arrays[key].shape != shape:
        raise UserError(f"arrays.npz: {key} must have shape {shape}, not {arrays[key].shape}")
    return arrays[key]


def _pool(entry: dict[str, Any]) -> Window:
    return Window(_pair(entry["kernel"]), _pair(entry["stride"]), _quad(entry["pads"]))


def _pair(items: list[int]) -> tuple[int, int]:
    return int(items[0]), int(items[1])


def _triple(items: list[int]) -> tuple[int, int, int]:
    return int(items[0]), int(items[1]), int(items[2])


def _quad(items: list[int]) -> tuple[int, int, int, int]:
    return int(items[0]), int(items[1]), int(items[2]), int(items[3])
