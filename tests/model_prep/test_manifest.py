# SPDX-License-Identifier: Apache-2.0
"""Saving and loading a quantized network: equal after a round trip, refused where damaged."""

import json
from dataclasses import fields, replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import random_graphs

from nuq.formats import network as manifest
from nuq.formats.errors import UserError
from nuq.formats.network import Network
from nuq.model_prep.quantize.reference import Reference


@pytest.fixture()
def network() -> Network:
    return random_graphs.quantized(46)


@pytest.fixture()
def folder(network: Network, tmp_path: Path) -> Path:
    path = tmp_path / "net" / "quantized"
    manifest.save(network, {"labels": np.array([-1])}, path)
    return path


def test_round_trip(network: Network, folder: Path) -> None:
    loaded = manifest.load(folder)
    pixels = np.random.default_rng(0).integers(0, 256, (1, *network.input.shape), dtype=np.uint8)
    codes = network.input.encode(pixels)
    assert (loaded.input.encode(pixels) == codes).all()
    for want, got in zip(Reference(network).run(codes), Reference(loaded).run(codes), strict=True):
        assert want[0] == got[0]
        assert (want[1] == got[1]).all()
    for before, after in zip(network.layers, loaded.layers, strict=True):
        for field in fields(before):
            if field.name not in ("weight", "bias", "quantizer", "weight_storage"):
                assert getattr(before, field.name) == getattr(after, field.name), field.name
        assert (before.stored.scheme, before.stored.bits) == (
            after.stored.scheme, after.stored.bits,
        )  # fmt: skip
    names = ("name", "weights", "weights_sha256", "qm", "classes", "calibration", "accuracy")
    for name in names:
        assert getattr(network, name) == getattr(loaded, name)


def test_equal_networks_give_equal_files(network: Network, folder: Path, tmp_path: Path) -> None:
    manifest.save(network, {"labels": np.array([-1])}, tmp_path / "again")
    for name in ("manifest.json", "arrays.npz", "vectors.npz"):
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_arrays_have_the_documented_types(network: Network, folder: Path) -> None:
    with np.load(folder / "arrays.npz") as arrays:
        types = {key: str(arrays[key].dtype) for key in arrays.files}
    assert types["input/table"] == "int16"
    for layer in network.layers:
        arrays_of = {name: types.get(f"{layer.name}/{name}") for name in ("weight", "bias")}
        expected = {"weight": "int16", "bias": "int32"}
        assert arrays_of == (expected if layer.has_weights else dict.fromkeys(expected))
        is_knq = layer.quantizer is not None and layer.quantizer.scheme == "knq"
        assert (f"{layer.name}/centroid" in types) == is_knq
        assert types.get(f"{layer.name}/threshold", "int32") == "int32"


def test_the_schema_is_checked_before_anything_appears(network: Network, tmp_path: Path) -> None:
    bad = replace(network, weights="guessed")
    with pytest.raises(ValueError, match="'guessed' is not one of"):
        manifest.save(bad, {}, tmp_path / "quantized")
    assert list(tmp_path.iterdir()) == []


def change(folder: Path, **values: object) -> None:
    path = folder / "manifest.json"
    entry = json.loads(path.read_text())
    entry.update(values)
    path.write_text(json.dumps(entry))


def test_damage_is_found(folder: Path) -> None:
    change(folder, qm=99)
    with pytest.raises(UserError, match=r"manifest.json must follow its schema: \$\.qm: 99 is gre"):
        manifest.load(folder)
    change(folder, qm=12, arrays_sha256="0" * 64)
    with pytest.raises(UserError, match="arrays.npz must have the SHA-256 0000000000000000"):
        manifest.load(folder)
    (folder / "arrays.npz").unlink()
    with pytest.raises(UserError, match="arrays.npz must exist; run `nuq quantize`"):
        manifest.load(folder)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(UserError, match="manifest.json must be a readable JSON file, not one with"):
        manifest.load(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(UserError, match="manifest.json must exist; run `nuq quant"):
        manifest.load(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"scheme": "up"},
        {"scheme": "knq", "bits": 9, "variant": None, "rule": "nearest"},
        {"scheme": "knq", "variant": "mid", "rule": "nearest"},
        {"scheme": "enq", "variant": None, "rule": None},
        {"scheme": "uniform", "bits": 1, "variant": None, "rule": None},
    ],
)
def test_the_schema_knows_the_schemes(folder: Path, changes: dict[str, object]) -> None:
    entry = json.loads((folder / "manifest.json").read_text())
    entry["layers"][0]["quantizer"].update({"bits": 4, "qm": 12, **changes})
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(entry, manifest.schema())
