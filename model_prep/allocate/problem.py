# SPDX-License-Identifier: Apache-2.0
"""`Problem`: which widths an allocation may choose, what they cost in bits, and what they do.

A variable is a *group*: layers that must have one quantizer (parts of a concatenation, copies, max
pools that hand codes on). NB is the papers' measure (000): bits to store all activations of one
image.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np

from formats.errors import UserError
from formats.quantizer import Quantizer
from model_prep.allocate import single
from model_prep.allocate.cache import Choice
from model_prep.graph import Graph
from model_prep.quantize.plan import LayerPlan, Plan, check_widths
from model_prep.quantize.refine import DISTIL_STEPS
from model_prep.quantize.sharing import share

Widths = tuple[int, ...]  # one per group
_WIDEST = 16
_CHOICES = 256  # remembered; a search goes back to its base and few others, or to nothing
_DERIVED = ("name", "signed", "shares", "counted")  # of a LayerPlan; they follow from the graph


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
        qm, fracs: width and F of the histograms' integers.
        groups: the variables, in the order of the graph.
    """

    def __init__(
        self, graph: Graph, plan: Plan, counts: Mapping[str, np.ndarray], qm: int,
        fracs: Mapping[str, int],
    ) -> None:  # fmt: skip
        """`counts` are histograms [2^qm] by layer name.

        Raises:
            UserError: the plan leaves no width open.
        """
        self.graph, self.open_plan, self.qm = graph, replace(plan, qm=qm), qm
        self.counts, self.fracs = counts, fracs
        self._fits: dict[tuple[object, ...], Quantizer] = {}
        self._choices: OrderedDict[Widths, Choice] = OrderedDict()  # the latest last
        self.groups = self._find_groups()
        if not self.groups:
            raise UserError(
                "BITS must leave a layer's width open to allocate, not fix all of them; drop bits "
                "from the plan's layers"
            )
        self._index = {name: i for i, group in enumerate(self.groups) for name in group.layers}
        elements = {layer.name: int(np.prod(layer.out_shape)) for layer in graph.layers}
        fixed = [layer for layer in plan.layers if layer.scheme and layer.bits is not None]
        self._fixed_nb = sum(elements[layer.name] * (layer.bits or 0) for layer in fixed)

    def _find_groups(self) -> tuple[Group, ...]:
        members: dict[str, list[LayerPlan]] = {}
        for layer in self.open_plan.layers:
            if layer.scheme is not None and layer.bits is None:
                members.setdefault(layer.owner, []).append(layer)
        groups = []
        for layers in members.values():
            elements = sum(int(np.prod(self.graph.layer(m.name).out_shape)) for m in layers)
            names = tuple(layer.name for layer in layers)
            groups.append(Group(names[0], names, elements, self._widths(layers[0])))
        return tuple(groups)

    def _widths(self, layer: LayerPlan) -> tuple[int, ...]:
        """The widths that the layer's scheme allows, at most qm."""
        allowed = []
        for bits in range(1, min(_WIDEST, self.qm) + 1):
            try:
                check_widths(replace(self.open_plan, layers=(replace(layer, bits=bits),)))
            except UserError:
                continue
            allowed.append(bits)
        return tuple(allowed)

    @cached_property
    def values(self) -> int:
        """Activations of one image that are stored as codes, those of fixed width included."""
        stored = {layer.name for layer in self.open_plan.layers if layer.scheme}
        return sum(math.prod(one.out_shape) for one in self.graph.layers if one.name in stored)

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
        layers = tuple(
            replace(layer, bits=widths[self._index[layer.name]])
            if layer.name in self._index else layer
            for layer in self.open_plan.layers
        )  # fmt: skip
        return share(self.graph, replace(self.open_plan, layers=layers))

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
        """As `single.fit_all`, but no quantizer is fitted twice."""
        sharing: dict[str, list[LayerPlan]] = {}
        for layer in plan.layers:
            if layer.scheme is not None:
                sharing.setdefault(layer.owner, []).append(layer)
        fitted: dict[str, Quantizer] = {}
        for layers in sharing.values():
            key = tuple(repr(layer) for layer in layers)
            if key not in self._fits:
                part = replace(plan, layers=tuple(layers))
                done = single.fit_all(part, self.counts, self.qm, self.fracs)
                self._fits[key] = done[layers[0].name]
            fitted.update((layer.name, self._fits[key]) for layer in layers)
        return fitted

    def full_width(self) -> Choice:
        """The qm-bit uniform network in the groups: what quantization is measured against."""
        fixed = self.choice(self.widest).quantizers
        signed = self.open_plan.signed
        whole = {
            name: Quantizer("uniform", self.qm, self.qm, self.fracs[name], signed=name in signed)
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


def plan_toml(plan: Plan, fracs: Mapping[str, int], comment: str) -> str:
    """A plan.toml that gives these formats again, or has them refined; every layer has its table.

    Args:
        plan: with all widths fixed.
        fracs: F by layer name, which say whether there is one for the network.
        comment: first lines, each made a comment.
    """
    signed = plan.signed
    whole = {frac + (name in signed) for name, frac in fracs.items()}
    lines = [f"# {line}" for line in comment.splitlines()]
    lines.append(f"qm = {plan.qm}")
    if plan.refine:  # it chooses F per layer in a rescaled network, unless the user fixed it
        lines.append(f'frac_mode = "{plan.frac_mode}"')
        lines += [f"frac = {plan.frac}"] * (plan.frac is not None)
        lines += ["clip = false"] * (not plan.clip)
        lines.append(f'refine = "{",".join(plan.refine)}"')
        lines += [f"distil_steps = {plan.distil_steps}"] * (plan.distil_steps != DISTIL_STEPS)
    elif not plan.clip:  # F is the smaller of this and what holds the layer's largest activation
        lines += ["clip = false", 'frac_mode = "network"', f"frac = {max(whole)}"]
    elif plan.frac_mode == "error" and plan.frac is None:
        lines.append('frac_mode = "error"')
    elif len(whole) == 1:
        lines += ['frac_mode = "network"', f"frac = {whole.pop()}"]
    else:
        lines.append('frac_mode = "layer"')
    if plan.delta is not None:
        lines.append(f"delta = {plan.delta}")
    for layer in plan.layers:
        lines += ["", f"[layer.{layer.name}]"]
        for item in fields(layer):
            value = getattr(layer, item.name)
            value = list(value) if isinstance(value, tuple) else value
            if item.name not in _DERIVED and value is not None:
                lines.append(f'{item.name} = "{value}"' if isinstance(value, str) else
                             f"{item.name} = {value}")  # fmt: skip
    return "\n".join(lines) + "\n"
