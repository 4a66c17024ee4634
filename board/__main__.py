# SPDX-License-Identifier: Apache-2.0
"""Entry point of `python -m board`."""

import sys

from board.cli import main
from formats.errors import run_cli

if __name__ == "__main__":
    sys.exit(run_cli(main))
