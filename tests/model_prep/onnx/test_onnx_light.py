# SPDX-License-Identifier: Apache-2.0
"""Whole networks: the models of the onnx package, and a trained SqueezeNet, equal onnxruntime."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx_models import LIGHT, compare, light, random, randomise

from nuq.formats.arithmetic import BLOCK_CODES
from nuq.model_prep.graph import INPUT, Graph, Layer
from nuq.model_prep.onnx import load_onnx
from nuq.model_prep.run import activate, float_layer, forward, operate, run
from tests.checkout import shared

SMALL = ["squeezenet", "inception_v1", "shufflenet"]
LARGE = ["bvlc_alexnet", "vgg19", "zfnet512", "resnet50", "inception_v2", "densenet121"]
MODELS = [*SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)]
LAYERS = {  # what each kind must count, read off the published architectures
    "squeezenet": {"conv": 26, "avgpool": 1},
    "inception_v1": {"conv": 57, "lrn": 2, "maxpool": 10, "avgpool": 1, "fc": 1},
    # 49 of its own, 16 that choose channels in another order for a grouped convolution
    "shufflenet": {"conv": 65, "add": 13, "avgpool": 4, "fc": 1},
    "bvlc_alexnet": {"conv": 5, "lrn": 2, "maxpool": 2, "fc": 3},
    "vgg19": {"conv": 16, "fc": 3},
    "zfnet512": {"conv": 5, "lrn": 2, "maxpool": 2, "fc": 3},
    "resnet50": {"conv": 53, "add": 16, "avgpool": 1, "fc": 1},
    "inception_v2": {"conv": 69, "avgpool": 8, "maxpool": 3, "fc": 1},
}


def check_rules(graph: Graph) -> None:
    """What docs/onnx.md promises of every imported Graph."""
    parts = [part for parts in graph.concats.values() for part in parts]
    assert len(parts) == len(set(parts))
    for members in graph.concats.values():
        assert all(graph.layer(part).out_shape[0] % BLOCK_CODES == 0 for part in members[:-1])
    for layer in graph.layers:
        assert layer.has_weights or INPUT not in layer.inputs
        assert layer.name.isidentifier() and layer.name.islower()
    assert not graph.layers[-1].activation


@pytest.mark.parametrize("name", MODELS)
def test_light_model_with_its_own_constants(name: str, tmp_path: Path) -> None:
    network = compare(light(name), tmp_path)
    check_rules(network.graph)
    if name in LAYERS:
        assert Counter(layer.kind for layer in network.graph.layers) == LAYERS[name]


@pytest.mark.parametrize("name", MODELS)
def test_light_model_with_random_weights(name: str, tmp_path: Path) -> None:
    network = compare(randomise(light(name)), tmp_path)
    out = forward(network.graph, torch.from_numpy(random(2, 1, *network.in_shape)))
    assert float(out.std()) > 0.0


def test_seeded_weights_give_every_convolution_unit_variance() -> None:
    network = load_onnx(LIGHT / "light_squeezenet.onnx", "seeded")
    x = torch.randn((2, *network.in_shape), generator=torch.Generator().manual_seed(2014))
    before_pool: dict[str, torch.Tensor] = {}

    def operation(layer: Layer, inputs: list[torch.Tensor]) -> torch.Tensor:
        before_pool[layer.name] = activate(layer, operate(layer, inputs))
        return float_layer(layer, inputs)

    for layer, _ in run(network.graph, x, operation):
        out = before_pool.pop(layer.name)
        if layer.kind == "conv":
            assert 0.3 < float((out * out).mean()) < 0.8  # half of 1: the ReLU drops the rest
    again = load_onnx(LIGHT / "light_squeezenet.onnx", "seeded")
    for first, second in zip(network.graph.layers, again.graph.layers, strict=True):
        assert np.array_equal(first.weight, second.weight)


@pytest.mark.data
def test_trained_squeezenet_equals_onnxruntime(tmp_path: Path) -> None:
    network = compare(onnx.load(shared("data/squeezenet_v1.0.onnx")), tmp_path)
    check_rules(network.graph)
    assert network.in_shape == (3, 227, 227)
    assert len(network.graph.layers) == 27
    assert network.graph.macs == 861_339_936
