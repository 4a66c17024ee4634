# SPDX-License-Identifier: Apache-2.0
"""`python -m board measure BUNDLE=.`, and the other commands, from an unpacked bundle, too."""

import sys

from formats.commands import main
from formats.errors import run_cli

if __name__ == "__main__":
    sys.exit(run_cli(main))
