# SPDX-License-Identifier: Apache-2.0
"""The one list of commands: what each does, takes and needs; their command line and its help.

A command is the function of its name in PACKAGE.commands. It takes `Options` and returns an exit
status, or None for 0.
"""

import difflib
import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from nuq.formats import help, settings
from nuq.formats.errors import UserError, call, called_as, help_call, meant, program
from nuq.formats.options import SCHEME_OPTIONS, Options, table, value


@dataclass(frozen=True)
class Command:
    """One command."""

    package: str  # where its function is: PACKAGE.commands, by the command's name
    help: str
    takes: str = ""  # names of GROUPS and of options
    needs: str | None = None  # the command whose result it reads, and whose options it takes, too
    only_with: str | None = None  # the flag without which it needs nothing
    alone: str | None = None  # the NET with which it needs nothing
    uses: bool = False  # takes the build as it is: what differs from its settings is refused
    # options that are no settings of the build where this command takes them
    own: str = ""
    keeps: str = ""  # names of GROUPS: options that become settings of the build
    checks: str | None = (
        None  # a function of PACKAGE.commands that refuses before anything is built
    )


SUBJECT = "NET WEIGHTS DATA MEAN STD SCALE RESIZE"  # what identifies a network and its images
GROUPS: Mapping[str, tuple[str, str]] = {
    "source": ("network and images", "NET CONFIG OUT WEIGHTS DATA MEAN STD SCALE RESIZE QM DELTA"),
    "widths": (
        "quantization",
        f"PRESET SCHEME BITS {SCHEME_OPTIONS} WEIGHT_SCHEME WEIGHT_SCALE "
        "WEIGHT_BITS FC_WEIGHT_SCHEME FC_WEIGHT_BITS "
        "PLAN REFINE DISTIL_STEPS SEED",
    ),
    "allocation": (
        "widths per layer",
        "METHOD AVERAGE METRIC NB POINTS ORDER EXHAUSTIVE CACHE_GB COMPARE_CACHE SCHEDULER "
        "TARGET_DB WEIGHTS_DB RHO KAPPA",
    ),
    "training": ("training", "TEST EPOCHS LR MINIBATCH DISTIL"),
    "design": ("hardware", f"{' '.join(settings.ARRAY)} BATCH FM"),
    "engine": ("an engine", "ENGINE"),
    "simulation": ("C-simulation", "CSIM_TYPES FIRST_LAYERS SANITIZE"),
    "measurement": ("board", "BUNDLE REPEATS CLNQ MEASURE_IMAGES VERBOSE"),
    "units": ("conversion units", "SWEEP SIMULATORS LANES REGISTER RECORD"),
}
NO_SETTINGS = {"OUT", "CONFIG"}  # where settings stand, and where they come from
COMMANDS: Mapping[str, Command] = {
    "quantize": Command(
        "model_prep", "measure the network and write OUT/quantized", "source widths IMAGES"
    ),
    "codegen": Command(
        "codegen", "render the accelerator, pack its weights, write the golden vectors",
        "design engine", "quantize", checks="check_design",
    ),
    "csim": Command(
        "codegen", "compile and run the C-simulation, compare every layer bit for bit",
        "simulation", "codegen",
    ),
    "explore": Command(
        "codegen", "all designs for PART: Pareto front, what bounds each layer, roofline",
        "design LIMIT", "quantize", checks="check_design",
        own="SIMD PE PIXELS WEIGHT_PORTS STAGE FM",
    ),
    "alternatives": Command(
        "codegen", "what two faster compute stages would bring (docs/faster.md)", "CLOCK BATCH",
        "quantize", own="BATCH",
    ),
    "engine": Command(
        "codegen", "render a general engine for PART, for many networks: ENGINE=OUT plans them",
        "CONFIG OUT PART CLOCK SIMD PE PIXELS WEIGHT_PORTS STAGE",
    ),
    "report": Command(
        "codegen", "write report.html again, with the tools' reports", "", "codegen", uses=True
    ),
    "compare": Command(
        "codegen", "builds side by side: settings, widths, accuracy, speed, resources", "A B OUT"
    ),
    "units": Command(
        "codegen.units", "conversion units as Verilog: simulate, prove, synthesize (Yosys)",
        "units design engine", "quantize",
    ),
    "hls": Command(
        "codegen", "Vitis HLS: synthesize the accelerator, reports in OUT/hls_report", "HLS_STEPS",
        "codegen", checks="find_hls", alone="probes", uses=True,
    ),
    "bitstream": Command(
        "codegen", "Vivado: OUT/bitstream for BOARD", "BOARD", "codegen", checks="find_vivado",
        uses=True,
    ),
    "vivado-script": Command(
        "codegen", "the script of bitstream alone", "BOARD", "codegen", uses=True
    ),
    "tools": Command("codegen", "where the programs of hls and bitstream are"),
    "parts": Command("codegen", "list the FPGA parts"),
    "hls-check": Command("codegen", "what of FILES is outside the HLS subset", "FILES"),
    "accuracy": Command(
        "model_prep", "float, integer and (CSIM=1) C-simulation accuracy on DATA",
        "source widths IMAGES CSIM AGAINST", "csim", "csim", own="IMAGES", keeps="source widths",
    ),
    "allocate": Command(
        "model_prep", "find a width per layer; OUT/plan.toml for PLAN=",
        "source widths IMAGES allocation", own="IMAGES BITS PLAN REFINE", keeps=SUBJECT,
    ),
    "refinement": Command(
        "model_prep.study", "every scheme at several average widths, plain and refined",
        "source widths IMAGES AVERAGE SCHEMES", own="IMAGES SCHEME BITS PLAN REFINE", keeps=SUBJECT,
    ),
    "planes": Command(
        "model_prep.study", "widths by plane of 8 channels against widths by layer (docs/plan.md)",
        "source widths IMAGES AVERAGE", own="IMAGES SCHEME BITS PLAN REFINE", keeps=SUBJECT,
    ),
    "study": Command(
        "model_prep.study", "the papers' tables and figures on NET and DATA: OUT/study/report.html",
        "source IMAGES SECTIONS QUICK HEAD SIDE", own="IMAGES", keeps=SUBJECT,
    ),
    "train": Command(
        "model_prep", "train a network that has a recipe here and store its weights",
        "NET CONFIG DATA TEST EPOCHS CHECKPOINT",
    ),
    "finetune": Command(
        "model_prep", "train the quantized network on DATA; OUT/finetuned has WEIGHTS and PLAN",
        "source widths training",
    ),
    "init": Command(
        "model_prep", "write a settings file for NET, to be used with CONFIG=",
        f"{SUBJECT} CONFIG widths IMAGES design BOARD", own="CONFIG",
    ),
    "networks": Command("model_prep", "list the networks"),
    "bundle": Command(
        "board", "write OUT/bundle.zip for a PYNQ board", "BOARD BITSTREAM", "codegen",
        checks="check_options", uses=True,
    ),
    "emulate": Command(
        "board", "run the bundle on the emulated board, compare every logit", "VERBOSE", "codegen",
        uses=True,
    ),
    "measure": Command(
        "board", "accuracy, latency (the model's), memory and DDR traffic on a board",
        "measurement DATA BATCH OUT", "codegen", own="DATA BATCH", checks="check_bundle", uses=True,
    ),
    "notebook": Command(
        "board", "run board/demo.ipynb on the emulated board, keep its outputs", "VERBOSE",
        "codegen", uses=True,
    ),
}  # fmt: skip
# What an option was called before, of one command or of all.
FORMER = {("finetune", "BATCH"): "MINIBATCH", ("", "DISTILL"): "DISTIL"}
ENVIRONMENT_CUTOFF = 0.81  # above the likeness of LINES, which shells set, and LANES


def _names(words: str) -> list[str]:
    """Options that names of GROUPS and of options stand for."""
    return [name for word in words.split() for name in GROUPS.get(word, ("", word))[1].split()]


def taken(command: str) -> tuple[str, ...]:
    """NAMEs of the options that a command takes, those of the commands it needs included."""
    entry = COMMANDS[command]
    before = taken(entry.needs) if entry.needs else ()
    return tuple(dict.fromkeys([*before, *_names(entry.takes)]))


def parse(command: str, words: Sequence[str], lenient: bool = False) -> Options:
    """The options that NAME=VALUE words set, see `read_words`."""
    return _options(read_words(command, words, lenient))


def read_words(command: str, words: Sequence[str], lenient: bool = False) -> dict[str, Any]:
    """The options that NAME=VALUE words set, by NAME; None for an empty value, the default.

    Args:
        command: a name of COMMANDS.
        words: of the command line.
        lenient: leave out options that only other commands take.

    Raises:
        UserError: an unknown name, an option of another command, or a bad value.
    """
    given = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise UserError(f"{word} must be NAME=VALUE; see {help_call(command)}")
        check_name(command, name, lenient)
        if name in taken(command):
            given[name] = settings.absolute(name, value(name, text)) if text else None
    return given


def from_environment(
    command: str, given: Mapping[str, Any], environment: Mapping[str, str]
) -> dict[str, Any]:
    """The options that the environment sets and the command line does not, by NAME.

    Raises:
        UserError: a variable whose name is nearly that of an option, or a bad value.
    """
    for name in environment:
        near = close(name)
        if near and name not in table():
            raise UserError(
                f"the environment must set options by their names, not {name}; did you mean "
                f"{near}? Otherwise `unset {name}`"
            )
    words = [
        f"{n}={environment[n]}" for n in taken(command) if environment.get(n) and n not in given
    ]
    return read_words(command, words)


def close(name: str) -> str | None:
    """The option that a variable of the environment is nearly called; short words in any case.

    >>> close("SCHEM"), close("net"), close("PATH"), close("LANG"), close("a")
    ('SCHEME', 'NET', None, None, None)
    """
    if len(name) > 1 and name.upper() in table():
        return name.upper()
    long = [option for option in table() if len(option) > 3]
    near = difflib.get_close_matches(name.upper(), long, 1, ENVIRONMENT_CUTOFF)
    return near[0] if near else None


def check_name(command: str, name: str, lenient: bool = False) -> None:
    """Refuse, by UserError, a name that is no option of a command."""
    now = FORMER.get((command, name)) or FORMER.get(("", name))
    if now:
        raise UserError(f"{name} of {command} must be written {now} now; set {now}=VALUE")
    if name not in table():
        raise UserError(
            f"{command} must have options that exist, not {name}{meant(name, taken(command))}; "
            f"{help_call(command)} lists them"
        )
    if not lenient and name not in taken(command):
        users = ", ".join(other for other in COMMANDS if name in taken(other))
        raise UserError(f"{name} must go with {users}, not with {command}; leave it out")


def help_text(command: str) -> str:
    """What `nuq COMMAND --help` prints."""
    return help.of_command(command, COMMANDS[command].help, taken(command))


def overview(words: Sequence[str]) -> str:
    """What `nuq help` and `make help` print.

    Args:
        words: ALL=1 for all commands and options, or a command for its own.

    Raises:
        UserError: another word.
    """
    if len(words) == 1 and words[0] in COMMANDS:
        return help_text(words[0])
    if unknown := [word for word in words if word not in ("ALL=0", "ALL=1")]:
        raise UserError(
            f"help must have ALL=1 or a command, not {unknown[0]}{meant(unknown[0], COMMANDS)}"
        )
    texts = {name: entry.help for name, entry in COMMANDS.items()}
    return help.overview(program(), texts, everything="ALL=1" in words)


def module(command: str) -> ModuleType:
    """Where the function of a command is; its package is imported now."""
    return importlib.import_module(f"nuq.{COMMANDS[command].package}.commands")


def function(command: str) -> Callable[[Options], int | None]:
    """The function of a command."""
    found: Callable[[Options], int | None] = getattr(module(command), command.replace("-", "_"))
    return found


@dataclass(frozen=True)
class Request:
    """What a command runs with: what was given, and what its build keeps."""

    options: Options  # of the command
    build: Options  # of the stages that it needs
    kept: Mapping[str, Any]  # what of these was not given


def request(
    command: str, given: Mapping[str, Any], base: Mapping[str, Any] | None = None
) -> Request:
    """What a command runs with: what was given, then what CONFIG says, then what the build keeps.

    Args:
        command: a name of COMMANDS.
        given: for this run, by NAME.
        base: what stands for all commands, as CONFIG does, and before it.

    Raises:
        UserError: it uses a build as it is, which was made with other options.
    """
    entry, names = COMMANDS[command], set(taken(command))
    before: dict[str, Any] = {}
    base = {name: found for name, found in (base or {}).items() if name in names}
    file = settings.instead_of({**from_config(command, {**base, **given}), **base}, given)
    if "CONFIG" not in entry.own:  # it has been read
        given = {name: found for name, found in given.items() if name != "CONFIG"}
    file.pop("CONFIG", None)
    asked = {**file, **given}
    folder = _options(asked).folder
    if {"NET", "OUT"} <= names:
        before = settings.read(folder)
    with_stages = entry.only_with and given.get(entry.only_with)
    own = set() if with_stages else set(entry.own.split())
    build = asked
    if entry.uses and before:
        build = {**file, **{name: found for name, found in given.items() if name not in own}}
        settings.refuse_others(folder, before, build, stored(folder))
    kept = settings.still(before, build)
    mine = {name: found for name, found in {**kept, **file}.items() if name in names - own}
    shown = {**{n: kept[n] for n in kept if n in mine}, **(kept if entry.needs else {})}
    if "OUT" not in asked:  # its name is the network's
        shown.pop("NET", None)
    return Request(_options({**mine, **given}), _options({**kept, **build}), shown)


def from_config(command: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """What the file CONFIG says of the options that a command takes; nothing without one.

    A build's own settings file says OUT, too: that build, unless another network is given.
    """
    path = given.get("CONFIG")
    if path is None or "CONFIG" in COMMANDS[command].own:
        return {}
    found, names = settings.read_file(path), set(taken(command))
    folder = settings.build_of(path) if {"NET", "OUT"} <= names else None
    if folder and settings.same_network(found, given):
        found = {"OUT": folder, **found}
    return {name: value for name, value in found.items() if name in names}


def _options(values: Mapping[str, Any]) -> Options:
    set_ones = {name.lower(): found for name, found in values.items() if found is not None}
    return replace(Options(), **set_ones)


def stored(folder: Path) -> list[str]:
    """Names of the options that what stands in a build's folder was made with."""
    stages = [stage for stage, path in settings.RESULTS.items() if (folder / path).is_file()]
    return [name for name in table() if any(name in kept_by(stage) for stage in stages)]


def kept_by(command: str) -> set[str]:
    """Names of the options that become settings of the build where the command has run."""
    if command in settings.RESULTS:
        return set(taken(command)) - NO_SETTINGS
    return set(_names(COMMANDS[command].keeps)) - NO_SETTINGS


def keep(command: str, options: Options) -> None:
    """Store what a build was made with."""
    names = kept_by(command)
    if names:
        values = {name: getattr(options, name.lower()) for name in names}
        settings.keep(options.folder, names, values)


def say_kept(asked: Request) -> None:
    """One line with what a command takes of the build's settings."""
    if asked.kept:
        words = " ".join(settings.word(name, found) for name, found in asked.kept.items())
        drop = next((f"; {name}= drops {name}" for name in asked.kept if name != "NET"), "")
        file = asked.build.folder / settings.FILE
        print(f"{file}: {words} (kept from this build's last command{drop})")


def alone(command: str, given: Mapping[str, Any]) -> int:
    """Run one command on what is there, without those that it needs."""
    asked = request(command, given)
    say_kept(asked)
    return finish(command, asked.options)


def finish(command: str, options: Options) -> int:
    """Run the function of a command, and store what the build was made with."""
    status = function(command)(options) or 0
    if not status:
        keep(command, options)
    return status


def main(
    words: Sequence[str],
    run: Callable[[str, Mapping[str, Any]], int] = alone,
    environment: Mapping[str, str] | None = None,
) -> int:
    """`COMMAND NAME=VALUE ...`, `COMMAND --help`, or nothing for the list; the exit status.

    Args:
        words: of the command line. `--make` before the command says that make calls, `--several`
            that for several targets, so that options of other commands are left out.
        run: what runs a command.
        environment: variables that set options, too.
    """
    called_as("make" if "--make" in words[:1] else "nuq")
    words = words[1:] if program() == "make" else words
    several = "--several" in words[:1]
    words = words[1:] if several else words
    if not words or words[0] in ("help", "-h", "--help"):
        print(overview(words[1:]))
        return 0
    command, *rest = words
    if command == "--names":  # of variables that make has no use for
        raise UserError(
            f"make must have variables that exist, not {rest[0]}{meant(rest[0], table())}; "
            f"{call('help ALL=1')} lists them"
        )
    if command == "--targets":  # that make does not know, and then its own
        raise UserError(
            f"make must have targets that exist, not {rest[0]}"
            f"{meant(rest[0], [*COMMANDS, *rest[1:]])}; {call('help ALL=1')} lists them"
        )
    if command not in COMMANDS:
        raise UserError(
            f"the command must be one that exists, not {command}{meant(command, COMMANDS)}; "
            f"{call('help ALL=1')} lists them"
        )
    if {"-h", "--help"} & set(rest):
        print(help_text(command))
        return 0
    given = read_words(command, rest, several)
    outside = from_environment(command, given, environment or {})
    if outside:
        said = " ".join(settings.word(name, found) for name, found in outside.items())
        print(f"note: {said} from the environment", file=sys.stderr)
    return run(command, {**outside, **given})
