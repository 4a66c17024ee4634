# SPDX-License-Identifier: Apache-2.0
"""What is to be quantized how: the settings of a network, and a `LayerPlan` a layer.

Scheme and width may differ per layer, as the papers keep fully connected layers uniform.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from formats.errors import UserError
from model_prep.quantize.quantizers import PLAN_WIDTHS
from model_prep.quantize.quantizers.kmeans_gaussian import LEVELS
from model_prep.quantize.quantizers.optimal_step import DENSITIES
from model_prep.quantize.techniques import DISTIL_STEPS, NONE

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
OWNERS = {
    "rule": "knq",
    "variant": "enq",
    "density": "optimal",
    "levels": "gaussian",
}  # of options of a scheme


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
        return {key: getattr(self, key) for key in OWNERS}


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

    def each(self, change: Callable[[LayerPlan], Mapping[str, Any]]) -> "Plan":
        """The plan with those fields of every layer replaced that `change` gives for it."""
        layers = tuple(replace(layer, **change(layer)) for layer in self.layers)
        return replace(self, layers=layers)

    def with_values(self, key: str, values: Mapping[str, Any]) -> "Plan":
        """The plan with a field of the layers replaced that `values` names."""
        return self.each(lambda layer: {key: values[layer.name]} if layer.name in values else {})

    def with_bits(self, bits: int) -> "Plan":
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
