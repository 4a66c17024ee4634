# SPDX-License-Identifier: Apache-2.0
"""What can go wrong on a board: one class per remedy; the text says what to do."""

from nuq.formats.errors import UserError


class BundleError(UserError):
    """A file of the bundle is missing, changed or of another bundle."""


class DesignError(UserError):
    """The bitstream is not the one that the bundle's parameters were made for."""


class MemoryShortageError(UserError):
    """The contiguous memory does not hold weights and feature maps."""


class StaleDataError(UserError):
    """What one side wrote to memory is not what the other side reads."""


class SelfTestError(UserError):
    """The test images do not give the logits that the integer reference gave."""


class AcceleratorTimeoutError(UserError):
    """The accelerator did not finish in time.

    Attributes:
        registers: what the registers said, by name.
        layer: the layer that was running, None where it could not be found.
    """

    def __init__(self, message: str, registers: dict[str, int], layer: str | None) -> None:
        super().__init__(message)
        self.registers = registers
        self.layer = layer
