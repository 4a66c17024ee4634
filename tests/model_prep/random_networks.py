# SPDX-License-Identifier: Apache-2.0
"""Small random networks with every feature of the integer arithmetic, for equality tests."""

from __future__ import annotations

import numpy as np

from formats.arithmetic import Window
from formats.quantizer import Quantizer
from model_prep.graph import INPUT, Graph, Layer
from model_prep.quantize import quantizers
from model_prep.quantize.integers import input_format, quantize_layers
from model_prep.quantize.manifest import InputFormat, QuantizedNetwork
from model_prep.quantize.plan import LayerPlan


def random_conv(random: np.random.Generator, name: str, source: str, channels: int) -> Layer:
    """A convolution with random kernel, stride, pads, dilation, groups and pool."""

    def pick(low: int, high: int) -> int:
        return int(random.integers(low, high + 1))

    groups = int(random.choice([n for n in (1, 1, 2, 3, 18) if channels % n == 0]))
    out = groups * (18 // groups if pick(0, 2) == 0 and 18 % groups == 0 else pick(1, 3))
    plain = pick(0, 2) == 0
    kernel = (3, 3) if plain else (pick(1, 3), pick(1, 3))
    pool = None
    if pick(0, 1):
        size = (pick(2, 3), pick(1, 3))
        pool = Window(size, (pick(1, 2), pick(1, 2)), (pick(0, 1), 0, pick(0, 1), 0))
    scale = 10.0 ** random.uniform(-3, 1)
    return Layer(
        name, "conv", (source,),
        (scale * random.standard_normal((out, channels // groups, *kernel))).astype(np.float32),
        random.standard_normal(out).astype(np.float32),
        stride=(1, 1) if plain else (pick(1, 2), pick(1, 2)),
        pads=tuple(pick(0, 2) for _ in range(4)),  # type: ignore[arg-type]
        dilation=(1, 1) if plain else (pick(1, 2), pick(1, 2)),
        groups=groups, pool=pool,
    )  # fmt: skip


def random_graph(random: np.random.Generator) -> Graph:
    """One to three convolutions and a fully connected layer on a small map."""
    shape = (int(random.choice([1, 3, 4, 18])), int(random.integers(6, 10)), 7)
    layers: list[Layer] = []
    while len(layers) < random.integers(1, 4):
        source = layers[-1].name if layers else INPUT
        channels = layers[-1].out_shape[0] if layers else shape[0]
        trial = [*layers, random_conv(random, f"conv{len(layers)}", source, channels)]
        try:
            Graph("random", shape, trial)
        except ValueError:
            continue  # a kernel larger than its map: draw again
        layers = trial
    outputs = int(random.integers(1, 6))
    weight = random.standard_normal((outputs, *layers[-1].out_shape)).astype(np.float32)
    bias = random.standard_normal(outputs).astype(np.float32)
    last = Layer("last", "fc", (layers[-1].name,), weight, bias, relu=False)
    return Graph("random", shape, [*layers, last])


def random_quantizer(random: np.random.Generator) -> Quantizer:
    """Any scheme, width, variant and rule, on a random histogram."""
    qm, frac = int(random.integers(2, 16)), int(random.integers(-2, 13))
    y = np.abs(random.normal(0, 2**qm / 3, 1000)).astype(np.int64)
    histogram = np.bincount(np.minimum(y, 2**qm - 1), minlength=1 << qm)
    scheme = str(random.choice(["knq", "enq", "uniform"]))
    if scheme == "knq":
        bits, rule = (
            int(random.integers(1, min(8, qm) + 1)),
            str(random.choice(["nearest", "floor"])),
        )
        return quantizers.fit(scheme, histogram, bits, qm, frac, rule=rule)
    if scheme == "enq":
        variant = str(random.choice(["floor", "mid", "round"]))
        return quantizers.fit(
            scheme, histogram, int(random.integers(1, qm + 1)), qm, frac, variant=variant
        )
    return quantizers.fit(scheme, histogram, int(random.integers(2, 17)), qm, frac)


def random_input(random: np.random.Generator, graph: Graph) -> InputFormat:
    """An input format of a random table."""
    return input_format(graph.in_shape, random.standard_normal((graph.in_shape[0], 256)))


def quantized(seed: int) -> QuantizedNetwork:
    """A whole random network in integers."""
    random = np.random.default_rng(seed)
    graph = random_graph(random)
    source = random_input(random, graph)
    plans = [
        LayerPlan(layer.name, int(random.integers(2, 17)), int(random.integers(2, 21)))
        for layer in graph.layers
    ]
    chosen: list[Quantizer | None] = [random_quantizer(random) for _ in graph.layers[:-1]]
    layers = quantize_layers(graph, source, plans, [*chosen, None])
    return QuantizedNetwork(
        graph.name, "seeded", "0" * 64, 12, source, layers, settings_sha256="1" * 64,
        calibration={
            "source": "random", "images": 1, "labels": False, "includes_test_images": True,
        },
    )  # fmt: skip
