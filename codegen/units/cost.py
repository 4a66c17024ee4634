# SPDX-License-Identifier: Apache-2.0
"""Fits the formulas of design/unit_luts.py to the figures in sweep.json: lut_model.json."""

import json
from collections.abc import Mapping

import numpy as np

from codegen.design.unit_luts import TERMS, formula
from codegen.units.sweep import Point
from codegen.units.synthesis import Cost


def fit(costs: Mapping[Point, Cost]) -> dict[str, dict[str, list[float]]]:
    """Coefficients by formula and number of layers (0 for lanes), by least relative squares."""
    model: dict[str, dict[str, list[float]]] = {}
    for key, (_, terms) in TERMS.items():
        kind, part = key.split()
        chosen = [p for p in costs if (p.kind, p.part) == (kind, part)]
        model[key] = {}
        for layers in sorted({point.layers for point in chosen}):
            rows = [p for p in chosen if p.layers == layers]
            measured = np.array([max(1, costs[p].lut) for p in rows], float)
            design = np.array([terms(p.bits, p.qm) for p in rows], float)
            # a line of relative errors: what matters is the share that an estimate is off
            solution = np.linalg.lstsq(design / measured[:, None], np.ones(len(rows)), rcond=None)
            model[key][str(layers)] = [round(float(value), 4) for value in solution[0]]
    return model


def model_json(costs: Mapping[Point, Cost], tool: str) -> str:
    """lut_model.json: the coefficients, and how far they are off on the figures they come from."""
    model = fit(costs)
    lines = []
    for key, sizes in model.items():
        entries = ", ".join(f'"{layers}": {json.dumps(values)}' for layers, values in sizes.items())
        lines.append(f"    {json.dumps(key)}: {{{entries}}}")
    terms = ",\n".join(
        f"    {json.dumps(key)}: {json.dumps(text)}" for key, (text, _) in TERMS.items()
    )
    head = f'  "tool": {json.dumps(tool + ", synth_xilinx -family xc7")},\n'
    head += f'  "points": {len(costs)},\n  "terms": {{\n{terms}\n  }},\n'
    return "{\n" + head + '  "model": {\n' + ",\n".join(lines) + "\n  }\n}\n"


def errors(costs: Mapping[Point, Cost]) -> dict[str, tuple[int, float, float]]:
    """By formula: points, mean and largest share that the formula is off; 4 LUTs are forgiven."""
    found: dict[str, list[float]] = {}
    for point, cost in costs.items():
        key = f"{point.kind} {point.part}"
        if key in TERMS:
            off = abs(
                formula(point.kind, point.part, point.bits, point.qm, point.layers) - cost.lut
            )
            found.setdefault(key, []).append(max(0.0, off - 4) / max(1, cost.lut))
    return {key: (len(items), float(np.mean(items)), max(items)) for key, items in found.items()}
