# SPDX-License-Identifier: Apache-2.0
"""plan.toml (docs/plan.md) read and written; with the command line it becomes a `Plan`.

The most specific wins: `[layer.NAME]`, then `[kind.fc]` or `[kind.conv]`, then the command line,
then the top of the file, then the network's defaults.
"""

import json
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nuq.formats.errors import UserError, meant
from nuq.formats.quantizer import QM_RANGE, WIDTHS
from nuq.model_prep.graph import KINDS, Graph, Layer
from nuq.model_prep.quantize.channel_scale import LARGEST
from nuq.model_prep.quantize.codes import file_frac
from nuq.model_prep.quantize.plan import (
    AUTO,
    BIAS_BITS,
    DEFAULTS,
    DISTIL_STEPS,
    FRAC_MODES,
    LARGE,
    LAYER,
    NETWORK,
    PRESET,
    PRESETS,
    SEED,
    Bits,
    LayerPlan,
    Plan,
    Settings,
    parse_refine,
)
from nuq.model_prep.quantize.quantizers import (
    CHANNEL,
    OWNERS,
    SCHEMES,
    WEIGHT_SCALES,
    WEIGHTS,
    check_choice,
    check_weight_bits,
)
from nuq.model_prep.quantize.sharing import share, signed_layers

# what fine-tuning found; for one layer only
_FIXED_KEYS = ("frac", "centroids", "y_frac", "thresholds")
_SCALES = "weight_scales"  # likewise, of weights
_FORMAT_KEYS = ("scheme", "bits", "qm", *OWNERS)
_LAYER_KEYS = (*_FORMAT_KEYS, "weight_scheme", "weight_scale", "weight_bits", "bias_bits")
KEYS = (
    *_FORMAT_KEYS, "frac_mode", "frac", "clip", "delta",
    "weight_scheme", "weight_scale", "weight_bits", "bias_bits", "refine", "distil_steps",
    "seed",
)  # of the top  # fmt: skip
_CHOICES = {
    "scheme": tuple(SCHEMES), "weight_scheme": tuple(WEIGHTS),
    "weight_scale": WEIGHT_SCALES, "frac_mode": FRAC_MODES,
    **{option: SCHEMES[owner].options[option] for option, owner in OWNERS.items()},
}  # fmt: skip
_RANGES = {
    "qm": QM_RANGE, "frac": (-64, 64), "y_frac": (-64, 64),
    "weight_bits": (1, 16), "bias_bits": (2, 32),
    "distil_steps": (1, 100_000), "seed": (0, 65_535),
}  # fmt: skip
_RULES = {
    "clip": (lambda value: isinstance(value, bool), "true or false"),
    "delta": (lambda value: _is_number(value) and value >= 0, "a number of 0 or more"),
    "refine": (lambda value: isinstance(value, str), 'a text such as "all"'),
    "bits": (
        lambda value: value == AUTO or _are_integers(value if isinstance(value, list) else [value]),
        "numbers or auto",
    ),
    "weight_scales": (
        lambda value: _are_integers(value) and all(1 <= m <= LARGEST for m in value),
        f"a list of integers of 1 to {LARGEST}",
    ),
    "centroids": (lambda value: _are_integers(value), "a list of rising integers"),
    "thresholds": (lambda value: _are_integers(value), "a list of integers"),
}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _are_integers(values: Any) -> bool:
    return isinstance(values, list) and all(type(number) is int for number in values)


def _check_value(key: str, value: Any, said: str, top: bool) -> None:
    """One setting has the right type and range; `said` is where it stands, and its name there."""
    if key in _CHOICES:
        check_choice(said, value, _CHOICES[key])
    elif key in _RULES:
        good, rule = _RULES[key]
        if not good(value):
            raise UserError(f"{said} must be {rule}, not {value}")
        if key == "refine":
            parse_refine(value)
    elif not (top and key == "qm" and value == AUTO):
        if type(value) is not int:
            raise UserError(f"{said} must be an integer, not {value}")
        low, high = _RANGES[key]
        if not low <= value <= high:
            raise UserError(f"{said} must be {low}..{high}, not {value}")


def _check_table(
    table: Mapping[str, Any], keys: tuple[str, ...], where: str, named: Callable[[str], str] = str
) -> None:
    """Only known keys with good values; `where` opens the sentence, then comes `named` of a key."""
    top = keys is KEYS
    for key, value in table.items():
        if key not in keys:
            raise UserError(
                f"{where}key must be one of {', '.join(keys)}, not {key}{meant(key, keys)}"
            )
        if key == "bits" and not top and isinstance(value, list):
            raise UserError(f"{where}bits must be one number or auto, not {value}")
        _check_value(key, value, f"{where}{named(key)}", top)


def _section(
    table: Mapping[str, Any], name: str, known: tuple[str, ...], keys: tuple[str, ...], path: Path,
    titles: Mapping[str, str] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The tables below [name.*], each checked, by the names that are known.

    Args:
        table: the whole file.
        name: of the tables.
        known: what may follow it.
        keys: of a table.
        path: of the file.
        titles: other words for what is known.
    """
    sections = table.get(name, {})
    if not isinstance(sections, dict) or not all(isinstance(v, dict) for v in sections.values()):
        raise UserError(f"{path}: {name} must be tables such as [{name}.{known[0]}], not a value")
    found: dict[str, Any] = {}
    for key, settings in sections.items():
        one = key if key in known else (titles or {}).get(key)
        if one is None:
            raise UserError(
                f"{path}: {name} must be one of {', '.join(known)}, not {key}{meant(key, known)}"
            )
        if one in found:
            raise UserError(f"{path}: [{name}.{key}] must stand once, not as {one}, too")
        _check_table(settings, keys, f"{path}: [{name}.{key}] ")
        found[one] = settings
    return found


def read_toml(path: Path, graph: Graph) -> tuple[Settings, ...]:
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
    titles = [layer.title or "" for layer in graph.layers]  # nodes' names in an ONNX file
    by_title = {t: n for t, n in zip(titles, names, strict=True) if titles.count(t) == 1}
    keys = (*_LAYER_KEYS, *_FIXED_KEYS, _SCALES)
    layers = _section(table, "layer", names, keys, path, by_title)
    for head in graph.heads:
        for key in (*_FORMAT_KEYS, *_FIXED_KEYS):
            if key in layers.get(head, {}):
                raise UserError(
                    f"{path}: [layer.{head}] must have no {key}, as its output, the network's own, "
                    "stays raw"
                )
    top = {key: value for key, value in table.items() if key not in ("kind", "layer")}
    _check_table(top, KEYS, f"{path}: ")
    return top, kinds, layers


def _widths(bits: Bits | None, names: list[str]) -> list[Any]:
    """One width per quantized layer; AUTO or None where it is to be searched."""
    if isinstance(bits, list):
        if len(bits) != len(names):
            raise UserError(
                f"BITS must have {len(names)} widths, one per quantized layer "
                f"({', '.join(names)}), not {len(bits)}"
            )
        return list(bits)
    return [bits] * len(names)


def _check_fixed(layer: Layer, chosen: Settings) -> None:
    """A layer's frac and centroids, where it has any, are a whole quantizer."""
    name, behind = layer.name, layer.coded is not None
    scheme, bits, centroids = (chosen[key] for key in ("scheme", "bits", "centroids"))
    for key in ("y_frac", "thresholds"):
        if (chosen[key] is not None) != (behind and centroids is not None):
            raise UserError(
                f"layer {name}: {key} must come with centroids where an activation other than a "
                "ReLU is in the codebook, and only there"
            )
    if chosen["frac"] is None and centroids is None:
        return
    if centroids is not None and not behind and centroids != sorted(set(centroids)):
        raise UserError(
            f"layer {name}: centroids must be a list of rising integers, not {centroids}"
        )
    if scheme not in WIDTHS or bits is None:
        raise UserError(
            f"layer {name}: frac and centroids must come with one of {', '.join(WIDTHS)} and a "
            f"width, not {scheme} and {bits or AUTO}"
        )
    if (scheme == "knq") != (centroids is not None) or chosen["frac"] is None:
        raise UserError(
            f"layer {name}: frac and centroids must come together for knq, and frac alone for "
            f"{' and '.join(other for other in WIDTHS if other != 'knq')}"
        )
    if centroids is not None and len(centroids) != 1 << bits:
        raise UserError(
            f"layer {name}: centroids must be 2^bits numbers, not {len(centroids)} with bits {bits}"
        )


def _format(layer: Layer, chosen: Settings, explicit: Settings) -> dict[str, Any]:
    """How a layer's activations are stored; `explicit` holds what its own tables set."""
    name, scheme = layer.name, chosen["scheme"]
    for key, owner in OWNERS.items():
        if key in explicit and scheme != owner:
            raise UserError(f"layer {name}: {key} must stay with scheme {owner}, not {scheme}")
    bits = None if chosen["bits"] == AUTO else chosen["bits"]
    chosen = {**chosen, "bits": bits, **{key: explicit.get(key) for key in _FIXED_KEYS}}
    _check_fixed(layer, chosen)
    centroids = chosen["centroids"]
    return {
        "scheme": scheme, "bits": bits, "qm": explicit.get("qm"), "frac": chosen["frac"],
        "options": {key: chosen[key] for key in SCHEMES[scheme].options},
        "centroids": None if centroids is None else tuple(centroids),
        "y_frac": chosen["y_frac"],
        "thresholds": chosen["thresholds"] and tuple(chosen["thresholds"]),
    }  # fmt: skip


def _scales(layer: Layer, scale: str, given: list[int] | None) -> tuple[int, ...] | None:
    """The weight scales that a layer's table sets, one for each output channel."""
    if given is None:
        return None
    if scale != CHANNEL:
        raise UserError(f"layer {layer.name}: weight_scales must go with weight_scale = {CHANNEL}")
    if len(given) != len(layer.bias):
        raise UserError(
            f"layer {layer.name}: weight_scales must be {len(layer.bias)} numbers, one an output "
            f"channel, not {len(given)}"
        )
    return tuple(given)


def check_widths(plan: Plan) -> None:
    """Every fixed width lies in its scheme's range; enq and knq do not exceed qm."""
    for layer in plan.layers:
        for key in ("frac", "qm"):
            if getattr(layer, key) is not None and plan.qm == AUTO:
                raise UserError(
                    f"qm must be a number where layer {layer.name} has a {key}, not {AUTO}"
                )
        most = QM_RANGE[1] if plan.qm == AUTO else plan.qm
        if layer.qm is not None and layer.qm > most:
            raise UserError(
                f"qm of layer {layer.name} must be at most the network's {most}, not {layer.qm}; "
                "raise QM"
            )
        if layer.scheme is None or layer.bits is None:
            continue
        low, high = SCHEMES[layer.scheme].widths(layer.qm or most)
        if not low <= layer.bits <= high:
            raise UserError(
                f"BITS of layer {layer.name} must be {low}..{high} for {layer.scheme}, "
                f"not {layer.bits}"
            )


def resolve(
    graph: Graph, settings: Settings, defaults: Settings, path: Path | None = None,
    by_kind: Mapping[str, Settings] | None = None, preset: str = PRESET,
) -> Plan:  # fmt: skip
    """The plan of a network.

    Args:
        graph: the network, whose layers the file names.
        settings: from the command line; None where an option is not set.
        defaults: the network's own scheme and bits.
        path: plan.toml, or None.
        by_kind: from the command line, too, by kind of layer; the file's [kind.NAME] come first.
        preset: of PRESETS; all but DEFAULTS and `defaults` come before it.

    Raises:
        UserError: an unknown key, layer or value, or a wrong number of widths.
    """
    settings = {key: value for key, value in settings.items() if value is not None}
    by_kind = by_kind or {}
    _check_table(settings, KEYS, "", str.upper)  # as options of the command line are called
    for kind, table in by_kind.items():
        _check_table(table, _LAYER_KEYS, f"{kind.upper()}_", str.upper)
    top, kinds, by_layer = read_toml(path, graph) if path else ({}, {}, {})
    everywhere = {**top, **settings}
    merged = {**DEFAULTS, **defaults, **PRESETS[preset][0], **everywhere}
    names = [layer.name for layer in graph.stored]
    widths = dict(zip(names, _widths(merged.get("bits"), names), strict=True))
    layers, signed = [], signed_layers(graph)
    for layer in graph.layers:
        explicit = {
            **by_kind.get(layer.kind, {}), **kinds.get(layer.kind, {}),
            **by_layer.get(layer.name, {}),
        }  # fmt: skip
        base = _preset_weights(preset, layer, everywhere, explicit)
        chosen = {**merged, **base, "bits": widths.get(layer.name), **explicit}
        scheme, scale = chosen["weight_scheme"], chosen["weight_scale"]
        weight_bits = chosen.get("weight_bits") or WEIGHTS[scheme].default
        if layer.has_weights:
            check_weight_bits(scheme, weight_bits, layer.name)
        stored = _format(layer, chosen, explicit) if layer.name in widths else {}
        if stored and stored["frac"] is None and merged["qm"] != AUTO:
            own = file_frac(layer, stored["scheme"], stored["bits"], layer.name in signed)
            stored["frac"] = own
        layers.append(
            LayerPlan(
                layer.name,
                weight_bits,
                chosen.get("bias_bits") or BIAS_BITS[scale],
                weight_scheme=scheme,
                weight_scale=scale,
                weight_scales=_scales(layer, scale, explicit.get(_SCALES)),
                **stored,
            )
        )
    plan = Plan(
        merged["qm"], merged["frac_mode"], merged.get("frac"), merged.get("delta"), tuple(layers),
        merged["clip"], parse_refine(merged["refine"]), merged["distil_steps"],
        merged["seed"],
    )  # fmt: skip
    check_widths(plan)
    return share(graph, plan)


def _preset_weights(
    preset: str, layer: Layer, everywhere: Settings, explicit: Settings
) -> Settings:
    """How a preset stores the weights of a layer, where nothing else says it.

    Its scheme and width go together: with another scheme that is given goes that scheme's own
    width, and what the preset has for large layers of a kind gives way to a width for all.
    """
    if "weight_bits" in everywhere:
        return {}
    given = explicit.get("weight_scheme") or everywhere.get("weight_scheme")
    if given is None:
        return PRESETS[preset][1].get(layer.kind, {}) if layer.weight.size >= LARGE else {}
    own = PRESETS[preset][0].get("weight_scheme", DEFAULTS["weight_scheme"])
    return {} if given == own else {"weight_bits": None}


def text(plan: Plan, fracs: Mapping[str, int], comment: str = "") -> str:
    """A plan file that gives these formats again, or has them refined; every layer has its table.

    `fracs`, F by layer name, say whether there is one for the network.
    """
    lines = [f"# {line}" for line in comment.splitlines()]
    lines += _lines({"qm": plan.qm, **_frac_settings(plan, fracs), "delta": plan.delta,
                    "seed": None if plan.seed == SEED else plan.seed})  # fmt: skip
    for layer in plan.layers:
        table = {
            "weight_bits": layer.weight_bits, "bias_bits": layer.bias_bits, "scheme": layer.scheme,
            "bits": layer.bits, "qm": layer.qm, **layer.options,
            "weight_scheme": layer.weight_scheme, "weight_scale": layer.weight_scale,
            "weight_scales": layer.weight_scales, "frac": layer.frac, "centroids": layer.centroids,
            "y_frac": layer.y_frac, "thresholds": layer.thresholds,
        }  # fmt: skip
        lines += ["", f"[layer.{layer.name}]", *_lines(table)]
    return "\n".join(lines) + "\n"


def _frac_settings(plan: Plan, fracs: Mapping[str, int]) -> dict[str, Any]:
    """What says F at the top; layers whose F the plan fixes have it in their table."""
    given = {layer.name for layer in plan.layers if layer.frac is not None}
    clip = None if plan.clip else False
    whole = {frac + (name in plan.signed) for name, frac in fracs.items() if name not in given}
    if plan.refine:  # it chooses F per layer in a rescaled network, unless the user fixed it
        steps = None if plan.distil_steps == DISTIL_STEPS else plan.distil_steps
        return {"frac_mode": plan.frac_mode, "frac": plan.frac, "clip": clip,
                "refine": ",".join(plan.refine), "distil_steps": steps}  # fmt: skip
    if plan.frac_mode == LAYER and plan.frac is None:
        return {"frac_mode": LAYER, "clip": clip}
    # without clipping F is the smaller of this and what holds the layer's largest activation
    return {"frac_mode": NETWORK, "frac": max(whole, default=None), "clip": clip}


def _lines(table: Mapping[str, Any]) -> list[str]:
    """Keys and values in TOML; what is None is left out."""
    return [f"{key} = {json.dumps(value)}" for key, value in table.items() if value is not None]
