# SPDX-License-Identifier: Apache-2.0
"""`python -m nuq.board measure BUNDLE=.`, and the other commands, from an unpacked bundle, too."""

import sys

from nuq.formats.commands import main
from nuq.formats.errors import run_cli

if __name__ == "__main__":
    sys.exit(run_cli(main))
