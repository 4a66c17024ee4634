# SPDX-License-Identifier: Apache-2.0
"""The Jinja2 environment of every template: C++, Tcl, Verilog and pages."""

from collections.abc import Sequence
from pathlib import Path

import jinja2


def environment(folders: Sequence[Path], autoescape: bool = False) -> jinja2.Environment:
    """Templates of these folders, in order; a missing or misspelt name in one is an error."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(folders),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=autoescape,
    )
