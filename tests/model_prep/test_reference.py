# SPDX-License-Identifier: Apache-2.0
"""The vectorised integer model equals a direct transcription of docs/formats.md 2, bit for bit."""

from dataclasses import replace

import numpy as np
import pytest
import random_graphs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nuq.formats.activation import RELU
from nuq.formats.arithmetic import Window
from nuq.formats.errors import UserError
from nuq.formats.images import Preprocessing
from nuq.formats.network import InputFormat, Layer, Network
from nuq.formats.quantizer import Quantizer
from nuq.model_prep.graph import INPUT
from nuq.model_prep.quantize import exact_conv
from nuq.model_prep.quantize.reference import Reference
from tests import naive


def check(network: Network, codes: np.ndarray) -> None:
    """Every layer of every image is equal."""
    want = naive.run(network, codes)
    for name, got in Reference(network).run(codes):
        assert (got == want[name]).all(), name


@pytest.fixture()
def minimal_filtering(monkeypatch: pytest.MonkeyPatch) -> None:
    """Minimal filtering also where so few channels do not pay for it."""
    monkeypatch.setattr(exact_conv, "_MINIMAL_FROM", 16)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(0, 2**32 - 1))
@pytest.mark.usefixtures("minimal_filtering")
def test_random_networks(seed: int) -> None:
    try:
        network = random_graphs.quantized(seed)
    except UserError as error:
        assert "must" in str(error)
        return
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (2, *network.input.shape), dtype=np.uint8)
    check(network, network.input.encode(pixels))


def one_layer(**changes: object) -> Network:
    """A single layer of extreme integers, with fields replaced."""
    random = np.random.default_rng(11)
    shape = (18, 7, 6)
    weight = random.integers(-8191, 8192, (18, 18, 3, 3)).astype(np.int16)
    fields: dict[str, object] = {
        "name": "only", "kind": "conv", "inputs": (INPUT,), "in_shape": shape,
        "conv_shape": shape, "kernel": (3, 3), "stride": (1, 1), "pads": (1, 1, 1, 1),
        "dilation": (1, 1),
        "groups": 1, "activation": RELU, "pool": None, "weight": weight,
        "bias": random.integers(-8191, 8192, 18).astype(np.int32), "weight_bits": 14,
        "weight_frac": 13, "bias_bits": 14, "bias_frac": 10, "bias_shift": 3, "acc_bits": 32,
        "requant_shift": 14, "quantizer": Quantizer("uniform", 12, 12, 5), "out_frac": 5,
    }  # fmt: skip
    fields.update(changes)
    layer = Layer(**fields)  # type: ignore[arg-type]
    table = np.tile(np.arange(256, dtype=np.int16), (18, 1))
    source = InputFormat(shape, 10, 8, table, Preprocessing.plain(18))
    return Network(
        name="one", weights="seeded", weights_sha256="0" * 64, qm=12, input=source, layers=(layer,)
    )


def extreme_codes(magnitude: int) -> np.ndarray:
    """Input codes of which a third are the smallest and a third the largest."""
    return np.random.default_rng(3).choice([-magnitude, 0, magnitude - 1], (1, 18, 7, 6))


@pytest.mark.parametrize("shift", [-3, 0, 1, 14, 30, 53])
@pytest.mark.parametrize("route", ["_minimal", "_shifted", "_gathered"])
def test_every_route_and_shift(route: str, shift: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact_conv, "_MINIMAL_FROM", 16 if route == "_minimal" else 1 << 60)
    if route == "_gathered":
        monkeypatch.setattr(exact_conv, "_SHIFTED_FROM", 1 << 60)
    network = one_layer(requant_shift=shift)
    if shift < 53:  # a rounding term of 2^52 leaves no room for the transforms' growth
        convolution = exact_conv.ExactConvolution(network.layers[0])
        assert convolution._convolve is not None
        assert convolution._convolve.__name__ == route
    check(network, extreme_codes(512).astype(np.int16))


@pytest.mark.parametrize("block", [1, 1 << 12])
def test_blocks_of_rows_join(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact_conv, "_BLOCK_BYTES", block)
    monkeypatch.setattr(exact_conv, "_MINIMAL_BLOCK_BYTES", block)
    codes = extreme_codes(512).astype(np.int16)
    check(one_layer(), codes)
    with monkeypatch.context() as every_width:
        every_width.setattr(exact_conv, "_MINIMAL_FROM", 16)
        check(one_layer(), codes)
    check(one_layer(pool=Window((3, 2), (2, 1), (1, 0, 1, 0))), codes)
    weight = np.random.default_rng(1).integers(-8191, 8192, (18, 9, 3, 3)).astype(np.int16)
    check(one_layer(groups=2, weight=weight), codes)


def test_sums_near_two_to_the_52_are_exact() -> None:
    weight = np.full((1, 18, 7, 6), 32767, np.int16)
    weight[0, 0, 0, 0] = 1
    network = one_layer(
        kind="fc", pads=(0, 0, 0, 0), conv_shape=(1, 1, 1), weight=weight, kernel=(7, 6),
        bias=np.array([(1 << 31) - 1], np.int32), bias_shift=20, acc_bits=53,
        quantizer=None, requant_shift=None, activation=None,
    )  # fmt: skip
    codes = extreme_codes(512).astype(np.int16)
    codes[0, 0, 0, 0] = 1
    check(network, codes)


def test_float32_is_used_only_where_it_is_exact() -> None:
    for acc_bits, name in ((24, "float32"), (25, "float32"), (26, "float64")):
        layer = one_layer(acc_bits=acc_bits, requant_shift=0, stride=(2, 2)).layers[0]
        assert str(exact_conv.ExactConvolution(layer).dtype) == f"torch.{name}"


def test_sixteen_bit_codes_do_not_turn_negative() -> None:
    network = one_layer(quantizer=Quantizer("uniform", 16, 16, 5), requant_shift=8)
    last = replace(
        network.layers[0], name="last", inputs=("only",), quantizer=None, requant_shift=None,
        activation=None, acc_bits=40,
    )  # fmt: skip
    network = replace(network, layers=[network.layers[0], last])
    codes = extreme_codes(512).astype(np.int16)
    assert dict(Reference(network).run(codes))["only"].max() > 32767
    check(network, codes)


def test_images_do_not_mix() -> None:
    network = random_graphs.quantized(46)
    pixels = np.random.default_rng(0).integers(0, 256, (3, *network.input.shape), dtype=np.uint8)
    codes = network.input.encode(pixels)
    model = Reference(network)
    together = dict(model.run(codes))
    for index in range(3):
        for name, alone in model.run(codes[index : index + 1]):
            assert (together[name][index] == alone[0]).all()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"acc_bits": 54}, "^layer only: accumulator must fit 53 bits, not 54; use fewer"),
        ({"requant_shift": 54}, "^layer only: requantize shift must be -31..53, not 54"),
        ({"requant_shift": -32}, "^layer only: requantize shift must be -31..53, not -32"),
    ],
)
def test_what_could_be_inexact_is_refused(changes: dict[str, object], text: str) -> None:
    with pytest.raises(UserError, match=text):
        Reference(one_layer(**changes))
