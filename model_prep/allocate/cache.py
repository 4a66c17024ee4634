# SPDX-License-Identifier: Apache-2.0
"""Activation cache of the searches: a candidate costs only the layers behind what it changes.

A batch keeps what its layers computed before they were quantized, for one *base* choice of
quantizers. Where all quantizers of a layer share the integers y (knq, enq) those are kept, which
is exact in 2 bytes a value; else float32. What is not kept is computed again from what is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch

from formats.build import free_memory
from formats.quantizer import Quantizer
from model_prep.graph import Graph, Layer
from model_prep.quantize import fake_quant
from model_prep.quantize.fake_quant import FakeQuantized
from model_prep.run import last, run

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

    def stored(self, quantizer: Quantizer | None) -> torch.Tensor:
        """What the layer stores under a quantizer, which has the same y where there is a key."""
        if self.key is None or quantizer is None:
            return fake_quant.quantize(self.tensor, quantizer)
        return fake_quant.values(self.tensor.to(torch.int32), quantizer)


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
        return last(self._network.run(self._pixels, choice.quantizers, choice.weights)).numpy()

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
            return self._run(base, choice).numpy()

    def _changed(self, old: Choice, new: Choice) -> set[str]:
        """The layers whose values before quantization differ between two choices."""
        graph = self._network.graph
        changed, stored = set[str](), set[str]()
        for layer in graph.layers:
            name, parts = layer.name, {p for one in layer.inputs for p in graph.parts_of(one)}
            if old.labels.get(name) != new.labels.get(name) or not parts.isdisjoint(stored):
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
                self._kept[name] = _narrow(kept)
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
            raw = self._network.raw(layer, inputs, choice.weights.get(layer.name))
            keep = self._pending if layer.name in changed else self._kept
            return self._finish(layer.name, raw, choice.quantizers.get(layer.name), keep)

        start = partial(self._network.start, self._pixels)
        return last(run(self._network.graph, start, stored, given))

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
