# SPDX-License-Identifier: Apache-2.0
"""`Problem`: which widths an allocation may choose, what they cost in bits, and what they do.

A variable is a *group*: layers that must have one quantizer (parts of a concatenation, copies, max
pools that hand codes on). NB is the papers' measure (000): bits to store all activations of one
image.
"""

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

from nuq.formats.errors import UserError
from nuq.formats.quantizer import Quantizer
from nuq.model_prep.allocate.cache import Choice
from nuq.model_prep.footprint import plan_bits
from nuq.model_prep.graph import Graph
from nuq.model_prep.quantize.calibrate import Formats
from nuq.model_prep.quantize.fracs import uniform_codes
from nuq.model_prep.quantize.plan import LayerPlan, Plan
from nuq.model_prep.quantize.quantizers import SCHEMES
from nuq.model_prep.quantize.sharing import share

Widths = tuple[int, ...]  # one per group
_CHOICES = 256  # remembered; a search goes back to its base and few others, or to nothing


def with_width(widths: Widths, number: int, bits: int) -> Widths:
    """The widths with another one of a group.

    >>> with_width((8, 8, 8), 1, 4)
    (8, 4, 8)
    """
    return (*widths[:number], bits, *widths[number + 1 :])


@dataclass(frozen=True)
class Group:
    """Layers with one quantizer."""

    name: str  # of its first layer
    layers: tuple[str, ...]  # in the order of the graph
    elements: int  # stored activations of one image, all layers together
    widths: Widths  # the code widths to choose from, rising


class Problem:
    """A plan with open widths, and the data to fit quantizers to."""

    def __init__(self, graph: Graph, plan: Plan, formats: Formats) -> None:
        """The plan's open widths are the variables; UserError where it has none."""
        self.graph, self.formats = graph, formats
        self.open_plan = replace(plan, qm=formats.qm)
        self.members = self.open_plan.by_owner
        self.groups = tuple(
            self._group(layers) for layers in self.members.values() if layers[0].bits is None
        )
        if not self.groups:
            raise UserError(
                "BITS must leave a layer's width open to allocate, not fix all of them; drop bits "
                "from the plan's layers"
            )
        self._index = {name: i for i, group in enumerate(self.groups) for name in group.layers}
        self._fixed_nb = plan_bits(graph, plan)
        self._fits: dict[str, dict[str, Quantizer]] = {}
        # Equal widths give the same object, by which caches know their base, unless hundreds of
        # others were asked for in between; then an equal one with the same quantizers.
        self.choice = lru_cache(_CHOICES)(self._choice)

    def _group(self, layers: tuple[LayerPlan, ...]) -> Group:
        names = tuple(layer.name for layer in layers)
        low, high = SCHEMES[str(layers[0].scheme)].widths()
        return Group(
            names[0], names, sum(self.graph.elements[name] for name in names),
            tuple(range(low, min(high, layers[0].qm or self.formats.qm) + 1)),
        )  # fmt: skip

    @cached_property
    def behind(self) -> tuple[float, ...]:
        """The share of the network's MACs in layers behind each group's first layer."""
        layers = self.graph.layers
        number = {layer.name: index for index, layer in enumerate(layers)}
        shares = []
        for group in self.groups:
            later = layers[number[group.name] + 1 :]
            macs = sum(layer.macs for layer in later if layer.name not in group.layers)
            shares.append(macs / max(1, self.graph.macs))
        return tuple(shares)

    def nb(self, widths: Widths) -> int:
        """Bits to store all activations of one image, those of fixed width included."""
        return self._fixed_nb + sum(
            group.elements * bits for group, bits in zip(self.groups, widths, strict=True)
        )

    def uniform(self, bits: int) -> Widths:
        """One width for all groups, as near as each allows."""
        return tuple(min(max(bits, group.widths[0]), group.widths[-1]) for group in self.groups)

    @property
    def narrowest(self) -> Widths:
        """The smallest width of every group."""
        return tuple(group.widths[0] for group in self.groups)

    @property
    def widest(self) -> Widths:
        """The largest width of every group."""
        return tuple(group.widths[-1] for group in self.groups)

    def plan(self, widths: Widths) -> Plan:
        """The plan with these widths."""
        return share(self.graph, self.open_plan.with_values("bits", self.by_name(widths)))

    def quantizers(self, group: Group, bits: int) -> dict[str, Quantizer]:
        """A group's quantizers at a width, by layer name; the others' are open."""
        layers = tuple(replace(layer, bits=bits) for layer in self.members[group.name])
        return self._fit_once(layers)

    def _choice(self, widths: Widths) -> Choice:
        """The fitted quantizers of these widths."""
        return Choice(self._fit(self.plan(widths)))

    def _fit(self, plan: Plan) -> dict[str, Quantizer]:
        """As `Formats.fit`, but no quantizer is fitted twice."""
        fitted: dict[str, Quantizer] = {}
        for layers in plan.by_owner.values():
            fitted.update(self._fit_once(layers))
        return fitted

    def _fit_once(self, layers: tuple[LayerPlan, ...]) -> dict[str, Quantizer]:
        key = repr(layers)
        if key not in self._fits:
            self._fits[key] = self.formats.fit(replace(self.open_plan, layers=layers))
        return self._fits[key]

    def full_width(self) -> Choice:
        """The qm-bit uniform network in the groups: what quantization is measured against."""
        fixed = self.choice(self.widest).quantizers
        fracs = {name: self.formats.fracs[name] for name in self._index}
        return Choice({**fixed, **uniform_codes(self.formats.qm, fracs, self.open_plan.signed)})

    def with_group(self, base: Choice, number: int, bits: int) -> Choice:
        """The base with one group at `bits`."""
        own = self.choice(with_width(self.widest, number, bits)).quantizers
        changed = {name: own[name] for name in self.groups[number].layers}
        return replace(base, quantizers={**base.quantizers, **changed})

    def by_name(self, widths: Widths) -> dict[str, int]:
        """The widths by layer name."""
        return {name: widths[index] for name, index in self._index.items()}
