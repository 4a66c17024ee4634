# SPDX-License-Identifier: Apache-2.0
"""The table of pointwise functions that a layer may end with, and what follows from a function.

A further function is one more entry here: its parameters are those of its ONNX operator, which it
registers with. Whether it rises everywhere, and whether it can be negative, is measured.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F

from nuq.formats.activation import Activation

Compute = Callable[..., torch.Tensor]


@dataclass(frozen=True)
class Function:
    """A pointwise function in torch, of float32 maps with gradients and of float64 points."""

    compute: Compute  # (x, **parameters)
    parameters: Mapping[str, float]  # with the defaults of ONNX
    operator: str  # in ONNX; empty for none with these attributes


FUNCTIONS: dict[str, Function] = {}
# where functions are looked at: close together around 0, then ever further apart
_FAR = np.geomspace(16, 1e6, 2000)
_POINTS = np.concatenate([-_FAR[::-1], np.linspace(-16, 16, 32769)[1:-1], _FAR])
_COMPARED, _SPARSE = np.linspace(-12, 12, 4801), 400  # and of these every so many first
_NOISE = 1e-12  # by which rounding may let a rising function fall


def function(
    name: str, operator: str = "", **parameters: float
) -> Callable[[Compute], Compute]:  # fmt: skip
    """Register a function."""

    def register(compute: Compute) -> Compute:
        FUNCTIONS[name] = Function(compute, parameters, operator)
        return compute

    return register


@function("relu")
def relu(x: torch.Tensor, limit: float | None = None) -> torch.Tensor:
    """ReLU, up to a limit (6 for ReLU6)."""
    return F.relu(x) if limit is None else x.clamp(0.0, limit)


@function("clip", low=-1.0, high=1.0)
def clip(x: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """Limits on both sides."""
    return x.clamp(low, high)


@function("leaky_relu", "LeakyRelu", alpha=0.01)
def leaky_relu(x: torch.Tensor, alpha: float) -> torch.Tensor:
    """LeakyReLU; a PReLU with one slope."""
    return F.leaky_relu(x, alpha)


@function("elu", "Elu", alpha=1.0)
def elu(x: torch.Tensor, alpha: float) -> torch.Tensor:
    """ELU."""
    return F.elu(x, alpha)


@function("selu", "Selu", alpha=1.6732632423543772, gamma=1.0507009873554805)
def selu(x: torch.Tensor, alpha: float, gamma: float) -> torch.Tensor:
    """SELU."""
    return gamma * F.elu(x, alpha)


@function("celu", "Celu", alpha=1.0)
def celu(x: torch.Tensor, alpha: float) -> torch.Tensor:
    """CELU."""
    return F.celu(x, alpha)


@function("thresholded_relu", "ThresholdedRelu", alpha=1.0)
def thresholded_relu(x: torch.Tensor, alpha: float) -> torch.Tensor:
    """x above a threshold, else 0."""
    return F.threshold(x, alpha, 0.0)


@function("sigmoid", "Sigmoid")
def sigmoid(x: torch.Tensor) -> torch.Tensor:
    """Sigmoid."""
    return torch.sigmoid(x)


@function("tanh", "Tanh")
def tanh(x: torch.Tensor) -> torch.Tensor:
    """Hyperbolic tangent."""
    return torch.tanh(x)


@function("hard_sigmoid", "HardSigmoid", alpha=0.2, beta=0.5)
def hard_sigmoid(x: torch.Tensor, alpha: float, beta: float) -> torch.Tensor:
    """A line, limited to 0..1."""
    return (alpha * x + beta).clamp(0.0, 1.0)


@function("softplus", "Softplus")
def softplus(x: torch.Tensor) -> torch.Tensor:
    """log(1 + e^x)."""
    return F.softplus(x)


@function("softsign", "Softsign")
def softsign(x: torch.Tensor) -> torch.Tensor:
    """x / (1 + |x|)."""
    return F.softsign(x)


@function("silu", "Swish", alpha=1.0)
def silu(x: torch.Tensor, alpha: float) -> torch.Tensor:
    """x * sigmoid(alpha * x)."""
    return F.silu(x) if alpha == 1.0 else x * torch.sigmoid(alpha * x)


@function("hard_swish", "HardSwish")
def hard_swish(x: torch.Tensor) -> torch.Tensor:
    """x * clip(x / 6 + 1/2, 0, 1)."""
    return F.hardswish(x)


@function("gelu")
def gelu(x: torch.Tensor) -> torch.Tensor:
    """x * the normal distribution's integral up to x."""
    return F.gelu(x)


@function("gelu_tanh")
def gelu_tanh(x: torch.Tensor) -> torch.Tensor:
    """GELU with its integral approximated by tanh."""
    return F.gelu(x, approximate="tanh")


@function("mish", "Mish")
def mish(x: torch.Tensor) -> torch.Tensor:
    """x * tanh(softplus(x))."""
    return F.mish(x)


def apply(activation: Activation, x: torch.Tensor) -> torch.Tensor:
    """The function of floating-point values of any shape."""
    return FUNCTIONS[activation.function].compute(x, **activation.parameters)


def values(activation: Activation | None, x: np.ndarray) -> np.ndarray:
    """The same of an array, float64; without a function, the array itself."""
    exact = np.asarray(x, np.float64)
    return exact if activation is None else apply(activation, torch.from_numpy(exact)).numpy()


def slopes(activation: Activation, x: np.ndarray) -> np.ndarray:
    """The derivative at every x, float64."""
    points = torch.from_numpy(np.asarray(x, np.float64)).requires_grad_()
    with torch.enable_grad():
        total = apply(activation, points).sum()
    found: np.ndarray = torch.autograd.grad(total, points)[0].numpy()
    return found


def erf(x: np.ndarray) -> np.ndarray:
    """The error function, float64."""
    found: np.ndarray = torch.erf(torch.from_numpy(np.asarray(x, np.float64))).numpy()
    return found


_samples: dict[tuple[object, ...], np.ndarray] = {}


def _sampled(activation: Activation) -> np.ndarray:
    if activation.key not in _samples:
        _samples[activation.key] = values(activation, _POINTS)
    return _samples[activation.key]


def rises(activation: Activation | None) -> bool:
    """Whether a larger number never has a smaller value.

    >>> rises(Activation("tanh")), rises(Activation("silu", {"alpha": 1.0}))
    (True, False)
    """
    if activation is None:
        return True
    steps = np.diff(_sampled(activation))
    return bool((steps >= -_NOISE).all())


def turns_once(activation: Activation) -> bool:
    """Whether it falls up to some number and rises from there on, or does only one of the two.

    >>> [turns_once(Activation("silu", {"alpha": alpha})) for alpha in (1.0, -1.0)]
    [True, False]
    """
    found = _sampled(activation)
    if not np.isfinite(found).all():
        return False
    least = int(found.argmin())
    before, behind = np.diff(found[: least + 1]), np.diff(found[least:])
    return bool((before <= _NOISE).all() and (behind >= -_NOISE).all())


def nonnegative(activation: Activation | None) -> bool:
    """Whether no value is below 0."""
    return activation is not None and bool((_sampled(activation) >= 0).all())


def recognised(compute: Callable[[np.ndarray], np.ndarray]) -> Activation | None:
    """The function of the table that another one equals, as exporters write it in parts.

    >>> recognised(lambda x: x / (1 + np.exp(-x))).function
    'silu'
    """
    candidates = list(range(len(_COMPOSED)))
    for every in (_SPARSE, 1):  # few numbers tell most functions apart
        with np.errstate(all="ignore"):
            found = compute(_COMPARED[::every])
        candidates = [
            number for number in candidates
            if np.allclose(found, _composed()[number, ::every], rtol=1e-5, atol=2e-6)
        ]  # fmt: skip
        if not candidates:
            return None
    return _COMPOSED[candidates[0]]


@cache
def _composed() -> np.ndarray:
    """Values of _COMPOSED at _COMPARED."""
    return np.stack([values(candidate, _COMPARED) for candidate in _COMPOSED])


_COMPOSED = (
    Activation("silu", {"alpha": 1.0}), Activation("gelu"), Activation("gelu_tanh"),
    Activation("hard_swish"), Activation("hard_sigmoid", {"alpha": 1 / 6, "beta": 0.5}),
    Activation("mish"), Activation("softplus"), Activation("softsign"), Activation("tanh"),
    Activation("sigmoid"),
)  # fmt: skip
