# SPDX-License-Identifier: Apache-2.0
"""The trainable quantized network: its forward is the fake-quantized one's, to the last bit."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from formats.arithmetic import Average, Window, largest_frac, to_fixed
from formats.quantizer import Quantizer
from model_prep import data, weights
from model_prep.graph import INPUT, Graph, Layer
from model_prep.quantize.calibrate import Calibration
from model_prep.quantize.fake_quant import FakeQuantized
from model_prep.quantize.integers import input_format, network_input
from model_prep.quantize.plan import Plan, Settings
from model_prep.quantize.plan_file import resolve
from model_prep.quantize.student import Activation, Student, best_frac, rising

QM = 10


@pytest.fixture(autouse=True)
def _gradients() -> Iterator[None]:
    """Commands run by other tests of the process leave gradients off."""
    with torch.enable_grad():
        yield


def fitted(graph: Graph, plan: Plan, pixels: np.ndarray, to_float) -> dict[str, Quantizer]:
    """Quantizers of a plan, with one F for the network."""
    calibration = Calibration(graph, pixels, to_float, QM)
    frac = largest_frac(max(calibration.maxima.values()), (1 << (QM - 1)) - 1)
    return calibration.formats(QM, dict.fromkeys(calibration.maxima, frac)).fit(plan)


def branched(generator: np.random.Generator) -> Graph:
    """A residual add, a concatenation, a clipped ReLU, a max pool, an average pool."""

    def layer(name: str, source: str, channels: int, **options: object) -> Layer:
        weight = generator.standard_normal((8, channels, 3, 3)).astype(np.float32) * 0.2
        bias = generator.standard_normal(8).astype(np.float32) * 0.1
        return Layer(name, "conv", (source,), weight, bias, pads=(1, 1, 1, 1), **options)

    none = np.zeros((0, 0, 1, 1), np.float32), np.zeros(0, np.float32)
    pool = Window((2, 2), (2, 2))
    layers = [
        layer("a", INPUT, 3, pool=pool),
        layer("b", "a", 8, relu=False),
        Layer("sum", "add", ("a", "b"), *none, relu=True),
        layer("c", "sum", 8, clip_max=2.0),
        layer("d", "both", 16),
        Layer("mean", "avgpool", ("d",), *none, relu=False, average=Average((4, 4), (1, 1))),
    ]
    return Graph("branched", (3, 8, 8), layers, {"both": ("sum", "c")})


@pytest.mark.parametrize(
    "settings",
    [
        Settings(scheme="knq", bits=3, weight_bits=4),
        Settings(scheme="knq", bits=1, rule="floor", weight_bits=14),
        Settings(scheme="enq", bits=3, variant="mid", weight_bits=3),
        Settings(scheme="uniform", bits=4, weight_bits=2, bias_bits=5),
    ],
)
def test_forward_equals_the_fake_quantized_network(digits, settings):
    pixels = data.load(digits, None, 64).pixels
    graph = weights.load(digits, None, pixels).graph
    plan = resolve(graph, {**settings, "qm": QM}, Settings())
    source = network_input(digits)
    quantizers = fitted(graph, plan, pixels, lambda p: data.to_float(digits, p))
    network = Student(graph, source, plan.layers, quantizers)
    network.weights["conv2"].data.mul_(1.7)  # as if trained: values beyond the grid, too
    network.biases["conv2"].data.add_(0.3)
    for activation in network.activations.values():
        if activation.latent is not None:
            activation.latent.data.mul_(1.1)
    with torch.no_grad():
        got = network(network.inputs(pixels)).numpy()
    want = FakeQuantized(network.trained(), source, plan.layers).logits(
        pixels, network.quantizers()
    )
    assert np.array_equal(got, want)


def test_forward_of_adds_concats_and_averages():
    graph = branched(np.random.default_rng(5))
    pixels = np.random.default_rng(6).integers(0, 256, (8, 3, 8, 8), np.uint8)
    values = np.repeat(np.arange(256)[None] / 64 - 2, 3, axis=0)
    source = input_format((3, 8, 8), values)

    def to_float(p):
        return torch.from_numpy(values.astype(np.float32))[torch.arange(3)[:, None, None], p.long()]

    plan = resolve(graph, Settings(scheme="knq", bits=3, weight_bits=4, qm=QM), Settings())
    quantizers = fitted(graph, plan, pixels, lambda p: to_float(torch.from_numpy(p)))
    network = Student(graph, source, plan.layers, quantizers)
    logits = network(network.inputs(pixels))
    want = FakeQuantized(network.trained(), source, plan.layers).logits(
        pixels, network.quantizers()
    )
    assert np.array_equal(logits.detach().numpy(), want)
    logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert network.activations["sum"] is network.activations["c"]
    assert len(network.parameters()) == 2 * 4 + 4  # weights and biases, tables of a, b, sum, d


def test_stored_weights_quantize_to_themselves(digits):
    pixels = data.load(digits, None, 64).pixels
    graph = weights.load(digits, None, pixels).graph
    plan = resolve(graph, Settings(scheme="knq", bits=3, weight_bits=3, qm=QM), Settings())
    quantizers = fitted(graph, plan, pixels, lambda p: data.to_float(digits, p))
    rounded = Student(graph, network_input(digits), plan.layers, quantizers).trained()
    for layer in rounded.layers:
        for values, bits in ((layer.weight, 3), (layer.bias, 14)):
            integers, frac = to_fixed(values, bits)
            assert np.array_equal(integers * 2.0**-frac, values)
        assert len(np.unique(layer.weight)) <= 7


def test_gradients_pass_where_nothing_saturates():
    centroid = np.array([0, 4, 8, 12], np.int32)
    threshold = np.array([0, 2, 6, 10], np.int32)
    knq = Quantizer("knq", 2, 4, 0, rule="nearest", centroid=centroid, threshold=threshold)
    x = torch.tensor([0.0, 3.0, 7.0, 13.0, 15.0], requires_grad=True)
    activation = Activation(knq)
    out = activation(x)
    assert out.tolist() == [0, 4, 8, 12, 12]
    (out * torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])).sum().backward()
    assert x.grad.tolist() == [1, 2, 3, 4, 0]  # 15 is beyond half a step above 12
    assert activation.latent.grad.tolist() == [4 * g for g in (1, 2, 3, 9)]  # mean step 4


def test_uniform_gradients_stop_at_the_limits():
    activation = Activation(Quantizer("uniform", 2, 2, 0))
    x = torch.tensor([-1.0, 0.4, 2.6, 4.0], requires_grad=True)
    out = activation(x)
    assert out.tolist() == [0, 0, 3, 3]
    out.sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 0]
    assert activation.latent is None


def test_a_zero_centroid_stays_and_tables_rise():
    centroid = np.array([0, 4, 8, 12], np.int32)
    knq = Quantizer(
        "knq", 2, 4, 0, rule="nearest", centroid=centroid, threshold=np.array([0, 2, 6, 10])
    )
    activation = Activation(knq)
    activation.latent.data.copy_(torch.tensor([5.0, 1.0, 1.0, 99.0]))
    assert activation.quantizer.centroid.tolist() == [0, 4, 5, 15]


@pytest.mark.parametrize("seed", range(5))
def test_rising_is_what_it_says(seed):
    values = np.random.default_rng(seed).normal(8, 9, 16)
    table = rising(values, 0, 15 + seed)
    assert (np.diff(table) > 0).all() and table[0] >= 0 and table[-1] <= 15 + seed
    assert np.array_equal(rising(table.astype(float), 0, 15 + seed), table)


def test_best_frac_is_never_worse_than_the_one_that_fits():
    values = np.random.default_rng(2).laplace(size=500)
    top = 7

    def error(frac: int) -> float:
        rounded = np.clip(np.rint(values * 2.0**frac), -top, top) * 2.0**-frac
        return float(((rounded - values) ** 2).sum())

    assert error(best_frac(values, 4)) < error(largest_frac(np.abs(values).max(), top))
    assert best_frac(np.zeros(3), 4) == 0
