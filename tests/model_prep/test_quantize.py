# SPDX-License-Identifier: Apache-2.0
"""Fixed point of weights, biases and inputs; accumulator widths: tight, never overflowing."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nuq.formats.arithmetic import MAX_FRAC, Average, Window, accumulator_bits, to_fixed
from nuq.formats.errors import UserError
from nuq.formats.quantizer import Quantizer
from nuq.model_prep import data, networks
from nuq.model_prep.commands import lost_layers
from nuq.model_prep.graph import INPUT, Graph, Layer, no_bias, no_weight
from nuq.model_prep.quantize.integers import check_graph, network_input, quantize_layer
from nuq.model_prep.quantize.plan import LayerPlan
from tests.networks import full_size


@settings(deadline=None)
@given(
    st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=20),
    st.integers(2, 16),
)
def test_to_fixed_takes_the_largest_frac_that_fits(values: list[float], bits: int) -> None:
    array = np.array(values, np.float64)
    integers, frac = to_fixed(array, bits)
    top = (1 << (bits - 1)) - 1
    assert np.abs(integers).max() <= top
    assert (np.abs(integers - array * 2.0**frac) <= 0.5).all()
    if array.any() and frac < MAX_FRAC:
        assert np.abs(np.rint(array * 2.0 ** (frac + 1))).max() > top


def test_to_fixed_rounds_ties_to_even() -> None:
    assert to_fixed(np.array([0.5, 1.5, 2.5, 127.0]), 8)[0].tolist() == [0, 2, 2, 127]


def test_all_zero() -> None:
    assert to_fixed(np.zeros(3), 14)[1] == 0
    assert to_fixed(np.zeros(3), 14, most=-2)[1] == -2


def dense(weight: np.ndarray, bias: np.ndarray, **changes: object) -> Layer:
    """A fully connected layer on [in, 1, 1]."""
    fields: dict[str, object] = {}
    fields.update(changes)
    weight = np.asarray(weight, np.float32)[:, :, None, None]
    layer = Layer("fc1", "fc", (INPUT,), weight, np.asarray(bias, np.float32), **fields)  # type: ignore[arg-type]
    layer.in_shape = layer.conv_shape = (1, 1, 1)
    return layer


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 8), st.sampled_from([512, 4095]))
def test_acc_bits_is_the_least_width_that_no_input_overflows(
    seed: int, shift: int, magnitude: int
) -> None:
    random = np.random.default_rng(seed)
    weight, bias = random.integers(-8191, 8192, (3, 5)), random.integers(-8191, 8192, 3)
    bits = accumulator_bits(weight, bias, shift, magnitude)
    worst = max(
        sum(abs(w) * magnitude for w in row) + (abs(b) << shift)
        for row, b in zip(weight.tolist(), bias.tolist(), strict=True)
    )
    assert worst < 1 << (bits - 1) <= 2 * max(worst, 1)


def test_the_layer_follows_the_formats() -> None:
    layer = dense([[0.5, -0.25]], [100.0])
    plan = LayerPlan("fc1", weight_bits=8, bias_bits=8)
    done = quantize_layer(layer, plan, 6, 512, Quantizer("uniform", 8, 8, 3))
    assert (done.weight.ravel().tolist(), done.weight_frac) == ([64, -32], 7)
    assert (done.bias.tolist(), done.bias_frac, done.bias_shift) == ([100], 0, 13)
    assert (done.requant_shift, done.out_frac) == (10, 3)
    assert done.acc_bits == 1 + (96 * 512 + (100 << 13)).bit_length()
    raw = quantize_layer(layer, plan, 6, 512, None)
    assert (raw.requant_shift, raw.out_frac, raw.quantizer) == (None, 13, None)


def test_a_small_bias_never_has_more_places_than_the_accumulator() -> None:
    layer = dense([[0.5]], [1e-3])
    done = quantize_layer(layer, LayerPlan("fc1", 4, 14), 2, 8, None)
    assert (done.bias_frac, done.bias_shift) == (5, 0)  # rounds to nothing at this accumulator


def test_too_wide_an_accumulator_is_refused() -> None:
    layer = dense([[1.0] * 60_000], [0.0])
    quantizer = Quantizer("uniform", 12, 12, 0)
    with pytest.raises(UserError, match="^layer fc1: accumulator must fit 53 bits, not 54; use"):
        quantize_layer(layer, LayerPlan("fc1", 16, 14), 8, 1 << 23, quantizer)


def test_too_far_a_shift_is_refused() -> None:
    layer = dense([[1e-9]], [0.0])
    quantizer = Quantizer("uniform", 12, 12, 10)
    with pytest.raises(UserError, match="^layer fc1: requantize shift must be .*, not 54"):
        quantize_layer(layer, LayerPlan("fc1", 14, 14), 24, 512, quantizer)


@pytest.mark.parametrize("name", ["digits", "alexnet"])
def test_the_input_table_is_the_published_normalisation(name: str) -> None:
    spec = networks.get(name)
    source = network_input(spec)
    top = spec.preprocessing.pixel_max
    pixels = np.random.default_rng(0).integers(0, top + 1, (2, *spec.in_shape), dtype=np.uint8)
    values = source.encode(pixels) * 2.0**-source.frac
    assert np.abs(values - data.to_float(spec, pixels).numpy()).max() <= 0.51 * 2.0**-source.frac
    used = np.abs(source.table[:, : top + 1]).max()
    assert 255 < used <= 511 == source.magnitude - 1  # no coarser step than needed
    assert np.abs(source.table).max() <= 511


def conv(name: str, source: str, **changes: object) -> Layer:
    weight, bias = np.ones((8, 8, 1, 1), np.float32), np.zeros(8, np.float32)
    return Layer(name, "conv", (source,), weight, bias, **changes)  # type: ignore[arg-type]


def test_networks_that_the_arithmetic_does_not_cover() -> None:
    pool = Window((1, 1), (1, 1))
    last = conv("last", "a", activation=None)
    copy = Layer("copy", "maxpool", ("a",), no_weight(), no_bias(), pool=pool)
    cases = [
        ([conv("a", INPUT), conv("last", "a")], "^layer last must have neither act"),
        ([conv("a", INPUT), conv("last", "a", activation=None, pool=pool)], "^layer last must"),
        ([conv("a", INPUT), copy], "^layer copy must have neither activation nor pool"),
        (
            [
                conv("a", INPUT),
                Layer("sum", "add", ("a", "a"), no_weight(), no_bias(), activation=None),
            ],
            "^layer sum: the last layer must be conv, fc or avgpool, not add$",
        ),
    ]  # fmt: skip
    for layers, text in cases:
        with pytest.raises(UserError, match=text):
            check_graph(Graph("g", (8, 2, 2), layers))
    joined = Graph("g", (8, 2, 2), [conv("a", INPUT), last], {"both": ("a", "last")})
    with pytest.raises(UserError, match="^layer last must be no part of a concatenation"):
        check_graph(joined)
    for kind in ("avgpool", "conv"):
        average = Average((2, 2), (1, 1))
        end = last if kind == "conv" else Layer(
            "mean", "avgpool", ("a",), no_weight(), no_bias(), average=average, activation=None
        )  # fmt: skip
        check_graph(Graph("g", (8, 2, 2), [conv("a", INPUT, activation=None), end]))


def test_layers_whose_codes_say_little_are_named() -> None:
    network = full_size("alexnet")
    layers = [replace(layer, sqnr_db=20.0) for layer in network.layers]
    assert lost_layers(replace(network, layers=tuple(layers))) == ""
    layers[2] = replace(layers[2], sqnr_db=0.2)
    text = lost_layers(replace(network, layers=tuple(layers)))
    assert text.startswith("WARNING") and "conv3 (0.2 dB);" in text and "raise BITS" in text
    layers = [replace(layer, sqnr_db=1.0) for layer in network.layers]
    assert "and 4 more;" in lost_layers(replace(network, layers=tuple(layers)))
