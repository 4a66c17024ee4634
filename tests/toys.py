# SPDX-License-Identifier: Apache-2.0
"""Small random quantized networks of every layer kind, with outputs of the naive integer model.

A Toy says what a test cares about; parameters are drawn from its seed.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from nuq.formats.arithmetic import Upscale, Window
from nuq.formats.commands import main
from nuq.formats.design import COUNTERS
from nuq.formats.images import Preprocessing
from nuq.formats.quantizer import Quantizer, thresholds
from nuq.formats.rules import TWO_INPUTS
from nuq.formats.schema import arrays_in, to_json
from tests import naive

CONVOLUTIONS = ("conv", "fc")
MAX_SHIFT, MAX_ACC_BITS, MAX_BITS = 53, 53, 63


@dataclass
class ToyLayer:
    """What a test says about a layer; the rest is drawn at random.

    An average pool takes kernel, stride and pads, other operations `pool`.
    """

    out: int = 0
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    pool: Window | None = None
    upscale: Upscale | None = None
    scheme: str = "knq"
    bits: int = 3
    variant: str = "floor"
    rule: str = "nearest"
    qm: int = 12
    source: str | None = None  # feature map read; None: the layer before, or the input
    kind: str = "conv"
    source2: str | None = None
    signed: bool = False
    relu: bool | None = None  # None: where the output is unsigned
    frac: int = 0  # F of a convolution's output; an operation's follows from what it reads
    like: str | None = None  # the layer whose quantizer and F it shares, as parts of a concat must
    shift_more: int = 0  # added to the requantize shift that suits the data
    count_include_pad: bool = False
    lrn_size: int = 5
    name: str | None = None
    weight_bits: int | None = None  # of the weights that are multiplied; None: the network's
    index_bits: int = 0  # weights come from a codebook of 2^index_bits entries; 0: there is none
    scaled: bool = False  # whether weights have a scale for each output channel


@dataclass
class Toy:
    """A network: input shape, layers, and concats by name."""

    in_shape: tuple[int, int, int] = (3, 12, 13)
    layers: list[ToyLayer] = field(default_factory=list)
    in_bits: int = 10
    weight_bits: int = 14
    symmetric: bool = False  # no weight is the most negative number, as quantizers make them
    images: int = 2
    seed: int = 1
    concats: dict[str, list[str]] = field(default_factory=dict)


@dataclass
class Made:
    """What has been drawn and computed so far; `state` holds codes, quantizer and F by name."""

    toy: Toy
    arrays: dict[str, np.ndarray]
    vectors: dict[str, np.ndarray]
    state: dict[str, tuple[np.ndarray, Quantizer | None, int]]
    entries: list[dict[str, Any]] = field(default_factory=list)

    def read(self, name: str) -> tuple[np.ndarray, int, int]:
        """Values of a layer, concat or the input; the largest magnitude; F."""
        if name in self.toy.concats:
            parts = [self.read(part) for part in self.toy.concats[name]]
            return np.concatenate([part[0] for part in parts], axis=1), parts[0][1], parts[0][2]
        codes, quantizer, frac = self.state[name]
        largest = naive.largest(quantizer) if quantizer else 1 << (self.toy.in_bits - 1)
        return naive.decode(codes, quantizer), largest, frac


@dataclass
class Sum:
    """What is requantized."""

    acc: np.ndarray  # raw accumulators
    product: np.ndarray  # acc times a factor
    bits: int  # of acc
    frac: int  # F of product
    fields: dict[str, Any]  # manifest entries of the kind


def make_quantizer(layer: ToyLayer, rng: np.random.Generator) -> Quantizer:
    """The quantizer of a layer, with random KNQ tables."""
    if layer.scheme != "knq":
        qm = layer.bits if layer.scheme == "uniform" else layer.qm
        variant = layer.variant if layer.scheme == "enq" else None
        return Quantizer(layer.scheme, layer.bits, qm, 0, variant, signed=layer.signed)
    qm = layer.qm
    if layer.signed:
        drawn = rng.choice(1 << qm, size=1 << layer.bits, replace=False) - (1 << (qm - 1))
        centroid = np.sort(drawn).astype(np.int32)
    else:
        drawn = rng.choice(np.arange(1, 1 << qm), (1 << layer.bits) - 1, replace=False)
        centroid = np.concatenate([[0], np.sort(drawn)]).astype(np.int32)
    tables = (centroid, thresholds(centroid, layer.rule))
    return Quantizer("knq", layer.bits, qm, 0, None, layer.rule, *tables, layer.signed)


def convolution(
    made: Made, layer: ToyLayer, name: str, sources: list[str], rng: np.random.Generator
) -> Sum:
    """Draw weights, convolve."""
    toy = made.toy
    values, largest, frac = made.read(sources[0])
    bits = layer.weight_bits or toy.weight_bits
    limit = 1 << (bits - 1)
    if values.shape[1] % layer.groups or layer.out % layer.groups:
        raise ValueError("groups must divide the channels")
    shape = (layer.out, values.shape[1] // layer.groups, *layer.kernel)
    lowest = -limit + toy.symmetric
    weight = rng.integers(lowest, limit, shape).astype(np.int16)
    storage: dict[str, Any] = {"scheme": "uniform", "bits": bits, "table": False}
    if layer.index_bits:
        entries = min(1 << layer.index_bits, limit - lowest)
        drawn = rng.choice(limit - lowest, entries, replace=False) + lowest
        table = np.sort(drawn).astype(np.int32)
        used = table[table > -limit] if layer.scaled else table
        weight = used[rng.integers(0, used.size, shape)].astype(np.int16)
        made.arrays[f"{name}/weight_table"] = table
        storage = {"scheme": "kmeans", "bits": layer.index_bits, "table": True}
    bias = rng.integers(-5000, 5000, layer.out).astype(np.int32)
    bias_shift = int(rng.integers(0, 3))
    scale = None
    if layer.scaled:
        scale = np.maximum(rng.integers(1, 256, layer.out) >> rng.integers(0, 8, layer.out), 1)
        made.arrays[f"{name}/weight_scale"] = scale.astype(np.uint8)
        weight = np.maximum(weight, 1 - limit, dtype=np.int16)
    drawn = {"weight": weight, "bias": bias, "bias_shift": bias_shift, "weight_scale": scale}
    acc, product = naive.sums(SimpleNamespace(**vars(layer), **drawn), [values])
    bound = np.abs(weight.astype(np.int64)).sum(axis=(1, 2, 3)) * largest
    bound += np.abs(bias.astype(np.int64)) << bias_shift
    made.arrays[f"{name}/weight"], made.arrays[f"{name}/bias"] = weight, bias
    return Sum(acc, product, 1 + int(bound.max()).bit_length(), frac, {
        "weight_bits": bits, "weight_scale": layer.scaled, "weight_storage": storage,
        "bias_bits": 14, "bias_shift": bias_shift,
        "macs": int(weight.size * acc.shape[2] * acc.shape[3]),
    })  # fmt: skip


def operation(
    made: Made, layer: ToyLayer, name: str, sources: list[str], rng: np.random.Generator
) -> Sum:
    """An add, a pool or a normalisation."""
    inputs, magnitudes, fracs = zip(*map(made.read, sources), strict=True)
    frac, aligns = max(fracs), [max(fracs) - frac for frac in fracs]
    fields: dict[str, Any] = {"weight_bits": 0, "bias_bits": 0, "bias_shift": 0, "macs": 0}
    parameters: dict[str, Any] = {"in_aligns": aligns}
    reach = sum(m << align for m, align in zip(magnitudes, aligns, strict=True))
    more = 0  # fractional bits of a factor
    if layer.kind == "add":
        if inputs[0].shape != inputs[1].shape:
            raise ValueError("an add's inputs must have one shape")
        fields["in_aligns"] = aligns
    elif layer.kind == "mul":
        if inputs[1].shape not in (inputs[0].shape, (*inputs[0].shape[:2], 1, 1)):
            raise ValueError("a product's inputs must have one shape, or the second one pixel")
        reach, frac = magnitudes[0] * magnitudes[1], sum(fracs)
    elif layer.kind == "avgpool":
        fields["average"] = {"count_include_pad": layer.count_include_pad}
        parameters["average"] = layer
        reach, more = reach * layer.kernel[0] * layer.kernel[1], 24
    elif layer.kind == "lrn":
        size, scale = layer.lrn_size, 4.0 ** rng.uniform(-2, 2)
        if size * reach**2 >= 1 << 36:
            raise ValueError("sums of squares must be below 2^36")
        alpha = size * scale / reach**2 * 2.0 ** (2 * frac)
        settings = {"size": size, "alpha": alpha, "beta": 0.75, "k": float(rng.choice([1.0, 2.0]))}
        table, more = naive.lrn_table(**settings, frac=frac)
        made.arrays[f"{name}/lrn_table"] = table
        fields["lrn"] = {**settings, "table_frac": more}
        parameters["lrn"] = SimpleNamespace(size=size, table=table)
    acc, product = naive.sums(SimpleNamespace(**vars(layer), **parameters), list(inputs))
    return Sum(acc, product, 1 + reach.bit_length(), frac + more, fields)


def store(
    made: Made, layer: ToyLayer, name: str, found: Sum, rng: np.random.Generator
) -> tuple[np.ndarray, Quantizer, int, int]:
    """Requantize, encode and pool; (codes, quantizer, shift, weight_frac)."""
    quantizer = made.state[layer.like][1] if layer.like else make_quantizer(layer, rng)
    if quantizer is None:
        raise ValueError("the last layer has no quantizer to share")
    made.arrays.update({f"{name}/{key}": table for key, table in arrays_in(quantizer).items()})
    spread = (1 << quantizer.qm) / (6 if quantizer.signed else 3)  # so that all codes occur
    shift = int(np.floor(np.log2(max(found.product.std(), 1) / spread))) + layer.shift_more
    weight_frac = 0
    if layer.kind in CONVOLUTIONS:
        quantizer = quantizer if layer.like else replace(quantizer, frac=layer.frac)
        weight_frac = shift - found.frac + quantizer.frac
    elif layer.like:
        shift = found.frac - quantizer.frac
    else:
        quantizer = replace(quantizer, frac=found.frac - shift)
    bits = found.bits + {"avgpool": 25, "lrn": 16}.get(layer.kind, 8 * layer.scaled)
    if layer.scaled and bits > MAX_ACC_BITS:
        raise ValueError("scaled accumulators out of range")
    if shift > MAX_SHIFT or bits - min(shift, 0) >= MAX_BITS:
        raise ValueError("requantize shift out of range")
    relu = layer.relu if layer.relu is not None else not quantizer.signed
    relu = relu and layer.kind != "maxpool"
    out = naive.encode(naive.requantize(found.product, shift, quantizer, relu), quantizer)
    if layer.pool:
        if quantizer.signed and layer.pool != POOL1 and quantizer.scheme != "knq":
            raise ValueError("only codes of a table are ordered where values may be negative")
        out = naive.max_pool(out, layer.pool)
    if layer.upscale:
        out = naive.enlarge(out, layer.upscale)
    return out, quantizer, shift, weight_frac


def add_layer(made: Made, index: int, name: str, sources: list[str]) -> None:
    """Draw a layer's parameters, compute its output, append its manifest entry."""
    layer, last = made.toy.layers[index], index == len(made.toy.layers) - 1
    rng = np.random.default_rng([made.toy.seed, int(hashlib.sha256(name.encode()).hexdigest()[:8],
                                                     16)])  # fmt: skip
    in_shape = made.read(sources[0])[0].shape[1:]
    step = convolution if layer.kind in CONVOLUTIONS else operation
    found = step(made, layer, name, sources, rng)
    out, quantizer, shift, weight_frac, frac = found.acc, None, None, 0, found.frac
    if last and layer.kind == "avgpool":
        frac -= 24
    if layer.kind not in CONVOLUTIONS and "input" in sources:
        raise ValueError("only convolutions read the network's input")
    if last and (layer.pool or layer.upscale or layer.kind in ("lrn", "maxpool", "mul")):
        raise ValueError("the last layer must not need an encoder")
    if not last:
        out, quantizer, shift, weight_frac = store(made, layer, name, found, rng)
        frac = quantizer.frac
    made.state[name], made.vectors[name] = (out, quantizer, frac), out
    windowed = layer.kind in (*CONVOLUTIONS, "avgpool")
    source_frac = made.read(sources[0])[2]
    fields = found.fields
    relu = layer.relu if layer.relu is not None else not (last or layer.signed)
    made.entries.append({
        "name": name, "kind": layer.kind, "inputs": sources,
        "in_shape": list(in_shape), "conv_shape": list(found.acc.shape[1:]),
        "out_shape": list(out.shape[1:]),
        "kernel": list(layer.kernel) if windowed else [1, 1],
        "stride": list(layer.stride) if windowed else [1, 1],
        "dilation": list(layer.dilation) if layer.kind in CONVOLUTIONS else [1, 1],
        "pads": list(layer.pads) if windowed else [0, 0, 0, 0],
        "groups": layer.groups if layer.kind in CONVOLUTIONS else 1,
        "activation": {"function": "relu", "parameters": {}} if relu else None,
        "pool": to_json(layer.pool), "upscale": to_json(layer.upscale), "weight_frac": weight_frac,
        "bias_frac": source_frac + weight_frac - fields["bias_shift"] if fields["macs"] else 0,
        "acc_bits": found.bits, "requant_shift": shift,
        "quantizer": to_json(quantizer), "out_frac": frac,
        "in_aligns": [0] * len(sources), "average": None, "lrn": None, "sqnr_db": None, **fields,
    })  # fmt: skip


def make(toy: Toy) -> Made:
    """Draw and compute a network; ValueError where its layers do not fit each other."""
    rng = np.random.default_rng(toy.seed)
    channels, half = toy.in_shape[0], 1 << (toy.in_bits - 1)
    table = rng.integers(-half, half, (channels, 256)).astype(np.int16)
    images = rng.integers(0, 256, (toy.images, *toy.in_shape)).astype(np.uint8)
    codes = table[np.arange(channels)[None, :, None, None], images]
    made = Made(toy, {"input/table": table}, {"images": images, "input": codes},
                {"input": (codes, None, 2)})  # fmt: skip
    previous = "input"
    for index, layer in enumerate(toy.layers):
        name = layer.name or f"layer{index}"
        sources = [layer.source or previous]
        if layer.kind in TWO_INPUTS:
            sources.append(layer.source2 or previous)
        add_layer(made, index, name, sources)
        previous = name
    made.vectors["float_logits"] = made.vectors[previous].reshape(toy.images, -1).astype(np.float32)
    made.vectors["labels"] = rng.integers(0, 3, toy.images)
    return made


def write_toy(folder: Path, toy: Toy) -> Made:
    """Write manifest.json, arrays.npz and vectors.npz of a toy network."""
    made = make(toy)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "arrays.npz", **made.arrays)
    np.savez(folder / "vectors.npz", **made.vectors)
    manifest = {
        "format": 1, "network": "toy", "weights": "seeded", "weights_sha256": "0" * 64,
        "arrays_sha256": hashlib.sha256((folder / "arrays.npz").read_bytes()).hexdigest(),
        "settings_sha256": "0" * 64, "qm": 12,
        "input": {
            "shape": list(toy.in_shape), "bits": toy.in_bits, "frac": 2,
            "preprocessing": to_json(Preprocessing.plain(toy.in_shape[0])),
        },
        "layers": made.entries, "classes": None, "accuracy": None,
        "concats": [{"name": name, "parts": parts} for name, parts in toy.concats.items()],
        "calibration": {
            "source": "random", "images": 1, "labels": False, "includes_test_images": False,
        },
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return made


def read_json(build: Path, name: str = "report") -> dict[str, Any]:
    """report.json of a build, or another file."""
    content: dict[str, Any] = json.loads((build / f"{name}.json").read_text())
    return content


def change_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change what a file holds."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def simulated(build: Path, *options: str, layers: int | None = None) -> dict[str, Any]:
    """Runs csim on a build; asserts that no code differs and every predicted count is the counted.

    Returns:
        report.json, of whose layers so many ran, all by default.
    """
    assert main(["csim", f"OUT={build}", *options]) == 0
    report = read_json(build)
    assert report["csim"]["mismatches"] == 0
    assert len(report["csim"]["layers"]) == (layers or len(report["layers"]))
    for predicted, counted in zip(report["layers"], report["csim"]["layers"], strict=False):
        for name in COUNTERS:
            counts = predicted["counts"]
            expected = counts.get(name, predicted.get(name))
            expected = max(counts.values()) if name == "cycles" else expected
            assert counted[name] == expected, (predicted["name"], name)
    return report


POOL1 = Window((1, 1), (1, 1))
POOL2 = Window((2, 2), (2, 2))
POOL3 = Window((3, 3), (2, 2), (1, 1, 1, 1))


def mixed_layers() -> list[ToyLayer]:
    """All schemes and variants, strides, asymmetric pads, pools, scales, odd channel counts."""
    return [
        ToyLayer(24, (5, 4), (2, 2), (2, 1, 1, 2), pool=POOL3, scheme="knq", bits=3),
        ToyLayer(20, (3, 3), pads=(1, 1, 1, 1), scheme="enq", bits=5, variant="mid"),
        ToyLayer(35, (3, 2), pads=(1, 0, 1, 1), scheme="uniform", bits=11, pool=POOL2, scaled=True),
        ToyLayer(30, (1, 1), scheme="enq", bits=4, variant="round"),
        ToyLayer(17, (1, 2), scheme="knq", bits=4, rule="floor", kind="fc", scaled=True),
        ToyLayer(10, (1, 1), kind="fc"),
    ]
