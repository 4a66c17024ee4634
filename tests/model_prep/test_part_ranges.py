# SPDX-License-Identifier: Apache-2.0
"""Parts of a concatenation get one range: the same float network, and codes for every part."""

from dataclasses import replace

import numpy as np
import pytest
import random_graphs
import torch

from nuq.formats.activation import RELU, Activation
from nuq.formats.arithmetic import Average, Upscale, Window
from nuq.model_prep import run
from nuq.model_prep.graph import INPUT, Codes, Graph, Layer
from nuq.model_prep.quantize import part_ranges
from nuq.model_prep.quantize.plan import Plan
from nuq.model_prep.quantize.plan_file import resolve
from nuq.model_prep.quantize.refine import equalise


def plan_of(graph: Graph, **settings: object) -> Plan:
    return resolve(graph, settings, {"scheme": "knq", "bits": 5})


def balanced(
    graph: Graph, plan: Plan, x: torch.Tensor
) -> tuple[Graph, dict[str, np.ndarray]]:  # fmt: skip
    """Of inputs instead of pixels."""
    return part_ranges.balanced(graph, plan, x.numpy(), torch.from_numpy)


def unequal(seed: int) -> tuple[Graph, torch.Tensor]:
    """A random network with a concat, whose convolutions have ranges of their own, and inputs."""
    random = np.random.default_rng(seed)
    graph = random_graphs.read_graph(random)
    while not graph.concats:
        graph = random_graphs.read_graph(random)
    graph.layers = [
        replace(one, weight=one.weight * by, bias=one.bias * by) if one.has_weights else one
        for one, by in zip(
            graph.layers, 2.0 ** random.integers(-6, 7, len(graph.layers)), strict=True
        )
    ]
    images = random.standard_normal((3, *graph.in_shape)).astype(np.float32)
    return graph, torch.from_numpy(images)


@pytest.mark.parametrize("seed", range(60))
def test_the_network_stays_the_same_bit_for_bit(seed: int) -> None:
    graph, x = unequal(seed)
    done, scales = balanced(graph, plan_of(graph), x)
    assert all((np.log2(one) % 1 == 0).all() for one in scales.values())
    for (layer, want), (_, found) in zip(
        run.run_float(graph, x), run.run_float(done, x), strict=True
    ):
        factor = equalise.channel_scales(graph, scales, layer.name)
        assert torch.equal(found, want * torch.from_numpy(factor).float()[:, None, None])
    again, more = balanced(done, plan_of(graph), x)
    if all(abs(np.log2(one)).max() < 12 for one in scales.values()):  # the most of a factor
        assert not more and again is done


def test_many_networks_have_parts_to_scale() -> None:
    found = [balanced(graph, plan_of(graph), x)[1] for graph, x in map(unequal, range(60))]
    assert sum(map(bool, found)) >= 10


def two_parts(
    activation: Activation | None = RELU, upscale: Upscale | None = None
) -> tuple[Graph, torch.Tensor]:
    """A concat of a convolution and of one with a hundredth of its values."""
    random = np.random.default_rng(1)

    def conv(name: str, source: str, channels: int, outputs: int, by: float = 1.0) -> Layer:
        weight = by * random.standard_normal((outputs, channels, 1, 1))
        return Layer(
            name,
            "conv",
            (source,),
            weight.astype(np.float32),
            np.zeros(outputs, np.float32),
            activation=None if name == "last" else activation,
        )

    outputs = 32 if upscale and upscale.shuffle else 8
    parts = [conv("large", INPUT, 4, outputs, 100), conv("small", INPUT, 4, outputs)]
    layers = [*(replace(part, upscale=upscale) for part in parts), conv("last", "joined", 16, 3)]
    graph = Graph("two", (4, 5, 5), layers, {"joined": ("large", "small")})
    return graph, torch.from_numpy(random.standard_normal((2, 4, 5, 5)).astype(np.float32))


def test_the_smaller_part_is_scaled() -> None:
    graph, x = two_parts()
    done, scales = balanced(graph, plan_of(graph), x)
    assert {name: set(by) for name, by in scales.items()} == {"small": {64.0}}
    assert (done.layer("last").weight[:, 8:] * 64 == graph.layer("last").weight[:, 8:]).all()


def test_values_that_a_plan_or_a_limit_is_about_stay() -> None:
    """Also those that a quantized file has codes for."""
    graph, x = two_parts()
    for settings in ({"frac_mode": "network"}, {"frac": 3}):
        assert balanced(graph, plan_of(graph, **settings), x)[1] == {}
    plan = plan_of(graph)
    layers = [replace(one, frac=5) if one.name == "large" else one for one in plan.layers]
    assert balanced(graph, replace(plan, layers=tuple(layers)), x)[1] == {}
    graph.layers[1] = replace(graph.layers[1], codes=Codes(0.5, 0, 255))
    assert balanced(graph, plan, x)[1] == {}
    graph, x = two_parts(Activation("relu", {"limit": 6.0}))
    assert balanced(graph, plan, x)[1] == {}
    graph, x = two_parts(Activation("tanh"))
    assert balanced(graph, plan, x)[1] == {}


def behind(*layers: Layer) -> tuple[Graph, torch.Tensor]:
    """`two_parts` with more that reads them."""
    graph, x = two_parts()
    before = list(graph.layers)
    return Graph("more", graph.in_shape, [*before[:2], *layers, before[2]], graph.concats), x


@pytest.mark.parametrize(
    "reader",
    [
        Layer("pool", "maxpool", ("small",), pool=Window((2, 2), (1, 1), (0, 0, 0, 0))),
        Layer(
            "mean", "avgpool", ("joined",), average=Average((2, 2), (1, 1), (0, 0, 0, 0)),
            activation=Activation("relu", {"limit": 1.0}),
        ),
        Layer("sum", "add", ("small", "large")),
    ],
    ids=lambda layer: layer.kind,
)  # fmt: skip
def test_what_others_than_convolutions_read_stays(reader: Layer) -> None:
    """They would hand the scale on to an F, a limit or a table of their own."""
    graph, x = behind(reader)
    found = balanced(graph, plan_of(graph), x)[1]
    assert "small" not in found and set(found) <= {"large"}
    if reader.kind != "maxpool":  # which reads the small part alone
        assert not found


def test_a_copy_hands_the_scale_on() -> None:
    """To what reads it, be that a convolution or a pool."""
    copy = Layer("copy", "maxpool", ("joined",), pool=Window((1, 1), (1, 1)))
    graph, x = behind(copy, replace(two_parts()[0].layers[2], name="more", inputs=("copy",)))
    done, found = balanced(graph, plan_of(graph), x)
    assert list(found["copy"]) == 8 * [1.0] + 8 * [64.0]
    want, got = (list(run.run_float(one, x)) for one in (graph, done))
    for (layer, before), (_, after) in zip(want, got, strict=True):
        by = torch.from_numpy(found.get(layer.name, np.ones(1))).float()[:, None, None]
        assert torch.equal(after, before * by)
    pool = Layer("pool", "maxpool", ("copy",), pool=Window((2, 2), (1, 1)))
    graph, x = behind(copy, pool)
    assert not balanced(graph, plan_of(graph), x)[1]


def test_the_larger_part_is_scaled_where_the_smaller_must_stay() -> None:
    graph, x = behind(Layer("pool", "maxpool", ("small",), pool=Window((2, 2), (1, 1), (0,) * 4)))
    found = balanced(graph, plan_of(graph), x)[1]
    assert {name: set(by) for name, by in found.items()} == {"large": {2.0**-7}}


def test_parts_that_shuffle_pixels_and_weights_in_8_bits_stay() -> None:
    graph, x = two_parts(upscale=Upscale((2, 2), True))
    assert not balanced(graph, plan_of(graph), x)[1]
    graph, x = two_parts(upscale=Upscale((2, 2), False))
    assert balanced(graph, plan_of(graph), x)[1]
    codes = np.random.default_rng(2).integers(-127, 128, graph.layers[2].weight.shape)
    graph.layers[2] = replace(graph.layers[2], weight=(codes * 0.01).astype(np.float32))
    assert not balanced(graph, plan_of(graph), x)[1]
