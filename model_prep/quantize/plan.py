# SPDX-License-Identifier: Apache-2.0
"""What is to be quantized how: a `LayerPlan` a layer, and the values of options that become one.

Scheme and width may differ per layer, as the papers keep fully connected layers uniform.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

import numpy as np

from nuq.formats.activation import Activation
from nuq.formats.errors import UserError, meant
from nuq.model_prep.quantize import quantizers
from nuq.model_prep.quantize.quantizers import LAYER, OWNERS, SCHEMES, WeightFormat

T = TypeVar("T")
AUTO: Literal["auto"] = "auto"
NETWORK = "network"
FRAC_MODES = (LAYER, NETWORK)  # what has an F of its own
TECHNIQUES = ("equalise", "sensitivity", "distil")  # of refinement, in the order in which they run
ALL, NONE = "all", "none"
# Weights of a large layer: 8-bit ones would take 2 MB, longer to read than to work on at batch 1.
LARGE = 1 << 21
BIAS_BITS = {"layer": 14, "channel": 32}  # by weight_scale: a small m makes its biases large
DISTIL_STEPS = 60  # unless a plan says otherwise
SEED = 1  # likewise
Bits = int | list[int] | Literal["auto"]
Settings = dict[str, Any]  # the keys of a plan file's top or of one of its tables (docs/plan.md)
DEFAULTS: Settings = {
    **{option: SCHEMES[owner].options[option][0] for option, owner in OWNERS.items()},
    "qm": 12, "frac_mode": FRAC_MODES[0], "clip": True, "weight_scheme": "uniform",
    "weight_scale": LAYER, "refine": NONE, "distil_steps": DISTIL_STEPS, "seed": SEED,
}  # fmt: skip
# What PRESET stands for, by its name: keys of the top, and of the large layers of a kind. The
# network's own come before, a plan file and single options after.
PRESET = "accurate"  # where none is named
PRESETS: dict[str, tuple[Settings, dict[str, Settings]]] = {
    "accurate": ({}, {}),
    # 12-bit values, one F, 14-bit weights, floor (Tables I to IV)
    "paper": (
        {"qm": 12, "weight_bits": 14, "frac_mode": NETWORK, "rule": "floor", "variant": "floor"},
        {},
    ),
    # two products a multiplier, and few bytes of the weights that are read once an image
    "fast": (
        {"qm": 9, "weight_bits": 8, "weight_scale": "channel"},
        {"fc": {"weight_scheme": "kmeans", "weight_bits": 4}},
    ),
    # the least memory: narrow codes, a codebook a layer, and the refinement that takes no time
    "small": (
        {
            "bits": 3,
            "weight_scheme": "kmeans",
            "weight_bits": 4,
            "weight_scale": "channel",
            "refine": "equalise,sensitivity",
        },
        {},
    ),
}


@dataclass(frozen=True)
class LayerPlan:
    """How one layer is quantized.

    `activation`, `signed`, `shares` and `counted` follow from the graph, see
    `model_prep.quantize.sharing`.
    """

    name: str
    weight_bits: int
    bias_bits: int
    scheme: str | None = None  # None: the last layer, which has no activation format
    bits: int | None = None  # None while a search has to find it
    options: Mapping[str, Any] = field(default_factory=dict)  # the scheme's own, all of them
    activation: Activation | None = None  # where it is in the codebook
    signed: bool = False  # whether values may be negative
    shares: str | None = None
    counted: bool = True
    weight_scheme: str = "uniform"
    weight_scale: str = LAYER  # of quantizers.WEIGHT_SCALES
    qm: int | None = None  # width of y where it is less than the plan's
    frac: int | None = None  # F of the stored code's values; None: measured
    centroids: tuple[int, ...] | None = None  # a whole knq table; None: measured
    # F of y in front of an activation, and where its codes begin; None: measured
    y_frac: int | None = None
    thresholds: tuple[int, ...] | None = None
    weight_scales: tuple[int, ...] | None = None  # m of each channel; None: measured

    @property
    def encoded_frac(self) -> int | None:
        """F of y; None: measured."""
        return self.y_frac if self.activation else self.frac

    @property
    def y_signed(self) -> bool:
        """Whether y may be negative."""
        return self.signed or self.activation is not None

    @property
    def owner(self) -> str:
        """The layer whose quantizer this one has: its own name, or that of the first to share."""
        return self.shares or self.name

    def fit_weights(self, values: np.ndarray) -> WeightFormat:
        """The layer's float weights [out, ...] as they are to be stored."""
        return quantizers.fit_weights(
            self.weight_scheme, values, self.weight_bits, self.name, self.weight_scale,
            self.weight_scales,
        )  # fmt: skip

    @property
    def format(self) -> dict[str, Any]:
        """The fields that say how activations are stored."""
        keys = ("scheme", "bits", "qm", "options", "frac", "centroids")
        return {key: getattr(self, key) for key in keys}


@dataclass(frozen=True)
class Plan:
    """The whole network's plan."""

    qm: int | Literal["auto"]  # width of a decoded activation, unless a layer has less
    frac_mode: str  # of FRAC_MODES
    frac: int | None  # a fixed F, or None for the search
    delta: float | None  # what a search may lose, or None for the default
    layers: tuple[LayerPlan, ...]  # one per layer of the graph
    clip: bool = True  # whether activations may saturate
    refine: tuple[str, ...] = ()  # of TECHNIQUES
    distil_steps: int = DISTIL_STEPS
    seed: int = SEED  # of all that is drawn at random

    @property
    def signed(self) -> frozenset[str]:
        """The layers whose y may be negative."""
        return frozenset(layer.name for layer in self.layers if layer.y_signed)

    @property
    def searches_bits(self) -> bool:
        """Whether some width is still to be found."""
        return any(layer.scheme is not None and layer.bits is None for layer in self.layers)

    @property
    def by_owner(self) -> dict[str, tuple[LayerPlan, ...]]:
        """The quantized layers by the one whose quantizer they have."""
        shared: dict[str, list[LayerPlan]] = {}
        for layer in self.layers:
            if layer.scheme is not None:
                shared.setdefault(layer.owner, []).append(layer)
        return {owner: tuple(layers) for owner, layers in shared.items()}

    def each(self, change: Callable[[LayerPlan], Mapping[str, Any]]) -> "Plan":
        """The plan with those fields of every layer replaced that `change` gives for it."""
        layers = tuple(replace(layer, **change(layer)) for layer in self.layers)
        return replace(self, layers=layers)

    def fit_each(self, fit: Callable[[LayerPlan], T]) -> dict[str, T]:
        """What `fit` gives for each layer of fixed width, by name; once where layers share."""
        fitted: dict[str, T] = {}
        for layer in self.layers:
            if layer.scheme is not None and layer.bits is not None:
                if layer.owner not in fitted:
                    fitted[layer.owner] = fit(layer)
                fitted[layer.name] = fitted[layer.owner]
        return fitted

    def with_values(self, key: str, values: Mapping[str, Any]) -> "Plan":
        """The plan with a field of the layers replaced that `values` names."""
        return self.each(lambda layer: {key: values[layer.name]} if layer.name in values else {})

    def with_bits(self, bits: int) -> "Plan":
        """Every width still to be found set to `bits`, as near as its scheme allows."""
        return self.each(
            lambda layer: (
                {"bits": max(bits, SCHEMES[layer.scheme].widths()[0])}
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


def parse_refine(text: str) -> tuple[str, ...]:
    """The techniques of `REFINE` in the order in which they run.

    >>> parse_refine("all"), parse_refine("none"), parse_refine("distil,equalise")
    (('equalise', 'sensitivity', 'distil'), (), ('equalise', 'distil'))
    """
    if text in (ALL, NONE):
        return TECHNIQUES if text == ALL else ()
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in TECHNIQUES:
            raise UserError(
                f"REFINE must be {ALL}, {NONE} or of {', '.join(TECHNIQUES)}, not {name!r}"
                f"{meant(name, (ALL, NONE, *TECHNIQUES))}"
            )
    return tuple(name for name in TECHNIQUES if name in names)
