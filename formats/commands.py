# SPDX-License-Identifier: Apache-2.0
"""The one list of commands: what each does, takes and needs; their command line and its help.

A command is the function of its name in PACKAGE.commands. It takes `Options` and returns an exit
status, or None for 0.
"""

import importlib
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import ModuleType

from formats.errors import UserError
from formats.options import SCHEME_OPTIONS, Options, default_text, meant, table, value


@dataclass(frozen=True)
class Command:
    """One command."""

    package: str  # where its function is: PACKAGE.commands, by the command's name
    help: str
    takes: str = ""  # names of GROUPS and of options
    needs: str | None = None  # the command whose result it reads, and whose options it takes, too
    only_with: str | None = None  # the flag without which it needs nothing
    alone: str | None = None  # the NET with which it needs nothing
    checks: str | None = (
        None  # a function of PACKAGE.commands that refuses before anything is built
    )


GROUPS: Mapping[str, tuple[str, str]] = {
    "source": ("network and images", "NET OUT WEIGHTS DATA MEAN STD SCALE RESIZE QM DELTA"),
    "widths": (
        "quantization",
        f"PRESET SCHEME BITS {SCHEME_OPTIONS} WEIGHT_SCHEME WEIGHT_SCALE "
        "WEIGHT_BITS FC_WEIGHT_SCHEME FC_WEIGHT_BITS "
        "PLAN REFINE DISTIL_STEPS",
    ),
    "allocation": (
        "widths per layer",
        "METHOD AVERAGE METRIC NB POINTS ORDER EXHAUSTIVE CACHE_GB COMPARE_CACHE SCHEDULER "
        "TARGET_DB WEIGHTS_DB RHO KAPPA",
    ),
    "training": ("training", "TEST EPOCHS LR MINIBATCH DISTIL SEED"),
    "design": ("hardware", "PART CLOCK SIMD PE PIXELS WEIGHT_PORTS STAGE FM"),
    "engine": ("an engine", "ENGINE"),
    "simulation": ("C-simulation", "CSIM_TYPES FIRST_LAYERS SANITIZE"),
    "measurement": ("board", "BUNDLE REPEATS CLNQ BATCH MEASURE_IMAGES VERBOSE"),
    "units": ("conversion units", "SWEEP SIMULATORS LANES REGISTER RECORD"),
}
COMMANDS: Mapping[str, Command] = {
    "quantize": Command(
        "model_prep", "measure the network and write OUT/quantized", "source widths IMAGES"
    ),
    "codegen": Command(
        "codegen", "render the accelerator, pack its weights, write the golden vectors",
        "design engine", "quantize",
    ),
    "csim": Command(
        "codegen", "compile and run the C-simulation, compare every layer bit for bit",
        "simulation", "codegen",
    ),
    "explore": Command(
        "codegen", "all designs for PART: Pareto front, what bounds each layer, roofline",
        "design BATCH LIMIT", "quantize",
    ),
    "alternatives": Command(
        "codegen", "what two faster compute stages would bring (docs/faster.md)", "CLOCK BATCH",
        "quantize",
    ),
    "engine": Command(
        "codegen", "render a general engine for PART, for many networks: ENGINE=OUT plans them",
        "OUT PART CLOCK SIMD PE PIXELS WEIGHT_PORTS STAGE",
    ),
    "report": Command("codegen", "write report.html again, with the tools' reports", "", "codegen"),
    "units": Command(
        "codegen.units", "conversion units as Verilog: simulate, prove, synthesize (Yosys)",
        "units", "quantize",
    ),
    "hls": Command(
        "codegen", "Vitis HLS: synthesize the accelerator, reports in OUT/hls_report", "HLS_STEPS",
        "codegen", checks="find_hls", alone="probes",
    ),
    "bitstream": Command(
        "codegen", "Vivado: OUT/bitstream for BOARD", "BOARD", "codegen", checks="find_vivado"
    ),
    "vivado-script": Command("codegen", "the script of bitstream alone", "BOARD", "codegen"),
    "tools": Command("codegen", "where the programs of hls and bitstream are"),
    "parts": Command("codegen", "list the FPGA parts"),
    "hls-check": Command("codegen", "what of FILES is outside the HLS subset", "FILES"),
    "accuracy": Command(
        "model_prep", "float, integer and (CSIM=1) C-simulation accuracy on DATA",
        "source widths IMAGES CSIM AGAINST", "csim", "csim",
    ),
    "allocate": Command(
        "model_prep", "find a width per layer; OUT/plan.toml for PLAN=",
        "source widths IMAGES allocation",
    ),
    "refinement": Command(
        "model_prep.study", "every scheme at several average widths, plain and refined",
        "source widths IMAGES AVERAGE SCHEMES",
    ),
    "study": Command(
        "model_prep.study", "the papers' tables and figures on NET and DATA: OUT/study/report.html",
        "source IMAGES SECTIONS QUICK",
    ),
    "train": Command(
        "model_prep", "train a network that has a recipe here and store its weights",
        "NET DATA TEST EPOCHS CHECKPOINT",
    ),
    "finetune": Command(
        "model_prep", "train the quantized network on DATA; OUT/finetuned has WEIGHTS and PLAN",
        "source widths training",
    ),
    "networks": Command("model_prep", "list the networks"),
    "bundle": Command(
        "board", "write OUT/bundle.zip for a PYNQ board", "BOARD BITSTREAM", "codegen"
    ),
    "emulate": Command(
        "board", "run the bundle on the emulated board, compare every logit", "VERBOSE", "codegen"
    ),
    "measure": Command(
        "board", "accuracy, latency (the model's), memory and DDR traffic on a board",
        "measurement DATA OUT", "codegen",
    ),
    "notebook": Command(
        "board", "run board/demo.ipynb on the emulated board, keep its outputs", "VERBOSE",
        "codegen",
    ),
}  # fmt: skip
# What an option was called before, of one command or of all.
FORMER = {("finetune", "BATCH"): "MINIBATCH", ("", "DISTILL"): "DISTIL"}


def taken(command: str) -> tuple[str, ...]:
    """NAMEs of the options that a command takes, those of the commands it needs included."""
    entry = COMMANDS[command]
    words = [
        name for word in entry.takes.split() for name in GROUPS.get(word, ("", word))[1].split()
    ]
    return tuple(dict.fromkeys([*(taken(entry.needs) if entry.needs else ()), *words]))


def parse(command: str, words: Sequence[str], lenient: bool = False) -> Options:
    """The options that NAME=VALUE words set; an empty value is the default.

    Args:
        command: a name of COMMANDS.
        words: of the command line.
        lenient: leave out options that only other commands take.

    Raises:
        UserError: an unknown name, an option of another command, or a bad value.
    """
    values = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise UserError(f"{word} must be NAME=VALUE; see nuq {command} --help")
        check_name(command, name, lenient)
        if text and name in taken(command):
            values[name.lower()] = value(name, text)
    return replace(Options(), **values)


def check_name(command: str, name: str, lenient: bool = False) -> None:
    """Refuse, by UserError, a name that is no option of a command."""
    now = FORMER.get((command, name)) or FORMER.get(("", name))
    if now:
        raise UserError(f"{name} of {command} must be written {now} now; set {now}=VALUE")
    if name not in table():
        raise UserError(
            f"{command} must have options that exist, not {name}{meant(name, taken(command))}; "
            f"nuq {command} --help lists them"
        )
    if not lenient and name not in taken(command):
        users = ", ".join(other for other in COMMANDS if name in taken(other))
        raise UserError(f"{name} must go with {users}, not with {command}; leave it out")


def help_text(command: str) -> str:
    """What `nuq COMMAND --help` prints."""
    entry = COMMANDS[command]
    lines = [f"nuq {command} NAME=VALUE ...", "", f"    {entry.help}", ""]
    lines += [_option_help(name) for name in taken(command)]
    return "\n".join(lines)


def _option_help(name: str) -> str:
    _, entry, _ = table()[name]
    words = f" ({', '.join(entry.choices)})" if entry.choices else ""
    text = f"{entry.help}{words}; default: {default_text(name)}"
    return textwrap.fill(text, 100, initial_indent=f"{name:<18}", subsequent_indent=" " * 18)


def overview(program: str) -> str:
    """What `nuq` and `make` print: a line a command, and the names of the options.

    Args:
        program: "nuq" or "make".
    """
    lines = [f"  {program} {name:<14} {entry.help}" for name, entry in COMMANDS.items()]
    names = textwrap.wrap(" ".join(table()), 98, initial_indent="  ", subsequent_indent="  ")
    return "\n".join([*lines, "Options, as NAME=VALUE:", *names])


def module(command: str) -> ModuleType:
    """Where the function of a command is; its package is imported now."""
    return importlib.import_module(f"{COMMANDS[command].package}.commands")


def function(command: str) -> Callable[[Options], int | None]:
    """The function of a command."""
    found: Callable[[Options], int | None] = getattr(module(command), command.replace("-", "_"))
    return found


def alone(command: str, options: Options) -> int:
    """Run one command on what is there, without those that it needs."""
    return function(command)(options) or 0


def main(words: Sequence[str], run: Callable[[str, Options], int] = alone) -> int:
    """`COMMAND NAME=VALUE ...`, `COMMAND --help`, or nothing for the list; the exit status.

    Args:
        words: of the command line. `--make` before the command says that make calls: one call may
            have several targets, so that options of other commands are left out.
        run: what runs a command.
    """
    program = "make" if "--make" in words[:1] else "nuq"
    words = words[1:] if program == "make" else words
    if not words or words[0] in ("help", "-h", "--help"):
        print(overview(program))
        return 0
    command, *rest = words
    if command not in COMMANDS:
        raise UserError(
            f"the command must be one that exists, not {command}{meant(command, COMMANDS)}; "
            "nuq help lists them"
        )
    if {"-h", "--help"} & set(rest):
        print(help_text(command))
        return 0
    return run(command, parse(command, rest, lenient=program == "make"))
