# SPDX-License-Identifier: Apache-2.0
"""What `make help`, `nuq help` and `nuq COMMAND --help` print, from the tables of options."""

import textwrap
from collections.abc import Iterable, Mapping

from nuq.formats.options import default_text, table

# The first screen: what takes a network of one's own to a board, and the variables that it takes.
FIRST_COMMANDS = (
    "init codegen csim accuracy allocate explore finetune study bundle emulate measure hls "
    "bitstream"
)
FIRST_OPTIONS = "NET CONFIG DATA IMAGES PRESET SCHEME BITS PART BOARD OUT"
WIDTH = 100


def of_command(name: str, text: str, options: Iterable[str]) -> str:
    """What `nuq COMMAND --help` prints.

    Args:
        name: of the command.
        text: what it does.
        options: NAMEs of those that it takes.
    """
    return "\n".join([f"nuq {name} NAME=VALUE ...", "", f"    {text}", "", *map(_option, options)])


def _option(name: str) -> str:
    """An option with its help, its words and its default."""
    _, entry, _ = table()[name]
    words = f" ({', '.join(entry.choices)})" if entry.choices else ""
    text = f"{entry.help}{words}; default: {default_text(name)}"
    return textwrap.fill(text, WIDTH, initial_indent=f"{name:<18}", subsequent_indent=" " * 18)


def overview(program: str, commands: Mapping[str, str], everything: bool = False) -> str:
    """What `nuq help` and `make help` print.

    Args:
        program: "nuq" or "make".
        commands: what each does, by its name.
        everything: all commands and options instead of those that people need first.
    """
    names = commands if everything else FIRST_COMMANDS.split()
    options = table() if everything else FIRST_OPTIONS.split()
    lines = [f"{program} COMMAND NAME=VALUE ..., as in: {program} csim NET=vgg16 BITS=5", ""]
    lines += [f"  {program} {name:<14} {commands[name]}" for name in names]
    lines += ["", "Options, as NAME=VALUE:", *map(_option, options), ""]
    if not everything:
        lines.append(f"All commands and options: {program} help ALL=1")
        lines.append("From a network of your own to a board, step by step: docs/tutorial.md")
    one = "nuq" if program == "nuq" else ".venv/bin/python -m nuq"  # as --help is make's own
    return "\n".join([*lines, f"Those of one command: {one} COMMAND --help"])
