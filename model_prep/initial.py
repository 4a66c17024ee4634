# SPDX-License-Identifier: Apache-2.0
"""The command `init`: a settings file for a network, with what is found in its file.

The file has the options that people set first, each with its help; those that keep their default
are comments. A terminal is asked for the few that a file cannot tell.
"""

import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

from nuq.formats import settings
from nuq.formats.build import write_atomic
from nuq.formats.errors import UserError, call
from nuq.formats.folders import numbered
from nuq.formats.hardware import find_board, find_part
from nuq.formats.images import Preprocessing
from nuq.formats.options import Options, default_text, table, value
from nuq.model_prep.networks.spec import IMAGENET
from nuq.model_prep.source import Recipe, Source, open_source

NORMALISATION = ("MEAN", "STD", "SCALE")
RECIPE = (*NORMALISATION, "RESIZE")
CHECK = "check that the network was trained with them"
SHOWN = (
    "NET", "DATA", "IMAGES", *RECIPE, "PRESET", "SCHEME", "BITS", "REFINE", "PLAN", "PART",
    "BOARD", "CLOCK",
)  # written in any case, as comments where they are not set  # fmt: skip
ASKED = ("DATA", "PRESET", "BITS", "BOARD")  # of a terminal, where the command line does not say
SAMPLES = 32  # images read to see whether DATA fits


def write(options: Options) -> Path:
    """Write the settings file of NET, and print what was found; its path.

    Args:
        options: CONFIG names the file, by default NET's name with .toml in the working folder. All
            others that are set go into it.

    Raises:
        UserError: the network, DATA, PART or BOARD cannot be used, or the file exists.
    """
    path = options.config or Path(f"{Path(options.net).stem}.toml")
    if path.exists():
        raise UserError(f"{path} exists already; remove it, or set CONFIG=another name")
    recipe = Recipe(options.mean, options.std, options.scale, options.resize)
    source = open_source(options.net, options.weights, recipe)
    if sys.stdin.isatty() and sys.stdout.isatty():
        options = ask(options, input)
    options = _with_part(options)
    lines = [*described(source, guessed(source, options)), *_described_data(source, options)]
    for line in lines:
        print(line)
    write_atomic(path, text(path, options, source, lines))
    print(f"written: {path}; {call(f'csim CONFIG={path}')} simulates the network with it")
    return path


def ask(options: Options, answer: Callable[[str], str]) -> Options:
    """The options with the answers to what a file cannot tell; an empty one keeps the default.

    Args:
        options: what was given, which is not asked for.
        answer: from a question to what was typed.
    """
    for name in ASKED:
        if getattr(options, name.lower()) != settings.default(name):
            continue
        question = f"{name} ({table()[name][1].help}) [{default_text(name)}]: "
        while typed := answer(question).strip():
            try:
                found = settings.absolute(name, value(name, typed))
                options = replace(options, **{name.lower(): found})
                break
            except UserError as error:
                print(error)
    return options


def _with_part(options: Options) -> Options:
    """PART as BOARD has it, where it is not set; UserError where there is none of that name."""
    find_part(options.part)
    if options.board is None:
        return options
    board = find_board(options.board)
    if options.part == settings.default("PART"):
        options = replace(options, part=board.part.lower())
    return replace(options, board=board.name)


def described(source: Source, unsaid: Sequence[str] = ()) -> list[str]:
    """What was found in a network, in lines: shapes, layers, weights, recipe, notes of the import.

    Shapes are channels x rows x columns; `unsaid`, see `guessed`, are options of the recipe.
    """
    spec, graph = source.spec, source.graph
    shape = "x".join(map(str, spec.in_shape))
    kinds = Counter(layer.kind for layer in graph.layers)
    layers = ", ".join(f"{number} {kind}" for kind, number in kinds.items())
    widths = [layer.name for layer in graph.stored]
    values = sum(prod(head.out_shape) for head in graph.ends)
    found = [
        f"{spec.name}: input {shape}, {values:,} outputs, {len(graph.layers)} layers ({layers}), "
        f"{spec.parameters:,} parameters",
        f"input: {spec.preprocessing.text}",
        *(
            [f"guessed: {', '.join(unsaid)}, which the file does not say; {CHECK}"]
            if unsaid
            else []
        ),
        f"BITS as a list has a width for each of {', '.join(widths)}",
    ]
    return found + [
        f"import: {note}" for note in (source.imported.notes if source.imported else [])
    ]


def _described_data(source: Source, options: Options) -> list[str]:
    """Lines on DATA: labels, sizes, classes; UserError where the network cannot read it."""
    if options.data is None:
        return []
    images = source.spec.reader.load(options.data, SAMPLES)
    labels = "with labels" if images.labelled else "without labels"
    rest = len(images) - images.kept
    sizes = f"{images.kept} of the input's size, taken as they are" if images.kept else ""
    if rest:
        sizes += f"{', ' * bool(sizes)}{rest} resized"
    found = [f"data: {options.data}, {labels}; of the first {len(images)}: {sizes}"]
    if images.classes:
        found.append(f"{len(images.classes)} classes: {numbered(images.classes)}")
    return found


def guessed(source: Source, options: Options) -> list[str]:
    """Options of the recipe that neither the network's file nor the options say."""
    if source.imported is None or source.imported.normalises:
        return []
    return [name for name in NORMALISATION if getattr(options, name.lower()) is None]


def recipe_values(source: Source, options: Options) -> dict[str, Any]:
    """MEAN, STD and SCALE that say what an ONNX file gets without them; else nothing.

    A file that normalises its input itself keeps its own recipe. RESIZE is none of them, as
    pictures of the input's size are resized, too, where it is set.
    """
    if source.imported is None or source.imported.normalises:
        return {}
    found: Preprocessing = source.spec.preprocessing
    named = {"MEAN": found.mean, "STD": found.std}
    values = {name: ",".join(f"{x:.10g}" for x in _short(row)) for name, row in named.items()}
    scale = "1/255" if found.scale == IMAGENET.scale else found.scale
    given = {name: getattr(options, name.lower()) for name in NORMALISATION}
    return {name: given[name] or text for name, text in {**values, "SCALE": scale}.items()}


def _short(row: tuple[float, ...]) -> tuple[float, ...]:
    """One number where all are the same."""
    return row[:1] if len({*row}) == 1 else row


def text(path: Path, options: Options, source: Source, found: list[str]) -> str:
    """The settings file.

    Args:
        path: where it will be, which paths in its folder are relative to.
        options: those that are not the default are set.
        source: the network.
        found: lines for the top of the file.
    """
    recipe, unsaid = recipe_values(source, options), guessed(source, options)
    lines = [part for one in found for part in _comment(one)]
    lines += ["#", *_comment(
        f"{call(f'csim CONFIG={path.name}')}, and so for other commands; the command line wins "
        f'over this file, and "" is the default. {call("help ALL=1")} lists all options.'
    )]  # fmt: skip
    shown = [name for name in SHOWN if source.imported or name not in RECIPE]
    for name in table():
        chosen = recipe.get(name, getattr(options, name.lower()))
        is_set = name == "NET" or chosen != settings.default(name)
        if name == "CONFIG" or not (is_set or name in shown):
            continue
        _, entry, default = table()[name]
        words = f" ({', '.join(entry.choices)})" if entry.choices else ""
        mark = f"; guessed, {CHECK}" if name in unsaid else ""
        lines += ["", *_comment(f"{entry.help}{words}; default: {default_text(name)}{mark}")]
        plain = "" if default is None else default
        line = settings.line(name, _relative(path, chosen) if is_set else plain)
        lines.append(line if is_set else f"# {line}")
    return "\n".join(lines) + "\n"


def _comment(line: str) -> list[str]:
    return textwrap.wrap(line, 100, initial_indent="# ", subsequent_indent="#   ")


def _relative(path: Path, found: Any) -> Any:
    """A path inside the file's folder from there on, so that the folder can be moved."""
    if isinstance(found, (str, Path)) and Path(found).is_absolute():
        folder = path.absolute().parent
        if Path(found).is_relative_to(folder):
            return str(Path(found).relative_to(folder))
    return found
