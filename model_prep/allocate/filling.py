# SPDX-License-Identifier: Apache-2.0
"""Water-filling on a network: a plan's activations or weights as steps, and their widths.

Which layers take part, within which widths, and with what line of SQNR over the width (paper 002,
section 5).
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from formats.arithmetic import lowest
from formats.errors import UserError
from model_prep.allocate import sqnr
from model_prep.allocate.sqnr import MEASURED, Efficiency, Limits, Step
from model_prep.graph import Graph
from model_prep.quantize.calibrate import Formats
from model_prep.quantize.plan import LayerPlan, Plan
from model_prep.quantize.quantizers import WEIGHTS

FIXED_POINT = ("uniform", "dynamic")  # schemes of weights that have no codebook
Measurement = Callable[[Iterable[int]], dict[int, float]]  # SQNR in dB by width


@dataclass
class Filling:
    """Layers whose widths water-filling is to choose, against one target.

    Attributes:
        kappa: dB per bit of all steps; None: measure each step's line.
        steps, limits: by layer name.
        settled: widths by layer name that are known without filling, as they cause no noise.
    """

    kappa: float | None
    steps: dict[str, Step] = field(default_factory=dict)
    limits: dict[str, Limits] = field(default_factory=dict)
    settled: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, rho: float, limits: Limits, dead: bool, measure: Measurement) -> None:
        """One more layer.

        Args:
            name: of the layer.
            rho: what a bit costs.
            limits: its narrowest and widest width.
            dead: whether all of its values are 0; it gets its narrowest width.
            measure: SQNR in dB by width of the widths given, or of those among them that can be.

        Raises:
            UserError: SQNR that no line over the width fits.
        """
        line = limits[0] if dead else self._line(name, limits, measure)
        if isinstance(line, int):
            self.settled[name] = line
        else:
            self.steps[name], self.limits[name] = Step(name, rho, line), limits

    def _line(self, name: str, limits: Limits, measure: Measurement) -> Efficiency | int:
        """The line of a layer, or the narrowest width without noise where there is no line."""
        if self.kappa is not None:
            return Efficiency(self.kappa)
        low, high = limits
        known = measure(bits for bits in MEASURED if low <= bits <= high)
        if sum(map(math.isfinite, known.values())) < 2:
            known = measure(range(low, high + 1))
            exact = [bits for bits, value in known.items() if value == math.inf]
            if exact and sum(map(math.isfinite, known.values())) < 2:
                return min(exact)
        try:
            return sqnr.fit_efficiency(known)
        except UserError as error:
            raise UserError(f"layer {name}: {error}; set KAPPA, which holds for all") from None

    def sqnr_db(self, bits: int) -> float:
        """SQNR in dB of one width everywhere, as near as the limits allow, by the lines."""
        return sqnr.output_sqnr_db(
            step.efficiency.sqnr_db(min(max(bits, self.limits[name][0]), self.limits[name][1]))
            for name, step in self.steps.items()
        )

    def widths(self, target_db: float, option: str) -> dict[str, int]:
        """Widths by layer name that reach a target in dB.

        Raises:
            UserError: no widths do; the message calls the target `option`.
        """
        remedy = "lower it"
        if self.kappa is not None:
            remedy = f"lower {option}, raise KAPPA or leave KAPPA out"
        found = dict(self.settled)
        if self.steps:
            steps, limits = list(self.steps.values()), list(self.limits.values())
            bits = sqnr.integer_widths(steps, target_db, limits, option, remedy)
            found.update(zip(self.steps, bits, strict=True))
        return found


def of_activations(
    plan: Plan, formats: Formats, rho: Mapping[str, float], widths: Mapping[str, Sequence[int]],
    kappa: float | None = None,
) -> Filling:  # fmt: skip
    """The open widths of a plan's activations; layers that share count as one step.

    A step that costs nothing (an addition or a pool reads it, nothing that multiplies) is given the
    least cost of any map, so that it gets no fewer bits than the cheapest of the others would.

    Args:
        plan: with open widths; fixed ones are not part of the target.
        formats: what quantizers are fitted to.
        rho: cost of a bit by layer name, see `sqnr.reading_costs`.
        widths: those to choose from, rising, by the name of the first layer that shares.
        kappa: dB per bit; None: measured for each step.

    Raises:
        UserError: names a layer whose SQNR no line fits.
    """
    shared: dict[str, list[LayerPlan]] = {}
    for layer in plan.layers:
        if layer.scheme and layer.bits is None:
            shared.setdefault(layer.owner, []).append(layer)
    least = min((cost for cost in rho.values() if cost > 0), default=1.0)
    filling = Filling(kappa)
    for owner, members in shared.items():
        seen = [layer for layer in members if layer.counted] or members
        histogram = np.sum([formats.counts[layer.name] for layer in seen], axis=0)
        dead = not np.delete(histogram, -lowest(formats.qm, members[0].signed)).any()
        filling.add(
            owner, sum(rho[layer.name] for layer in members) or least,
            (widths[owner][0], widths[owner][-1]), dead,
            partial(
                sqnr.activation_sqnr_db, members[0], histogram, formats.qm, formats.fracs[owner]
            ),
        )  # fmt: skip
    return filling


def of_weights(
    graph: Graph, plan: Plan, kappa: float | None = None, kind: str = "parameters",
    keep: Collection[str] = (),
) -> Filling:  # fmt: skip
    """The widths of a plan's weights in fixed point; those in codebooks are left out.

    Args:
        graph: the float network.
        plan: schemes of weights.
        kappa: dB per bit; None: measured layer by layer.
        kind: rho, "parameters" (the paper's) or "macs".
        keep: layers whose widths stay as they are.

    Raises:
        UserError: names a layer whose SQNR no line fits.
    """
    rho = sqnr.costs(graph, kind)
    filling = Filling(kappa)
    for layer, chosen in zip(graph.layers, plan.layers, strict=True):
        scheme = chosen.weight_scheme
        if layer.name in rho and layer.name not in keep and scheme in FIXED_POINT:
            filling.add(
                layer.name, rho[layer.name], WEIGHTS[scheme].widths,
                not layer.weight.any(), partial(sqnr.weight_sqnr_db, layer.weight, scheme=scheme),
            )  # fmt: skip
    return filling


def allocate_weights(
    graph: Graph, plan: Plan, target_db: float, kappa: float | None = None, kind: str = "parameters"
) -> Plan:
    """The plan with its fixed-point weights' widths by water-filling (the paper's section 5.1).

    Args:
        graph: the float network.
        plan: any; its weight_bits are replaced where weights are in fixed point.
        target_db: SQNR of all these weights together.
        kappa, kind: as for `of_weights`.
    """
    filling = of_weights(graph, plan, kappa, kind)
    return plan.with_values("weight_bits", filling.widths(target_db, "the target"))
