# SPDX-License-Identifier: Apache-2.0
"""`Calibration`: what a float network does on its calibration images, from one pass over them.

The pass keeps, for every map that is encoded, a histogram from which the integers y that encoding
will see (docs/formats.md 2.3: rounded half up, clamped to qm bits, the papers' "pre-process" bound)
can be counted for any F that is chosen afterwards. `Formats` is such a choice; all fits come from
it.
"""

import itertools
import math
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from tqdm import tqdm

from nuq.formats.arithmetic import lowest
from nuq.formats.errors import UserError
from nuq.formats.quantizer import QM_RANGE, Quantizer
from nuq.model_prep import run
from nuq.model_prep.graph import Graph
from nuq.model_prep.parallel import ordered
from nuq.model_prep.quantize import behind, quantizers
from nuq.model_prep.quantize.plan import LayerPlan, Plan
from nuq.model_prep.quantize.quantizers.codebook import table_quantizer
from nuq.model_prep.quantize.quantizers.histogram import signal_and_noise
from nuq.model_prep.quantize.sharing import signed_layers

_BATCH_VALUES = 600_000  # input values a batch: four images of 224x224, some hundred small ones
_KEPT_BYTES = 1 << 30  # of the search images' maps, beyond which float runs on them once more
_HALF = torch.tensor(0.5)
CANDIDATES = 4  # for one F: the one that clips nothing, and finer ones that clip ever more
FINER = 4  # F may be so much finer than the largest that clips nothing
ACTIVATION_FRAC = 24  # F is at most this, which a network of tiny activations would exceed

ToFloat = Callable[[np.ndarray], torch.Tensor]
# (images uint8 [N, C, H, W], the float network's stored maps, layer by layer) of each batch
FloatMaps = Iterable[tuple[np.ndarray, Iterable[torch.Tensor]]]


def batches(pixels: np.ndarray, title: str = "", split: int = 0) -> Iterator[np.ndarray]:
    """Slices of the images (uint8 [N, C, H, W]) that are small enough for one run.

    `title` is that of the progress bar, empty for none; a slice ends after `split` images.
    """
    step = max(1, min(256, _BATCH_VALUES // max(1, math.prod(pixels.shape[1:]))))
    quiet = not title or not sys.stderr.isatty()
    starts = [*range(0, split, step), *range(split, len(pixels), step)]
    with tqdm(total=len(pixels), desc=title, unit="image", disable=quiet, leave=False) as bar:
        for start, end in itertools.pairwise([*starts, len(pixels)]):
            yield pixels[start:end]
            bar.update(end - start)


def to_integers(stored: torch.Tensor, qm: int, frac: int, signed: bool = False) -> torch.Tensor:
    """y of docs/formats.md 2.3 for float activations: round half up, clamp (int32).

    >>> to_integers(torch.tensor([-1.0, 0.25, 0.374, 0.375, 99.0]), 4, 2).tolist()
    [0, 1, 1, 2, 15]
    >>> to_integers(torch.tensor([-99.0, -0.375, 99.0]), 4, 2, signed=True).tolist()
    [-8, -1, 7]
    """
    low = lowest(qm, signed)
    # One pass for the product, which is exact, and the sum.
    y = torch.add(_HALF, stored, alpha=2.0**frac)
    if signed:
        y = y.floor_()  # else the conversion rounds down, as nothing stays below 0
    return y.clamp_(low, low + (1 << qm) - 1).to(torch.int32)


def coarser(
    counts: np.ndarray, first: int, shift: int, bits: int, signed: bool, half: bool = True
) -> np.ndarray:
    """The histogram [2^bits] of integers with `shift` fewer fractional bits, clipped.

    `counts` are of the integers first, first + 1, ..., which are rounded half up or, unless `half`,
    down.

    >>> coarser(np.array([1, 2, 3, 4, 0, 0, 0, 9]), 0, 1, 2, signed=False)  # 1 rounds to 1, 7 to 4
    array([1, 5, 4, 9])
    """
    low = lowest(bits, signed)
    y = (np.arange(first, first + len(counts)) + (((1 << shift) >> 1) if half else 0)) >> shift
    y = np.clip(y, low, low + (1 << bits) - 1) - low
    return np.bincount(y, weights=counts, minlength=1 << bits).astype(counts.dtype)


class Histogram:
    """How often a map's values lie in each of 2^bits steps of 2^-frac, which widen with them.

    Values are rounded down, so that steps nest: joining two of them, and rounding half up to an F
    below `frac`, are as exact as from the values themselves.
    """

    def __init__(self, bits: int, signed: bool) -> None:
        self._bits, self._signed, self._lock = bits, signed, threading.Lock()
        self.largest = 0.0  # magnitude seen so far
        self.frac = ACTIVATION_FRAC + FINER + 1  # of the finest steps that hold it
        self.counts = np.zeros(1 << bits, np.int64)

    def add(self, values: torch.Tensor) -> None:
        """Count float32 values of any shape; the order of several calls does not matter."""
        with self._lock:
            self._add(values)

    def _add(self, values: torch.Tensor) -> None:
        self.largest = max(self.largest, float(values.abs().max()))
        frac = min(self.frac, self._bits - self._signed - math.frexp(self.largest)[1])
        low = lowest(self._bits, self._signed)
        if frac < self.frac:
            self.counts = coarser(
                self.counts, low, min(self.frac - frac, 62), self._bits, self._signed, half=False
            )
            self.frac = frac
        y = (values * 2.0**frac).floor().clamp(min=low).long() - low
        self.counts += torch.bincount(y.flatten(), minlength=1 << self._bits).numpy()

    def at(self, qm: int, frac: int) -> np.ndarray | None:
        """Counts [2^qm] of the integers y with this F; None where the steps are too wide for it."""
        if self.largest and frac >= self.frac:
            return None
        shift = max(1, min(self.frac - frac, 62))
        return coarser(self.counts, lowest(self._bits, self._signed), shift, qm, self._signed)


@dataclass(frozen=True)
class Weighted:
    """A layer's activations with FINER more fractional bits than the F that clips nothing.

    F of the layer is chosen from them, that or up to FINER more, as its quantizer is fitted.
    """

    frac: int  # of the integers
    counts: np.ndarray  # of each integer, int64 [2^(qm + FINER)], the smallest first
    weights: np.ndarray  # of their squared error in the network's loss, float64, likewise


@dataclass(frozen=True)
class Formats:
    """The integers y of all stored maps: what quantizers are fitted to."""

    qm: int  # width of y
    fracs: Mapping[str, int]  # F by layer name; where it is chosen, the one that clips nothing
    counts: Mapping[str, np.ndarray]  # of each y, int64 [2^qm] by layer name, the smallest first
    score: float = math.nan  # of the qm-bit uniform network with this F, in the evaluator's unit
    sqnr_db: float = math.nan
    weighted: Mapping[str, Weighted] | None = None  # by layer name; None: F is as `fracs` say
    # tried on `weighted`: bits of F beyond the one that clips nothing, rising
    finer: tuple[int, ...] = tuple(range(FINER + 1))
    # fits to `weighted` by layer's plan and bits of F beyond; `replace` hands them on
    fits: dict[str, Quantizer] = field(default_factory=dict, compare=False, repr=False)

    def fit(self, plan: Plan) -> dict[str, Quantizer]:
        """Every quantized layer's quantizer, by layer name.

        Layers that share one get it fitted to the sum of their histograms; open widths are left
        out.

        Raises:
            UserError: names the layer that cannot be fitted.
        """
        sets = plan.by_owner

        def one(layer: LayerPlan) -> dict[str, Quantizer]:
            sharing = sets[layer.owner]
            try:
                if any(other.activation for other in sharing):
                    return self._fit_behind(sharing)
                names = [other.name for other in sharing if other.counted]
                chosen = fixed(layer, layer.qm or self.qm) or self._fit(layer, names)
            except UserError as error:
                raise UserError(f"layer {layer.name}: {error}") from None
            return {other.name: chosen for other in sharing}

        return {name: found[name] for name, found in plan.fit_each(one).items()}

    def _fit(self, layer: LayerPlan, names: list[str]) -> Quantizer:
        """The quantizer of layers that share one: fitted, or the best of those of several F."""
        frac = self.fracs[layer.name]
        if self.weighted is None or layer.frac is not None:
            total = np.sum([self.counts[name] for name in names], axis=0)
            return self._of(layer, *narrowed(layer, total, self.qm, frac))
        parts = [self.weighted[name] for name in names]
        counts = np.sum([one.counts for one in parts], axis=0)
        weights = np.sum([one.weights for one in parts], axis=0)
        if not weights.sum() > 0:  # the output does not depend on the layer
            weights = counts
        first = lowest(self.qm + FINER, layer.signed)
        hardware = quantizers.SCHEMES[str(layer.scheme)].hardware
        own_rule = hardware == "uniform" != layer.scheme  # for F of the code
        less = self.qm - (layer.qm or self.qm)
        best, least = None, math.inf
        for finer in self.finer[:1] if own_rule else self.finer:
            finer = max(0, min(finer, ACTIVATION_FRAC - frac))
            key = f"{layer} {finer}"
            if key not in self.fits:
                y = coarser(counts, first, FINER - finer + less, self.qm - less, layer.signed)
                self.fits[key] = self._of(layer, y, self.qm - less, frac + finer - less)
            trial = self.fits[key]
            _, loss = signal_and_noise(weights, first, frac + FINER, trial)
            if loss > least:  # it has one minimum
                break
            if best is None or loss < least:
                best, least = trial, loss
        assert best is not None
        return best

    def _fit_behind(self, layers: Sequence[LayerPlan]) -> dict[str, Quantizer]:
        """The quantizers of layers that share a codebook with an activation in it, by name."""
        qm = layers[0].qm or self.qm
        given = {layer.name: fixed(layer, qm) for layer in layers}
        if all(given.values()):
            return {name: one for name, one in given.items() if one is not None}
        open_ = self.weighted is not None and layers[0].encoded_frac is None
        best: dict[str, Quantizer] = {}
        least = math.inf
        for finer in self.finer if open_ else (0,):
            key = f"{layers} {finer}"
            if f"{key} {layers[0].name}" not in self.fits:
                parts = {layer.name: self._part(layer, finer) for layer in layers}
                made = behind.fit_all(layers, parts, qm)
                self.fits.update((f"{key} {name}", one) for name, one in made.items())
            trial = {layer.name: self.fits[f"{key} {layer.name}"] for layer in layers}
            loss = sum(self._loss(layer, trial[layer.name]) for layer in layers if layer.counted)
            if not best or loss < least:
                best, least = trial, loss
        return best

    def _part(self, layer: LayerPlan, finer: int) -> behind.Part:
        """What a layer encodes, with so many more fractional bits where its F is to be chosen."""
        frac = self.fracs[layer.name]
        if self.weighted is None or layer.encoded_frac is not None:
            counts, _, frac = narrowed(layer, self.counts[layer.name], self.qm, frac)
            return behind.Part(layer.activation, frac, counts)
        fine, qm = self.weighted[layer.name], layer.qm or self.qm
        frac = min(frac + finer, ACTIVATION_FRAC) - (self.qm - qm)
        first = lowest(self.qm + FINER, layer.y_signed)
        counts = coarser(fine.counts, first, fine.frac - frac, qm, layer.y_signed)
        return behind.Part(layer.activation, frac, counts)

    def _loss(self, layer: LayerPlan, chosen: Quantizer) -> float:
        """What a layer's quantizer is expected to add to the network's loss; 0 where F is fixed."""
        if self.weighted is None:
            return 0.0
        fine = self.weighted[layer.name]
        weights = fine.weights if fine.weights.sum() > 0 else fine.counts
        first = lowest(self.qm + FINER, layer.y_signed)
        return signal_and_noise(weights, first, fine.frac, chosen, activation=layer.activation)[1]

    def _of(self, layer: LayerPlan, counts: np.ndarray, qm: int, frac: int) -> Quantizer:
        """A layer's quantizer for a histogram [2^qm] of y with this width and F."""
        bits = layer.bits or 0
        if layer.scheme == "uniform" and self.weighted is not None and layer.frac is None:
            return Quantizer("uniform", bits, bits, frac + bits - qm, signed=layer.signed)
        return quantizers.fit(
            str(layer.scheme), counts, bits, qm, frac, signed=layer.signed, **layer.options
        )


def narrowed(
    plan: LayerPlan, counts: np.ndarray, qm: int, frac: int
) -> tuple[np.ndarray, int, int]:
    """(histogram, width, F) of a layer's own y, for one [2^qm] of y with the network's width.

    Its range is the same: what it has fewer bits, its F is less.
    """
    less = qm - (plan.qm or qm)
    if not less:
        return counts, qm, frac
    own = coarser(counts, lowest(qm, plan.y_signed), less, qm - less, plan.y_signed)
    return own, qm - less, frac - less


def fixed(plan: LayerPlan, qm: int) -> Quantizer | None:
    """The quantizer that the plan gives whole: its F, and for knq its centroids; else None.

    Raises:
        UserError: centroids that leave the range of y.
    """
    if plan.scheme is None or plan.bits is None or plan.frac is None:
        return None
    if plan.scheme != "knq":
        width = plan.bits if plan.scheme == "uniform" else qm
        return Quantizer(
            plan.scheme, plan.bits, width, plan.frac, signed=plan.signed, **plan.options
        )
    if plan.centroids is None or (plan.activation and plan.thresholds is None):
        return None
    centroid = np.array(plan.centroids, np.int32)
    if not plan.activation:
        return table_quantizer(centroid, qm, plan.frac, plan.signed, **plan.options)
    return Quantizer(
        "knq", plan.bits, qm, plan.frac, centroid=centroid, signed=plan.signed,
        threshold=np.array(plan.thresholds, np.int32), y_frac=plan.y_frac, **plan.options,
    )  # fmt: skip


class Calibration:
    """One pass of the float network over the calibration images."""

    def __init__(
        self, graph: Graph, pixels: np.ndarray, to_float: ToFloat, qm: int = QM_RANGE[1],
        few: int = 0,
    ) -> None:  # fmt: skip
        """Run float on all pixels (uint8 [N, C, H, W]).

        Searches run on the first `few` of them; `qm` is the largest width of y to be asked for.
        """
        self.graph, self.pixels, self.to_float, self.few = graph, pixels, to_float, few
        coded = (layer.name for layer in graph.stored if layer.coded)
        self.signed = signed_layers(graph).union(coded)  # whose y may be negative
        self._histograms = {
            layer.name: Histogram(qm + FINER + 1, layer.name in self.signed)
            for layer in graph.stored
        }
        size = 4 * few * sum(math.prod(layer.out_shape) for layer in graph.layers)
        self._keep = size <= _KEPT_BYTES
        self._kept: list[list[torch.Tensor]] = []
        parts = list(batches(pixels, split=few))
        starts = itertools.accumulate(map(len, parts), initial=0)
        kept = [self._keep and start < few for start, _ in zip(starts, parts, strict=False)]
        outputs: list[np.ndarray] = []
        for logits, maps in ordered(self._add, zip(parts, kept, strict=True)):
            outputs.append(logits)
            if maps:
                self._kept.append(maps)
        self.logits = np.concatenate(outputs)  # float32 [N, outputs], of all heads

    def _add(self, part: tuple[np.ndarray, bool]) -> tuple[np.ndarray, list[torch.Tensor]]:
        """Run one batch; its outputs [N, outputs] and, where they are to be kept, all maps."""
        batch, keep = part
        maps, ends = [], []
        for layer, encoded, stored in run.run_encoded(self.graph, self.to_float(batch)):
            if layer.name in self._histograms:
                self._histograms[layer.name].add(encoded)
            if layer.name in self.graph.heads:
                ends.append(stored.flatten(1))
            if keep:
                maps.append(stored)
        return run.join(ends).numpy(), maps

    def commonest(self, name: str) -> float:
        """The largest share of a layer's values that lie in one of the finest steps counted."""
        counts = self._histograms[name].counts
        return float(counts.max() / max(1, counts.sum()))

    @property
    def maxima(self) -> dict[str, float]:
        """The largest magnitude of what is encoded, for every layer but the heads."""
        return {name: histogram.largest for name, histogram in self._histograms.items()}

    def counts(self, qm: int, fracs: Mapping[str, int]) -> dict[str, np.ndarray]:
        """How often each y occurs, for every layer in `fracs`.

        Only an F that is fixed so fine that nearly everything saturates takes a second pass: no
        histogram of bounded size has both its small steps and the largest values. Counts are int64
        [2^qm], the smallest y first.
        """
        found = {name: self._histograms[name].at(qm, frac) for name, frac in fracs.items()}
        counts = {name: one for name, one in found.items() if one is not None}
        missing = fracs.keys() - counts.keys()
        if missing:
            again = {name: torch.zeros(1 << qm, dtype=torch.int64) for name in missing}
            for batch in batches(self.pixels, "histograms"):
                for layer, encoded, _ in run.run_encoded(self.graph, self.to_float(batch)):
                    if layer.name in missing:
                        signed = layer.name in self.signed
                        y = to_integers(encoded, qm, fracs[layer.name], signed) - lowest(qm, signed)
                        again[layer.name] += torch.bincount(y.flatten(), minlength=1 << qm)
            counts.update((name, one.numpy()) for name, one in again.items())
        return {name: counts[name] for name in fracs}

    def formats(self, qm: int, fracs: Mapping[str, int]) -> Formats:
        """The formats of a width and an F by layer name."""
        return Formats(qm, dict(fracs), self.counts(qm, fracs))

    def maps(self) -> FloatMaps:
        """What float stores for the search images; run again only where it was too much to keep."""
        searched = self.pixels[: self.few]
        return (
            zip(batches(searched), self._kept, strict=True)
            if self._keep
            else float_maps(self.graph, searched, self.to_float)
        )


def float_maps(graph: Graph, pixels: np.ndarray, to_float: ToFloat) -> FloatMaps:
    """The float network's stored maps, batch by batch."""
    for batch in batches(pixels, "float network"):
        layers = run.run_float(graph, to_float(batch))
        yield batch, (stored for _, stored in layers)
