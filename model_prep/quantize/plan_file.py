# SPDX-License-Identifier: Apache-2.0
"""plan.toml (docs/plan.md) read and written; with the command line it becomes a `Plan`.

The most specific wins: `[layer.NAME]`, then `[kind.fc]` or `[kind.conv]`, then the command line,
then the top of the file, then the network's defaults.
"""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from formats.errors import UserError
from formats.quantizer import QM_RANGE, RULES, VARIANTS, WIDTHS
from model_prep.graph import KINDS, Graph, Layer
from model_prep.quantize.plan import (
    AUTO,
    BIAS_BITS,
    DEFAULTS,
    FRAC_MODES,
    OWNERS,
    WEIGHT_BITS,
    Bits,
    LayerPlan,
    Plan,
    Settings,
)
from model_prep.quantize.quantizers import HARDWARE, PLAN_WIDTHS
from model_prep.quantize.quantizers.kmeans_gaussian import LEVELS
from model_prep.quantize.quantizers.optimal_step import DENSITIES
from model_prep.quantize.quantizers.weights import WEIGHT_SCHEMES
from model_prep.quantize.sharing import share
from model_prep.quantize.techniques import DISTIL_STEPS, NONE, parse

_GLOBAL_KEYS = tuple(field.name for field in fields(Settings))
_FIXED_KEYS = ("frac", "centroids")  # what fine-tuning found; for one layer only
_LAYER_KEYS = ("scheme", "bits", *OWNERS, "weight_scheme", "weight_bits", "bias_bits")
_ACTIVATION_KEYS = ("scheme", "bits", *OWNERS, *_FIXED_KEYS)
_CHOICES = {
    "scheme": tuple(HARDWARE), "rule": RULES, "variant": VARIANTS, "density": DENSITIES,
    "levels": LEVELS, "frac_mode": FRAC_MODES,
    "weight_scheme": tuple(WEIGHT_SCHEMES),
}  # fmt: skip
_RANGES = {
    "qm": QM_RANGE,
    "weight_bits": WEIGHT_BITS,
    "bias_bits": BIAS_BITS,
    "distil_steps": (1, 100_000),
}


def _check_value(key: str, value: Any, where: str) -> None:
    """One setting has the right type and range; `where` opens the sentence."""
    if key in _CHOICES:
        if value not in _CHOICES[key]:
            raise UserError(f"{where}{key} must be one of {', '.join(_CHOICES[key])}, not {value}")
    elif key == "clip":
        if not isinstance(value, bool):
            raise UserError(f"{where}clip must be true or false, not {value}")
    elif key == "delta":
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
            raise UserError(f"{where}delta must be a number of 0 or more, not {value}")
    elif key == "refine":
        if not isinstance(value, str):
            raise UserError(f'{where}refine must be a text such as "all", not {value}')
        parse(value)
    elif key == "bits":
        numbers = value if isinstance(value, list) else [value]
        if value != AUTO and not all(type(number) is int for number in numbers):
            raise UserError(f"{where}bits must be numbers or auto, not {value}")
    elif key == "centroids":
        good = isinstance(value, list) and all(type(number) is int for number in value)
        if not good or any(a >= b for a, b in zip(value, value[1:], strict=False)):
            raise UserError(f"{where}centroids must be a list of rising integers, not {value}")
    elif not (key == "qm" and value == AUTO):
        if type(value) is not int:
            raise UserError(f"{where}{key} must be an integer, not {value}")
        low, high = _RANGES.get(key, (-64, 64))
        if not low <= value <= high:
            raise UserError(f"{where}{key} must be {low}..{high}, not {value}")


def _check_table(table: Mapping[str, Any], keys: tuple[str, ...], where: str) -> None:
    """Only known keys with good values."""
    for key, value in table.items():
        if key not in keys:
            raise UserError(f"{where}key must be one of {', '.join(keys)}, not {key}")
        if key == "bits" and "qm" not in keys and isinstance(value, list):
            raise UserError(f"{where}bits must be one number or auto, not {value}")
        _check_value(key, value, where)


def _section(
    table: Mapping[str, Any], name: str, known: tuple[str, ...], keys: tuple[str, ...], path: Path
) -> Any:
    """The tables below [name.*], each checked."""
    sections = table.get(name, {})
    if not isinstance(sections, dict) or not all(isinstance(v, dict) for v in sections.values()):
        raise UserError(f"{path}: {name} must be tables such as [{name}.{known[0]}], not a value")
    for key, settings in sections.items():
        if key not in known:
            raise UserError(f"{path}: {name} must be one of {', '.join(known)}, not {key}")
        _check_table(settings, keys, f"{path}: [{name}.{key}] ")
    return sections


def read_toml(path: Path, graph: Graph) -> tuple[Settings, dict[str, Any], dict[str, Any]]:
    """plan.toml: (top-level settings, tables by kind, tables by layer name).

    Raises:
        UserError: names the file and the key, layer or value that is not allowed.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"PLAN must be a readable file, not {path}: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path} must be a TOML file, not one with: {error}") from None
    kinds = _section(table, "kind", KINDS, _LAYER_KEYS, path)
    names = tuple(layer.name for layer in graph.layers)
    layers = _section(table, "layer", names, (*_LAYER_KEYS, *_FIXED_KEYS), path)
    last = graph.layers[-1].name
    for key in _ACTIVATION_KEYS:
        if key in layers.get(last, {}):
            raise UserError(
                f"{path}: [layer.{last}] must have no {key}, as the last layer's output stays raw"
            )
    top = {key: value for key, value in table.items() if key not in ("kind", "layer")}
    _check_table(top, _GLOBAL_KEYS, f"{path}: ")
    return Settings(**top), kinds, layers


def _merge(*sources: Settings) -> Settings:
    """The first source that is not None, field by field."""
    merged = {}
    for key in _GLOBAL_KEYS:
        values = [getattr(source, key) for source in sources]
        merged[key] = next((value for value in values if value is not None), None)
    return Settings(**merged)


def _widths(bits: Bits | None, names: list[str]) -> list[int | None]:
    """One width per quantized layer; None where it is to be searched."""
    if isinstance(bits, list):
        if len(bits) != len(names):
            raise UserError(
                f"BITS must have {len(names)} widths, one per quantized layer "
                f"({', '.join(names)}), not {len(bits)}"
            )
        return list(bits)
    return [None if bits in (None, AUTO) else bits for _ in names]  # type: ignore[misc]


def _check_fixed(name: str, chosen: Mapping[str, Any], explicit: Mapping[str, Any]) -> None:
    """A layer's frac and centroids, where its tables give any, are a whole quantizer."""
    scheme, centroids = chosen["scheme"], explicit.get("centroids")
    if "frac" not in explicit and centroids is None:
        return
    if scheme not in WIDTHS or chosen["bits"] == AUTO:
        raise UserError(
            f"layer {name}: frac and centroids must come with one of {', '.join(WIDTHS)} and a "
            f"width, not {scheme} and {chosen['bits']}"
        )
    if (scheme == "knq") != (centroids is not None) or "frac" not in explicit:
        raise UserError(
            f"layer {name}: frac and centroids must come together for knq, and frac alone for "
            f"{' and '.join(other for other in WIDTHS if other != 'knq')}"
        )
    if centroids is not None and len(centroids) != 1 << chosen["bits"]:
        raise UserError(
            f"layer {name}: centroids must be 2^bits numbers, not {len(centroids)} with bits "
            f"{chosen['bits']}"
        )


def _layer_plan(layer: Layer, chosen: Mapping[str, Any], explicit: Mapping[str, Any]) -> LayerPlan:
    """One quantized layer's plan; `explicit` holds what its own tables set."""
    scheme = chosen["scheme"]
    for key, owner in OWNERS.items():
        if key in explicit and scheme != owner:
            raise UserError(
                f"layer {layer.name}: {key} must stay with scheme {owner}, not {scheme}"
            )
    _check_fixed(layer.name, chosen, explicit)
    centroids = explicit.get("centroids")
    options: dict[str, Any] = {
        key: chosen[key] if scheme == owner else None for key, owner in OWNERS.items()
    }
    return LayerPlan(
        layer.name, chosen["weight_bits"], chosen["bias_bits"], scheme,
        None if chosen["bits"] == AUTO else chosen["bits"],
        weight_scheme=chosen["weight_scheme"],
        **options, frac=explicit.get("frac"),
        centroids=None if centroids is None else tuple(centroids),
    )  # fmt: skip


def _check_weights(layer: Layer, chosen: dict[str, Any]) -> None:
    """Fill in the scheme's own width where none was given; it must lie in the scheme's range."""
    scheme = chosen["weight_scheme"]
    low, high, default = WEIGHT_SCHEMES[scheme][1]
    if chosen["weight_bits"] is None:
        chosen["weight_bits"] = default
    if layer.has_weights and not low <= chosen["weight_bits"] <= high:
        raise UserError(
            f"weight_bits of layer {layer.name} must be {low}..{high} for {scheme}, "
            f"not {chosen['weight_bits']}"
        )


def check_widths(plan: Plan) -> None:
    """Every fixed width lies in its scheme's range; enq and knq do not exceed qm."""
    for layer in plan.layers:
        if layer.frac is not None and plan.qm == AUTO:
            raise UserError(f"qm must be a number where layer {layer.name} has a frac, not {AUTO}")
        if layer.scheme is None or layer.bits is None:
            continue
        low, high = PLAN_WIDTHS[layer.scheme]
        if HARDWARE[layer.scheme] != "uniform" and plan.qm != AUTO:
            high = min(high, plan.qm)
        if not low <= layer.bits <= high:
            raise UserError(
                f"BITS of layer {layer.name} must be {low}..{high} for {layer.scheme}, "
                f"not {layer.bits}"
            )


def resolve(
    graph: Graph, settings: Settings, defaults: Settings, path: Path | None = None,
    by_kind: Mapping[str, Mapping[str, Any]] | None = None,
) -> Plan:  # fmt: skip
    """The plan of a network.

    Args:
        graph: the network.
        settings: from the command line.
        defaults: the network's own scheme and bits.
        path: plan.toml, or None.
        by_kind: from the command line, too, by kind of layer; the file's [kind.NAME] come first.

    Raises:
        UserError: an unknown key, layer or value, or a wrong number of widths.
    """
    given = {key: getattr(settings, key) for key in _GLOBAL_KEYS}
    _check_table({k: v for k, v in given.items() if v is not None}, _GLOBAL_KEYS, "")
    for kind, table in (by_kind or {}).items():
        _check_table(table, _LAYER_KEYS, f"{kind.upper()}: ")
    read: tuple[Settings, dict[str, Any], dict[str, Any]] = (Settings(), {}, {})
    top, kinds, by_layer = read if path is None else read_toml(path, graph)
    merged = _merge(settings, top, defaults, DEFAULTS)
    names = [layer.name for layer in graph.layers[:-1]]
    widths = dict(zip(names, _widths(merged.bits, names), strict=True))
    layers = []
    for layer in graph.layers:
        of_kind = {**(by_kind or {}).get(layer.kind, {}), **kinds.get(layer.kind, {})}
        explicit = {**of_kind, **by_layer.get(layer.name, {})}
        chosen = {key: getattr(merged, key) for key in _LAYER_KEYS}
        chosen["bits"] = widths.get(layer.name)
        chosen.update(explicit)
        _check_weights(layer, chosen)
        if layer is graph.layers[-1]:
            layers.append(
                LayerPlan(
                    layer.name,
                    chosen["weight_bits"],
                    chosen["bias_bits"],
                    weight_scheme=chosen["weight_scheme"],
                )  # fmt: skip
            )
        else:
            layers.append(_layer_plan(layer, chosen, explicit))
    plan = Plan(
        merged.qm or AUTO, merged.frac_mode or FRAC_MODES[0], merged.frac, merged.delta,
        tuple(layers), clip=merged.clip is not False,
        refine=parse(merged.refine or NONE), distil_steps=merged.distil_steps or DISTIL_STEPS,
    )  # fmt: skip
    check_widths(plan)
    return share(graph, plan)


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
