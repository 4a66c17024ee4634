# SPDX-License-Identifier: Apache-2.0
"""Running networks by number, shrinking those that fail, and regression cases as JSON."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from nuq.formats import schema
from tests.fuzz.builds import BUILDS, Build
from tests.fuzz.compare import Case, UnfitError, prepare
from tests.networks import TRIES, draw
from tests.toys import Toy, ToyLayer

CASES = Path(__file__).with_name("cases")
SHARES = (0.25, 0.15, 0.15, 0.1, 0.1, 0.15, 0.1)  # of the networks, by build
SHRINK_RUNS = 300


def find_build(name: str) -> Build:
    """The build called `name`."""
    return next(build for build in BUILDS if build.name == name)


def make_case(seed: int, index: int, only: str | None = None) -> tuple[Toy, Build, Case]:
    """Network number `index` of a seed: deterministic, and within the limits of its build."""
    rng = np.random.default_rng([seed, index])
    build = find_build(only) if only else BUILDS[int(rng.choice(len(BUILDS), p=SHARES))]
    for attempt in range(TRIES):
        toy = draw(rng, build, seed * 1_000_000 + index * 1000 + attempt)
        if toy is None:
            continue
        try:
            return toy, build, prepare(toy, build)
        except (UnfitError, ValueError):
            continue
    raise RuntimeError(f"seed {seed}, network {index}: no network within the limits was drawn")


def to_json(toy: Toy, build: Build, failure: str) -> str:
    """A regression case as text, a layer a line; only fields that differ from their defaults."""
    entry, plain = schema.to_json(toy), schema.to_json(ToyLayer())
    layers = ",\n ".join(
        json.dumps({name: value for name, value in layer.items() if value != plain[name]})
        for layer in entry.pop("layers")
    )
    head = json.dumps({"failure": failure, "build": build.name, "network": entry})
    return f'{head[:-2]}, "layers": [\n {layers}\n]}}}}\n'


def from_json(text: str) -> tuple[Toy, Build]:
    """The inverse of to_json."""
    entry = json.loads(text)
    return schema.from_json(Toy, entry["network"]), find_build(entry["build"])


def shrink(toy: Toy, build: Build, fails: Callable[[Case], bool]) -> Toy:
    """The smallest network found that still fails."""
    runs = 0
    improved = True
    while improved and runs < SHRINK_RUNS:
        improved = False
        for smaller in simpler(toy):
            try:
                case = prepare(smaller, build)
            except ValueError:
                continue
            runs += 1
            if fails(case):
                toy, improved = smaller, True
                break
            if runs >= SHRINK_RUNS:
                break
    return toy


def simpler(toy: Toy) -> Iterator[Toy]:
    """Networks that are a little simpler; not all of them are valid."""
    for end in range(1, len(toy.layers)):
        yield prune(replace(toy, layers=_ended(toy.layers[:end])))
    for index, layer in enumerate(toy.layers[:-1]):
        rest = [_renamed(item, layer.name, layer.source)
                for i, item in enumerate(toy.layers) if i != index]  # fmt: skip
        concats = {name: [part for part in parts if part != layer.name]
                   for name, parts in toy.concats.items()}  # fmt: skip
        yield prune(replace(toy, layers=rest, concats=concats))
    if toy.images > 1:
        yield replace(toy, images=1)
        yield replace(toy, images=toy.images - 1)
    for axis in (1, 2):
        for size in {max(1, toy.in_shape[axis] // 2), toy.in_shape[axis] - 1}:
            if 0 < size < toy.in_shape[axis]:
                shape = tuple(size if i == axis else n for i, n in enumerate(toy.in_shape))
                yield replace(toy, in_shape=shape)  # type: ignore[arg-type]
    for channels in (1, 8, toy.in_shape[0] // 2):
        if 0 < channels < toy.in_shape[0]:
            yield replace(toy, in_shape=(channels, *toy.in_shape[1:]))
    for index in range(len(toy.layers)):
        for option in _options(toy.layers[index]):
            layers = [*toy.layers]
            layers[index] = replace(layers[index], **option)
            yield replace(toy, layers=layers)


def _ended(layers: list[ToyLayer]) -> list[ToyLayer]:
    """The same with the last layer raw."""
    return [*layers[:-1], replace(layers[-1], pool=None, signed=False, like=None, relu=None)]


def _renamed(layer: ToyLayer, old: str | None, new: str | None) -> ToyLayer:
    """The layer, reading `new` instead of `old`."""
    return replace(
        layer,
        source=new if layer.source == old else layer.source,
        source2=new if layer.source2 == old else layer.source2,
        like=None if layer.like == old else layer.like,
    )


def prune(toy: Toy) -> Toy:
    """Without layers and concats that nothing reads."""
    needed: set[str | None] = {toy.layers[-1].name}
    concats: dict[str, list[str]] = {}
    for layer in reversed(toy.layers):
        if layer.name in needed:
            reads = {layer.source, layer.source2, layer.like}
            concats.update({n: p for n, p in toy.concats.items() if n in reads})
            needed |= reads | {part for n in reads if n in concats for part in concats[n or ""]}
    return replace(
        toy, layers=[layer for layer in toy.layers if layer.name in needed], concats=concats
    )


def _options(layer: ToyLayer) -> Iterator[dict[str, object]]:
    """Simplifications of one layer."""
    simple = {
        "pool": None, "upscale": None,
        "pads": (0, 0, 0, 0), "stride": (1, 1), "dilation": (1, 1), "groups": 1,
        "kernel": (1, 1), "shift_more": 0, "frac": 0, "signed": False, "relu": None, "like": None,
        "variant": "floor", "rule": "nearest", "qm": 12,
    }  # fmt: skip
    for name, value in simple.items():
        if getattr(layer, name) != value and not (name == "pool" and layer.kind == "maxpool"):
            yield {name: value}
    if layer.scheme != "uniform":
        yield {"scheme": "uniform", "bits": 8}
    if layer.kind in ("conv", "fc"):
        yield from ({"out": out} for out in (1, 8, 16) if out < layer.out)
    if layer.kind == "lrn" and layer.lrn_size > 1:
        yield {"lrn_size": layer.lrn_size - 1}
