# SPDX-License-Identifier: Apache-2.0
"""KNQ tables for groups of channels: what they are fitted to, and their widths.

A group has one width T and one table. It is a quantizer's layers (the product's plans), or a plane
of 8 channels. Channels are put in order within their layer before they become planes: that permutes
rows and columns of weights and costs the hardware nothing. Planes are fitted to the histograms of
their channels weighted by the sensitivity of their layer, since the gradients of 64 images cannot
rank channels.
"""

import heapq
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np
import torch

from nuq.formats.arithmetic import BLOCK_CODES, lowest
from nuq.formats.quantizer import Quantizer
from nuq.model_prep.allocate import budget
from nuq.model_prep.graph import Graph
from nuq.model_prep.quantize import sensitivity
from nuq.model_prep.quantize.calibrate import to_integers
from nuq.model_prep.quantize.plan import LayerPlan, Plan
from nuq.model_prep.quantize.refine import pipeline

_ORDER_BITS = 3  # channels are ordered by their error in a table of this width
_AHEAD = 2  # a plane's width is compared with those up to so much above it


@dataclass(frozen=True)
class Channels:
    """What the channels of one layer do on the calibration images."""

    plan: LayerPlan
    pixels: int  # stored values of a channel of one image
    counts: np.ndarray  # of every y, int64 [C, 2^qm]
    weights: np.ndarray  # summed squared gradients of every y over all channels, float64 [2^qm]

    @property
    def weighted(self) -> np.ndarray:
        """The layer's smoothed weights, shared out among its channels by counts: [C, 2^qm]."""
        total = self.counts.sum(0)
        each = pipeline.smoothed(total, self.weights) / np.maximum(total, 1)
        return self.counts * each


@dataclass(frozen=True)
class Group:
    """Channels with one table."""

    plan: LayerPlan  # of their (first) layer
    channels: Mapping[str, np.ndarray]  # their numbers by layer name
    elements: int  # stored values of one image
    weights: np.ndarray  # float64 [2^qm]


@dataclass(frozen=True)
class Tabled:
    """Groups with their quantizers, which are all of a network's."""

    groups: Sequence[Group]
    quantizers: Sequence[Quantizer]

    @property
    def pairs(self) -> list[tuple[Group, Quantizer]]:
        """Each group with its quantizer."""
        return list(zip(self.groups, self.quantizers, strict=True))

    @property
    def nb(self) -> int:
        """Bits of one image's stored values."""
        return sum(group.elements * one.bits for group, one in self.pairs)

    @property
    def table_bits(self) -> int:
        """Bits of all tables."""
        return sum(table_bits(one.bits, one.qm) for one in self.quantizers)

    def elements_by_width(self) -> dict[int, int]:
        """Stored values of one image by their width."""
        return {
            bits: sum(group.elements for group, one in self.pairs if one.bits == bits)
            for bits in sorted({one.bits for one in self.quantizers})
        }


def table_bits(bits: int, qm: int) -> int:
    """Of centroids and thresholds."""
    return 2 * (1 << bits) * qm


def channel_histograms(
    graph: Graph, batches: Iterable[torch.Tensor], plan: Plan, qm: int, fracs: Mapping[str, int],
) -> dict[str, Channels]:  # fmt: skip
    """`sensitivity.histograms`, with counts channel by channel, by layer name."""
    found: dict[str, tuple[LayerPlan, torch.Tensor, torch.Tensor]] = {}
    pixels: dict[str, int] = {}
    layers = {one.name: one for one in plan.layers if one.scheme is not None and one.counted}
    gradients = (
        sensitivity.squared_gradients(graph, number, x, layers.keys(), plan.seed)
        for number, x in enumerate(batches)
    )
    for name, encoded, squared in itertools.chain.from_iterable(gradients):
        one, channels = layers[name], encoded.shape[1]
        if one.name not in found:
            counts = torch.zeros(channels << qm, dtype=torch.int64)
            found[one.name] = one, counts, torch.zeros(1 << qm, dtype=torch.float64)
            pixels[one.name] = encoded[0, 0].numel()
        _, counts, weights = found[one.name]
        y = to_integers(encoded, qm, fracs[one.name], one.y_signed) - lowest(qm, one.y_signed)
        weights += torch.bincount(y.flatten(), squared.flatten(), minlength=1 << qm)
        y += (torch.arange(channels, dtype=torch.int32) << qm)[:, None, None]
        counts += torch.bincount(y.flatten(), minlength=channels << qm)
    return {
        name: Channels(one, pixels[name], counts.view(-1, 1 << qm).numpy(), weights.numpy())
        for name, (one, counts, weights) in found.items()
    }


def by_layers(
    plan: Plan, measured: pipeline.Measured, channels: Mapping[str, Channels], average: float
) -> Tabled:
    """The product's widths and tables: one for all layers that share, `average` bits a value."""
    weights = {
        owner: pipeline.smoothed(
            sum(channels[one.name].counts.sum(0) for one in layers),  # type: ignore[arg-type]
            sum(channels[one.name].weights for one in layers),  # type: ignore[arg-type]
        )
        for owner, layers in plan.by_owner.items()
    }
    measured = replace(measured, weights=weights)
    losses = budget.expected_losses(plan, measured)
    chosen = budget.for_average(plan, measured.exact, losses, average)
    fitted = pipeline.fit_all(chosen, weights, measured.qm, measured.fracs)
    groups, quantizers = [], []
    for owner, layers in chosen.by_owner.items():
        names = [one.name for one in layers]
        every = {name: np.arange(len(channels[name].counts)) for name in names}
        elements = sum(measured.exact.elements[name] for name in names)
        groups.append(Group(layers[0], every, elements, weights[owner]))
        quantizers.append(fitted[owner][0])
    return Tabled(groups, quantizers)


def in_layers(channels: Mapping[str, Channels]) -> list[Group]:
    """Each layer apart, also those that a concatenation joins."""
    return [
        Group(one.plan, {name: np.arange(len(one.counts))}, len(one.counts) * one.pixels,
              one.weighted.sum(0))
        for name, one in channels.items()
    ]  # fmt: skip


def in_planes(channels: Mapping[str, Channels], fracs: Mapping[str, int], qm: int) -> list[Group]:
    """Planes of 8 channels, those of a layer with the largest expected error first."""
    groups = []
    for name, one in channels.items():
        weighted, frac = one.weighted, fracs[one.plan.owner]
        table, _ = pipeline.fit_one(one.plan, weighted.sum(0), _ORDER_BITS, qm, frac)
        error = np.array([pipeline.weighted_error(table, row, qm, frac) for row in weighted])
        order = np.argsort(-error, kind="stable")
        for first in range(0, len(order), BLOCK_CODES):
            own = np.sort(order[first : first + BLOCK_CODES])
            elements = BLOCK_CODES * one.pixels  # a plane is stored whole
            groups.append(Group(one.plan, {name: own}, elements, weighted[own].sum(0)))
    return groups


def fit(group: Group, bits: int, fracs: Mapping[str, int], qm: int) -> Quantizer:
    """The group's table of least weighted error; any where all of its channels are 0."""
    weights = group.weights if group.weights.any() else np.eye(1, 1 << qm)[0]
    return pipeline.fit_one(group.plan, weights, bits, qm, fracs[group.plan.owner])[0]


def own_tables(groups: Sequence[Group], fracs: Mapping[str, int], qm: int, total: int) -> Tabled:
    """Widths within `total` bits, values and tables, where each group has a table of its own."""
    widths = allocated(
        groups, fracs, qm, total, lambda number, bits: fit(groups[number], bits, fracs, qm),
        partial(table_bits, qm=qm),
    )  # fmt: skip
    return Tabled(
        groups, [fit(one, bits, fracs, qm) for one, bits in zip(groups, widths, strict=True)]
    )


def layer_tables(
    planes: Sequence[Group], layers: Tabled, fracs: Mapping[str, int], qm: int, total: int
) -> Tabled:
    """Widths within `total` bits, where planes have tables that are fitted to their whole layer.

    Planes of layers that share a quantizer have one table a width.
    """
    whole = {group.plan.owner: group for group in layers.groups}

    @cache
    def table(owner: str, bits: int) -> Quantizer:
        return fit(whole[owner], bits, fracs, qm)

    spent = 0  # on tables, which are few and whose number the widths decide
    while True:
        widths = allocated(
            planes, fracs, qm, total - spent,
            lambda number, bits: table(planes[number].plan.owner, bits), lambda bits: 0,
        )  # fmt: skip
        joined: dict[tuple[str, int], list[Group]] = {}
        for group, bits in zip(planes, widths, strict=True):
            joined.setdefault((group.plan.owner, bits), []).append(group)
        groups = [_union(parts) for parts in joined.values()]
        done = Tabled(groups, [table(*key) for key in joined])
        if done.nb + done.table_bits <= total:
            return done
        spent += done.nb + done.table_bits - total


def _union(parts: Sequence[Group]) -> Group:
    """Groups as one."""
    channels: dict[str, np.ndarray] = {}
    for part in parts:
        for name, own in part.channels.items():
            channels[name] = np.sort(np.append(channels.get(name, own[:0]), own))
    elements, weights = sum(one.elements for one in parts), sum(one.weights for one in parts)
    return Group(parts[0].plan, channels, elements, weights)  # type: ignore[arg-type]


def allocated(
    groups: Sequence[Group], fracs: Mapping[str, int], qm: int, total: int,
    table: Callable[[int, int], Quantizer], cost_of_table: Callable[[int], int],
) -> list[int]:  # fmt: skip
    """Widths of least expected loss whose values and tables together have at most `total` bits.

    Greedy as `budget.for_average`, with the bits of a table as a part of a width's cost.

    Args:
        groups, fracs, qm: what has widths, F by owner and the width of y.
        total: bits.
        table: of a group's number and a width.
        cost_of_table: bits of one at a width.
    """
    low, high = budget.EXPECTED_WIDTHS

    @cache
    def loss(number: int, bits: int) -> float:
        group = groups[number]
        frac = fracs[group.plan.owner]
        return pipeline.weighted_error(table(number, bits), group.weights, qm, frac)

    def size(number: int, bits: int) -> int:
        return groups[number].elements * bits + cost_of_table(bits)

    def best(number: int, bits: int, left: int) -> tuple[float, int, int, int] | None:
        """(minus the gain per bit, group, its width now, its width then)."""
        trials = []
        for wider in range(bits + 1, min(bits + _AHEAD, high) + 1):
            cost = size(number, wider) - size(number, bits)
            gain = loss(number, bits) - loss(number, wider)
            if cost <= left and gain > 0:
                trials.append((-gain / cost, number, bits, wider))
        return min(trials, default=None)

    widths = [low] * len(groups)
    left = total - sum(size(number, low) for number in range(len(groups)))
    queue = [one for number in range(len(groups)) if (one := best(number, low, left))]
    heapq.heapify(queue)
    while queue:
        _, number, bits, wider = heapq.heappop(queue)
        cost = size(number, wider) - size(number, bits)
        if cost <= left:
            widths[number], left = wider, left - cost
        if again := best(number, widths[number], left):
            heapq.heappush(queue, again)
    return widths


def merged(tabled: Tabled, fracs: Mapping[str, int], qm: int) -> Tabled:
    """The same widths, but one table for all planes of a layer that have the same one."""
    joined: dict[tuple[str, int], list[Group]] = {}
    for group, one in tabled.pairs:
        joined.setdefault((group.plan.name, one.bits), []).append(group)
    groups = {key: _union(parts) for key, parts in joined.items()}
    tables = [fit(group, bits, fracs, qm) for (_, bits), group in groups.items()]
    return Tabled(list(groups.values()), tables)
