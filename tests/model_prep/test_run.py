# SPDX-License-Identifier: Apache-2.0
"""The float model against plain torch modules with the same weights."""

import weakref
from collections import OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nuq.formats.arithmetic import Window
from nuq.model_prep import data, networks, run, weights
from nuq.model_prep.graph import INPUT, Graph, Layer
from nuq.model_prep.networks.spec import NetworkSpec

TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


def layer_of(module: nn.Conv2d, name: str, source: str, **options: object) -> Layer:
    """A Layer with a torch convolution's numbers."""
    top, left = module.padding
    fields: dict[str, object] = {
        "kind": "conv",
        "weight": module.weight.detach().numpy(),
        "bias": module.bias.detach().numpy(),
        "stride": module.stride,
        "pads": (top, left, top, left),
        "dilation": module.dilation,
        "groups": module.groups,
    }
    return Layer(name=name, inputs=(source,), **(fields | options))


def random_layer(seed: int, name: str = "conv", **options: object) -> Layer:
    random = np.random.default_rng(seed)
    shape = options.pop("shape")
    weight = random.standard_normal(shape).astype(np.float32)
    bias = random.standard_normal(shape[0]).astype(np.float32)
    return Layer(name=name, kind="conv", inputs=(INPUT,), weight=weight, bias=bias, **options)


@pytest.fixture()
def alexnet_like() -> tuple[nn.Sequential, Graph]:
    """AlexNet's layers, narrow and on 63x47 images."""
    torch.manual_seed(7)
    c1, c2 = nn.Conv2d(3, 8, 11, 4, 2), nn.Conv2d(8, 12, 5, padding=2, groups=2)
    c3, c4 = nn.Conv2d(12, 10, 3, padding=2, dilation=2), nn.Conv2d(10, 9, (3, 1), padding=(1, 0))
    f5, f6 = nn.Linear(9 * 4 * 2, 20), nn.Linear(20, 7)
    module = nn.Sequential(
        c1, nn.ReLU(), nn.MaxPool2d(3, 2), c2, nn.ReLU(), c3, nn.ReLU(),
        c4, nn.ReLU(), nn.MaxPool2d((3, 3), (2, 2), (1, 0)), nn.Flatten(),
        nn.Dropout(), f5, nn.ReLU(), f6,
    ).eval()  # fmt: skip
    w5 = f5.weight.detach().numpy().reshape(20, 9, 4, 2)
    w6 = f6.weight.detach().numpy().reshape(7, 20, 1, 1)
    layers = [
        layer_of(c1, "conv1", INPUT, pool=Window((3, 3), (2, 2))),
        layer_of(c2, "conv2", "conv1"),
        layer_of(c3, "conv3", "conv2"),
        layer_of(c4, "conv4", "conv3", pool=Window((3, 3), (2, 2), (1, 0, 1, 0))),
        Layer("fc5", "fc", ("conv4",), w5, f5.bias.detach().numpy()),
        Layer("fc6", "fc", ("fc5",), w6, f6.bias.detach().numpy(), activation=None),
    ]
    return module, Graph("like", (3, 63, 47), layers)


def test_small_alexnet_equals_a_sequential(alexnet_like: tuple[nn.Sequential, Graph]) -> None:
    module, graph = alexnet_like
    x = torch.randn(3, 3, 63, 47, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = module(x)
    assert expected.abs().max() > 0.01
    torch.testing.assert_close(run.forward(graph, x), expected, **TOLERANCE)


def test_every_layer_equals_the_sequentials(alexnet_like: tuple[nn.Sequential, Graph]) -> None:
    module, graph = alexnet_like
    x = torch.randn(2, 3, 63, 47, generator=torch.Generator().manual_seed(2))
    children = list(module)
    ends = {"conv1": (2, 3), "conv2": (5, 5), "conv3": (7, 7), "conv4": (9, 10), "fc5": (14, 14),
            "fc6": (15, 15)}  # fmt: skip
    inner: dict[str, torch.Tensor] = {}  # before the pool

    def operation(layer: Layer, inputs: list[torch.Tensor]) -> torch.Tensor:
        inner[layer.name] = run.activate(layer, run.operate(layer, inputs))
        return run.float_layer(layer, inputs)

    for layer, stored in run.run(graph, x, operation):
        out = inner[layer.name]
        with torch.inference_mode():
            before, after = (nn.Sequential(*children[:end])(x) for end in ends[layer.name])
        shape = (2, *layer.conv_shape)
        torch.testing.assert_close(out, before.reshape(shape), **TOLERANCE)
        torch.testing.assert_close(stored, after.reshape(2, *layer.out_shape), **TOLERANCE)
        assert torch.equal(stored, out) == (layer.pool is None)


def test_digits_equals_a_sequential_and_classifies(digits: NetworkSpec) -> None:
    modules = OrderedDict(
        conv1=nn.Conv2d(1, 24, 3, padding=1), a=nn.ReLU(),
        conv2=nn.Conv2d(24, 32, 3, padding=1), b=nn.ReLU(), c=nn.MaxPool2d(3, 2, 1),
        conv3=nn.Conv2d(32, 48, 3, padding=1), d=nn.ReLU(), e=nn.MaxPool2d(2),
        flat=nn.Flatten(), fc4=nn.Linear(192, 64), f=nn.ReLU(), fc5=nn.Linear(64, 10),
    )  # fmt: skip
    module = nn.Sequential(modules)
    module.load_state_dict(torch.load(digits.packaged, weights_only=True))
    images = data.load(digits, None)
    _, test = data.split(images, data.DIGITS_TEST)
    x = data.to_float(digits, test.pixels)
    graph = weights.load(digits, None, images.pixels).graph
    with torch.inference_mode():
        expected = module(x)
    found = run.forward(graph, x)
    torch.testing.assert_close(found, expected, **TOLERANCE)
    correct = int((found.argmax(1).numpy() == test.labels).sum())
    assert correct / len(test) >= 0.98


def test_alexnet_at_full_size_equals_torchs_operators() -> None:
    spec = networks.get("alexnet")
    pixels = data.load(spec, None, 2).pixels
    graph = weights.load(spec, "seeded", pixels).graph
    x = data.to_float(spec, pixels)
    w = {layer.name: torch.from_numpy(layer.weight) for layer in graph.layers}
    b = {layer.name: torch.from_numpy(layer.bias) for layer in graph.layers}
    F = nn.functional
    with torch.inference_mode():
        y = F.max_pool2d(F.relu(F.conv2d(x, w["conv1"], b["conv1"], 4, 2)), 3, 2)
        y = F.max_pool2d(F.relu(F.conv2d(y, w["conv2"], b["conv2"], padding=2)), 3, 2)
        for name in ("conv3", "conv4", "conv5"):
            y = F.relu(F.conv2d(y, w[name], b[name], padding=1))
        y = F.max_pool2d(y, 3, 2).flatten(1)
        for name in ("fc6", "fc7"):
            y = F.relu(F.linear(y, w[name].flatten(1), b[name]))
        y = F.linear(y, w["fc8"].flatten(1), b["fc8"])
    found = run.forward(graph, x)
    assert found.shape == (2, 1000)
    torch.testing.assert_close(found, y, rtol=1e-3, atol=1e-3)


@given(
    seed=st.integers(0, 1000),
    pads=st.tuples(*[st.integers(0, 3)] * 4),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    groups=st.sampled_from([1, 2, 4]),
)
@settings(max_examples=40, deadline=None)
def test_convolution_is_the_sum_of_products(
    seed: int, pads: tuple[int, int, int, int], stride: tuple[int, int],
    dilation: tuple[int, int], kernel: tuple[int, int], groups: int,
) -> None:  # fmt: skip
    shape = (8, 4 // groups, *kernel)
    layer = random_layer(
        seed,
        shape=shape,
        pads=pads,
        stride=stride,
        dilation=dilation,
        groups=groups,
        activation=None,
    )
    graph = Graph("one", (4, 9, 8), [layer])
    x = np.random.default_rng(seed).standard_normal((2, 4, 9, 8)).astype(np.float32)
    padded = np.pad(x, ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
    expected = np.zeros((2, *layer.conv_shape))
    for o, i, j in np.ndindex(layer.conv_shape):
        first = o // (8 // groups) * (4 // groups)
        rows = i * stride[0] + dilation[0] * np.arange(kernel[0])
        columns = j * stride[1] + dilation[1] * np.arange(kernel[1])
        window = padded[:, first : first + 4 // groups][:, :, rows][:, :, :, columns]
        expected[:, o, i, j] = (window * layer.weight[o]).sum((1, 2, 3)) + layer.bias[o]
    ((_, out),) = run.run_float(graph, torch.from_numpy(x))
    np.testing.assert_allclose(out.numpy(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("pads", "groups"),
    [((0,) * 4, 1), ((1,) * 4, 1), ((0,) * 4, 2), ((2, 0, 0, 0), 1), ((0, 0, 1, 1), 1)],
)
def test_a_kernel_as_large_as_the_map_is_still_a_convolution(
    pads: tuple[int, int, int, int], groups: int
) -> None:
    layer = random_layer(5, shape=(6, 4 // groups, 3, 3), pads=pads, groups=groups)
    layer.kind = "fc"
    graph = Graph("one", (4, 3, 3), [layer])
    x = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(5))
    top, left, bottom, right = pads
    expected = nn.functional.conv2d(
        nn.functional.pad(x, (left, right, top, bottom)),
        torch.from_numpy(layer.weight), torch.from_numpy(layer.bias), groups=groups,
    ).relu()  # fmt: skip
    ((_, out),) = run.run_float(graph, x)
    assert out.shape == (2, *layer.conv_shape)
    torch.testing.assert_close(out, expected, **TOLERANCE)


def test_pool_padding_never_wins() -> None:
    x = -1.0 - torch.arange(16, dtype=torch.float32).reshape(1, 1, 4, 4)
    out = run.max_pool(Window((3, 3), (2, 2), (1, 0, 0, 1)), x)
    assert out.tolist() == [[[[-1.0, -3.0], [-5.0, -7.0]]]]


def test_two_readers_of_one_layer_both_get_it() -> None:
    random = np.random.default_rng(0)

    def conv(name: str, source: str) -> Layer:
        weight = random.standard_normal((2, 2, 1, 1)).astype(np.float32)
        return Layer(name, "conv", (source,), weight, np.zeros(2, np.float32))

    graph = Graph("fork", (2, 3, 3), [conv("a", INPUT), conv("b", "a"), conv("c", "a")])
    x = torch.rand(1, 2, 3, 3)
    outs = {layer.name: out for layer, out in run.run_float(graph, x)}
    weight = torch.from_numpy(graph.layer("c").weight)
    torch.testing.assert_close(outs["c"], nn.functional.conv2d(outs["a"], weight).relu())


def test_running_changes_neither_input_nor_weights(
    alexnet_like: tuple[nn.Sequential, Graph],
) -> None:
    _, graph = alexnet_like
    x = torch.randn(1, 3, 63, 47)
    before = x.clone(), [layer.weight.copy() for layer in graph.layers]
    run.forward(graph, x)
    assert torch.equal(x, before[0])
    assert all((a.weight == b).all() for a, b in zip(graph.layers, before[1], strict=True))


def test_misfit_names_the_layer() -> None:
    layer = random_layer(1, shape=(8, 3, 3, 3))
    with pytest.raises(ValueError, match="^layer conv: input channels must be 3, not 4$"):
        Graph("bad", (4, 8, 8), [layer])
    with pytest.raises(ValueError, match=r"^layer conv: the kernel must fit its padded input, "):
        Graph("bad", (3, 2, 8), [layer])


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
    for layer, stored in run.run_float(graph, torch.ones(1, 1, 2, 2)):
        alive[layer.name] = weakref.ref(stored)
        del stored
        seen.append({name for name, ref in alive.items() if ref() is not None})
    assert "a" in seen[1]  # `c` still reads it
    assert "a" not in seen[3]
    assert run.forward(graph, torch.ones(3, 1, 2, 2)).shape == (3, 4)


@pytest.mark.parametrize("kernel", [(1, 1), (2, 2), (3, 3), (1, 3), (5, 2)])
@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (3, 1), (7, 7)])
@pytest.mark.parametrize("shape", [(5, 5), (9, 12)])
def test_max_pools_as_the_library_does(
    kernel: tuple[int, int], stride: tuple[int, int], shape: tuple[int, int]
) -> None:
    x = torch.randn(2, 3, *shape, generator=torch.Generator().manual_seed(1))
    got = run.max_pool(Window(kernel, stride, (0, 0, 0, 0)), x)
    assert got.is_contiguous()
    assert torch.equal(got, nn.functional.max_pool2d(x, kernel, stride))
    assert x.equal(torch.randn(2, 3, *shape, generator=torch.Generator().manual_seed(1)))


def test_one_of_equal_values_gets_the_gradient() -> None:
    with torch.enable_grad():  # the command line turns it off for its whole process
        x = torch.ones(1, 1, 2, 2, requires_grad=True)
        run.max_pool(Window((2, 2), (2, 2), (0, 0, 0, 0)), x).sum().backward()
    assert x.grad is not None
    assert sorted(x.grad.flatten().tolist()) == [0, 0, 0, 1]


def test_layers_that_only_given_ones_need_are_left_out() -> None:
    one, zero = np.ones((1, 1, 1, 1), np.float32), np.zeros(1, np.float32)
    sources = {"a": INPUT, "b": "a", "c": "b", "d": "c"}
    graph = Graph(
        "chain",
        (1, 2, 2),
        [Layer(n, "conv", (source,), one, zero) for n, source in sources.items()],
    )
    given = {"b": lambda: torch.full((1, 1, 2, 2), 7.0)}
    stored = run.run(graph, lambda: pytest.fail("the input is not needed"), run.float_layer, given)
    assert [(layer.name, float(x.sum())) for layer, x in stored] == [
        ("b", 28), ("c", 28), ("d", 28),
    ]  # fmt: skip
