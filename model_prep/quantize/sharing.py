# SPDX-License-Identifier: Apache-2.0
"""Which layers may be negative, and which must have one quantizer together.

The parts of a concatenation are read as one map, and copies and max pools hand codes on unchanged
where they have their source's quantizer (docs/formats.md 1.1, 2.5).
"""

from collections.abc import Iterable
from dataclasses import replace

from nuq.formats.errors import UserError
from nuq.model_prep.activations import nonnegative, rises
from nuq.model_prep.graph import INPUT, Graph, Layer
from nuq.model_prep.quantize.plan import LayerPlan, Plan
from nuq.model_prep.quantize.quantizers import SCHEMES

_OWN_SIGN = ("conv", "fc", "add")  # other kinds have the sign of what they read


class _Sets:
    """Disjoint sets of names, each with its first name as the representative."""

    def __init__(self, names: list[str]) -> None:
        self._names = names
        self._owner = {name: name for name in names}

    def find(self, name: str) -> str:
        """The representative of a name's set."""
        return self._owner[name]

    def groups(self, names: Iterable[str]) -> list[list[str]]:
        """The names, those of a set together."""
        found: dict[str, list[str]] = {}
        for name in names:
            found.setdefault(self.find(name), []).append(name)
        return list(found.values())

    def join(self, one: str, other: str) -> None:
        """Make one set of two."""
        first, second = sorted((self.find(one), self.find(other)), key=self._names.index)
        for name, owner in self._owner.items():
            if owner == second:
                self._owner[name] = first


def is_copy(layer: Layer) -> bool:
    """Whether the layer is a max pool over single pixels, which changes nothing."""
    return layer.kind == "maxpool" and layer.pool is not None and layer.pool.trivial


def forced(graph: Graph) -> _Sets:
    """Layers that must share: parts of a concatenation, copies and their source."""
    sets = _Sets([layer.name for layer in graph.layers])
    for parts in graph.concats.values():
        for part in parts[1:]:
            sets.join(parts[0], part)
    for layer in graph.layers:
        if is_copy(layer):
            sets.join(graph.parts_of(layer.inputs[0])[0], layer.name)
    return sets


def signed_layers(graph: Graph) -> frozenset[str]:
    """The layers whose stored values may be negative, heads left out.

    One part that may be negative makes all layers of its set signed, and what reads them.
    """
    sets, signed = forced(graph), set[str]()
    layers = graph.stored
    before = -1
    while len(signed) != before:  # a set may have members that come before the signed one
        before = len(signed)
        for layer in layers:
            if layer.coded or (layer.kind != "maxpool" and layer.activation):
                negative = not nonnegative(layer.activation)
            elif layer.kind in _OWN_SIGN:
                negative = True
            else:
                negative = any(source in signed for source in graph.sources_of(layer))
            if negative:
                owner = sets.find(layer.name)
                signed.update(one.name for one in layers if sets.find(one.name) == owner)
    return frozenset(signed)


def _shares_source(graph: Graph, sets: _Sets, plans: dict[str, LayerPlan], layer: Layer) -> bool:
    """Whether a max pool can take over its source's codes: same plan, and not part of a concat."""
    if layer.kind != "maxpool" or is_copy(layer):
        return False
    if any(layer.name in parts for parts in graph.concats.values()):
        return False
    if not all(rises(graph.layer(name).coded) for name in graph.sources_of(layer)):
        return False
    source = plans[sets.find(graph.parts_of(layer.inputs[0])[0])]
    return source.format == plans[layer.name].format


def share(graph: Graph, plan: Plan) -> Plan:
    """The plan with `activation`, `signed`, `shares` and `counted` filled in.

    Copies take over the format of what they copy, whatever the plan says about them.

    Raises:
        UserError: parts of a concatenation are to have different formats, or an activation has no
            codebook.
    """
    sets, signed = forced(graph), signed_layers(graph)
    plans = {layer.name: layer for layer in plan.layers}
    for layer in graph.stored:
        owner = sets.find(layer.name)
        if is_copy(layer):
            plans[layer.name] = replace(plans[layer.name], **plans[owner].format)
        elif plans[layer.name].format != plans[owner].format:
            raise UserError(
                f"layers {owner} and {layer.name} must have the same scheme, bits, qm, rule "
                "and variant, as they are parts of one concatenation, and frac and centroids if "
                "any; change BITS or the plan file"
            )
    _check_activations(graph, sets, plans)
    for layer in graph.stored:
        if _shares_source(graph, sets, plans, layer):
            sets.join(graph.parts_of(layer.inputs[0])[0], layer.name)
    read = _read_otherwise(graph, sets)
    for layer in graph.stored:
        plans[layer.name] = replace(
            plans[layer.name], activation=layer.coded, signed=layer.name in signed,
            counted=layer.name in read,
            shares=None if sets.find(layer.name) == layer.name else sets.find(layer.name),
        )  # fmt: skip
    return replace(plan, layers=tuple(plans[layer.name] for layer in plan.layers))


def _check_activations(graph: Graph, sets: _Sets, plans: dict[str, LayerPlan]) -> None:
    """Refuse, by UserError, an activation that its layer's codes cannot hold."""
    for layer in graph.stored:
        coded, plan = layer.coded, plans[layer.name]
        if coded is None:
            continue
        if plan.scheme is not None and SCHEMES[plan.scheme].hardware != "knq":
            raise UserError(
                f"layer {layer.name}: {coded} must be in a codebook, which scheme {plan.scheme} "
                "has not; use SCHEME=knq"
            )
        if rises(coded):
            continue
        if plan.scheme not in (None, "knq") or plan.options.get("rule", "nearest") != "nearest":
            raise UserError(
                f"layer {layer.name}: {coded}, which falls before it rises, must have SCHEME=knq "
                "and RULE=nearest"
            )
        others = [one for one in graph.layers if sets.find(one.name) == sets.find(layer.name)]
        if any(one.coded is None or one.coded.key != coded.key for one in others):
            raise UserError(
                f"layer {layer.name}: {coded}, which falls before it rises, must not share codes "
                "with layers of another activation; put a convolution behind it"
            )


def _read_otherwise(graph: Graph, sets: _Sets) -> set[str]:
    """Layers that someone reads who is not a max pool with the same quantizer.

    Only their values are what a quantizer should fit: the others are seen through the pool.
    """
    read = set()
    for layer in graph.layers:
        for part in graph.sources_of(layer):
            if part == INPUT:
                continue
            passed_on = layer.kind == "maxpool" and sets.find(part) == sets.find(layer.name)
            if not passed_on:
                read.add(part)
    return read
