# SPDX-License-Identifier: Apache-2.0
"""`python -m codegen`."""

from __future__ import annotations

import sys

from codegen.cli import main
from formats.errors import run_cli

sys.exit(run_cli(main))
