# SPDX-License-Identifier: Apache-2.0
"""What a file may ask for: sizes that are refused before anything is allocated, and safe texts."""

from math import prod

from nuq.formats.build import free_memory
from nuq.formats.errors import UserError

MAX_CHANNELS = 1 << 20
MAX_SIDE = 1 << 15  # rows or columns of a feature map
MAX_WINDOW = 1 << 12  # kernel sides, strides, dilations and pads
MAX_CONCAT_PARTS = 4096
MAX_OUTPUTS = 64
MAX_RANK = 16  # axes of a tensor
MAX_FILE_BYTES = (1 << 31) - 1  # of a protobuf message
FLOAT_BYTES = 4
MEMORY_SHARE = 0.7  # of the free memory that one network may take
SHOWN_LENGTH = 60


class Budget:
    """Counts the bytes that a network's constants and feature maps need against the free memory."""

    def __init__(self, free: int | None = None) -> None:
        self.limit = int((free_memory() if free is None else free) * MEMORY_SHARE)
        self._taken = 0

    def check(self, size: int, what: str) -> None:
        """UserError where `size` more bytes do not fit; takes nothing."""
        if self._taken + size > self.limit:
            raise UserError(
                f"{what} must fit the free memory of {self.limit >> 20} MiB, not need "
                f"{_mebibytes(self._taken + size)} MiB; use a machine with more memory"
            )

    def take(self, size: int, what: str) -> None:
        """Take `size` bytes for good; UserError where they do not fit."""
        self.check(size, what)
        self._taken += size


def _mebibytes(size: int) -> str:
    """Mebibytes, without the thousand digits that a hostile file may ask for.

    >>> _mebibytes(3 << 20), _mebibytes(10**40)
    ('3', 'more than 10^12')
    """
    return str(size >> 20) if size >> 20 <= 10**12 else "more than 10^12"


def check_map(shape: tuple[int, int, int], what: str, budget: Budget) -> None:
    """UserError where a feature map [channels, rows, columns] is empty or too large."""
    channels, height, width = shape
    if min(shape) < 1:
        raise UserError(f"{what} must have positive sizes, not {channels}x{height}x{width}")
    if channels > MAX_CHANNELS or max(height, width) > MAX_SIDE:
        raise UserError(
            f"{what} must have at most {MAX_CHANNELS} channels, {MAX_SIDE} rows and columns, "
            f"not {channels}x{height}x{width}"
        )
    budget.check(prod(shape) * FLOAT_BYTES, what)


def shown(text: str, length: int = SHOWN_LENGTH) -> str:
    r"""`text` for a message: printable characters only, cut to `length`.

    >>> shown("conv/1"), shown("a\x1b[2J\nb"), shown("x" * 70)[-5:]
    ('conv/1', 'a?[2J?b', 'xx...')
    """
    cut = text[: length + 1]
    plain = "".join(c if c.isprintable() and not 0xD800 <= ord(c) < 0xE000 else "?" for c in cut)
    return plain if len(text) <= length else plain[: length - 3] + "..."
