# SPDX-License-Identifier: Apache-2.0
"""The quantization schemes by name: each registers itself, with its options, where it stands.

A further scheme is one more module here, whose function has the decorator `activations` or
`weights`; plans, searches and refusals read everything from the tables that these fill.
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from nuq.formats.arithmetic import ENTRY_BITS, MAX_FRAC, at_frac, to_fixed
from nuq.formats.errors import UserError, meant
from nuq.formats.quantizer import QM_RANGE, WIDTHS, Quantizer
from nuq.model_prep.quantize.channel_scale import (
    given_scale,
    own_steps,
    per_channel,
    rounding_scale,
    spread_scale,
)

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Scheme:
    """How activations are quantized."""

    # (counts [2^qm] of the integers y from the smallest up, bits, qm, frac, signed, **options);
    # y stands for y * 2^-frac
    fit: Callable[..., Quantizer]
    hardware: str  # the scheme that codes are stored and converted by
    options: Mapping[str, tuple[Any, ...]]  # choices by name, the default first; names are its own

    def widths(self, qm: int = QM_RANGE[1]) -> tuple[int, int]:
        """The least and the most bits of a code; a nonuniform one is made from qm bits."""
        low, high = WIDTHS[self.hardware]
        return low, high if self.hardware == "uniform" else min(high, qm)


@dataclass(frozen=True, eq=False)
class WeightFormat:
    """The stored form of one layer's weights, as integers or as indices into a codebook.

    Weights are signed; the engine multiplies integers of docs/formats.md 2.3 either way, so a
    codebook changes the stored bits only.
    """

    scheme: str  # a name of WEIGHTS
    bits: int  # width of a stored weight or index
    frac: int  # F of the integers, which stand for integer * 2^-F, times their channel's scale
    integers: np.ndarray  # int64, what is multiplied, in the shape of the float weights
    # int32 [2^bits], rising, with every value in `integers`; None: the integers are stored
    table: np.ndarray | None = None
    scale: np.ndarray | None = None  # uint8 [out], m of docs/formats.md 2.3; None: 1 everywhere

    @property
    def values(self) -> np.ndarray:
        """What the integers stand for, float64."""
        return self.scaled(self.integers * 2.0**-self.frac)

    def scaled(self, values: np.ndarray) -> np.ndarray:
        """Values [out, ...] times their channel's scale, float64."""
        exact = np.asarray(values, np.float64)
        return exact if self.scale is None else exact * per_channel(self.scale, exact)

    def fixed_bias(
        self, bias: np.ndarray, bits: int, most: int = MAX_FRAC
    ) -> tuple[np.ndarray, int]:
        """(integers [out], F) of biases, in steps of their channel; `to_fixed` otherwise."""
        values = bias if self.scale is None else bias / self.scale.astype(np.float64)
        return to_fixed(values, bits, most)

    @property
    def multiplied_bits(self) -> int:
        """Signed width of the integers."""
        return self.bits if self.table is None else ENTRY_BITS


@dataclass(frozen=True)
class WeightScheme:
    """How weights are quantized."""

    fit: Callable[[np.ndarray, int], WeightFormat]  # of float weights of any shape, and bits
    widths: tuple[int, int]  # of a stored weight or index
    default: int  # width
    codebook: bool  # whether indices are stored


LAYER, CHANNEL = "layer", "channel"
WEIGHT_SCALES = (LAYER, CHANNEL)  # what has a step of its own
SCHEMES: dict[str, Scheme] = {}
WEIGHTS: dict[str, WeightScheme] = {}


def activations(scheme: str, hardware: str, **options: tuple[Any, ...]) -> Callable[[F], F]:
    """Register a function as the fit of a `Scheme`."""

    def register(fit: F) -> F:
        SCHEMES[scheme] = Scheme(fit, hardware, options)
        return fit

    return register


def weights(
    scheme: str, low: int, high: int, default: int, *, codebook: bool = False
) -> Callable[[F], F]:
    """Register a function as the fit of a `WeightScheme`."""

    def register(fit: F) -> F:
        WEIGHTS[scheme] = WeightScheme(fit, (low, high), default, codebook)
        return fit

    return register


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
OWNERS = {option: name for name, scheme in SCHEMES.items() for option in scheme.options}


def check_choice(key: str, value: Any, choices: tuple[Any, ...]) -> None:
    """Refuse, by UserError, a value that is no choice."""
    if value not in choices:
        names = [str(choice) for choice in choices]
        raise UserError(
            f"{key} must be one of {', '.join(names)}, not {value}{meant(str(value), names)}"
        )


def fit(
    name: str, histogram: np.ndarray, bits: int, qm: int, frac: int, *, signed: bool = False,
    **options: Any,
) -> Quantizer:  # fmt: skip
    """Fit a quantizer of the named scheme to counts [2^qm] of the integers y = value * 2^frac.

    The first count is of y = -2^(qm - 1) where `signed`, else of 0.
    """
    check_choice("scheme", name, tuple(SCHEMES))
    scheme = SCHEMES[name]
    for key, value in options.items():
        if key not in scheme.options:
            raise UserError(f"{name} must have no {key}, not {value}; drop it")
        check_choice(key, value, scheme.options[key])
    chosen = {key: choices[0] for key, choices in scheme.options.items()} | options
    return scheme.fit(histogram, bits, qm, frac, signed, **chosen)


def fit_weights(
    scheme: str, values: np.ndarray, bits: int, name: str, scale: str = LAYER,
    given: Sequence[int] | None = None,
) -> WeightFormat:  # fmt: skip
    """Quantize the float weights [out, ...] of the layer called `name` by a scheme of WEIGHTS.

    `scale` is one of WEIGHT_SCALES; `given` is m of each channel where it is not to be chosen.

    Raises:
        UserError: the width is out of range.
    """
    check_weight_bits(scheme, bits, name)
    if scale == CHANNEL:
        fitted = _by_channel(scheme, values, bits, given)
    else:
        fitted = WEIGHTS[scheme].fit(values, bits)
    if not _storable(fitted):
        raise ValueError(f"layer {name}: {fitted.scheme} must give weights that can be stored")
    return fitted


def _by_channel(
    scheme: str, values: np.ndarray, bits: int, given: Sequence[int] | None
) -> WeightFormat:
    """Weights with a scale for each output channel.

    A codebook is fitted to weights of equal spread; without one m says all that a scheme's F would.
    Weights of a quantized file are taken integer by integer, where m can be their step.
    """
    scale = None if given is None else np.array(given, np.uint8)
    if WEIGHTS[scheme].codebook:
        scale = spread_scale(values) if scale is None else scale
        return replace(WEIGHTS[scheme].fit(values / per_channel(scale, values), bits), scale=scale)
    if scale is not None:
        integers, frac = to_fixed(values / per_channel(scale, values), bits)
        return WeightFormat(scheme, bits, frac, integers, scale=scale)
    top = (1 << (bits - 1)) - 1
    steps = own_steps(values, top)
    own = None if steps is None else given_scale(values, steps, top)
    if own is not None:
        return WeightFormat(scheme, bits, own[2], own[0], scale=own[1])
    scale, frac = rounding_scale(values, bits)
    integers = at_frac(values / per_channel(scale, values), bits, frac)
    return WeightFormat(scheme, bits, frac, integers, scale=scale)


def check_weight_bits(scheme: str, bits: int, name: str) -> None:
    """Refuse, by UserError, a width of a layer's weights out of its scheme's range."""
    low, high = WEIGHTS[scheme].widths
    if not low <= bits <= high:
        raise UserError(
            f"weight_bits of layer {name} must be {low}..{high} for {scheme}, not {bits}"
        )


def _storable(fitted: WeightFormat) -> bool:
    """Whether a scheme keeps the promises of WeightFormat that the formats rely on.

    The range is symmetric: two products share a DSP block only without -2^(bits - 1).
    """
    table, half = fitted.table, 1 << (fitted.multiplied_bits - 1)
    ends = fitted.integers if table is None else table
    if not -half < ends.min(initial=0) <= ends.max(initial=0) < half:
        return False
    if table is None:
        return True
    entries = np.zeros(2 * half, bool)
    entries[table + half] = True
    rising = table.shape == (1 << fitted.bits,) and bool((np.diff(table) > 0).all())
    return rising and bool(entries[fitted.integers + half].all())
