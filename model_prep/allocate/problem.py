# SPDX-License-Identifier: Apache-2.0
"""`Problem`: which widths an allocation may choose, what they cost in bits, and what they do.

A variable is a *group*: layers that must have one quantizer (parts of a concatenation, copies, max
pools that hand codes on). NB is the papers' measure (000): bits to store all activations of one
image.
"""

from collections import OrderedDict
from dataclasses import dataclass, replace
from functools import cached_property

from formats.errors import UserError
from formats.quantizer import Quantizer
from model_prep.allocate.cache import Choice
from model_prep.footprint import plan_bits
from model_prep.graph import Graph
from model_prep.quantize.calibrate import Formats
from model_prep.quantize.plan import LayerPlan, Plan
from model_prep.quantize.plan_file import check_widths
from model_prep.quantize.sharing import share

Widths = tuple[int, ...]  # one per group
_WIDEST = 16
_CHOICES = 256  # remembered; a search goes back to its base and few others, or to nothing


@dataclass(frozen=True)
class Group:
    """Layers with one quantizer.

    Attributes:
        name: of its first layer.
        layers: all of them, in the order of the graph.
        elements: stored activations of one image, all layers together.
        widths: the code widths to choose from, rising.
    """

    name: str
    layers: tuple[str, ...]
    elements: int
    widths: tuple[int, ...]


class Problem:
    """A plan with open widths, and the data to fit quantizers to.

    Attributes:
        graph: the network.
        open_plan: the plan; its open widths are the variables.
        formats: qm, F and histograms.
        groups: the variables, in the order of the graph.
    """

    def __init__(self, graph: Graph, plan: Plan, formats: Formats) -> None:
        """`plan` has open widths; UserError where it has none."""
        self.graph, self.open_plan, self.formats = graph, replace(plan, qm=formats.qm), formats
        self._fits: dict[tuple[object, ...], Quantizer] = {}
        self._choices: OrderedDict[Widths, Choice] = OrderedDict()  # the latest last
        self.groups = self._find_groups()
        if not self.groups:
            raise UserError(
                "BITS must leave a layer's width open to allocate, not fix all of them; drop bits "
                "from the plan's layers"
            )
        self._index = {name: i for i, group in enumerate(self.groups) for name in group.layers}
        self._fixed_nb = plan_bits(graph, plan)

    def _find_groups(self) -> tuple[Group, ...]:
        members: dict[str, list[LayerPlan]] = {}
        for layer in self.open_plan.layers:
            if layer.scheme is not None and layer.bits is None:
                members.setdefault(layer.owner, []).append(layer)
        groups = []
        for layers in members.values():
            names = tuple(layer.name for layer in layers)
            elements = sum(self.graph.elements[name] for name in names)
            groups.append(Group(names[0], names, elements, self._widths(layers[0])))
        return tuple(groups)

    def _widths(self, layer: LayerPlan) -> tuple[int, ...]:
        """The widths that the layer's scheme allows, at most qm."""
        allowed = []
        for bits in range(1, min(_WIDEST, self.formats.qm) + 1):
            try:
                check_widths(replace(self.open_plan, layers=(replace(layer, bits=bits),)))
            except UserError:
                continue
            allowed.append(bits)
        return tuple(allowed)

    @cached_property
    def values(self) -> int:
        """Activations of one image that are stored as codes, those of fixed width included."""
        return sum(self.graph.elements.values())

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
    def widest(self) -> Widths:
        """The largest width of every group."""
        return tuple(group.widths[-1] for group in self.groups)

    def plan(self, widths: Widths) -> Plan:
        """The plan with these widths."""
        return share(self.graph, self.open_plan.with_values("bits", self.by_name(widths)))

    def choice(self, widths: Widths) -> Choice:
        """The fitted quantizers of these widths.

        Equal widths give the same object, by which caches know their base, unless hundreds of
        others were asked for in between; then an equal one, whose quantizers are the same objects.
        """
        if widths not in self._choices:
            self._choices[widths] = Choice(self._fit(self.plan(widths)))
            if len(self._choices) > _CHOICES:
                self._choices.popitem(last=False)
        self._choices.move_to_end(widths)
        return self._choices[widths]

    def _fit(self, plan: Plan) -> dict[str, Quantizer]:
        """As `Formats.fit`, but no quantizer is fitted twice."""
        sharing: dict[str, list[LayerPlan]] = {}
        for layer in plan.layers:
            if layer.scheme is not None:
                sharing.setdefault(layer.owner, []).append(layer)
        fitted: dict[str, Quantizer] = {}
        for layers in sharing.values():
            key = tuple(repr(layer) for layer in layers)
            if key not in self._fits:
                done = self.formats.fit(replace(plan, layers=tuple(layers)))
                self._fits[key] = done[layers[0].name]
            fitted.update((layer.name, self._fits[key]) for layer in layers)
        return fitted

    def full_width(self) -> Choice:
        """The qm-bit uniform network in the groups: what quantization is measured against."""
        fixed = self.choice(self.widest).quantizers
        qm, signed = self.formats.qm, self.open_plan.signed
        whole = {
            name: Quantizer("uniform", qm, qm, self.formats.fracs[name], signed=name in signed)
            for name in self._index
        }
        return Choice({**fixed, **whole})

    def with_group(self, base: Choice, number: int, bits: int) -> Choice:
        """The base with one group at `bits`."""
        key = tuple(
            bits if i == number else group.widths[-1] for i, group in enumerate(self.groups)
        )
        own = self.choice(key).quantizers
        return replace(
            base, quantizers={**base.quantizers, **{n: own[n] for n in self.groups[number].layers}}
        )

    def by_name(self, widths: Widths) -> dict[str, int]:
        """The widths by layer name."""
        return {name: widths[index] for name, index in self._index.items()}
