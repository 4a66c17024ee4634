# SPDX-License-Identifier: Apache-2.0
"""Weights with a scale for each output channel: how m is found, what a folder may hold."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nuq.formats.arithmetic import MAX_ACC_BITS
from nuq.formats.errors import UserError
from nuq.formats.images import Preprocessing
from nuq.formats.network import Layer as IntegerLayer
from nuq.formats.network import Network
from nuq.formats.rules import check_exact, check_layer
from nuq.model_prep.graph import INPUT, Graph, Layer
from nuq.model_prep.quantize.channel_scale import rounding_scale
from nuq.model_prep.quantize.fake_quant import FakeQuantized
from nuq.model_prep.quantize.integers import input_format, quantize_layers
from nuq.model_prep.quantize.plan import Settings
from nuq.model_prep.quantize.plan_file import resolve
from nuq.model_prep.quantize.quantizers import WEIGHTS, fit, fit_weights
from nuq.model_prep.quantize.reference import Reference
from tests import naive

SOURCE = input_format(
    (4, 6, 6), np.repeat(np.arange(256)[None] / 64 - 2, 4, axis=0), Preprocessing.plain(4)
)
PIXELS = np.random.default_rng(8).integers(0, 256, (5, 4, 6, 6), np.uint8)
DEFAULTS = Settings(scheme="uniform", bits=9, weight_bits=8)


def errors(values: np.ndarray, scale: np.ndarray, frac: int, bits: int) -> np.ndarray:
    """Squared error of each channel's weights in steps of scale * 2^-frac."""
    top, step = (1 << (bits - 1)) - 1, scale[:, None] * 2.0**-frac
    return np.asarray(
        np.square(np.clip(np.rint(values / step), -top, top) * step - values).sum(axis=1)
    )


@pytest.mark.parametrize("bits", [3, 4, 6, 8])
def test_a_scale_is_nearly_the_best_of_all(bits: int) -> None:
    random = np.random.default_rng(bits)
    spread = 2.0 ** random.uniform(-2, 0, (40, 1))  # so that m is large enough to be fine
    values = random.standard_normal((40, 200)) * spread
    scale, frac = rounding_scale(values, bits)
    found = errors(values, scale, frac, bits)
    every = [errors(values, np.full(40, m), frac, bits) for m in range(1, 256)]
    best = np.min(every, axis=0)  # of m by luck, too: a neighbour that happens to suit the weights
    assert (found <= 1.3 * best).all() and found.sum() <= 1.1 * best.sum()


def test_a_channel_with_small_weights_keeps_its_precision() -> None:
    random = np.random.default_rng(1)
    values = random.standard_normal((8, 100)) * np.array([1, 1, 1, 1, 1, 1, 1, 1 / 60])[:, None]
    by_layer = fit_weights("uniform", values, 8, "x").values - values
    by_channel = fit_weights("uniform", values, 8, "x", "channel").values - values
    assert np.square(by_channel[-1]).sum() < np.square(by_layer[-1]).sum() / 100
    assert np.square(by_channel).sum() < np.square(by_layer).sum() / 1.3


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(WEIGHTS)), st.integers(2, 8), st.sampled_from(["layer", "channel"]),
    st.integers(0, 2**32 - 1), st.sampled_from([1e-6, 0.1, 30.0]),
)  # fmt: skip
def test_the_smallest_integer_never_occurs(
    scheme: str, bits: int, scale: str, seed: int, factor: float
) -> None:
    values = np.random.default_rng(seed).normal(-0.5, 1, (4, 3, 2, 2)) * factor
    form = fit_weights(scheme, values, bits, "x", scale)
    half = 1 << (form.multiplied_bits - 1)
    assert np.abs(form.integers if form.table is None else form.table).max() < half
    assert (form.scale is not None) == (scale == "channel")
    if form.scale is not None:
        assert form.scale.dtype == np.uint8 and form.scale.min() >= 1
    worst = np.square(form.values - values).sum() / np.square(values).sum()
    assert worst < (0.9 if bits == 2 else 0.35)


def test_channels_without_weights() -> None:
    for scheme in WEIGHTS:
        form = fit_weights(scheme, np.zeros((3, 4)), 4, "x", "channel")
        assert form.scale is not None and form.scale.tolist() == [255, 255, 255]


def test_scales_that_are_given_keep_weights_on_their_grid() -> None:
    random = np.random.default_rng(4)
    scale = random.integers(1, 256, 20)
    values = random.integers(-90, 91, (20, 30)) * scale[:, None] * 2.0**-12
    form = fit_weights("uniform", values, 8, "x", "channel", scale.tolist())
    assert np.array_equal(form.values, values)
    assert form.scale is not None and form.scale.tolist() == scale.tolist()


def graph() -> Graph:
    """A convolution, a depthwise one, a classifier; channels of very different size."""
    random = np.random.default_rng(3)

    def layer(name: str, source: str, shape: tuple[int, ...], **options: object) -> Layer:
        weight = random.standard_normal(shape) * 2.0 ** random.uniform(-5, 0, (shape[0], 1, 1, 1))
        bias = random.standard_normal(shape[0]) * 0.3
        return Layer(
            name, "conv", (source,), weight.astype(np.float32) / shape[1],
            bias.astype(np.float32), **options,  # type: ignore[arg-type]
        )  # fmt: skip

    return Graph("scaled", (4, 6, 6), [
        layer("a", INPUT, (16, 4, 3, 3), pads=(1, 1, 1, 1)),
        layer("b", "a", (16, 1, 3, 3), groups=16, pads=(1, 1, 1, 1)),
        layer("c", "b", (5, 16, 6, 6), activation=None),
    ])  # fmt: skip


def quantized(scale: str, **settings: object) -> tuple[Network, np.ndarray]:
    """The integers of `graph`, and what the fake-quantized network gives for PIXELS."""
    net = graph()
    asked = Settings(weight_scale=scale, **settings)
    plans = resolve(net, asked, DEFAULTS).layers
    counts = np.ones(1 << 9, np.int64)
    tables = {name: fit("uniform", counts, 9, 9, 6) for name in ("a", "b")}
    layers = quantize_layers(net, SOURCE, plans, [tables.get(one.name) for one in net.layers])
    network = Network(
        name="scaled", weights="file", weights_sha256="0" * 64, qm=9, input=SOURCE,
        layers=tuple(layers),
    )  # fmt: skip
    fake = FakeQuantized(net, SOURCE, plans).logits(PIXELS, tables)
    return network, fake.reshape(len(PIXELS), -1)


@pytest.mark.parametrize("scheme", ["uniform", "kmeans"])
def test_integers_stand_for_what_is_fake_quantized(scheme: str) -> None:
    network, fake = quantized("channel", weight_scheme=scheme)
    codes = SOURCE.encode(PIXELS)
    stored = dict(Reference(network).run(codes))
    for name, wanted in naive.run(network, codes).items():
        assert name == "input" or np.array_equal(stored[name], wanted)
    last = network.layers[-1]
    logits = Reference(network).logits(codes) * 2.0**-last.out_frac
    assert np.abs(logits - fake).max() < 0.02 * np.abs(fake).max()
    for layer, own in zip(network.layers, graph().layers, strict=True):
        assert layer.weight_scale is not None and layer.bias_bits == 32
        unit = layer.weight_scale * 2.0**-layer.bias_frac
        assert (np.abs(layer.bias * unit - own.bias) <= unit / 2).all()


def test_8_bits_by_channel_are_nearer_than_by_layer() -> None:
    exact = quantized("layer", weight_bits=16)[1]
    error = {scale: np.square(quantized(scale)[1] - exact).sum() for scale in ("layer", "channel")}
    assert error["channel"] < error["layer"] / 3


def scaled_layer(**changes: object) -> IntegerLayer:
    """The depthwise layer, with other fields."""
    return replace(quantized("channel")[0].layers[1], **changes)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"weight": np.full((16, 1, 3, 3), -128, np.int16)},
         "weights with a weight_scale must be -127..127, not -128; quantize again"),
        ({"weight_scale": np.zeros(16, np.uint8)},
         "weight_scale must be 1..255, not 0; quantize again"),
        ({"weight_scale": np.full(16, 300, np.int32)},
         "weight_scale must be 1..255, not 300; quantize again"),
    ],
)  # fmt: skip
def test_a_wrong_scale_is_refused(changes: dict[str, object], text: str) -> None:
    check_layer(scaled_layer(), (16, 6, 6))
    with pytest.raises(UserError, match=f"^layer b: {text}$"):
        check_layer(scaled_layer(**changes), (16, 6, 6))


def test_a_product_too_wide_is_refused() -> None:
    check_exact(scaled_layer(acc_bits=MAX_ACC_BITS - 8, requant_shift=8))
    with pytest.raises(UserError, match="^layer b: accumulator times weight_scale must fit 53 bit"):
        check_exact(scaled_layer(acc_bits=MAX_ACC_BITS - 7, requant_shift=8))
