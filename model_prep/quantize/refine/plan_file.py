# SPDX-License-Identifier: Apache-2.0
"""Plan files (docs/plan.md) for an average width, made from a network and calibration images.

What `allocate METHOD=loss AVERAGE=...` does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from formats.build import write_atomic
from formats.errors import UserError
from formats.options import Options
from model_prep import commands, data
from model_prep.graph import Graph
from model_prep.quantize.plan import AUTO, DEFAULTS, LayerPlan, Plan
from model_prep.quantize.quantizers.weights import WEIGHT_SCHEMES
from model_prep.quantize.refine import ALL, DISTIL_STEPS, allocate, parse, pipeline

_WEIGHT_KEYS = ("weight_scheme", "weight_bits", "bias_bits")


@dataclass(frozen=True)
class Allocator:
    """Plans of one network and scheme for any average width.

    Attributes:
        plan: with the scheme and the techniques.
        measured: what the techniques measured.
        losses: by owner of a quantizer and by width.
    """

    plan: Plan
    measured: pipeline.Measured
    losses: Mapping[str, Mapping[int, float]]

    @classmethod
    def of(cls, asked: commands.Request) -> Allocator:
        """Measure the network that a command line asks for; its widths are not looked at."""
        plan, qm = asked.plan, asked.plan.qm
        if qm == AUTO:
            raise UserError("QM must be a number to allocate widths, not auto; set QM")
        if not plan.refine:
            plan = replace(plan, refine=parse("sensitivity"))
        to_float = partial(data.to_float, asked.source.spec)
        graph, pixels = asked.loaded.graph, asked.images.calibration.pixels
        measured = pipeline.measure(graph, plan, qm, pixels, to_float)
        found = allocate.losses(
            plan, measured.weights, qm, measured.fracs, pipeline.free_layers(graph, plan)
        )
        return cls(plan, measured, found)

    def at(self, average: float) -> Plan:
        """The plan with `average` stored bits an activation or a little less."""
        return allocate.allocate(self.plan, self.measured.exact, self.losses, average)


def _settings(plan: Plan) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """(what holds for the network, what else a layer has, by name), defaults left out.

    A key is in the first where all layers that have it agree, else in the second.
    """
    first = next(layer for layer in plan.layers if layer.scheme is not None)
    top: dict[str, Any] = {"scheme": first.scheme, "refine": ",".join(plan.refine)}
    whole = (
        ("qm", plan.qm, DEFAULTS.qm), ("frac", plan.frac, None),
        ("distil_steps", plan.distil_steps, DISTIL_STEPS),
    )  # fmt: skip
    top.update((key, value) for key, value, default in whole if value != default)
    own: dict[str, dict[str, Any]] = {
        layer.name: {} if layer.scheme is None else {"bits": layer.bits} for layer in plan.layers
    }
    for layer in plan.layers:
        if layer.scheme not in (None, first.scheme):
            own[layer.name]["scheme"] = layer.scheme
    for key in ("rule", "variant", "density", "levels", *_WEIGHT_KEYS):
        having = [layer for layer in plan.layers if getattr(layer, key) is not None]
        if all(getattr(layer, key) == _default(layer, key) for layer in having):
            continue
        if len({getattr(layer, key) for layer in having}) == 1:
            top[key] = getattr(having[0], key)
            continue
        for layer in having:
            if getattr(layer, key) != _default(layer, key):
                own[layer.name][key] = getattr(layer, key)
    return top, own


def _default(layer: LayerPlan, key: str) -> Any:
    """What a plan file without this key means; None for options that are always written."""
    if key == "weight_bits":
        return WEIGHT_SCHEMES[layer.weight_scheme][1][2]
    return getattr(DEFAULTS, key) if key in _WEIGHT_KEYS else None


def text(plan: Plan, graph: Graph) -> str:
    """The plan file of a plan with every width fixed."""
    average, total = allocate.plan_average(graph, plan), allocate.plan_bits(graph, plan)
    top, own = _settings(plan)
    lines = [
        f"# {graph.name}: {average:.3f} bits per stored activation, NB {total} bits,",
        "# allocated without labels by expected loss (allocate METHOD=loss)",
        *_lines(top),
    ]
    for name, table in own.items():
        if table:
            lines += ["", f"[layer.{name}]", *_lines(table)]
    return "\n".join(lines) + "\n"


def _lines(table: Mapping[str, Any]) -> list[str]:
    """Numbers and texts in TOML."""
    return [f"{key} = {json.dumps(value)}" for key, value in table.items()]


def write_plans(options: Options) -> None:
    """Write OUT/plan.toml, or OUT/plan_AVERAGE.toml for each of several averages."""
    allocator = Allocator.of(commands.request(replace(options, refine=options.refine or ALL), 1))
    for average in options.average:
        plan = allocator.at(average)
        graph = allocator.measured.exact
        stored = allocate.plan_average(graph, plan)
        name = f"plan_{average:g}.toml" if len(options.average) > 1 else "plan.toml"
        write_atomic(options.folder / name, text(plan, graph))
        print(f"written: {options.folder / name}, {stored:.3f} bits per activation")
