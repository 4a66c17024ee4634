# SPDX-License-Identifier: Apache-2.0
"""Runs the rendered Tcl scripts on recording stubs and compares every call with commands.toml.

Needs tclsh (Debian package tcl) or Python's tkinter.
"""

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
WHY_NOT = "needs a Tcl interpreter: tclsh (Debian package tcl) or Python's tkinter (python3-tk)"
TYPES = {
    "integer": re.compile(r"\d+"),
    "number": re.compile(r"-?\d+(\.\d+)?"),
    "offset": re.compile(r"0x[0-9A-Fa-f]{8,16}"),
    "range": re.compile(r"\d+[KMGT]?"),
    "string": re.compile(r".+"),
    "cflags": re.compile(r"(-\S+)(\s+-\S+)*"),
}


@dataclass(frozen=True)
class Call:
    """A recorded command with its arguments, sorted by commands.toml's entry."""

    name: str
    options: dict[str, str]
    operands: tuple[str, ...]
    problems: tuple[str, ...]


def interpreter() -> list[str] | None:
    """Command line of a Tcl interpreter that takes a file; None where there is none."""
    found = shutil.which("tclsh")
    if found:
        return [found]
    if importlib.util.find_spec("_tkinter"):
        program = "import sys, tkinter; tkinter.Tcl().eval('source {%s}' % sys.argv[1])"
        return [sys.executable, "-c", program]
    return None


def load_commands(tool: str) -> dict[str, dict[str, Any]]:
    """The documented commands of "vivado" or "hls"."""
    table: dict[str, dict[str, Any]] = tomllib.loads((HERE / "commands.toml").read_text())[tool]
    if tool == "vivado":
        for entry in table.values():
            entry["flags"] = [*entry.get("flags", ()), "-quiet", "-verbose"]
    return table


def quote(value: object) -> str:
    """A Tcl word or list."""
    if isinstance(value, Mapping):
        value = [part for pair in value.items() for part in pair]
    if isinstance(value, (list, tuple)):
        return "[list " + " ".join(quote(item) for item in value) + "]"
    return '"' + re.sub(r'(["\\$\[\]])', r"\\\1", str(value)) + '"'


@dataclass(frozen=True)
class Run:
    """What a script did: exit status, what it printed, its calls."""

    status: int
    output: str
    calls: tuple[Call, ...]

    def named(self, name: str) -> list[Call]:
        """Calls of one command."""
        return [call for call in self.calls if call.name == name]

    def problems(self) -> list[str]:
        """Calls that are not as documented, and a script that did not end well."""
        found = [f"{call.name}: {text}" for call in self.calls for text in call.problems]
        if self.status != 0:
            found.append(f"exit status {self.status}: {self.output.strip()}")
        return found


# What a script of Vitis HLS must set before it synthesizes: command, operands, options.
SETTINGS = (
    # routing's part of the period, which the check of the estimated clock takes off
    ("set_clock_uncertainty", ("27%",), {}),
    # a region that is not canonical ends the run
    ("config_dataflow", (), {"-strict_mode": "error"}),
    # a pipeline that waits lets go of what is done
    ("config_compile", (), {"-pipeline_style": "flp"}),
    # shift registers for streams, as the planner counts them
    ("config_storage", ("fifo",), {"-impl": "srl"}),
)


def missing_settings(run: Run) -> list[str]:
    """Settings that a synthesis of a run goes without."""
    found, given = [], list[Call]()
    for call in run.calls:
        if call.name == "open_solution":
            given = []  # they are the solution's
        elif call.name == "csynth_design":
            found += [
                f"{name} must be {' '.join(map(str, (*operands, *options.items())))}"
                for name, operands, options in SETTINGS
                if not any(c.name == name and c.operands == operands and c.options == options
                           for c in given)
            ]  # fmt: skip
        else:
            given.append(call)
    return found


def run_script(
    script: Path,
    tool: str,
    folder: Path,
    settings: Mapping[str, object],
    environment: dict[str, str],
) -> Run:
    """Run a rendered script on the stubs.

    Args:
        script: the Tcl file.
        tool: "vivado" or "hls".
        folder: for the harness's files.
        settings: pins, answers, segments of harness.tcl.
        environment: variables of the script.
    """
    commands = load_commands(tool)
    calls = folder / "calls.txt"
    given = {"pins": {}, "answers": {}, "segments": {}, **settings}
    given |= {"script": str(script), "calls": str(calls), "commands": sorted(commands)}
    lines = [f"set {name} {quote(value)}" for name, value in given.items()]
    start = folder / "start.tcl"
    start.write_text("\n".join([*lines, f"source {quote(HERE / 'harness.tcl')}"]) + "\n")
    done = subprocess.run(
        [*(interpreter() or ()), str(start)],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    recorded = [line.split("\x1f") for line in calls.read_text().splitlines()]
    sorted_calls = (sort_call(name, args, commands) for name, *args in recorded if name != "exit")
    return Run(done.returncode, done.stdout + done.stderr, tuple(sorted_calls))


def sort_call(name: str, arguments: list[str], commands: Mapping[str, dict[str, Any]]) -> Call:
    """Options and operands of a call, and what is wrong with them."""
    entry = commands[name]
    values = entry.get("values", {})
    options: dict[str, str] = {}
    operands, problems = [], []
    rest = iter(arguments)
    for word in rest:
        if word in entry.get("flags", ()):
            options[word] = ""
        elif word in values:
            options[word] = next(rest, "")
            problem = check_type(options[word], values[word])
            if problem:
                problems.append(f"{word} {problem}")
        elif re.match(r"-[A-Za-z]", word):
            problems.append(f"has no option {word}")
        else:
            operands.append(word)
    lowest, highest = entry.get("positional", (0, 0))
    count = len(operands)
    if name == "set_property" and "-dict" not in options:
        lowest = 3
    if count < lowest or 0 <= highest < count or "" in operands:
        problems.append(f"has {count} arguments: {operands}")
    return Call(name, options, tuple(operands), tuple(problems))


def check_type(value: str, kind: str) -> str | None:
    """What is wrong with an option's value."""
    if kind == "pairs":
        words = tcl_words(value)
        return None if words and len(words) % 2 == 0 else f"must be pairs, not {value}"
    if kind in TYPES:
        return None if TYPES[kind].fullmatch(value) else f"must be {kind}, not {value!r}"
    return None if value in kind.split("|") else f"must be one of {kind}, not {value!r}"


def tcl_words(text: str) -> list[str]:
    """The words of a Tcl list without nested lists."""
    return shlex.split(text.replace("{", '"').replace("}", '"'))


def pairs(text: str) -> dict[str, str]:
    """A list of names and values."""
    words = tcl_words(text)
    return dict(zip(words[::2], words[1::2], strict=False))


def is_ordered(calls: Iterable[Call], names: Iterable[str]) -> bool:
    """Whether commands of these names occur in this order."""
    rest = iter(calls)
    return all(any(call.name == name for call in rest) for name in names)
