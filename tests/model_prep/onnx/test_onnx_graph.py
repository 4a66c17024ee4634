# SPDX-License-Identifier: Apache-2.0
"""The Graph's kinds without weights: shapes, errors, concats, seeding of what is structure."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx_models import build, node, random, save

from nuq.formats.activation import Activation
from nuq.formats.arithmetic import Average, Lrn, Window
from nuq.model_prep.graph import INPUT, Graph, Layer, no_bias, no_weight
from nuq.model_prep.onnx import load_onnx
from nuq.model_prep.run import forward
from nuq.model_prep.seeding import reseed


def conv(name: str, source: str, channels: int, out: int) -> Layer:
    return Layer(name, "conv", (source,), random(out, out, channels, 1, 1), random(1, out))


def bare(name: str, kind: str, *inputs: str, **fields: object) -> Layer:
    return Layer(name, kind, inputs, no_weight(), no_bias(), **fields)  # type: ignore[arg-type]


def test_shapes_of_every_kind() -> None:
    graph = Graph(
        "g", (3, 9, 8),
        [
            conv("a", INPUT, 3, 8), conv("b", INPUT, 3, 5), bare("s", "add", "a", "a"),
            bare("m", "maxpool", "k", pool=Window((2, 2), (2, 2))),
            bare("v", "avgpool", "m", average=Average((4, 4), (1, 1), (0, 0, 1, 0))),
            bare("l", "lrn", "v", lrn=Lrn(5, 1e-4, 0.75, 1.0)), conv("end", "l", 13, 2),
        ],
        {"k": ("a", "b")},
    )  # fmt: skip
    shapes = {layer.name: layer.out_shape for layer in graph.layers}
    assert shapes == {"a": (8, 9, 8), "b": (5, 9, 8), "s": (8, 9, 8), "m": (13, 4, 4),
                      "v": (13, 2, 1), "l": (13, 2, 1), "end": (2, 2, 1)}  # fmt: skip
    assert graph.source_shape("k") == (13, 9, 8)
    assert graph.source_shape(INPUT) == (3, 9, 8)
    assert graph.layer("m").conv_shape == (13, 9, 8)
    assert graph.layer("v").kernel == (4, 4) and graph.layer("v").pads == (0, 0, 1, 0)
    assert [layer.has_weights for layer in graph.layers] == [True, True, *[False] * 4, True]
    assert graph.macs == 72 * 3 * 13 + 2 * 2 * 13
    with pytest.raises(KeyError):
        graph.source_shape("nobody")


A, POOL = conv("a", INPUT, 3, 8), Window((2, 2), (2, 2))
WRONG = {
    "layer s: inputs must be 2, not 1": [A, bare("s", "add", "a")],
    "layer p: only convolutions read the network's input": [bare("p", "maxpool", INPUT, pool=POOL)],
    "layer a: names must be unique": [A, conv("a", "a", 8, 8)],
    "layer z: kind must be one of": [bare("z", "relu", "a")],
    "layer p: pool must be set for maxpool": [A, bare("p", "maxpool", "a")],
    "layer p: average must be set for avgpool": [A, bare("p", "avgpool", "a")],
    "layer p: lrn must be set for lrn": [A, bare("p", "lrn", "a")],
    "layer p: input q must be a layer before it": [bare("p", "maxpool", "q", pool=POOL)],
    "layer p: the kernel must fit its padded input": [
        A, bare("p", "avgpool", "a", average=Average((5, 5), (1, 1)))
    ],
    "layer p: the pool's kernel must fit": [
        A, bare("p", "maxpool", "a", pool=Window((5, 5), (1, 1)))
    ],
    "layer p: tanh must be in front of a max pool": [
        A, bare("p", "maxpool", "a", pool=Window((1, 1), (1, 1)), activation=Activation("tanh"))
    ],
    "layer p: silu(alpha=1) must have its max pool behind it": [
        Layer("p", "conv", (INPUT,), np.ones((8, 3, 1, 1), np.float32), np.zeros(8, np.float32),
              pool=POOL, activation=Activation("silu", {"alpha": 1.0}))
    ],
    "layer s: inputs must have equal shapes": [A, conv("b", "a", 8, 4), bare("s", "add", "a", "b")],
}  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_wrong_graphs_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(text)):
        Graph("g", (3, 4, 4), WRONG[text])


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (("b", "a"), r"concat k: every part but the last must have a multiple of 8 .* \[5, 8\]"),
        (("a", "c"), "concat k: parts must have equal rows and columns"),
        ((INPUT, "a"), "concat k: parts must be layers, not"),
        (("a", "nobody"), r"concat k: parts must be layers, not \['nobody'\]"),
        ((), "concat k: parts must be layers"),
    ],
)
def test_wrong_concats_are_refused(parts: tuple[str, ...], text: str) -> None:
    small = conv("c", INPUT, 3, 8)
    small.pool = POOL
    with pytest.raises(ValueError, match=f"^{text}"):
        Graph("g", (3, 4, 4), [A, conv("b", INPUT, 3, 5), small], {"k": parts})


def test_reseeding_leaves_zero_channels_and_identities_alone(tmp_path: Path) -> None:
    """5 channels become 8 in the concat; seeded or not, the other three stay 0."""
    nodes = [
        node("Conv", "x a", "p"),
        node("Relu", "p", "q"),
        node("Conv", "x b", "r"),
        node("Concat", "q r", "k", axis=1),
        node("Conv", "k c", "s"),
        node("Relu", "s", "y"),
    ]
    constants = {
        "a": random(1, 5, 4, 3, 3),
        "b": random(2, 6, 4, 3, 3),
        "c": random(3, 9, 11, 1, 1),
    }
    network = load_onnx(save(build(nodes, constants), tmp_path / "model.onnx"))
    assert "3 zero channels, because concatenations address blocks of 8" in network.notes
    x = torch.from_numpy(random(4, 2, 4, 9, 8))
    before = [layer.weight.copy() for layer in network.graph.layers]
    reseed(network.graph, x)
    padded, _, reader, last = network.graph.layers
    assert padded.weight.shape[0] == 8 and not padded.weight[5:].any() and not padded.bias[5:].any()
    assert padded.weight[:5].all()
    assert reader.weight.shape[1] == 14 and not reader.weight[:, 5:8].any()
    assert last.fixed and np.array_equal(last.weight, before[3])
    assert not np.array_equal(padded.weight, before[0])
    assert torch.isfinite(forward(network.graph, x)).all()
