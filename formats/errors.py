# SPDX-License-Identifier: Apache-2.0
"""The error that a person can act on, and the wrapper that prints it.

Whatever is wrong with what the user gave is a `UserError` with one sentence; anything else is a
fault of the program and keeps its traceback.
"""

import difflib
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

USER_ERROR = 2
BROKEN_PIPE = 141
INTERRUPTED = 130


_program = "nuq"  # that the person at the terminal has called


def called_as(program: str) -> None:
    """Say how commands are to be named in what is printed from now on: "nuq" or "make"."""
    global _program
    _program = program


def program() -> str:
    """What commands are called by: "nuq" or "make"."""
    return _program


def call(words: str) -> str:
    """A command with its options, as one would type it after what was typed now.

    >>> call("csim NET=digits")
    '`nuq csim NET=digits`'
    """
    return f"`{_program} {words}`"


def help_call(command: str) -> str:
    """What lists the options of a command.

    >>> help_call("csim")
    '`nuq csim --help`'
    """
    return call("help ALL=1" if _program == "make" else f"{command} --help")


class UserError(ValueError):
    """Bad input: one sentence, "THING must be RULE, not VALUE; remedy"."""


def meant(word: str, words: Iterable[str]) -> str:
    """ "; did you mean ...?" where one of `words` is close."""
    by_case = {other.lower(): other for other in words}
    near = difflib.get_close_matches(word.lower(), by_case, 1)
    return f"; did you mean {by_case[near[0]]}?" if near else ""


def meant_file(path: Path) -> str:
    """ "; did you mean ...?" where a file beside a missing one has nearly its name."""
    return meant(str(path), map(str, path.parent.glob(f"*{path.suffix}")))


def existing(path: Path, remedy: str) -> Path:
    """`path`; UserError with the remedy where there is none."""
    if not path.exists():
        raise UserError(f"{path} must exist; {remedy}")
    return path


def os_error_text(error: OSError) -> str:
    """One sentence for an error of the operating system, with the path where there is one.

    >>> os_error_text(PermissionError(13, "Permission denied", "/x/y"))
    '/x/y must be accessible, not fail with: Permission denied; check its rights and free space'
    """
    thing = error.filename if error.filename is not None else "a file or connection"
    reason = error.strerror or str(error) or type(error).__name__
    return f"{thing} must be accessible, not fail with: {reason}; check its rights and free space"


def run_cli(main: Callable[[list[str]], int], argv: list[str] | None = None) -> int:
    """Run `main` and turn what a user can mend into `error: ...` and an exit status.

    Args:
        main: takes the arguments, returns an exit status.
        argv: the arguments; default: the process's own.

    Returns:
        What `main` returns; 2 after a UserError or an OSError, 130 after Ctrl-C, 141 where the
        reader of standard output has gone.
    """
    try:
        return main(sys.argv[1:] if argv is None else argv)
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return USER_ERROR
    except BrokenPipeError:
        # Python would complain again when it flushes standard output at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return BROKEN_PIPE
    except OSError as error:
        print(f"error: {os_error_text(error)}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return INTERRUPTED
