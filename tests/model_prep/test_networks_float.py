# SPDX-License-Identifier: Apache-2.0
"""The float model against direct sums, on small layers with every odd setting."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from formats.arithmetic import Window
from model_prep.graph import INPUT, Graph, Layer
from model_prep.run import convolve, forward, max_pool, run_float


def _direct(layer: Layer, x: np.ndarray) -> np.ndarray:
    """The convolution of one image by its definition, in float64."""
    top, left, bottom, right = layer.pads
    padded = np.pad(x.astype(np.float64), ((0, 0), (top, bottom), (left, right)))
    out = np.zeros(layer.conv_shape)
    outs, ins = layer.weight.shape[0] // layer.groups, layer.weight.shape[1]
    for o, i, j in np.ndindex(*layer.conv_shape):
        rows = i * layer.stride[0] + np.arange(layer.kernel[0]) * layer.dilation[0]
        columns = j * layer.stride[1] + np.arange(layer.kernel[1]) * layer.dilation[1]
        channels = o // outs * ins + np.arange(ins)
        out[o, i, j] = (padded[np.ix_(channels, rows, columns)] * layer.weight[o]).sum()
    return out + layer.bias[:, None, None]


pair = st.tuples(st.integers(1, 3), st.integers(1, 3))


@settings(max_examples=60, deadline=None)
@given(
    kernel=pair, stride=pair, dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    pads=st.tuples(*[st.integers(0, 2)] * 4), groups=st.sampled_from([1, 2]),
    seed=st.integers(0, 9),
)  # fmt: skip
def test_convolution_is_the_sum_it_is_defined_as(kernel, stride, dilation, pads, groups, seed):
    random = np.random.default_rng(seed)
    layer = Layer(
        "conv1", "conv", (INPUT,), random.standard_normal((6, 4 // groups, *kernel), np.float32),
        random.standard_normal(6, np.float32), stride, pads, dilation, groups, relu=False,
    )  # fmt: skip
    graph = Graph("one", (4, 6, 7), [layer])
    x = random.standard_normal((2, 4, 6, 7), np.float32)
    ((_, got),) = run_float(graph, torch.from_numpy(x))
    for image, result in zip(x, got.numpy(), strict=True):
        np.testing.assert_allclose(result, _direct(layer, image), atol=1e-4)


@pytest.mark.parametrize("pads", [(0, 0, 0, 0), (1, 1, 1, 1), (0, 0, 1, 1)])
def test_fully_connected_layer_with_and_without_padding(pads):
    random = np.random.default_rng(3)
    weight, bias = random.standard_normal((5, 2, 3, 3), np.float32), np.ones(5, np.float32)
    layer = Layer("fc1", "fc", (INPUT,), weight, bias, pads=pads, relu=False)
    Graph("one", (2, 3, 3), [layer])
    x = random.standard_normal((1, 2, 3, 3), np.float32)
    got = convolve(layer, torch.from_numpy(x), torch.from_numpy(weight), torch.from_numpy(bias))
    np.testing.assert_allclose(got.numpy()[0], _direct(layer, x[0]), atol=1e-5)


def test_padding_never_wins_a_pool_of_negative_values():
    pool = Window((3, 3), (2, 2), (1, 1, 1, 1))
    got = max_pool(pool, torch.full((1, 1, 4, 4), -5.0))
    assert got.shape == (1, 1, 2, 2)
    assert (got == -5).all()


def test_tensors_are_dropped_after_their_last_reader():
    one = np.ones((1, 1, 1, 1), np.float32)
    zero = np.zeros(1, np.float32)
    names = ("a", "b", "c", "d")
    sources = (INPUT, "a", "a", "c")
    layers = [
        Layer(name, "conv", (source,), one, zero)
        for name, source in zip(names, sources, strict=True)
    ]
    graph = Graph("fork", (1, 2, 2), layers)
    alive: dict[str, weakref.ref[torch.Tensor]] = {}
    seen = []
    for layer, stored in run_float(graph, torch.ones(1, 1, 2, 2)):
        alive[layer.name] = weakref.ref(stored)
        del stored
        seen.append({name for name, ref in alive.items() if ref() is not None})
    assert "a" in seen[1]  # `c` still reads it
    assert "a" not in seen[3]
    assert forward(graph, torch.ones(3, 1, 2, 2)).shape == (3, 4)
