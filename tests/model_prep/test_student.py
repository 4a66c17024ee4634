# SPDX-License-Identifier: Apache-2.0
"""The trainable quantized network: its forward is the fake-quantized one's, to the last bit."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace

import digits_network as digits
import numpy as np
import pytest
import torch

from nuq.formats.activation import RELU, Activation
from nuq.formats.arithmetic import Average, Window, largest_frac, to_fixed
from nuq.formats.images import Preprocessing
from nuq.formats.network import InputFormat
from nuq.formats.quantizer import Quantizer, thresholds
from nuq.model_prep import run
from nuq.model_prep.activations import FUNCTIONS
from nuq.model_prep.graph import INPUT, Graph, Layer, no_bias, no_weight
from nuq.model_prep.quantize.calibrate import Calibration
from nuq.model_prep.quantize.fake_quant import FakeQuantized
from nuq.model_prep.quantize.integers import input_format
from nuq.model_prep.quantize.plan import Settings
from nuq.model_prep.quantize.plan_file import resolve
from nuq.model_prep.quantize.student import Coder, Student, _convolve, best_frac, rising

QM = 10
PIXELS = digits.images(64).pixels


@pytest.fixture(autouse=True)
def _gradients() -> Iterator[None]:
    """Commands run by other tests of the process leave gradients off."""
    with torch.enable_grad():
        yield


def student(
    settings: Settings, graph: Graph | None = None, source: InputFormat = digits.INPUT,
    pixels: np.ndarray = PIXELS, to_float: Callable[[np.ndarray], torch.Tensor] = digits.TO_FLOAT,
    rounded: bool = True,
) -> Student:  # fmt: skip
    """Of a plan, by default for digits, with one F for the network."""
    graph = graph or digits.graph()
    asked = {"scheme": "knq", "bits": 3, "qm": QM, **settings}
    plan = resolve(graph, asked, Settings())
    calibration = Calibration(graph, pixels, to_float, QM)
    frac = largest_frac(max(calibration.maxima.values()), (1 << (QM - 1)) - 1)
    formats = calibration.formats(QM, dict.fromkeys(calibration.maxima, frac))
    return Student(graph, source, plan.layers, formats.fit(plan), rounded)


def fake_quantized(network: Student, pixels: np.ndarray = PIXELS) -> np.ndarray:
    """Outputs of the trained weights and tables."""
    plans = list(network.plans.values())
    fake = FakeQuantized(network.trained(), network.source, plans)
    return fake.logits(pixels, network.quantizers())


def branched(
    generator: np.random.Generator,
    functions: tuple[Activation | None, ...] = (
        RELU, None, RELU, Activation("relu", {"limit": 2.0}), RELU
    ),
) -> Graph:  # fmt: skip
    """A residual add, a concatenation, a max pool, an average pool; a clipped ReLU as it is."""

    def layer(name: str, source: str, channels: int, **options: object) -> Layer:
        weight = generator.standard_normal((8, channels, 3, 3)).astype(np.float32) * 0.2
        bias = generator.standard_normal(8).astype(np.float32) * 0.1
        return Layer(name, "conv", (source,), weight, bias, pads=(1, 1, 1, 1), **options)  # type: ignore[arg-type]

    none, mean = (no_weight(), no_bias()), Average((4, 4), (1, 1))
    a, b, total, c, d = functions
    layers = [
        layer("a", INPUT, 3, pool=Window((2, 2), (2, 2)), activation=a),
        layer("b", "a", 8, activation=b),
        Layer("sum", "add", ("a", "b"), *none, activation=total),
        layer("c", "sum", 8, activation=c),
        layer("d", "both", 16, activation=d),
        Layer("mean", "avgpool", ("d",), *none, activation=None, average=mean),
    ]
    return Graph("branched", (3, 8, 8), layers, {"both": ("sum", "c")})


@pytest.mark.parametrize(
    "settings",
    [
        Settings(scheme="knq", weight_bits=4),
        Settings(scheme="knq", bits=1, rule="floor", weight_bits=14),
        Settings(scheme="enq", variant="mid", weight_bits=3),
        Settings(scheme="uniform", bits=4, weight_bits=2, bias_bits=5),
        Settings(scheme="knq", weight_bits=4, weight_scale="channel"),
    ],
)
def test_forward_equals_the_fake_quantized_network(settings: Settings) -> None:
    network = student(settings)
    network.weights["conv2"].data.mul_(1.7)  # as if trained: values beyond the grid, too
    network.biases["conv2"].data.add_(0.3)
    for activation in network.coders.values():
        if activation.latent is not None:
            activation.latent.data.mul_(1.1)
    with torch.no_grad():
        got = network(network.inputs(PIXELS)).numpy()
    assert np.array_equal(got, fake_quantized(network))


def branched_input() -> tuple[np.ndarray, InputFormat, Callable[[np.ndarray], torch.Tensor]]:
    """(8 images uint8 [N, 3, 8, 8], their format, what makes values of them) for `branched`."""
    values = np.repeat(np.arange(256)[None] / 64 - 2, 3, axis=0)
    pixels = np.random.default_rng(6).integers(0, 256, (8, 3, 8, 8), np.uint8)

    def to_float(pixels: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values[0].astype(np.float32)[pixels])

    return pixels, input_format((3, 8, 8), values, Preprocessing.plain(3)), to_float


def test_forward_of_adds_concats_and_averages() -> None:
    graph = branched(np.random.default_rng(5))
    pixels, source, to_float = branched_input()
    network = student(Settings(weight_bits=4), graph, source, pixels, to_float)
    logits = network(network.inputs(pixels))
    assert np.array_equal(logits.detach().numpy(), fake_quantized(network, pixels))
    logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert network.coders["sum"] is network.coders["c"]
    assert len(network.parameters()) == 2 * 4 + 4  # weights and biases, tables of a, b, sum, d


def test_activations_in_codebooks_are_trained_and_fixed() -> None:
    """Two that rise share a table; a plan that holds all tables gives the same quantizers."""
    functions = tuple(
        Activation(name, dict(FUNCTIONS[name].parameters))
        for name in ("leaky_relu", "silu", "elu", "tanh", "mish")
    )
    graph = branched(np.random.default_rng(5), functions)
    pixels, source, to_float = branched_input()
    network = student(Settings(weight_bits=8), graph, source, pixels, to_float)
    for coder in network.coders.values():
        assert coder.latent is not None
        coder.latent.data.mul_(1.01)
    logits = network(network.inputs(pixels))
    assert np.array_equal(logits.detach().numpy(), fake_quantized(network, pixels))
    logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert len(network.parameters()) == 2 * 4 + 4  # weights and biases, tables of a, b, sum, d
    moved = network.quantizers()
    assert moved["sum"].decoder == moved["c"].decoder and moved["sum"].key != moved["c"].key
    calibration = Calibration(graph, pixels, to_float, QM)
    plan = resolve(graph, {"scheme": "knq", "bits": 3, "qm": QM}, Settings())
    plan = replace(plan, layers=network.fixed_plans())
    fracs = {layer.name: layer.encoded_frac or 0 for layer in plan.layers[:-1]}
    again = calibration.formats(QM, fracs).fit(plan)
    assert {name: one.key for name, one in again.items()} == {n: q.key for n, q in moved.items()}


@pytest.mark.parametrize("scheme", ["knq", "enq", "uniform"])
def test_weights_that_are_rounded_already_need_no_grid(scheme: str) -> None:
    network = student(Settings(scheme=scheme), rounded=False)
    for layer in network.graph.layers:
        for store, values in ((network.weights, layer.weight), (network.biases, layer.bias)):
            integers, frac = to_fixed(values, 14)
            store[layer.name].data.copy_(torch.from_numpy(integers * 2.0**-frac))
    with torch.no_grad():
        got = network(network.inputs(PIXELS)).numpy()
    np.testing.assert_allclose(got, fake_quantized(network), atol=2e-3)


def test_stored_weights_quantize_to_themselves() -> None:
    for layer in student(Settings(weight_bits=3)).trained().layers:
        for values, bits in ((layer.weight, 3), (layer.bias, 14)):
            integers, frac = to_fixed(values, bits)
            assert np.array_equal(integers * 2.0**-frac, values)
        assert len(np.unique(layer.weight)) <= 7


def table(qm: int, *centroids: int, signed: bool = False) -> Quantizer:
    """A knq quantizer."""
    centroid = np.array(centroids, np.int32)
    bits = len(centroids).bit_length() - 1
    return Quantizer(
        "knq", bits, qm, 0, rule="nearest", centroid=centroid,
        threshold=thresholds(centroid, "nearest"), signed=signed,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("quantizer", "x", "out", "passes", "by_code"),
    [
        # 15 is beyond half a step above 12
        (table(4, 0, 4, 8, 12), [0.0, 3, 7, 13, 15], [0, 4, 8, 12, 12], "11110", [1, 2, 4, 24]),
        (table(6, 0, 4, 8, 12), [0.2, 1.7, 5, 9.6, 40], [0, 4, 4, 12, 12], "11110", [1, 6, 0, 24]),
        (table(5, -8, 4, signed=True), [-16.0, -14, 0, 10, 11, 99], [-8, -8, 4, 4, 4, 4], "011100",
         [3, 60]),
        (Quantizer("uniform", 2, 2, 0), [-1.0, 0.4, 2.6, 4], [0, 0, 3, 3], "0110", None),
    ],
)  # fmt: skip
def test_gradients_pass_up_to_half_a_step_beyond_and_sum_by_code(
    quantizer: Quantizer, x: list[float], out: list[int], passes: str, by_code: list[int] | None
) -> None:
    """The gradient that arrives is 1, 2, 4, ...; that of a table is in its mean steps."""
    activation, values = Coder(quantizer), torch.tensor(x, requires_grad=True)
    got, arriving = activation(values), 2.0 ** torch.arange(len(x))
    (got * arriving).sum().backward()
    assert got.tolist() == out
    assert values.grad is not None
    assert values.grad.tolist() == [g * int(p) for g, p in zip(arriving, passes, strict=True)]
    if by_code is None:
        assert activation.latent is None
    else:
        assert activation.latent is not None and activation.latent.grad is not None
        step = (out[-1] - out[0]) / (len(by_code) - 1)
        assert activation.latent.grad.tolist() == [step * g for g in by_code]


def test_tables_get_the_gradients_of_maps_in_any_memory_order() -> None:
    quantizer = table(6, 0, 4, 8, 12)
    maps = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(1)) * 14
    factors = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(2))
    codes = torch.from_numpy(quantizer.encode_table.astype(np.int64))[(maps + 0.5).long()]
    want = 4 * torch.stack([factors[codes == code].sum() for code in range(4)])
    for ours, theirs in itertools.product((torch.contiguous_format, torch.channels_last), repeat=2):
        activation = Coder(quantizer)
        out = activation(maps.contiguous(memory_format=ours))
        (out * factors.contiguous(memory_format=theirs)).sum().backward()
        assert activation.latent is not None and activation.latent.grad is not None
        torch.testing.assert_close(activation.latent.grad, want, atol=4e-4, rtol=1e-4)


@pytest.mark.parametrize(("kernel", "stride", "pads"), [(1, 1, 0), (1, 2, 0), (1, 1, 1), (3, 1, 1)])
def test_the_student_convolves_as_the_float_network(kernel: int, stride: int, pads: int) -> None:
    random = np.random.default_rng(3)
    weight = random.standard_normal((5, 3, kernel, kernel)).astype(np.float32)
    bias = random.standard_normal(5).astype(np.float32)
    layer = Layer("a", "conv", ("input",), weight, bias, (stride, stride), (pads,) * 4)
    x = torch.from_numpy(random.standard_normal((2, 3, 6, 6)).astype(np.float32))
    own = torch.from_numpy(layer.weight), torch.from_numpy(layer.bias)
    torch.testing.assert_close(_convolve(layer, x, *own), run.convolve(layer, x, *own))


def test_a_zero_centroid_stays_and_tables_rise() -> None:
    activation = Coder(table(4, 0, 4, 8, 12))
    assert activation.latent is not None
    activation.latent.data.copy_(torch.tensor([5.0, 1.0, 1.0, 99.0]))
    centroid = activation.quantizer.centroid
    assert centroid is not None and centroid.tolist() == [0, 4, 5, 15]


@pytest.mark.parametrize(
    ("tables", "top"),
    [
        (list(itertools.product([-2.0, 0.0, 4.2, 18.0], repeat=4)), 15),
        *(([np.random.default_rng(seed).normal(8, 9, 16)], 15 + seed) for seed in range(5)),
    ],
)
def test_rising_integers_in_range(tables: list[np.ndarray], top: int) -> None:
    for levels in tables:
        found = rising(np.array(levels), 0, top)
        assert (np.diff(found) > 0).all() and found[0] >= 0 and found[-1] <= top
        assert np.array_equal(rising(found.astype(float), 0, top), found)


def test_best_frac_is_never_worse_than_the_one_that_fits() -> None:
    values = np.random.default_rng(2).laplace(size=500)
    top = 7

    def error(frac: int) -> float:
        rounded = np.clip(np.rint(values * 2.0**frac), -top, top) * 2.0**-frac
        return float(((rounded - values) ** 2).sum())

    assert error(best_frac(values, 4)) < error(largest_frac(np.abs(values).max(), top))
    assert best_frac(np.zeros(3), 4) == 0
