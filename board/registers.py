# SPDX-License-Identifier: Apache-2.0
"""The accelerator's registers by name: start, state, arguments, counters.

Offsets come from the .hwh that Vivado writes beside the bitstream, through pynq's register_map;
none is written here. Names follow Vitis HLS (UG1399, "S_AXILITE Control Register Map"): a pointer
of 64 bits is NAME_1 and NAME_2, an array in the interface is Memory_NAME.
"""

import time
import warnings
from typing import Any

from nuq.board.errors import DesignError
from nuq.formats.design import COUNTERS, SCALARS, pointers

STATE = ("AP_START", "AP_DONE", "AP_IDLE", "AP_READY")
BUSY_POLLS = 20  # polls before the first sleep: short calls are not slowed down
POLL_SECONDS = 0.0002
MASK = (1 << 32) - 1


class Registers:
    """Named registers of one IP.

    Args:
        ip: the overlay's IP (pynq.DefaultIP): `register_map`, `mmio`.
        registers: its entry `registers` of ip_dict: name to offset and size.
        weight_ports: how many weight pointers there are.
    """

    def __init__(
        self, ip: Any, registers: dict[str, dict[str, Any]], weight_ports: int = 1
    ) -> None:
        self._mmio = ip.mmio
        with warnings.catch_warnings():
            # register_map leaves out registers of more than 64 bits (the counters) and says so.
            warnings.simplefilter("ignore", UserWarning)
            self._map = ip.register_map
        self._names = set(registers)
        counters = registers.get("Memory_counters", registers.get("counters", {}))
        self._counters = int(counters.get("address_offset", 0))
        self.pointers = pointers(weight_ports)
        self.arguments = (*self.pointers, *SCALARS, "design_id")
        missing = [name for name in self.arguments if not self._parts(name)]
        missing += [] if "CTRL" in registers else ["CTRL"]
        missing += [] if self._names & {"Memory_counters", "counters"} else ["Memory_counters"]
        if missing:
            raise DesignError(
                f"the accelerator's registers must include {', '.join(missing)}, not only "
                f"{', '.join(sorted(registers))}; use the .hwh of the same Vivado project"
            )

    def _parts(self, name: str) -> tuple[str, ...]:
        """Names of the 32-bit registers that hold an argument, lowest bits first."""
        halves = (f"{name}_1", f"{name}_2")
        if name in self.pointers and self._names.issuperset(halves):
            return halves
        return (name,) if name in self._names else ()

    def write(self, name: str, value: int) -> None:
        """Set an argument; a negative value is written as two's complement."""
        for part in self._parts(name):
            setattr(self._map, part, value & MASK)
            value >>= 32

    def read(self, name: str) -> int:
        """An argument or result, unsigned."""
        value = 0
        for place, part in enumerate(self._parts(name)):
            value |= int(getattr(self._map, part)) << (32 * place)
        return value

    def start(self) -> None:
        """Set ap_start."""
        self._map.CTRL.AP_START = 1

    def wait(self, timeout_s: float) -> bool:
        """Wait for ap_done, which reading clears; False where it does not come in time."""
        end = time.monotonic() + timeout_s
        polls = 0
        while not self._map.CTRL.AP_DONE:
            if time.monotonic() > end:
                return False
            polls += 1
            if polls > BUSY_POLLS:
                time.sleep(POLL_SECONDS)
        return True

    def counters(self) -> dict[str, int]:
        """The engine's counters of the last call (docs/formats.md section 7)."""
        values = {}
        for index, name in enumerate(COUNTERS):
            offset = self._counters + 8 * index
            values[name] = self._mmio.read(offset) | self._mmio.read(offset + 4) << 32
        return values

    def dump(self) -> dict[str, int]:
        """What the registers say now, for messages: state bits, arguments, ID."""
        state = {name: int(getattr(self._map.CTRL, name)) for name in STATE}
        return {**state, **{name: self.read(name) for name in self.arguments}}
