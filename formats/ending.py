# SPDX-License-Identifier: Apache-2.0
"""What the host does behind a network's heads: steps from the engine's values to its outputs.

A float network often ends in what no accelerator needs: a softmax, a sigmoid, an argmax, another
order of axes. The engine gives the values of the heads, the layers that end the network; the host
does the rest with `apply` (docs/formats.md 1.1).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Annotated

import numpy as np

from nuq.formats.errors import UserError
from nuq.formats.schema import Limits, stored

POINTWISE = ("sigmoid", "tanh")
ALONG = ("softmax", "logsoftmax", "argmax")  # an axis
MOVES = ("transpose", "reshape")
MAX_AXES = 16

Sizes = tuple[int, ...]


@dataclass(frozen=True)
class Step:
    """One operation of the host on the tensor of one image, whose batch axis has size 1."""

    kind: Annotated[str, Limits(enum=[*POINTWISE, *ALONG, *MOVES])]
    axis: int = 0  # of softmax, logsoftmax and argmax, counted from the front
    # transpose: the order of the axes; reshape: the sizes
    sizes: Annotated[Sizes, Limits(maxItems=MAX_AXES)] = ()
    keep: bool = True  # argmax: whether its axis stays, with size 1

    def shape(self, before: Sizes) -> Sizes:
        """Sizes behind the step; UserError where it does not fit those before it.

        >>> Step("argmax", axis=1, keep=False).shape((1, 10)), Step("sigmoid").shape((1, 2, 3))
        ((1,), (1, 2, 3))
        """
        if self.kind in ALONG and not 0 <= self.axis < len(before):
            raise UserError(
                f"ending: {self.kind} must be along axis 0..{len(before) - 1}, not {self.axis}"
            )
        if self.kind == "transpose":
            if sorted(self.sizes) != list(range(len(before))):
                raise UserError(
                    f"ending: transpose must order {len(before)} axes, not {list(self.sizes)}"
                )
            return tuple(before[axis] for axis in self.sizes)
        if self.kind == "reshape":
            if min(self.sizes, default=1) < 1 or prod(self.sizes) != prod(before):
                raise UserError(
                    f"ending: reshape must keep the {prod(before)} values, not give "
                    f"{list(self.sizes)}"
                )
            return self.sizes
        if self.kind == "argmax":
            kept = (1,) if self.keep else ()
            return (*before[: self.axis], *kept, *before[self.axis + 1 :])
        return before

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """The step's result, float64 or, of argmax, int64; ties go to the lower index."""
        if self.kind == "sigmoid":
            return 0.5 * (1 + np.tanh(0.5 * x))  # which cannot overflow
        if self.kind == "tanh":
            return np.tanh(x)
        if self.kind == "transpose":
            return x.transpose(self.sizes)
        if self.kind == "reshape":
            return x.reshape(self.sizes)
        if self.kind == "argmax":
            return np.argmax(x, axis=self.axis, keepdims=self.keep)
        shifted = x - x.max(axis=self.axis, keepdims=True)
        total = np.exp(shifted).sum(axis=self.axis, keepdims=True)
        return np.exp(shifted) / total if self.kind == "softmax" else shifted - np.log(total)


Ending = tuple[Step, ...]


@dataclass(frozen=True)
class Output:
    """One output of a network: whose values it is, and what the host makes of them."""

    name: Annotated[str, Limits(pattern="^[a-z][a-z0-9_]*$")]
    layer: str  # the head
    ending: Ending = stored(sparse=True, default=())


def start(shape: Sizes) -> Sizes:
    """Sizes that the first step sees, of a last layer's (channels, rows, columns).

    >>> start((10, 1, 1)), start((5, 8, 8))
    ((1, 10), (1, 5, 8, 8))
    """
    channels, rows, columns = shape
    return (1, channels) if rows * columns == 1 else (1, *shape)


def result_shape(ending: Sequence[Step], shape: Sizes) -> Sizes:
    """Sizes of one image's output; UserError where a step does not fit.

    >>> result_shape((Step("transpose", sizes=(0, 2, 3, 1)),), (5, 8, 9))
    (1, 8, 9, 5)
    """
    sizes = start(shape)
    for step in ending:
        sizes = step.shape(sizes)
    return sizes


def apply(ending: Sequence[Step], values: np.ndarray) -> np.ndarray:
    """The network's outputs of the last layer's values.

    Args:
        ending: the steps.
        values: float [N, channels, rows, columns] or, of single pixels, [N, channels].

    Returns:
        [N, ...]; an output whose first axis is the batch is joined along it.

    >>> apply((Step("argmax", axis=1, keep=False),), np.array([[1.0, 3.0], [2.0, 0.0]])).tolist()
    [1, 0]
    """
    shape = values.shape[1:] if values.ndim == 4 else (values.shape[1], 1, 1)
    sizes = result_shape(ending, shape)
    found = []
    for image in values:
        x = image.reshape(start(shape))
        for step in ending:
            x = step(x)
        found.append(x)
    batched = sizes[:1] == (1,)
    if not found:
        return np.empty((0, *(sizes[1:] if batched else sizes)))
    return np.concatenate(found) if batched else np.stack(found)


def ending_of(outputs: Sequence[Output]) -> Ending:
    """What the host does where all outputs are of one head, up to the last; of several, nothing.

    >>> ending_of([Output("a", "fc"), Output("b", "fc", (Step("sigmoid"),))])[0].kind
    'sigmoid'
    >>> ending_of([Output("a", "fc"), Output("b", "conv", (Step("sigmoid"),))])
    ()
    """
    one_head = len({output.layer for output in outputs}) == 1
    return max((output.ending for output in outputs), key=len) if one_head else ()


def decides(ending: Sequence[Step], outputs: int) -> bool:
    """Whether a sigmoid's one output says yes or no: two classes."""
    return outputs == 1 and any(step.kind == "sigmoid" for step in ending)


def class_values(ending: Sequence[Step], values: np.ndarray) -> np.ndarray:
    """Values [N, classes] whose largest is the answer, of the last layer's values [N, outputs].

    >>> class_values((Step("sigmoid"),), np.array([[-2], [3]])).argmax(axis=1).tolist()
    [0, 1]
    """
    if not decides(ending, values.shape[1]):
        return values
    return np.concatenate([np.zeros_like(values), values], axis=1)


def describe(ending: Sequence[Step]) -> str:
    """The steps for a reader.

    >>> describe((Step("transpose", sizes=(0, 2, 3, 1)), Step("softmax", axis=3)))
    'transpose (0, 2, 3, 1), softmax along axis 3'
    """
    words = []
    for step in ending:
        along = f" along axis {step.axis}" if step.kind in ALONG else ""
        to = f" {step.sizes}" if step.kind in MOVES else ""
        words.append(step.kind + along + to)
    return ", ".join(words)
