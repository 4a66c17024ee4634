# SPDX-License-Identifier: Apache-2.0
"""What can go wrong on a board: one class per remedy, and run_cli, which prints one sentence."""

from __future__ import annotations

import sys
from collections.abc import Callable


class BoardError(RuntimeError):
    """Base of everything that this package raises; the text says what to do."""


class UserError(BoardError, ValueError):
    """An argument, a file or an option must be another."""


class BundleError(BoardError):
    """A file of the bundle is missing, changed or of another bundle."""


class DesignError(BoardError):
    """The bitstream is not the one that the bundle's parameters were made for."""


class MemoryShortageError(BoardError):
    """The contiguous memory does not hold weights and feature maps."""


class StaleDataError(BoardError):
    """What one side wrote to memory is not what the other side reads."""


class SelfTestError(BoardError):
    """The test images do not give the logits that the integer reference gave."""


class AcceleratorTimeoutError(BoardError):
    """The accelerator did not finish in time.

    Attributes:
        registers: what the registers said, by name.
        layer: the layer that was running, None where it could not be found.
    """

    def __init__(self, message: str, registers: dict[str, int], layer: str | None) -> None:
        super().__init__(message)
        self.registers = registers
        self.layer = layer


def run_cli(main: Callable[[], int]) -> int:
    """Run a command line program; errors print one line `error: ...` on stderr and give 2."""
    try:
        return main()
    except BoardError as error:
        message = str(error)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        message = f"{where}{error.strerror or error}"
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return 2
