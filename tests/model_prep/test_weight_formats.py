# SPDX-License-Identifier: Apache-2.0
"""Stored forms of weights: the best codebook, what a plan may say, what a folder may hold."""

import json
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import random_graphs
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nuq.formats import network as manifest
from nuq.formats.activation import RELU
from nuq.formats.arithmetic import ENTRY_BITS, to_fixed
from nuq.formats.build import sha256_file
from nuq.formats.errors import UserError
from nuq.formats.images import Preprocessing
from nuq.formats.network import Network, Storage
from nuq.model_prep.graph import INPUT, Graph, Layer
from nuq.model_prep.quantize.fake_quant import FakeQuantized
from nuq.model_prep.quantize.integers import input_format, quantize_layers
from nuq.model_prep.quantize.plan import LayerPlan, Settings
from nuq.model_prep.quantize.plan_file import resolve
from nuq.model_prep.quantize.quantizers import WEIGHTS, WeightFormat, fit_weights
from nuq.model_prep.quantize.reference import Reference

DEFAULTS = Settings(scheme="knq", bits=3)


def graph() -> Graph:
    """A convolution and two fully connected layers."""
    random = np.random.default_rng(3)
    layers, source, channels = [], INPUT, 3
    for name, kind, out in (("conv1", "conv", 8), ("fc2", "fc", 16), ("fc3", "fc", 5)):
        weight = random.standard_normal((out, channels, 1, 1)).astype(np.float32)
        layers.append(
            Layer(
                name,
                kind,
                (source,),
                weight,
                np.zeros(out, np.float32),
                activation=RELU if name != "fc3" else None,
            )
        )
        source, channels = name, out
    return Graph("three", (3, 1, 1), layers)


def test_kmeans_is_the_best_codebook() -> None:
    """Against every codebook of 2 or 4 of the integers that occur, and their means."""
    for seed in range(6):
        random = np.random.default_rng(seed)
        values = random.standard_normal(9)
        for bits in (1, 2):
            found = fit_weights("kmeans", values, bits, "x")
            assert found.table is not None and found.table.shape == (1 << bits,)
            ordered = np.sort(to_fixed(values, 14)[0])
            least = min(
                sum(
                    ((part - int(np.floor(part.mean() + 0.5))) ** 2).sum()
                    for part in np.split(ordered, list(cuts))
                )
                for cuts in combinations(range(1, 9), (1 << bits) - 1)
            )
            error = (found.integers - to_fixed(values, 14)[0]) ** 2
            assert error.sum() == least
            assert np.isin(found.integers, found.table).all()


def test_pruned_weights_stay_zero() -> None:
    random = np.random.default_rng(1)
    values = random.standard_normal((64, 32)) * (random.random((64, 32)) < 0.3)
    found = fit_weights("kmeans", values, 4, "x")
    assert found.table is not None and 0 in found.table
    assert (found.integers[values == 0] == 0).all()


def test_uniform_is_what_it_was() -> None:
    values = np.random.default_rng(2).standard_normal((4, 3, 2, 2))
    found = fit_weights("uniform", values, 6, "x")
    assert (found.integers == to_fixed(values, 6)[0]).all() and found.table is None
    assert found.multiplied_bits == 6


def test_a_width_out_of_range_is_refused() -> None:
    with pytest.raises(UserError, match="^weight_bits of layer fc6 must be 1..8 for kmeans, not 9"):
        fit_weights("kmeans", np.ones(3), 9, "fc6")


def test_a_scheme_that_breaks_its_promise_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = WeightFormat("kmeans", 1, 0, np.array([5]), np.array([1, 2], np.int32))
    monkeypatch.setitem(WEIGHTS, "kmeans", replace(WEIGHTS["kmeans"], fit=lambda *_: broken))
    with pytest.raises(ValueError, match="^layer fc6: kmeans must give weights that can be stored"):
        fit_weights("kmeans", np.ones(1), 1, "fc6")


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(WEIGHTS)), st.integers(2, 8),
    st.integers(0, 2**32 - 1), st.sampled_from([1e-6, 0.1, 30.0]),
)  # fmt: skip
def test_weights_of_every_scheme(scheme: str, bits: int, seed: int, scale: float) -> None:
    values = (np.random.default_rng(seed).normal(0.1, 1, (4, 3, 2, 2)) * scale).astype(np.float32)
    form = WEIGHTS[scheme].fit(values, bits)
    assert (form.scheme, form.bits, form.integers.shape) == (scheme, bits, values.shape)
    assert form.integers.dtype == np.int64
    if form.table is None:
        assert np.abs(form.integers).max() < 1 << (bits - 1)
    else:
        assert form.table.dtype == np.int32 and form.table.shape == (1 << bits,)
        assert (np.diff(form.table) > 0).all()
        assert np.abs(form.table).max() < 1 << (ENTRY_BITS - 1)
        assert np.isin(form.integers, form.table).all()
        exact = values.astype(np.float64).ravel() * 2.0**form.frac
        off = np.abs(exact[:, None] - form.table[None, :]).min(axis=1)
        assert (np.abs(form.integers.ravel() - exact) <= off + 1).all()  # rounded twice


def test_weight_formats_by_hand() -> None:
    values = np.array([-1.0, -0.5, 0.25, 0.75])
    form = WEIGHTS["dynamic"].fit(values, 4)  # IL = 0 and the sign: FL = 3
    assert (form.frac, form.integers.tolist()) == (3, [-7, -4, 2, 6])
    linear = WEIGHTS["linear"].fit(np.array([-7.0, 7.0, 0.0, 3.0]), 1)
    assert linear.table is not None
    # middles +-3584.25 of -7168.5..7168.5
    assert (linear.frac, linear.table.tolist()) == (10, [-3584, 3584])
    assert linear.integers.tolist() == [-3584, 3584, 3584, 3584]


@pytest.mark.parametrize("scheme", sorted(WEIGHTS))
@pytest.mark.parametrize("values", [np.zeros((2, 3)), np.zeros((0, 3)), np.full((2, 2), 0.3)])
def test_weights_without_spread(scheme: str, values: np.ndarray) -> None:
    form = WEIGHTS[scheme].fit(values, 4)
    assert form.integers.shape == values.shape
    if not values.any():
        assert not form.integers.any() or form.table is not None


def test_a_gaussian_table_saturates_outliers_and_serves_the_rest() -> None:
    """What table 3 of paper 004 shows for fc6 at 6 bits: 0.06 against 0.74."""
    values = np.random.default_rng(3).normal(0, 0.01, 50_000)
    values[:5] = 0.5
    error = {}
    for scheme in ("linear", "gaussian"):
        form = WEIGHTS[scheme].fit(values, 6)
        error[scheme] = np.square(form.integers * 2.0**-form.frac - values)[5:].sum()
    assert error["gaussian"] < error["linear"] / 20


def stored(plan: list[LayerPlan] | tuple[LayerPlan, ...]) -> list[tuple[str, int]]:
    return [(layer.weight_scheme, layer.weight_bits) for layer in plan]


def test_plan_names_schemes_by_layer_and_kind(tmp_path: Path) -> None:
    assert stored(resolve(graph(), Settings(), DEFAULTS).layers) == [("uniform", 14)] * 3
    everywhere = Settings(weight_scheme="kmeans")
    assert stored(resolve(graph(), everywhere, DEFAULTS).layers) == [("kmeans", 8)] * 3
    path = tmp_path / "plan.toml"
    path.write_text(
        'weight_bits = 10\n[kind.fc]\nweight_scheme = "kmeans"\nweight_bits = 4\n'
        "[layer.fc3]\nweight_bits = 6\n"
    )
    want = [("uniform", 10), ("kmeans", 4), ("kmeans", 6)]
    assert stored(resolve(graph(), Settings(), DEFAULTS, path).layers) == want
    kinds = {"fc": {"weight_scheme": "kmeans", "weight_bits": 5}}
    found = resolve(graph(), Settings(weight_bits=12), DEFAULTS, None, kinds)
    assert stored(found.layers) == [("uniform", 12), ("kmeans", 5), ("kmeans", 5)]


@pytest.mark.parametrize(
    ("settings", "kinds", "text"),
    [
        (Settings(weight_scheme="odd"), {}, "WEIGHT_SCHEME must be one of uniform, dynamic, kmea"),
        (Settings(weight_bits=0), {}, "WEIGHT_BITS must be 1..16, not 0"),
        (Settings(weight_bits=1), {}, "weight_bits of layer conv1 must be 2..16 for uniform, not "),
        (Settings(), {"weight_scheme": "kmeans", "weight_bits": 9},
         "weight_bits of layer fc2 must be 1..8 for kmeans, not 9"),
        (Settings(), {"weight_bits": 99}, "FC_WEIGHT_BITS must be 1..16, not 99"),
    ],
)  # fmt: skip
def test_plan_refuses(settings: Settings, kinds: dict[str, object], text: str) -> None:
    with pytest.raises(UserError) as found:
        resolve(graph(), settings, DEFAULTS, None, {"fc": kinds})
    assert str(found.value).startswith(text)


@pytest.fixture()
def network() -> Network:
    """A random network whose layers all have a codebook of 8 entries."""
    made = random_graphs.quantized(46)
    layers = []
    for layer in made.layers:
        fitted = fit_weights("kmeans", layer.weight.astype(np.float64), 3, layer.name)
        layers.append(
            replace(
                layer,
                weight=fitted.integers.astype(np.int16),
                weight_storage=Storage("kmeans", 3, fitted.table),
                weight_bits=14,
                acc_bits=40,
            )  # fmt: skip
        )
    return replace(made, layers=tuple(layers))


def test_folder_keeps_codebooks(network: Network, tmp_path: Path) -> None:
    manifest.save(network, {"labels": np.array([-1])}, tmp_path / "q")
    for before, after in zip(network.layers, manifest.load(tmp_path / "q").layers, strict=True):
        assert (after.stored.scheme, after.stored.bits) == ("kmeans", 3)
        assert np.array_equal(before.stored.table, after.stored.table)
    with np.load(tmp_path / "q" / "arrays.npz") as arrays:
        assert arrays[f"{network.layers[0].name}/weight_table"].dtype == np.int32


@pytest.mark.parametrize("change", ["weight", "table"])
def test_damaged_codebooks_are_refused(network: Network, tmp_path: Path, change: str) -> None:
    folder = tmp_path / "q"
    manifest.save(network, {"labels": np.array([-1])}, folder)
    name = network.layers[0].name
    arrays = dict(np.load(folder / "arrays.npz"))
    table = arrays[f"{name}/weight_table"]
    if change == "weight":
        free = next(value for value in range(-8, 8) if value not in table)
        arrays[f"{name}/weight"].reshape(-1)[0] = free
        text = f"layer {name}: weights must be entries of its weight table, not {free}"
    else:
        arrays[f"{name}/weight_table"] = table[::-1]
        text = f"layer {name}: the weight table must increase strictly within -8192..8191"
    np.savez(folder / "arrays.npz", **arrays)
    entry = json.loads((folder / "manifest.json").read_text())
    entry["arrays_sha256"] = sha256_file(folder / "arrays.npz")
    (folder / "manifest.json").write_text(json.dumps(entry))
    with pytest.raises(UserError) as found:
        manifest.load(folder)
    assert str(found.value).startswith(text)


def test_searches_see_the_codebook() -> None:
    """The float mode multiplies by the integers that the integer reference multiplies by."""
    net = graph()
    plans = resolve(net, Settings(weight_scheme="kmeans", weight_bits=2), DEFAULTS).layers
    values = np.tile(np.linspace(-1, 1, 256), (3, 1))
    source = input_format((3, 1, 1), values, Preprocessing.plain(3))
    fake = FakeQuantized(net, source, plans)
    for layer in net.layers:
        weight, _ = fake._parameters[layer.name]
        fitted = fit_weights("kmeans", layer.weight, 2, layer.name)
        assert torch.equal(weight, torch.from_numpy(
            (fitted.integers * 2.0**-fitted.frac).astype(np.float32)
        ))  # fmt: skip
        assert len(np.unique(weight)) <= 4
    last = replace(net.layers[2], inputs=(INPUT,), weight=net.layers[2].weight[:, :3])
    one = Graph("one", (3, 1, 1), [last])
    fake = FakeQuantized(one, source, plans[2:])
    layers = quantize_layers(one, source, plans[2:], [None])
    pixels = np.random.default_rng(0).integers(0, 256, (4, 3, 1, 1), dtype=np.uint8)
    quantized = Network(
        name="one",
        weights="seeded",
        weights_sha256="0" * 64,
        qm=12,
        input=source,
        layers=tuple(layers),
    )
    integer = dict(Reference(quantized).run(source.encode(pixels)))["fc3"].reshape(4, -1)
    scaled = integer * 2.0 ** -layers[0].out_frac
    assert np.allclose(fake.logits(pixels, {}), scaled, rtol=1e-4, atol=1e-4)
