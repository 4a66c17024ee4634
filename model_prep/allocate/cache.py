# SPDX-License-Identifier: Apache-2.0
"""Activation cache of the searches: a candidate costs only the layers behind what it changes.

A batch keeps what its layers computed before they were quantized, for one *base* choice of
quantizers. Where all quantizers of a layer share the integers y (knq, enq) those are kept, which
is exact in 2 bytes a value; else float32. What is not kept is computed again from what is.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import numpy as np
import torch

from nuq.formats.build import free_memory
from nuq.formats.quantizer import Quantizer
from nuq.model_prep.graph import Graph, Layer
from nuq.model_prep.quantize import fake_quant
from nuq.model_prep.quantize.fake_quant import FakeQuantized
from nuq.model_prep.run import outputs, run, tensor_of

_DEFAULT_SHARE = 0.25  # of the free memory
_GB = 1e9
_WIDE = 4  # bytes of a value of the last candidate, which is made narrow when it is accepted
_COMPACT_BITS = 15  # y of so many bits, with or without a sign, fits int16


@dataclass(frozen=True, eq=False)
class Choice:
    """One candidate of a search; a cache knows it by its identity."""

    quantizers: Mapping[str, Quantizer]  # by layer name; a layer without one stays float
    # float32 tensors that replace the network's own, by layer name
    weights: Mapping[str, torch.Tensor] = field(default_factory=dict)
    # what tells them apart, such as (scheme, bits): equal labels stand for the same weights
    labels: Mapping[str, object] = field(default_factory=dict)


class FloatBase:
    """The float network as a base, and choices that store some of its weights otherwise."""

    def __init__(self, graph: Graph, store: Callable[[np.ndarray, Any], torch.Tensor]) -> None:
        """`store` gives what is left (float32) of a layer's weights under a hashable label."""
        self.weights = {layer.name: layer.weight for layer in graph.layers if layer.has_weights}
        exact = {name: tensor_of(values) for name, values in self.weights.items()}
        self.base = Choice({}, exact, dict.fromkeys(exact, "float"))
        self._stored = cache(lambda name, label: store(self.weights[name], label))

    def choice(self, labels: Mapping[str, Any], quantizers: Mapping[str, Quantizer]) -> Choice:
        """The float network with these weights stored and these activations quantized."""
        stored = {name: self._stored(name, label) for name, label in labels.items()}
        weights = {**self.base.weights, **stored}
        return Choice(dict(quantizers), weights, {**self.base.labels, **labels})


@dataclass(frozen=True)
class _Kept:
    """A layer's values before quantization: float32, or y as int32 or int16 where there is a key.

    y is made narrow only when a candidate is accepted: most are never needed again.
    """

    layer: Layer
    tensor: torch.Tensor
    key: tuple[int, int, bool] | None

    def stored(self, quantizer: Quantizer | None) -> torch.Tensor:
        """What the layer stores under a quantizer, which has the same y where there is a key."""
        if self.key is None or quantizer is None:
            return fake_quant.quantize(self.layer, self.tensor, quantizer)
        return fake_quant.values(self.tensor.to(torch.int32), quantizer)

    def narrow(self) -> "_Kept":
        return (
            self if self.key is None else _Kept(self.layer, self.tensor.to(torch.int16), self.key)
        )


def _integers_key(quantizer: Quantizer | None) -> tuple[int, int, bool] | None:
    """What two quantizers must have in common to see the same y; None: y is not worth keeping.

    A uniform quantizer's y is its code, so candidates of another width have another y.
    """
    if quantizer is None or quantizer.scheme == "uniform" or quantizer.qm > _COMPACT_BITS:
        return None
    return quantizer.encoded_frac, quantizer.qm, quantizer.y_signed


def _kept(layer: Layer, raw: torch.Tensor, quantizer: Quantizer | None) -> _Kept:
    key = _integers_key(quantizer)
    if key is None or quantizer is None:
        return _Kept(layer, raw, None)
    return _Kept(layer, fake_quant.integers(raw, quantizer), key)


def _same(one: Quantizer | None, other: Quantizer | None) -> bool:
    """Whether two quantizers give the same values."""
    return one is other or (one is not None and other is not None and one.key == other.key)


def cache_bytes(gigabytes: float | None) -> int:
    """CACHE_GB in bytes; None: a quarter of the free memory."""
    return int(_DEFAULT_SHARE * free_memory() if gigabytes is None else gigabytes * _GB)


def layers_to_keep(
    graph: Graph, quantizers: Mapping[str, Quantizer], images: int, limit: int
) -> frozenset[str]:
    """The layers whose values are kept so that all images stay within `limit` bytes.

    All of them where they fit; else the tensors that are alive at every second point of the
    network, every third and so on, until they do. An empty set is no cache. `quantizers` are a
    typical choice, which tells the size of a value.
    """
    layers = graph.stored
    size = {
        layer.name: int(np.prod(layer.out_shape)) * images
        * ((2 if _integers_key(quantizers.get(layer.name)) else 4) + _WIDE)
        for layer in layers
    }  # fmt: skip
    last_use = {
        part: index for index, layer in enumerate(graph.layers) for part in graph.sources_of(layer)
    }
    for stride in range(1, len(layers) + 1):
        keep = {
            layer.name
            for cut in range(stride - 1, len(layers), stride)
            for index, layer in enumerate(layers[: cut + 1])
            if stride == 1 or last_use.get(layer.name, index) > cut
        }
        if sum(size[name] for name in keep) <= limit:
            return frozenset(keep)
    return frozenset()


class BatchRun:
    """One batch of images, its cache, and the outputs of candidates on it.

    Results are bit for bit those of `FakeQuantized.run` on the same images with the same number of
    torch threads: the same operations on the same numbers, fewer of them.
    """

    def __init__(self, network: FakeQuantized, pixels: np.ndarray, keep: frozenset[str]) -> None:
        """`pixels` is uint8 [N, C, H, W]; `keep` names the layers to keep values of."""
        self._network, self._pixels, self._keep = network, pixels, keep
        self._base: Choice | None = None
        self._kept: dict[str, _Kept] = {}
        self._last: Choice | None = None  # the last candidate, which the search may accept
        self._pending: dict[str, _Kept] = {}  # what to keep then

    def outputs(self, base: Choice | None, choice: Choice) -> np.ndarray:
        """The outputs float32 [N, classes] of a candidate; the cache is then kept for `base`.

        Candidates best differ from their base late in the network. None makes no use of the cache.
        """
        if base is None:
            layers = self._network.run(self._pixels, choice.quantizers, choice.weights)
            return outputs(self._network.graph, layers).numpy()
        with torch.inference_mode():
            if base is not self._base:
                self._rebase(base)
            return self._run(base, choice).numpy()

    def _changed(self, old: Choice, new: Choice) -> set[str]:
        """The layers whose values before quantization differ between two choices."""
        graph = self._network.graph
        changed, stored = set[str](), set[str]()
        for layer in graph.layers:
            name = layer.name
            reads_changed = not stored.isdisjoint(graph.sources_of(layer))
            if reads_changed or old.labels.get(name) != new.labels.get(name):
                changed.add(name)
                stored.add(name)
            elif not _same(old.quantizers.get(name), new.quantizers.get(name)):
                stored.add(name)
        return changed

    def _rebase(self, base: Choice) -> None:
        """Drop what the layers would compute otherwise with the new base."""
        if self._base is not None:
            for name in self._changed(self._base, base):
                self._kept.pop(name, None)
        if base is self._last:
            while self._pending:  # one by one, so that no layer is long held twice
                name, kept = self._pending.popitem()
                self._kept[name] = kept.narrow()
        self._base = base

    def _run(self, base: Choice, choice: Choice) -> torch.Tensor:
        """The outputs; computes the changed layers and all that depends on them."""
        changed = self._changed(base, choice)
        self._last, self._pending = choice, {}
        given = {}
        for name, kept in self._kept.items():
            quantizer = choice.quantizers.get(name)
            if name not in changed and kept.key in (None, _integers_key(quantizer)):
                given[name] = partial(kept.stored, quantizer)

        def stored(layer: Layer, inputs: list[torch.Tensor]) -> torch.Tensor:
            name, quantizer = layer.name, choice.quantizers.get(layer.name)
            raw = self._network.raw(layer, inputs, choice.weights.get(name))
            value = _kept(layer, raw, quantizer)
            if name in self._keep and name in changed:
                self._pending[name] = value
            elif name in self._keep:
                self._kept[name] = value.narrow()
            return value.stored(quantizer)

        start = partial(self._network.start, self._pixels)
        graph = self._network.graph
        return outputs(graph, run(graph, start, stored, given))
