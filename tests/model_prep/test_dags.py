# SPDX-License-Identifier: Apache-2.0
"""DAGs of all kinds: the integer model equals docs/formats.md 2 bit for bit, and files keep it."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import random_graphs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nuq.formats import network as manifest
from nuq.formats.arithmetic import LRN_ENTRIES, Lrn, Window, lrn_table
from nuq.formats.errors import UserError
from nuq.formats.quantizer import Quantizer
from nuq.formats.rules import check_pool
from nuq.model_prep.graph import INPUT, Graph, Layer, no_bias, no_weight
from nuq.model_prep.quantize import quantizers
from nuq.model_prep.quantize.integers import quantize_operation
from nuq.model_prep.quantize.plan import Settings
from nuq.model_prep.quantize.plan_file import resolve
from nuq.model_prep.quantize.reference import Reference
from nuq.model_prep.quantize.sharing import signed_layers
from tests import naive


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_random_dags(seed: int) -> None:
    try:
        network = random_graphs.quantized(seed)
    except UserError as error:
        assert "must" in str(error)
        return
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (2, *network.input.shape), dtype=np.uint8)
    codes = network.input.encode(pixels)
    want = naive.run(network, codes)
    for name, got in Reference(network).run(codes):
        assert (got == want[name]).all(), name


def test_the_generator_reaches_every_kind() -> None:
    kinds: Counter[str] = Counter()
    for seed in range(60):
        try:
            network = random_graphs.quantized(seed)
        except UserError:
            continue
        kinds.update(layer.kind for layer in network.layers)
        chosen = [layer.quantizer for layer in network.layers if layer.quantizer]
        kinds["signed"] += sum(one.signed for one in chosen)
        kinds["concat"] += len(network.concats)
        kinds["last " + network.layers[-1].kind] += 1
    wanted = (
        "conv", "add", "mul", "maxpool", "avgpool", "lrn", "signed", "concat", "last avgpool"
    )  # fmt: skip
    assert all(kinds[kind] >= 5 for kind in wanted), kinds


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**32 - 1))
def test_files_keep_all_kinds(seed: int, tmp_path: Path) -> None:
    try:
        network = random_graphs.quantized(seed)
    except UserError:
        return
    folder = tmp_path / "quantized"
    manifest.save(network, {"labels": np.array([-1])}, folder)
    loaded = manifest.load(folder)
    assert loaded.concats == network.concats
    pixels = np.random.default_rng(seed).integers(0, 256, (1, *network.input.shape), dtype=np.uint8)
    codes = network.input.encode(pixels)
    for want, got in zip(Reference(network).run(codes), Reference(loaded).run(codes), strict=True):
        assert want[0] == got[0]
        assert (want[1] == got[1]).all()


def conv(name: str, source: str, channels: int = 8, **changes: object) -> Layer:
    weight = np.ones((8, channels, 1, 1), np.float32)
    return Layer(name, "conv", (source,), weight, np.zeros(8, np.float32), **changes)  # type: ignore[arg-type]


def pooling(name: str, source: str, size: int, step: int = 1) -> Layer:
    pool = Window((size, size), (step, step))
    return Layer(name, "maxpool", (source,), no_weight(), no_bias(), pool=pool, activation=None)


def dag() -> Graph:
    """a, b -> ab -> c (signed) ; copy of a and c -> ac ; pool of d."""
    layers = [
        conv("a", INPUT), conv("b", INPUT), conv("c", "ab", 16, activation=None),
        pooling("e", "a", 1),
        conv("d", "ce", 16), pooling("p", "d", 2), conv("last", "p", activation=None),
    ]  # fmt: skip
    return Graph("g", (8, 4, 4), layers, {"ab": ("a", "b"), "ce": ("c", "e")})


def test_who_shares_a_quantizer() -> None:
    graph = dag()
    plan = resolve(graph, Settings(), Settings(scheme="knq", bits=4))
    owners = {layer.name: layer.owner for layer in plan.layers[:-1]}
    assert owners == {"a": "a", "b": "a", "c": "a", "e": "a", "d": "d", "p": "d"}
    assert signed_layers(graph) == {"a", "b", "c", "e"} == plan.signed
    assert [layer.name for layer in plan.layers if not layer.counted] == ["d"]
    different = resolve(graph, Settings(bits=[4, 4, 4, 8, 4, 5]), Settings(scheme="knq"))
    assert different.layers[5].owner == "p"  # another format than its source's
    assert different.layers[3].bits == 4  # a copy has the format of what it copies


def test_parts_with_different_formats_are_refused() -> None:
    text = "^layers a and b must have the same scheme, bits, qm, rule and variant, as they are "
    with pytest.raises(UserError, match=text):
        resolve(dag(), Settings(bits=[4, 5, 4, 4, 4, 4]), Settings(scheme="knq"))


def test_a_signed_maximum_needs_codes_of_a_table() -> None:
    pool = pooling("p", "a", 2)
    Graph(
        "g",
        (8, 4, 4),
        [conv("a", INPUT, activation=None), pool, conv("last", "p", activation=None)],
    )
    for scheme, text in (("knq", ""), ("enq", "ordered, not those of enq"), ("uniform", "uniform")):
        made = quantizers.fit(scheme, np.ones(1 << 8, np.int64), 4, 8, 3, signed=True)
        done = quantize_operation(pool, [made.frac], [made.magnitude], made)
        if text:
            with pytest.raises(UserError, match=f"^layer p: a max pool of values .* {text}"):
                check_pool(done)
        else:
            check_pool(done)


@settings(deadline=None)
@given(st.integers(2, 12), st.integers(1, 12), st.sampled_from(["knq", "enq", "uniform"]))
def test_signed_quantizers(qm: int, bits: int, scheme: str) -> None:
    bits = max(2 if scheme == "uniform" else 1, min(bits, qm, 8))
    random = np.random.default_rng(qm * 100 + bits)
    histogram = random.integers(0, 9, 1 << qm) + 1
    quantizer = quantizers.fit(scheme, histogram, bits, qm, 3, signed=True)
    y = np.arange(quantizer.y_min, quantizer.y_max + 1)
    codes = quantizer.encode(y)
    assert (naive.encode(y, quantizer) == codes).all()
    assert (naive.decode(codes, quantizer) == quantizer.decode(codes)).all()
    assert (np.diff(quantizer.round_trip()) >= 0).all()
    assert codes.max() < 1 << bits


def test_signed_knq_is_the_unsigned_one_moved() -> None:
    histogram = np.random.default_rng(5).integers(0, 50, 256)
    moved = quantizers.fit("knq", histogram, 4, 8, 0, signed=True)
    plain = quantizers.fit("knq", histogram, 4, 8, 0)
    assert (moved.round_trip() == plain.round_trip() - 128).all()


@settings(deadline=None)
@given(
    st.integers(1, 9), st.floats(0, 10), st.floats(0, 4), st.floats(0.01, 10), st.integers(-3, 14)
)
def test_lrn_table(size: int, alpha: float, beta: float, k: float, frac: int) -> None:
    form = Lrn(size, alpha, beta, k)
    table, table_frac = lrn_table(form, frac)
    assert table.shape == (LRN_ENTRIES,)
    assert 0 <= table.min() <= table.max() < 1 << 16
    assert table_frac == 24 or 2 * table.max() > (1 << 16) - 3
    for q in (0, 1, 63, 64, 65, 12345, (1 << 36) - 1):
        exact = (k + alpha / size * q * 4.0**-frac) ** -beta * 2.0**table_frac
        # 1/32 octave: the chord of q^-beta is within beta (beta + 1) / 8 / 32^2 of it
        bound = 2 + exact * beta * (beta + 1) / 8 / 32**2 * 1.3
        assert abs(naive.lrn_factor(table, q) - exact) <= bound


def test_sums_of_squares_that_leave_the_table() -> None:
    layer = Layer("n", "lrn", ("a",), no_weight(), no_bias(), lrn=Lrn(5, 1.0, 0.75, 1.0))
    layer.in_shape = layer.conv_shape = (8, 2, 2)
    with pytest.raises(UserError, match=r"^layer n: sums of squares must be below 2\^36, not 5 ti"):
        quantize_operation(layer, [0], [1 << 17], Quantizer("uniform", 8, 8, 0))
