# SPDX-License-Identifier: Apache-2.0
"""UserError and run_cli: every bad input ends in one sentence on stderr and exit status 2."""

from __future__ import annotations

import sys
from collections.abc import Callable


class UserError(ValueError):
    """Something the user can repair; the text says what must hold, what was found, what to do."""


def run_cli(main: Callable[[], int]) -> int:
    """Run a command line program; return its exit status.

    UserError and OSError (no permission, disk full, missing file) print one line `error: ...` on
    stderr and give 2.
    """
    try:
        return main()
    except UserError as error:
        message = str(error)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        message = f"{where}{error.strerror or error}"
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return 2
