# SPDX-License-Identifier: Apache-2.0
"""The command `units` (formats.commands)."""

from __future__ import annotations

from codegen.units.make import Settings, make, record
from codegen.units.sweep import SWEEPS
from formats.options import Options


def units(options: Options) -> int:
    """Render, simulate, prove and synthesize the conversion units; 1 where one differs."""
    if options.record:
        record(SWEEPS[options.sweep], options.folder.parent)
    return make(
        Settings(options.folder, options.sweep, options.simulators, options.lanes, options.register)
    )
