# SPDX-License-Identifier: Apache-2.0
"""Exact search of the design space: the fastest design that fits, and the Pareto front.

Points come in order of a lower bound of their time. One is planned unless a design that fits, has
no more multipliers and is at least as fast as the bound is known: then it can be neither the
fastest nor on the front of time against multipliers.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import ceil

from tqdm import tqdm

from codegen.design import planner
from codegen.design.network import Network
from codegen.design.parts import Part
from codegen.design.planner import Plan
from codegen.design.space import Bound, Fixed, Point, points
from formats.errors import UserError
from formats.packing import BLOCK_CODES

LIMIT = 0.9  # of each resource: what placement and routing leave usable
RESOURCES = ("dsp", "bram36", "uram", "lut", "ff")


@dataclass(frozen=True)
class Design:
    """A point that fits, planned."""

    point: Point
    plan: Plan

    @property
    def seconds(self) -> float:
        """Time for all images, by the cycle model and the DRAM's bandwidth."""
        return self.plan.seconds

    @property
    def use(self) -> dict[str, float]:
        """Fraction of each resource of the part."""
        return resource_use(self.plan)


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


def resource_use(plan: Plan) -> dict[str, float]:
    """Fraction of each resource of the part that a plan is estimated to take."""
    used, part = plan.resources, plan.part
    return {
        name: getattr(used, name) / getattr(part, name)
        for name in RESOURCES
        if hasattr(used, name) and getattr(part, name)
    }


def limited(part: Part, limit: float) -> Part:
    """The part with less than `limit` of its resources; with all of them for 1."""
    dsp, bram36, uram, lut, ff = (
        max(0, ceil(getattr(part, name) * limit) - 1) if limit < 1 else getattr(part, name)
        for name in RESOURCES
    )
    return replace(
        part, dsp=dsp, bram36=bram36, uram=uram, lut=lut, ff=ff, reserved=limit < 1
    )  # fmt: skip


def plan_point(network: Network, part: Part, point: Point, images: int) -> Plan:
    """The planner's best design at a point; UserError where none fits."""
    return planner.plan(
        network, part, point.simd, point.pe, images, point.fm, point.weight_ports, point.pixels
    )


def explore(
    network: Network, part: Part, images: int = 1, fixed: Fixed | None = None, limit: float = LIMIT
) -> Exploration:
    """Search the whole space.

    Args:
        network: the quantized network.
        part: the FPGA.
        images: batch that the time is for.
        fixed: axes that the user has set.
        limit: fraction of each resource that may be used.

    Raises:
        UserError: no design fits; the sentence is of the smallest one.
    """
    if not 0 < limit <= 1:
        raise UserError(f"LIMIT must be above 0 and at most 1, not {limit:g}")
    usable, bound = limited(part, limit), Bound(network, part, images)
    ranked = _ranked(usable, bound, fixed or Fixed())
    fitting: list[Design] = []
    reasons: list[tuple[int, str]] = []
    planned = 0
    quiet = not sys.stderr.isatty()
    for least, point in tqdm(ranked, desc="designs", unit="point", disable=quiet, leave=False):
        if any(
            known.seconds <= least and known.point.multipliers <= point.multipliers
            for known in fitting
        ):
            continue
        planned += 1
        try:
            plan = plan_point(network, usable, point, images)
        except UserError as error:
            reasons.append((point.multipliers, str(error)))
            continue
        fitting.append(Design(point, replace(plan, part=part)))
    if not fitting:
        reason = min(reasons)[1] if reasons else f"{part.name} has too few DSP blocks or ports"
        raise UserError(f"{network.name} must fit {limit:.0%} of {part.name}: {reason}")
    return Exploration(min(fitting, key=_order), pareto(fitting), len(ranked), planned)


def choose(network: Network, part: Part, images: int, fixed: Fixed) -> Plan:
    """The plan that code is generated for: the fastest point that agrees with `fixed`.

    LIMIT of the part is used where a design fits that, else all of it.

    Raises:
        UserError: a value of `fixed` is none, or nothing fits: the sentence says what is short.
    """
    fixed.check(part)
    if images < 1:
        raise UserError(f"IMAGES must be 1 or more, not {images}")
    for limit in (LIMIT, 1.0):
        try:
            return explore(network, part, images, fixed, limit).best.plan
        except UserError as error:
            reason = error
    if fixed != Fixed():  # the smallest such point says what is short
        point = Point(
            fixed.simd or BLOCK_CODES, fixed.pe or BLOCK_CODES, fixed.pixels or 1,
            fixed.weight_ports or 1, fixed.fm or "auto",
        )  # fmt: skip
        return plan_point(network, part, point, images)
    raise reason


def _ranked(part: Part, bound: Bound, fixed: Fixed) -> list[tuple[float, Point]]:
    """Points with their lower bounds, shortest first; of equals the ones with few multipliers."""
    ranked = []
    for point in points(part, bound.weight_bits, bound.value_bits, fixed):
        try:
            ranked.append((bound.seconds(point), point))
        except UserError:
            continue
    return sorted(ranked, key=lambda item: (item[0], item[1].multipliers, item[1]))


def _order(design: Design) -> tuple[float, float, Point]:
    return design.seconds, sum(design.use.values()), design.point


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
