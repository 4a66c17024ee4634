# SPDX-License-Identifier: Apache-2.0
"""Clocks that a processing system can make for the fabric: a PLL divided by two integers.

UG585 "Clocks" (FCLK) and UG1085 "PS Clock Subsystem" (PL_REF): both dividers have 6 bits.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from nuq.formats.errors import UserError

LARGEST_DIVIDER = 63
TOLERANCE = 1e-4  # of the frequency: oscillators are given as 33.333 MHz, quotients by six digits


@dataclass(frozen=True)
class Clock:
    """A clock that is made."""

    pll: str  # by its name in the processing system's settings
    mhz: float

    def is_close(self, mhz: float) -> bool:
        """Whether a figure means this clock."""
        return abs(self.mhz - mhz) <= TOLERANCE * self.mhz


DIVISORS = sorted({a * b for a in range(1, LARGEST_DIVIDER + 1) for b in range(1, a + 1)})


def make_clock(plls: Mapping[str, float], wanted_mhz: float) -> Clock:
    """The fastest clock of at most `wanted_mhz`; of equals that of the first PLL.

    Raises:
        UserError: even the largest divisors leave it too fast.

    >>> make_clock({"IO PLL": 1000, "DDR PLL": 1050}, 150)
    Clock(pll='DDR PLL', mhz=150.0)
    >>> make_clock({"IO PLL": 1000}, 150)
    Clock(pll='IO PLL', mhz=142.857143)
    """
    limit = wanted_mhz * (1 + TOLERANCE)
    made = [
        Clock(name, round(mhz / divisor, 6))
        for name, mhz in plls.items()
        for divisor in DIVISORS
        if mhz / divisor <= limit
    ]
    if not made:
        raise UserError(f"CLOCK must be one that a PLL can be divided to, not {wanted_mhz:g} MHz")
    return max(made, key=lambda clock: clock.mhz)
