# SPDX-License-Identifier: Apache-2.0
"""Exact search of the design space: the fastest design that fits, and the Pareto front.

Points come in order of a lower bound of their time. One is planned unless a design that fits, has
no more multipliers and is at least as fast as the bound is known: then it can be neither the
fastest nor on the front of time against multipliers.
"""

import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import ceil

from tqdm import tqdm

from codegen.design import planner
from codegen.design.array import Array
from codegen.design.design import RESOURCES, Design
from codegen.design.space import Axes, Bound, points, smallest
from formats.errors import UserError
from formats.hardware import Part
from formats.network import Network

LIMIT = 0.9  # of each resource: what placement and routing leave usable


@dataclass(frozen=True)
class Exploration:
    """What a search found.

    Attributes:
        best: the fastest design.
        front: designs that no other one beats in time and in all resources, fastest first.
        points: how many the space has.
        planned: how many of them were planned; the bound decided on the others.
    """

    best: Design
    front: tuple[Design, ...]
    points: int
    planned: int


def limited(part: Part, limit: float) -> Part:
    """The part with less than `limit` of its resources; with all of them for 1."""
    if limit == 1:
        return part
    left = {name: max(0, ceil(getattr(part, name) * limit) - 1) for name in RESOURCES}
    return replace(part, **left, reserved=True)


def explore(
    network: Network, part: Part, images: int = 1, axes: Axes | None = None, limit: float = LIMIT
) -> Exploration:
    """Search the whole space.

    Args:
        network: the quantized network.
        part: the FPGA.
        images: batch that the time is for.
        axes: what the user has set of the array.
        limit: fraction of each resource that may be used.

    Raises:
        UserError: no design fits; the sentence is of the smallest one.
    """
    if not 0 < limit <= 1:
        raise UserError(f"LIMIT must be above 0 and at most 1, not {limit:g}")
    usable, bound = limited(part, limit), Bound(network, part, images)
    ranked = _ranked(usable, bound, axes or {})
    fitting: list[Design] = []
    reasons: list[tuple[int, str]] = []
    planned = 0
    quiet = not sys.stderr.isatty()
    for least, array in tqdm(ranked, desc="designs", unit="point", disable=quiet, leave=False):
        if any(
            other.seconds <= least and other.array.multipliers <= array.multipliers
            for other in fitting
        ):
            continue
        planned += 1
        try:
            design = planner.plan(network, usable, array, images)
        except UserError as error:
            reasons.append((array.multipliers, str(error)))
            continue
        fitting.append(replace(design, part=part))
    if not fitting:
        reason = min(reasons)[1] if reasons else f"{part.name} has too few DSP blocks or ports"
        raise UserError(f"{network.name} must fit {limit:.0%} of {part.name}: {reason}")
    return Exploration(min(fitting, key=_order), pareto(fitting), len(ranked), planned)


def choose(network: Network, part: Part, images: int, axes: Axes) -> Design:
    """The design that code is generated for: the fastest array that agrees with `axes`.

    LIMIT of the part is used where a design fits that, else all of it.

    Raises:
        UserError: a value of `axes` is none, or nothing fits: the sentence says what is short.
    """
    least = smallest(axes)
    least.check_ports(part)
    if images < 1:
        raise UserError(f"IMAGES must be 1 or more, not {images}")
    for limit in (LIMIT, 1.0):
        try:
            return explore(network, part, images, axes, limit).best
        except UserError as error:
            reason = error
    if axes:  # the smallest such array says what is short
        return planner.plan(network, part, least, images)
    raise reason


def _ranked(part: Part, bound: Bound, axes: Axes) -> list[tuple[float, Array]]:
    """Arrays with their lower bounds, shortest first; of equals the ones with few multipliers."""
    ranked = []
    for array in points(part, bound.weight_bits, bound.value_bits, axes):
        try:
            ranked.append((bound.seconds(array), array))
        except UserError:
            continue
    return sorted(ranked, key=lambda item: (item[0], item[1].multipliers, item[1]))


def _order(design: Design) -> tuple[float, float, Array]:
    return design.seconds, sum(design.use.values()), design.array


def dominates(a: Design, b: Design) -> bool:
    """Whether `a` is nowhere worse than `b`, and somewhere better."""
    left = (a.seconds, *a.use.values())
    right = (b.seconds, *b.use.values())
    return left != right and all(x <= y for x, y in zip(left, right, strict=True))


def pareto(designs: Iterable[Design]) -> tuple[Design, ...]:
    """Those that no other one dominates, fastest first; one of equals."""
    kept: dict[tuple[float, ...], Design] = {}
    every = sorted(designs, key=_order)
    for design in every:
        if not any(dominates(other, design) for other in every):
            kept.setdefault((design.seconds, *design.use.values()), design)
    return tuple(kept.values())
