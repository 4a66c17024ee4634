# SPDX-License-Identifier: Apache-2.0
"""Activation cache of the searches: a candidate costs only the layers behind what it changes.

A batch keeps what its layers computed before they were quantized, for one *base* choice of
quantizers. Where all quantizers of a layer share the integers y (knq, enq) those are kept, which
is exact in 2 bytes a value; else float32. What is not kept is computed again from what is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from formats.build import free_memory
from model_prep.graph import INPUT, Graph
from model_prep.quantize import fake_quant
from model_prep.quantize.fake_quant import FakeQuantized
from model_prep.quantize.quantizers.base import Quantizer

_DEFAULT_SHARE = 0.25  # of the free memory
_GB = 1e9
_WIDE = 4  # bytes of a value of the last candidate, which is made narrow when it is accepted
_COMPACT_BITS = 15  # y of so many bits, with or without a sign, fits int16


@dataclass(frozen=True)
class Choice:
    """One candidate of a search.

    Attributes:
        quantizers: by layer name; a layer without one stays float.
        weights: float32 tensors that replace the network's own, by layer name. Two choices have
            the same weights in a layer if `labels` has the same entry for it.
        labels: what tells replaced weights apart, by layer name, such as (scheme, bits).
    """

    quantizers: Mapping[str, Quantizer]
    weights: Mapping[str, torch.Tensor] = field(default_factory=dict)
    labels: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class _Kept:
    """A layer's values before quantization: float32, or y as int16 where `key` is not None."""

    tensor: torch.Tensor
    key: tuple[int, int, bool] | None


def _integers_key(quantizer: Quantizer | None) -> tuple[int, int, bool] | None:
    """What two quantizers must have in common to see the same y; None: y is not worth keeping.

    A uniform quantizer's y is its code, so candidates of another width have another y.
    """
    if quantizer is None or quantizer.scheme == "uniform" or quantizer.qm > _COMPACT_BITS:
        return None
    return quantizer.frac, quantizer.qm, quantizer.signed


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
    network, every third and so on, until they do. An empty set is no cache.

    Args:
        graph: the network.
        quantizers: a typical choice, which tells the size of a value.
        images: number of images.
        limit: bytes.
    """
    layers = graph.layers[:-1]
    size = {
        layer.name: int(np.prod(layer.out_shape)) * images
        * ((2 if _integers_key(quantizers.get(layer.name)) else 4) + _WIDE)
        for layer in layers
    }  # fmt: skip
    last_use = {
        part: index
        for index, layer in enumerate(graph.layers)
        for name in layer.inputs
        for part in graph.parts_of(name)
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
        self._layers = network.graph.layers
        self._number = {layer.name: index for index, layer in enumerate(self._layers)}
        self._parts = [
            [list(network.graph.parts_of(name)) for name in layer.inputs] for layer in self._layers
        ]
        self._last_use = {
            part: index
            for index, sources in enumerate(self._parts)
            for parts in sources
            for part in parts
        }
        self._base: Choice | None = None
        self._kept: dict[str, _Kept] = {}
        self._last: Choice | None = None  # the last candidate, which the search may accept
        self._pending: dict[str, _Kept] = {}  # what to keep then

    @property
    def kept_bytes(self) -> int:
        """Bytes that the cache holds now."""
        tables = (self._kept, self._pending)
        return sum(kept.tensor.nbytes for table in tables for kept in table.values())

    def plain(self, choice: Choice) -> np.ndarray:
        """The outputs float32 [N, classes] without any use of the cache."""
        with torch.inference_mode():
            for _, last in self._network.run(self._pixels, choice.quantizers, choice.weights):
                out = last
            return out.flatten(1).numpy()

    def logits(self, base: Choice, choice: Choice) -> np.ndarray:
        """The outputs float32 [N, classes] of a candidate.

        Args:
            base: what the cache is to be kept for; candidates best differ from it late in the
                network.
            choice: the candidate.
        """
        with torch.inference_mode():
            if base is not self._base:
                self._rebase(base)
            return self._run(base, choice).flatten(1).numpy()

    def _changes(self, old: Choice, new: Choice) -> tuple[set[str], set[str]]:
        """(layers with other weights, layers with other quantizers)."""
        weights, formats = set(), set()
        for layer in self._layers:
            name = layer.name
            if old.labels.get(name) != new.labels.get(name):
                weights.add(name)
            if not _same(old.quantizers.get(name), new.quantizers.get(name)):
                formats.add(name)
        return weights, formats

    def _rebase(self, base: Choice) -> None:
        """Drop what the layers would compute otherwise with the new base."""
        if self._base is not None:
            weights, formats = self._changes(self._base, base)
            dirty: set[str] = set()
            for layer, sources in zip(self._layers, self._parts, strict=True):
                before = any(part in dirty for parts in sources for part in parts)
                if before or layer.name in weights:
                    self._kept.pop(layer.name, None)
                    dirty.add(layer.name)
                elif layer.name in formats:
                    dirty.add(layer.name)
        if base is self._last:
            while self._pending:  # one by one, so that no layer is long held twice
                name, kept = self._pending.popitem()
                self._kept[name] = _narrow(kept)
        self._base = base

    def _run(self, base: Choice, choice: Choice) -> torch.Tensor:
        """The last layer's values; computes the changed layers and all that depends on them."""
        weights, formats = self._changes(base, choice)
        memo: dict[str, torch.Tensor] = {}
        fresh: dict[str, torch.Tensor] = {}
        self._last, self._pending = choice, {}
        for index, (layer, sources) in enumerate(zip(self._layers, self._parts, strict=True)):
            name = layer.name
            quantizer = choice.quantizers.get(name)
            dirty = any(part in fresh for parts in sources for part in parts)
            if dirty or name in weights:
                inputs = [
                    _join([fresh[p] if p in fresh else self._clean(p, base, memo) for p in parts])
                    for parts in sources
                ]
                raw = self._network.raw(index, inputs, choice.weights.get(name))
                fresh[name] = self._finish(name, raw, quantizer, self._pending)
            elif name in formats:
                fresh[name] = self._with(name, quantizer, base, memo)
            for part in {part for parts in sources for part in parts}:
                if self._last_use[part] == index:
                    fresh.pop(part, None)
                    memo.pop(part, None)
        last = self._layers[-1].name
        return fresh[last] if last in fresh else self._clean(last, base, memo)

    def _clean(self, name: str, base: Choice, memo: dict[str, torch.Tensor]) -> torch.Tensor:
        """The stored values of a layer, or the input, as the base has them."""
        if name not in memo:
            if name == INPUT:
                memo[name] = self._network.start(self._pixels)
            else:
                memo[name] = self._with(name, base.quantizers.get(name), base, memo)
        return memo[name]

    def _with(
        self, name: str, quantizer: Quantizer | None, base: Choice, memo: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        """A layer's values under a quantizer, its inputs being the base's."""
        kept = self._kept.get(name)
        if kept is not None and kept.key is None:
            return fake_quant.quantize(kept.tensor, quantizer)
        if kept is not None and quantizer is not None and kept.key == _integers_key(quantizer):
            return fake_quant.values(kept.tensor.to(torch.int32), quantizer)
        index = self._number[name]
        inputs = [
            _join([self._clean(part, base, memo) for part in parts]) for parts in self._parts[index]
        ]
        raw = self._network.raw(index, inputs, base.weights.get(name))
        return self._finish(name, raw, quantizer, self._kept)

    def _finish(
        self, name: str, raw: torch.Tensor, quantizer: Quantizer | None, kept: dict[str, _Kept]
    ) -> torch.Tensor:
        """Quantize what a layer computed, and keep it in `kept` if the layer is to be kept."""
        key = _integers_key(quantizer)
        if key is None or quantizer is None:
            if name in self._keep:
                kept[name] = _Kept(raw, None)
            return fake_quant.quantize(raw, quantizer)
        y = fake_quant.integers(raw, quantizer)
        if name in self._keep:
            wide = _Kept(y, key)  # most candidates' values are never needed again
            kept[name] = wide if kept is self._pending else _narrow(wide)
        return fake_quant.values(y, quantizer)


def _narrow(kept: _Kept) -> _Kept:
    """The same values in the type that they are kept in."""
    return kept if kept.key is None else _Kept(kept.tensor.to(torch.int16), kept.key)


def _join(parts: list[torch.Tensor]) -> torch.Tensor:
    """The parts of a concatenation along the channels."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
