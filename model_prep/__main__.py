# SPDX-License-Identifier: Apache-2.0
"""`python -m nuq.model_prep COMMAND NAME=VALUE ...`: one command alone, on what is there."""

import sys

from nuq.formats.commands import main
from nuq.formats.errors import run_cli

if __name__ == "__main__":
    sys.exit(run_cli(main))
