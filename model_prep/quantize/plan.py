# SPDX-License-Identifier: Apache-2.0
"""What is to be quantized how: command-line settings and plan.toml become one `LayerPlan` a layer.

Scheme and width may differ per layer, as the papers keep fully connected layers uniform. The most
specific wins: `[layer.NAME]`, then `[kind.fc]` or `[kind.conv]`, then the command line, then the
top of the file, then the network's defaults.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from formats.errors import UserError
from formats.quantizer import QM_RANGE, RULES, VARIANTS, WIDTHS
from model_prep.graph import KINDS, Graph, Layer
from model_prep.quantize.quantizers import HARDWARE, PLAN_WIDTHS
from model_prep.quantize.quantizers.kmeans_gaussian import LEVELS
from model_prep.quantize.quantizers.optimal_step import DENSITIES
from model_prep.quantize.quantizers.weights import WEIGHT_SCHEMES
from model_prep.quantize.refine import DISTIL_STEPS, NONE, parse

AUTO: Literal["auto"] = "auto"
FRAC_MODES = ("network", "layer", "best", "error")
PARAMETER_BITS = (2, 16)
WEIGHT_BITS = (1, 16)  # of any scheme
BIAS_BITS = (2, 32)
Bits = int | list[int] | Literal["auto"]


@dataclass(frozen=True)
class Settings:
    """Choices for the whole network; None means: take the next less specific source.

    Attributes:
        scheme: one of `quantizers.HARDWARE`; default: the network's.
        bits: one width, one per quantized layer, or "auto"; default: the network's.
        rule: knq "nearest" or "floor"; default "nearest".
        variant: enq "floor", "mid" or "round"; default "floor".
        density: optimal "gaussian", "laplacian", "gamma" or "uniform"; default "gaussian".
        levels: gaussian "lloyd" or "equal"; default "lloyd".
        qm: width of a decoded activation, or "auto"; default 12.
        frac_mode: "network" (one F, the paper's scheme, default), "layer", "best" of the two by
            score, or "error": per layer, with the least squared error.
        frac: F of the network, instead of a search.
        clip: whether F may be so large that activations saturate (the papers' pre-processing);
            default true.
        delta: what a search may lose: points of top-1 where there are labels, else dB of output
            SQNR; default 1 point or 30 dB.
        weight_scheme: a name of WEIGHT_SCHEMES; default "uniform".
        weight_bits: width of a stored weight or index; default 14, or 8 where there is a codebook.
        bias_bits: signed width; default 14.
        refine: techniques of `model_prep.quantize.refine`: "all", "none" (default) or a comma list.
        distil_steps: how long its distillation learns.
    """

    scheme: str | None = None
    bits: Bits | None = None
    rule: str | None = None
    variant: str | None = None
    density: str | None = None
    levels: str | None = None
    qm: int | Literal["auto"] | None = None
    frac_mode: str | None = None
    frac: int | None = None
    clip: bool | None = None
    delta: float | None = None
    weight_scheme: str | None = None
    weight_bits: int | None = None
    bias_bits: int | None = None
    refine: str | None = None
    distil_steps: int | None = None


DEFAULTS = Settings(
    rule="nearest", variant="floor", density=DENSITIES[0], levels=LEVELS[0], qm=12,
    frac_mode="network", clip=True, weight_scheme="uniform", bias_bits=14, refine=NONE,
    distil_steps=DISTIL_STEPS,
)  # fmt: skip
_GLOBAL_KEYS = tuple(field.name for field in fields(Settings))
_OWNERS = {"rule": "knq", "variant": "enq", "density": "optimal", "levels": "gaussian"}
_FIXED_KEYS = ("frac", "centroids")  # what fine-tuning found; for one layer only
_LAYER_KEYS = ("scheme", "bits", *_OWNERS, "weight_scheme", "weight_bits", "bias_bits")
_ACTIVATION_KEYS = ("scheme", "bits", *_OWNERS, *_FIXED_KEYS)
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


@dataclass(frozen=True)
class LayerPlan:
    """How one layer is quantized; `bits` is None while a search has to find it.

    `frac` is the F of the stored code's values, `centroids` a whole knq table; where they are None
    they are measured. The last layer has no activation format: scheme and bits are None. `signed`,
    `shares` and `counted` follow from the graph, see `model_prep.quantize.sharing`.
    """

    name: str
    weight_bits: int
    bias_bits: int
    scheme: str | None = None
    bits: int | None = None
    rule: str | None = None
    variant: str | None = None
    density: str | None = None
    levels: str | None = None
    signed: bool = False
    shares: str | None = None
    counted: bool = True
    weight_scheme: str = "uniform"
    frac: int | None = None
    centroids: tuple[int, ...] | None = None

    @property
    def owner(self) -> str:
        """The layer whose quantizer this one has: its own name, or that of the first to share."""
        return self.shares or self.name

    @property
    def options(self) -> dict[str, str | None]:
        """Options for the scheme's `fit`."""
        return {key: getattr(self, key) for key in _OWNERS}


@dataclass(frozen=True)
class Plan:
    """The whole network's plan.

    Attributes:
        qm: width of a decoded activation, or "auto".
        frac_mode: "network", "layer", "best" or "error".
        frac: a fixed F, or None for the search.
        delta: what a search may lose, or None for the default.
        layers: one entry per layer of the graph.
        clip: whether activations may saturate.
        refine: techniques of `model_prep.quantize.refine` to apply, in order.
        distil_steps: of "distil".
    """

    qm: int | Literal["auto"]
    frac_mode: str
    frac: int | None
    delta: float | None
    layers: tuple[LayerPlan, ...]
    clip: bool = True
    refine: tuple[str, ...] = ()
    distil_steps: int = DISTIL_STEPS

    @property
    def signed(self) -> frozenset[str]:
        """The layers whose activations may be negative."""
        return frozenset(layer.name for layer in self.layers if layer.signed)

    @property
    def searches_bits(self) -> bool:
        """Whether some width is still to be found."""
        return any(layer.scheme is not None and layer.bits is None for layer in self.layers)

    def each(self, change: Callable[[LayerPlan], Mapping[str, Any]]) -> Plan:
        """The plan with those fields of every layer replaced that `change` gives for it."""
        layers = tuple(replace(layer, **change(layer)) for layer in self.layers)
        return replace(self, layers=layers)

    def with_values(self, key: str, values: Mapping[str, Any]) -> Plan:
        """The plan with a field of the layers replaced that `values` names."""
        return self.each(lambda layer: {key: values[layer.name]} if layer.name in values else {})

    def with_bits(self, bits: int) -> Plan:
        """Every width still to be found set to `bits`, as near as its scheme allows."""
        return self.each(
            lambda layer: (
                {"bits": max(bits, PLAN_WIDTHS[layer.scheme][0])}
                if layer.scheme is not None and layer.bits is None
                else {}
            )
        )


def parse_bits(text: str) -> Bits:
    """`BITS`: a number, a comma list of numbers, or auto.

    >>> parse_bits("5"), parse_bits("5,4,3"), parse_bits("auto")
    (5, [5, 4, 3], 'auto')
    """
    if text == AUTO:
        return AUTO
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise UserError(
            f"BITS must be a number, a comma list of numbers or auto, not {text!r}"
        ) from None
    return numbers if "," in text else numbers[0]


def parse_qm(text: str) -> int | Literal["auto"]:
    """`QM`: a number or auto."""
    if text == AUTO:
        return AUTO
    try:
        return int(text)
    except ValueError:
        raise UserError(f"QM must be a number or auto, not {text!r}") from None


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
    for key, owner in _OWNERS.items():
        if key in explicit and scheme != owner:
            raise UserError(
                f"layer {layer.name}: {key} must stay with scheme {owner}, not {scheme}"
            )
    _check_fixed(layer.name, chosen, explicit)
    centroids = explicit.get("centroids")
    options: dict[str, Any] = {
        key: chosen[key] if scheme == owner else None for key, owner in _OWNERS.items()
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
    from model_prep.quantize.sharing import share  # it reads Plans

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
