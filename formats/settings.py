# SPDX-License-Identifier: Apache-2.0
"""settings.toml of a build: the options that it was made with.

A build keeps them: what a later command leaves out is as before, and one that only uses a build
stops where it is given something else. The file has a line NAME = value for each option that was
set, as on the command line (formats.options), so that one command repeats the build.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nuq.formats.build import write_atomic
from nuq.formats.errors import UserError, call, help_call, meant, meant_file
from nuq.formats.options import Option, table, value

FILE = "settings.toml"
Values = Mapping[str, Any]  # of options by NAME; None: the default
# What shows that a stage has run, by its command.
RESULTS = {"quantize": "quantized/manifest.json", "codegen": "design.json"}
ARRAY = ("PART", "CLOCK", "SIMD", "PE", "PIXELS", "WEIGHT_PORTS", "STAGE")
# What stands in the place of kept options: one of the first, where it is set anew, of the second.
INSTEAD = (
    (("PLAN", "PRESET"), (
        "PLAN", "PRESET", "QM", "SCHEME", "BITS", "RULE", "VARIANT", "WEIGHT_SCHEME",
        "WEIGHT_SCALE", "WEIGHT_BITS", "FC_WEIGHT_SCHEME", "FC_WEIGHT_BITS", "REFINE",
        "DISTIL_STEPS", "SEED",
    )),
    (("ENGINE",), ARRAY),
    (ARRAY, ("ENGINE",)),
)  # fmt: skip


def default(name: str) -> Any:
    """The value of an option that is not set."""
    return table()[name][2]


def absolute(name: str, found: Any) -> Any:
    """An option's value; a path of a file or folder that exists from the root on."""
    kind, entry, _ = table()[name]
    if found is None or not entry.file or not _is_path(entry, str(found)):
        return found
    return kind(Path(found).absolute())  # links stay: what they lead to may have another name


def _is_path(entry: Option, text: str) -> bool:
    """Whether a value is the path of something that exists, and no word such as a network's."""
    path = Path(text)
    return path.exists() and (entry.file == "folder" or bool(path.suffix) or path.name != text)


def read(folder: Path) -> dict[str, Any]:
    """What a build keeps; nothing where there is no file; UserError names a bad line."""
    path = folder / FILE
    return read_file(path) if path.is_file() else {}


def read_file(path: Path) -> dict[str, Any]:
    """The options that a settings file sets, by NAME; None for an empty text, the default.

    A relative path of a file or folder is the one beside the settings file, where there is one.

    Raises:
        UserError: no such file, or a bad line, which is named.
    """
    import tomllib  # not in the Python of older boards, which have no builds

    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"CONFIG must be a settings file, not {path}: {error.strerror}{meant_file(path)}; "
            f"{call('init NET=...')} writes one"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} must be a readable TOML file ({error}); mend or remove it"
        ) from None
    for name in entries:
        if name not in set(table()) - {"CONFIG"}:
            raise UserError(f"{path} must have options, not {name}{meant(name, table())}")
    try:
        return {name: _beside(path, name, text_of(entry)) for name, entry in entries.items()}
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _beside(path: Path, name: str, text: str) -> Any:
    """An option's value; a file or folder beside the settings file `path`, if there is one."""
    if not text:
        return None
    _, entry, _ = table()[name]
    if entry.file and _is_path(entry, str(path.parent / text)):
        text = str(path.parent / text)
    return absolute(name, value(name, text))


def text_of(found: Any) -> str:
    """A value as on the command line; None, the default, is empty.

    >>> text_of(5), text_of([3, 4.5]), text_of(True), text_of(None)
    ('5', '3,4.5', '1', '')
    """
    if isinstance(found, bool):
        return str(int(found))
    if isinstance(found, (list, tuple)):
        return ",".join(map(str, found))
    return "" if found is None else str(found)


def build_of(path: Path) -> Path | None:
    """The build whose own settings file this is; None for a copy, or a file of another kind."""
    folder = path.parent
    if path.name != FILE or not path.is_file():
        return None
    made = any((folder / result).is_file() for result in RESULTS.values())
    named = path.read_text(encoding="utf-8").startswith(_title(folder))
    return folder if made or named else None


def _title(folder: Path) -> str:
    """How the settings file of a build begins."""
    return f"# What {folder.absolute().name} was made with;"


def write(folder: Path, values: Values) -> None:
    """Write the file of a build, in the order of the table; nothing to do where it says so."""
    if read(folder) == dict(values):
        return
    lines = [f"{_title(folder)} {help_call('COMMAND')} says what each option is."]
    for name in table():
        if name in values:
            lines.append(line(name, values[name]))
    write_atomic(folder / FILE, "\n".join(lines) + "\n")


def line(name: str, found: Any) -> str:
    """A line of the file.

    >>> line("BITS", "5"), line("AVERAGE", (3.0, 4.0)), line("QUICK", True)
    ('BITS = "5"', 'AVERAGE = [3.0, 4.0]', 'QUICK = true')
    """
    plain = found if isinstance(found, (bool, int, float, tuple)) else str(found)
    return f"{name} = {json.dumps(plain, ensure_ascii=False)}"


def keep(folder: Path, names: Iterable[str], values: Values) -> None:
    """Store the values of `names` that are not the default; others stay, for the same network."""
    before = read(folder)
    if before.get("NET", default("NET")) != values.get("NET", default("NET")):
        before = {}
    names = set(names)
    others = {name: found for name, found in before.items() if name not in names}
    new = {n: values[n] for n in names if n == "NET" or values.get(n, default(n)) != default(n)}
    write(folder, {**others, **new})


def still(before: Values, given: Values) -> dict[str, Any]:
    """What is kept beside options that are given: nothing of another network."""
    return instead_of(before, given) if same_network(before, given) else {}


def same_network(before: Values, given: Values) -> bool:
    """Whether options that are given leave the network as it was."""
    return "NET" not in given or not _differs("NET", before, given)


def instead_of(before: Values, given: Values) -> dict[str, Any]:
    """What of `before` stands beside options that are given, which may stand for some of it."""
    kept = {name: found for name, found in before.items() if name not in given}
    for new, old in INSTEAD:
        if any(given.get(name) is not None and _differs(name, before, given) for name in new):
            kept = {name: found for name, found in kept.items() if name not in old}
    return kept


def _differs(name: str, before: Values, given: Values) -> bool:
    return bool(_or_default(name, before) != _or_default(name, given))


def _or_default(name: str, values: Values) -> Any:
    found = values.get(name)
    return default(name) if found is None else found


def refuse_others(folder: Path, before: Values, given: Values, names: Iterable[str]) -> None:
    """UserError where an option of `names` is given that the build was not made with."""
    differ = [name for name in names if name in given and _differs(name, before, given)]
    if differ:
        wanted, made = (
            " ".join(word(name, _or_default(name, values)) for name in differ)
            for values in (given, before)
        )
        raise UserError(
            f"{folder} must be used as it was made, with {made}, not with {wanted}; leave that "
            f"out, or run {call('csim')} with it first"
        )


def word(name: str, found: Any) -> str:
    """NAME=value as on the command line.

    >>> word("HLS_STEPS", ("csim", "export")), word("QUICK", True), word("BITS", None)
    ('HLS_STEPS=csim,export', 'QUICK=1', 'BITS not set')
    """
    if found is None:
        return f"{name} not set"
    return f"{name}={text_of(found)}"
