# SPDX-License-Identifier: Apache-2.0
"""plan.toml written (docs/plan.md): a file that `plan.resolve` reads as the same plan again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from model_prep.quantize.plan import Plan
from model_prep.quantize.refine import DISTIL_STEPS

_DERIVED = ("name", "signed", "shares", "counted")  # of a LayerPlan; they follow from the graph


def text(plan: Plan, fracs: Mapping[str, int], comment: str = "") -> str:
    """A plan file that gives these formats again, or has them refined; every layer has its table.

    Args:
        plan: with all widths fixed.
        fracs: F by layer name, which say whether there is one for the network.
        comment: first lines, each made a comment.
    """
    lines = [f"# {line}" for line in comment.splitlines()]
    lines += _lines({"qm": plan.qm, **_frac_settings(plan, fracs), "delta": plan.delta})
    for layer in plan.layers:
        table = {item.name: getattr(layer, item.name) for item in fields(layer)
                 if item.name not in _DERIVED}  # fmt: skip
        lines += ["", f"[layer.{layer.name}]", *_lines(table)]
    return "\n".join(lines) + "\n"


def _frac_settings(plan: Plan, fracs: Mapping[str, int]) -> dict[str, Any]:
    """What says F at the top; layers whose F the plan fixes have it in their table."""
    given = {layer.name for layer in plan.layers if layer.frac is not None}
    whole = {frac + (name in plan.signed) for name, frac in fracs.items() if name not in given}
    if plan.refine:  # it chooses F per layer in a rescaled network, unless the user fixed it
        steps = None if plan.distil_steps == DISTIL_STEPS else plan.distil_steps
        clip = None if plan.clip else False
        return {"frac_mode": plan.frac_mode, "frac": plan.frac, "clip": clip,
                "refine": ",".join(plan.refine), "distil_steps": steps}  # fmt: skip
    if not plan.clip:  # F is the smaller of this and what holds the layer's largest activation
        return {"clip": False, "frac_mode": "network", "frac": max(whole, default=None)}
    if plan.frac_mode == "error" and plan.frac is None:
        return {"frac_mode": "error"}
    if len(whole) == 1:
        return {"frac_mode": "network", "frac": whole.pop()}
    return {"frac_mode": "layer"} if whole else {}


def _lines(table: Mapping[str, Any]) -> list[str]:
    """Keys and values in TOML; what is None is left out."""
    return [f"{key} = {json.dumps(value)}" for key, value in table.items() if value is not None]
