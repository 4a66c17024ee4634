# SPDX-License-Identifier: Apache-2.0
"""`Activation`: the function of one number between what a layer sums up and what it stores.

A ReLU is the lower limit of y (docs/formats.md 2.3), with any quantizer. Every other function is in
the codebook: thresholds are on y, in front of it, centroids are values behind it. No arithmetic
reads it then; it says what the tables stand for.
"""

from dataclasses import dataclass, field
from typing import Annotated

from nuq.formats.schema import Limits


@dataclass(frozen=True)
class Activation:
    """A function and its parameters, those of `model_prep.activations`."""

    function: Annotated[str, Limits(pattern="^[a-z][a-z0-9_]*$")]
    parameters: dict[str, float] = field(default_factory=dict)

    @property
    def rectifies(self) -> bool:
        """Whether it is a ReLU, which needs no table."""
        return self.function == "relu"

    @property
    def key(self) -> tuple[object, ...]:
        """Equal of equal functions."""
        return (self.function, *sorted(self.parameters.items()))

    def __str__(self) -> str:
        """As in a message.

        >>> str(Activation("leaky_relu", {"alpha": 0.1})), str(Activation("tanh"))
        ('leaky_relu(alpha=0.1)', 'tanh')
        """
        given = ", ".join(f"{name}={value:g}" for name, value in self.parameters.items())
        return f"{self.function}({given})" if given else self.function


RELU = Activation("relu")
