# SPDX-License-Identifier: Apache-2.0
"""Random float networks of all kinds of layers, drawn as in networks.py, and their integers."""

from dataclasses import replace
from math import prod

import numpy as np

from nuq.formats.activation import RELU
from nuq.formats.arithmetic import Average, Lrn
from nuq.formats.images import Preprocessing
from nuq.formats.network import InputFormat, Network
from nuq.formats.quantizer import Quantizer
from nuq.formats.rules import TWO_INPUTS
from nuq.model_prep.graph import Graph, Layer, no_bias, no_weight
from nuq.model_prep.quantize import quantizers
from nuq.model_prep.quantize.integers import input_format, quantize_layers
from nuq.model_prep.quantize.plan import Settings
from nuq.model_prep.quantize.plan_file import resolve
from tests.fuzz.work import find_build
from tests.networks import draw
from tests.toys import Toy, ToyLayer

MOST_VALUES = 4000  # of all maps of a network: what runs many of them ends in seconds


def float_layer(random: np.random.Generator, toy: Toy, spec: ToyLayer, channels: int) -> Layer:
    """A layer with random weights that reads `channels` channels."""
    fields: dict[str, object] = {"pool": spec.pool, "upscale": spec.upscale}
    weight, bias = no_weight(), no_bias()
    inputs = [spec.source or "", *([spec.source2 or ""] if spec.kind in TWO_INPUTS else [])]
    window = {"stride": spec.stride, "pads": spec.pads}
    if spec.kind in ("conv", "fc"):
        shape = (spec.out, channels // spec.groups, *spec.kernel)
        scale = 10.0 ** random.uniform(-3, 1)
        weight = (scale * random.standard_normal(shape)).astype(np.float32)
        bias = random.standard_normal(spec.out).astype(np.float32)
        fields |= {**window, "dilation": spec.dilation, "groups": spec.groups}
    elif spec.kind == "avgpool":
        fields["average"] = Average(spec.kernel, **window, count_include_pad=spec.count_include_pad)
    elif spec.kind == "lrn":
        alpha, k = float(random.uniform(0, 2)), float(random.uniform(0.5, 2))
        fields["lrn"] = Lrn(spec.lrn_size, alpha, 0.75, k)
    relu = spec.relu if spec.relu is not None else not spec.signed
    relu = relu and spec.kind in ("conv", "fc", *TWO_INPUTS) and spec is not toy.layers[-1]
    return Layer(
        spec.name or "",
        spec.kind,
        tuple(inputs),
        weight,
        bias,
        activation=RELU if relu else None,
        **fields,
    )  # type: ignore[arg-type]


def random_graph(random: np.random.Generator) -> Graph:
    """A network on a small map: up to some ten layers, concats, adds, pools, normalisations."""
    while True:
        toy = draw(random, find_build("small"), int(random.integers(1 << 31)))
        graph = float_graph(random, toy) if toy else None
        if graph and sum(np.prod(layer.conv_shape) for layer in graph.layers) < MOST_VALUES:
            return graph


def read_graph(random: np.random.Generator) -> Graph:
    """A random graph of five layers or more, all of them read, as importers give it."""
    while True:
        graph = random_graph(random)
        needed, used = {graph.layers[-1].name}, set[str]()
        for layer in reversed(graph.layers):
            if layer.name in needed:
                used.update(layer.inputs)
                needed.update(graph.sources_of(layer))
        layers = [layer for layer in graph.layers if layer.name in needed]
        concats = {name: parts for name, parts in graph.concats.items() if name in used}
        if len(layers) > 4:
            return Graph(graph.name, graph.in_shape, layers, concats)


def float_graph(random: np.random.Generator, toy: Toy) -> Graph:
    """A drawn network with random float weights."""
    channels = {"input": toy.in_shape[0]}
    layers = []
    concats = {name: tuple(parts) for name, parts in toy.concats.items()}
    for spec in toy.layers:
        parts = concats.get(spec.source or "", (spec.source or "",))
        layers.append(float_layer(random, toy, spec, sum(channels[part] for part in parts)))
        places = prod(spec.upscale.factor) if spec.upscale and spec.upscale.shuffle else 1
        channels[spec.name or ""] = spec.out // places
    return Graph("random", toy.in_shape, layers, concats)


def random_quantizer(random: np.random.Generator, signed: bool = False) -> Quantizer:
    """Any scheme, width, variant and rule, on a random histogram."""
    qm, frac = int(random.integers(2, 14)), int(random.integers(-2, 13))
    y = np.abs(random.normal(0, 2**qm / 3, 1000)).astype(np.int64)
    histogram = np.bincount(np.minimum(y, 2**qm - 1), minlength=1 << qm)
    scheme = str(random.choice(["knq", "enq", "uniform"]))
    options: dict[str, str] = {}
    low, high = 2, 16
    if scheme == "knq":
        low, high = 1, min(8, qm)
        options["rule"] = str(random.choice(["nearest", "floor"]))
    elif scheme == "enq":
        low, high = 1, qm
        options["variant"] = str(random.choice(["floor", "mid", "round"]))
    bits = int(random.integers(low, high + 1))
    return quantizers.fit(scheme, histogram, bits, qm, frac, signed=signed, **options)


def random_input(random: np.random.Generator, graph: Graph) -> InputFormat:
    """An input format of a random table."""
    channels = graph.in_shape[0]
    values = random.standard_normal((channels, 256))
    return input_format(graph.in_shape, values, Preprocessing.plain(channels))


def quantized(seed: int) -> Network:
    """A whole random network in integers; UserError where what was drawn is not allowed."""
    random = np.random.default_rng(seed)
    graph = random_graph(random)
    source = random_input(random, graph)
    plan = resolve(graph, Settings(scheme="uniform", bits=8), Settings())
    plans = [
        replace(
            layer, weight_bits=int(random.integers(2, 17)), bias_bits=int(random.integers(2, 21))
        )
        for layer in plan.layers
    ]
    fitted: dict[str, Quantizer] = {}
    for layer in plan.layers[:-1]:
        if layer.owner not in fitted:
            fitted[layer.owner] = random_quantizer(random, layer.signed)
    chosen = [fitted[layer.owner] for layer in plan.layers[:-1]]
    layers = quantize_layers(graph, source, plans, [*chosen, None])
    return Network(
        name=graph.name, weights="seeded", weights_sha256="0" * 64, qm=12, input=source,
        layers=tuple(layers), settings_sha256="1" * 64,
        calibration={
            "source": "random", "images": 1, "labels": False, "includes_test_images": True,
        },
        concats=dict(graph.concats),
    )  # fmt: skip
