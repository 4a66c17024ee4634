# SPDX-License-Identifier: Apache-2.0
"""Random small DAGs of all kinds of layers, signed and unsigned, with concatenations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import random_networks

from formats.arithmetic import Average, Lrn, Window
from formats.quantizer import Quantizer
from model_prep.graph import INPUT, Graph, Layer, no_bias, no_weight
from model_prep.quantize import quantizers
from model_prep.quantize.integers import quantize_layers
from model_prep.quantize.manifest import QuantizedNetwork
from model_prep.quantize.plan import Plan, Settings, resolve

CHANNELS = 8  # of every map, so that concatenations are always allowed


def _conv(random: np.random.Generator, name: str, source: str, channels: int) -> Layer:
    groups = int(random.choice([n for n in (1, 1, 2) if channels % n == 0]))
    size = int(random.choice([1, 3]))
    weight = random.standard_normal((CHANNELS, channels // groups, size, size))
    bias = random.standard_normal(CHANNELS)
    return Layer(
        name, "conv", (source,), weight.astype(np.float32), bias.astype(np.float32),
        pads=(size // 2,) * 4, groups=groups, relu=bool(random.integers(0, 2)),
    )  # fmt: skip


def _operation(random: np.random.Generator, name: str, maps: list[str]) -> Layer:
    """A layer without weights that keeps the size of its map."""
    kind = str(random.choice(["add", "avgpool", "lrn", "maxpool", "copy"]))
    source = str(random.choice(maps))
    fields: dict[str, object] = {}
    inputs = (source,)
    if kind == "add":
        inputs = (source, str(random.choice(maps)))
        fields["relu"] = bool(random.integers(0, 2))
    elif kind == "avgpool":
        fields["average"] = Average((3, 3), (1, 1), (1, 1, 1, 1), bool(random.integers(0, 2)))
    elif kind == "lrn":
        size = int(random.integers(1, 6))
        fields["lrn"] = Lrn(size, float(random.uniform(0, 2)), 0.75, float(random.uniform(0.5, 2)))
    elif kind == "maxpool":
        fields["pool"] = Window((3, 3), (1, 1), (1, 1, 1, 1))
    else:
        kind, fields["pool"] = "maxpool", Window((1, 1), (1, 1))
    fields.setdefault("relu", False)
    return Layer(name, kind, inputs, no_weight(), no_bias(), **fields)  # type: ignore[arg-type]


def random_dag(random: np.random.Generator) -> Graph:
    """Three to nine layers on maps of one size, one or no concatenation, and a last layer."""
    shape = (int(random.choice([1, 3, 8])), int(random.integers(3, 7)), 5)
    layers = [_conv(random, "conv0", INPUT, shape[0])]
    concats: dict[str, tuple[str, ...]] = {}
    for index in range(1, int(random.integers(3, 10))):
        names = [layer.name for layer in layers]
        if random.integers(0, 2):
            source, channels = str(random.choice(names)), CHANNELS
            if concats and random.integers(0, 2):
                source, channels = "joined", CHANNELS * len(concats["joined"])
            layers.append(_conv(random, f"conv{index}", source, channels))
        else:
            layers.append(_operation(random, f"op{index}", names))
        if not concats and len(layers) > 2 and random.integers(0, 2):
            count = int(random.integers(2, 4))
            concats["joined"] = tuple(random.choice(names, min(count, len(names)), replace=False))
    source = "joined" if concats and random.integers(0, 2) else layers[-1].name
    last = _conv(random, "last", source, CHANNELS * len(concats.get(source, (source,))))
    last.relu = False
    if random.integers(0, 3) == 0:
        average = Average((2, 3), (1, 1))
        last = Layer("last", "avgpool", (source,), no_weight(), no_bias(), relu=False,
                     average=average)  # fmt: skip
    return Graph("dag", shape, [*layers, last], concats)


def _quantizer(random: np.random.Generator, signed: bool) -> Quantizer:
    """Any scheme, width, variant and rule, on a random histogram."""
    qm, frac = int(random.integers(2, 13)), int(random.integers(-2, 9))
    histogram = random.integers(0, 3, 1 << qm) + (np.arange(1 << qm) == 1)
    scheme = str(random.choice(["knq", "enq", "uniform"]))
    if scheme == "knq":
        bits, options = int(random.integers(1, min(8, qm) + 1)), {"rule": ("nearest", "floor")}
    elif scheme == "enq":
        bits, options = int(random.integers(1, qm + 1)), {"variant": ("floor", "mid", "round")}
    else:
        bits, options = int(random.integers(2, 13)), {}
    chosen = {key: str(random.choice(values)) for key, values in options.items()}
    return quantizers.fit(scheme, histogram, bits, qm, frac, signed=signed, **chosen)


def random_plan(random: np.random.Generator, graph: Graph) -> Plan:
    """A plan whose shared layers follow from the graph."""
    plan = resolve(graph, Settings(scheme="uniform", bits=8), Settings())
    widths = [
        replace(
            layer, weight_bits=int(random.integers(2, 15)), bias_bits=int(random.integers(2, 17))
        )
        for layer in plan.layers
    ]
    return replace(plan, layers=tuple(widths))


def quantized(seed: int) -> QuantizedNetwork:
    """A whole random DAG in integers; UserError where what was drawn is not allowed."""
    random = np.random.default_rng(seed)
    graph = random_dag(random)
    source = random_networks.random_input(random, graph)
    plan = random_plan(random, graph)
    fitted: dict[str, Quantizer] = {}
    chosen: list[Quantizer | None] = []
    for layer in plan.layers[:-1]:
        if layer.owner not in fitted:
            fitted[layer.owner] = _quantizer(random, layer.signed)
        chosen.append(fitted[layer.owner])
    layers = quantize_layers(graph, source, plan.layers, [*chosen, None])
    return QuantizedNetwork(
        graph.name, "seeded", "0" * 64, 12, source, layers, settings_sha256="1" * 64,
        calibration={
            "source": "random", "images": 1, "labels": False, "includes_test_images": True,
        },
        concats=dict(graph.concats),
    )  # fmt: skip
