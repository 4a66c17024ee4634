# SPDX-License-Identifier: Apache-2.0
"""Codebooks behind an activation: tables of least error, thresholds, gradients, refusals."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from nuq.formats.activation import RELU, Activation
from nuq.formats.arithmetic import Window, lowest
from nuq.formats.errors import UserError
from nuq.formats.quantizer import Quantizer
from nuq.formats.rules import check_pool
from nuq.model_prep import activations
from nuq.model_prep.graph import INPUT, Graph, Layer
from nuq.model_prep.quantize import quantizers
from nuq.model_prep.quantize.behind import Part, encoder, fit, numbers, rounded
from nuq.model_prep.quantize.integers import quantize_layer
from nuq.model_prep.quantize.kmeans import turning_table
from nuq.model_prep.quantize.plan import LayerPlan
from nuq.model_prep.quantize.plan_file import resolve
from nuq.model_prep.quantize.student import Coder

QM = 6
NAMES = sorted(set(activations.FUNCTIONS) - {"relu"})
SILU = Activation("silu", {"alpha": 1.0})


def default(name: str) -> Activation:
    """A function with the parameters of its table."""
    return Activation(name, dict(activations.FUNCTIONS[name].parameters))


def least_error(values: np.ndarray, counts: np.ndarray, number: int) -> float:
    """Of `number` segments of values, each with an integer; by trying all."""
    size = len(values)
    best = np.full((number + 1, size + 1), np.inf)
    best[0, 0] = 0
    for used in range(1, number + 1):
        for end in range(1, size + 1):
            for start in range(end):
                part, weight = values[start:end], counts[start:end]
                middle = np.rint((part * weight).sum() / weight.sum())
                cost = float((weight * (part - middle) ** 2).sum())
                best[used, end] = min(best[used, end], best[used - 1, start] + cost)
    return float(best[1:, size].min())


def error_of(table: np.ndarray, values: np.ndarray, counts: np.ndarray) -> float:
    """Of a table whose codes may not fall from one value to the next."""
    least = np.zeros(len(table))
    for value, count in zip(values, counts, strict=True):
        least = np.minimum.accumulate(least) + count * (value - table.astype(np.int64)) ** 2.0
    return float(least.min())


@pytest.mark.parametrize("seed", range(40))
def test_the_table_of_a_function_that_turns_has_the_least_error(seed: int) -> None:
    random = np.random.default_rng(seed)
    falling = np.sort(random.integers(-9, 20, random.integers(0, 9)))[::-1]
    rising = np.sort(random.integers(-9 - (seed % 3 == 0), 20, random.integers(1, 9)))
    if len(falling):
        rising = np.maximum(rising, falling[-1])
    values = np.concatenate([falling, rising]).astype(np.int64)
    counts, number = random.integers(1, 50, len(values)), int(random.integers(1, 7))
    table = turning_table(values, counts, number)
    assert len(table) == number
    least = least_error(values, counts, number)
    assert error_of(table, values, counts) == pytest.approx(least)


def fitted(activation: Activation, bits: int = 3) -> tuple[Quantizer, np.ndarray]:
    """A quantizer for y of a normal distribution, and the counts of these."""
    y = np.arange(lowest(QM, True), -lowest(QM, True))
    counts = (1000 * np.exp(-((y / 12.0) ** 2) / 2)).astype(np.int64) + 1
    signed = not activations.nonnegative(activation)
    part = Part(activation, 3, counts)

    def own(histogram: np.ndarray, frac: int) -> Quantizer:
        return quantizers.fit("knq", histogram, bits, QM, frac, signed=signed)

    table = fit([part], 1 << bits, QM, signed, own)
    if table.y_frac is None:
        assert table.centroid is not None
        table = encoder(table.centroid, QM, table.frac, signed, "nearest", activation, 3)
    return table, counts


@pytest.mark.parametrize("name", NAMES)
def test_codes_are_segments_of_least_error(name: str) -> None:
    """Over all tables and all thresholds, found here by trying all."""
    activation = default(name)
    table, counts = fitted(activation)
    exact = rounded(numbers(activation, QM, 3, table.signed), QM, table.frac, table.signed)
    codes = table.encode_table
    assert (np.diff(codes.astype(int)) >= 0).all()
    error = float((counts * (table.round_trip() - exact) ** 2.0).sum())
    assert error == pytest.approx(least_error(exact, counts, 8))
    assert table.ordered or not activations.rises(activation)


@pytest.mark.parametrize("name", NAMES)
def test_derivatives_pass_through_the_codebook(name: str) -> None:
    activation = default(name)
    table, _ = fitted(activation, bits=4)
    x = torch.linspace(-1.5, 1.5, 31, requires_grad=True)
    with torch.enable_grad():
        out = Coder(table, activation)(x)
        out.sum().backward()
    y = np.clip(np.floor(x.detach().numpy() * 8 + 0.5), -32, 31).astype(int)
    np.testing.assert_allclose(out.detach(), table.values_table[y + 32])
    assert x.grad is not None
    own = activations.slopes(activation, y / 8.0)
    held = np.isclose(x.grad.numpy(), own, atol=1e-6) | (x.grad.numpy() == 0)  # beyond the table
    assert held.all()
    assert (x.grad.numpy() != 0).sum() >= min(10, (own != 0).sum() - 6)


def net(first: Activation, **fields: object) -> Graph:
    """Two convolutions."""
    random = np.random.default_rng(2)

    def conv(name: str, source: str, channels: int, **more: object) -> Layer:
        weight = random.standard_normal((8, channels, 1, 1)).astype(np.float32)
        return Layer(name, "conv", (source,), weight, np.zeros(8, np.float32), **more)  # type: ignore[arg-type]

    layers = [conv("a", INPUT, 3, activation=first, **fields), conv("z", "a", 8, activation=None)]
    return Graph("two", (3, 4, 4), layers)


@pytest.mark.parametrize(
    ("first", "settings", "text"),
    [
        (
            "tanh",
            {"scheme": "enq"},
            r"^layer a: tanh must be in a codebook, which scheme enq has n",
        ),
        ("elu", {"scheme": "uniform"}, r"^layer a: elu\(alpha=1\) must .*; use SCHEME=knq$"),
        ("silu", {"scheme": "gaussian"}, r"^layer a: silu.* must have SCHEME=knq and RULE=nearest"),
        ("mish", {"rule": "floor"}, r"^layer a: mish, which falls .* must have SCHEME=knq and RUL"),
    ],
)
def test_codes_that_cannot_hold_it_are_refused(
    first: str, settings: dict[str, object], text: str
) -> None:
    with pytest.raises(UserError, match=text):
        resolve(net(default(first)), {"bits": 4, **settings}, {"scheme": "knq"})
    assert resolve(net(default(first)), {"bits": 4}, {"scheme": "knq"}).layers[0].activation


def test_layers_of_other_functions_do_not_share_codes_that_turn() -> None:
    graph = net(SILU)
    copy = Layer("copy", "maxpool", ("a",), pool=Window((1, 1), (1, 1)), activation=None)
    end = replace(graph.layers[1], inputs=("copy",))
    with pytest.raises(UserError, match="layer a: silu.* must not share codes with layers of an"):
        resolve(
            Graph("three", (3, 4, 4), [graph.layers[0], copy, end]), {"bits": 4}, {"scheme": "knq"}
        )


def test_a_max_pool_of_codes_that_turn_is_refused() -> None:
    table, _ = fitted(SILU, bits=5)
    layer = net(SILU).layers[0]
    made = quantize_layer(layer, LayerPlan("a", 8, 8), 4, 1 << 9, table)
    check_pool(made)
    with pytest.raises(UserError, match="layer a: a max pool must be of codes that rise"):
        check_pool(replace(made, pool=Window((2, 2), (2, 2))))


WRONG: dict[str, Callable[[Quantizer], Quantizer]] = {
    "must start at 0 and then": lambda one: replace(one, threshold=one.centroid[::-1].copy()),  # type: ignore[index]
    "threshold table must stay": lambda one: replace(one, threshold=one.threshold + 99),  # type: ignore[operator]
    "centroid table must stay": lambda one: replace(one, centroid=one.centroid - 99),  # type: ignore[operator]
    "y_frac must be absent for enq": lambda _: Quantizer("enq", 3, 6, 0, "mid", y_frac=3),
}


@pytest.mark.parametrize("text", WRONG)
def test_wrong_tables_are_refused(text: str) -> None:
    table, _ = fitted(SILU)
    with pytest.raises(UserError, match=text):
        WRONG[text](table)


def test_a_relu_stays_a_limit_of_y() -> None:
    plan = resolve(net(RELU), {"bits": 4, "scheme": "enq"}, {"scheme": "knq"})
    assert plan.layers[0].activation is None and not plan.layers[0].signed
