# SPDX-License-Identifier: Apache-2.0
"""The console command: `nuq COMMAND NAME=VALUE ...`, from any folder."""

import os
import sys

from nuq import dispatch
from nuq.formats import commands
from nuq.formats.errors import run_cli


def main() -> int:
    """The program; its exit status."""
    return run_cli(lambda words: commands.main(words, dispatch.run, os.environ))


if __name__ == "__main__":
    sys.exit(main())
