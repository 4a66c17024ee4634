# SPDX-License-Identifier: Apache-2.0
"""`python -m model_prep`; the program is `model_prep.cli`."""

from __future__ import annotations

import sys

from formats.errors import run_cli
from model_prep.cli import main

if __name__ == "__main__":
    sys.exit(run_cli(main))
