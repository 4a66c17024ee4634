# SPDX-License-Identifier: Apache-2.0
"""What runs a command: each after the stages that it needs, in a build that no other run changes.

What a command needs is made first, where inputs, options or sources have changed since: beside
each result lies OUT/COMMAND.stamp, a digest over all of them and the result's own date.
"""

import fcntl
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from nuq.formats import commands
from nuq.formats.build import is_current, write_atomic
from nuq.formats.commands import COMMANDS, Request, function, taken
from nuq.formats.errors import UserError
from nuq.formats.options import Options, table

ROOT = Path(__file__).parent
# What a stage writes, and the folders of what makes it.
STAGES = {
    "quantize": (("quantized",), ("formats", "model_prep")),
    "codegen": (
        ("hls", "params", "golden", "design.json", "report.json"),
        ("formats", "codegen", "hls_templates"),
    ),
}
# What in those folders changes no result, and the file that later commands add to.
OTHERS = {"__pycache__", "study", "units", "xilinx", "hls_check", "rtl", "vivado", "report.json"}


def dates(path: Path) -> Iterator[tuple[str, int, int]]:
    """(name, bytes, time of change) of a file, or of every file in a folder, in one order."""
    if path.is_dir():
        for item in sorted(path.iterdir()):
            if item.name not in OTHERS:
                yield from dates(item)
    elif path.is_file():
        status = path.stat()
        yield str(path), status.st_size, status.st_mtime_ns


def state(stage: str, options: Options) -> str:
    """A digest over all that a stage's result depends on, and over the date of the result."""
    _, folders = STAGES[stage]
    known, names = table(), [name for name in taken(stage) if name != "OUT"]
    values = {name: getattr(options, name.lower()) for name in names}
    paths = [ROOT / folder for folder in folders]
    paths += [Path(values[name]) for name in names if known[name][1].file and values[name]]
    results = [name for other in needed(stage) for name in STAGES[other][0]]
    paths += [options.folder / name for name in results if name not in OTHERS]
    listing: list[Any] = [values, [list(dates(path)) for path in paths]]
    return hashlib.sha256(json.dumps(listing, default=str).encode()).hexdigest()


def needed(command: str, options: Options | None = None) -> list[str]:
    """A command and those that it needs, the first to run first."""
    entry = COMMANDS[command]
    idle = options and (
        (entry.only_with and not getattr(options, entry.only_with)) or entry.alone == options.net
    )
    return [*(needed(entry.needs, options) if entry.needs and not idle else []), command]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other runs from a build until this one has ended (make -j, two shells).

    Folders that are made for it go again where nothing has been put into them.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    handle = _lock(folder)
    try:
        yield
    finally:
        for path in made:
            with suppress(OSError):  # of one that is not empty
                path.rmdir()
        os.close(handle)


def _lock(folder: Path) -> int:
    """A handle of the folder, made where there is none, that no other process has locked."""
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK) or not folder.is_dir():
        raise UserError(
            f"the output folder must be writable, not {str(folder)!r}; set OUT=another folder"
        )
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"note: {folder} is in use; waiting for that run to end", file=sys.stderr)
        fcntl.flock(handle, fcntl.LOCK_EX)
    if folder.exists() and os.path.samestat(os.fstat(handle), folder.stat()):
        return handle
    os.close(handle)  # of a folder that the run before has removed
    return _lock(folder)


@contextmanager
def said_time(name: str) -> Iterator[None]:
    """One line with the seconds that a stage has taken, where people have waited for it."""
    start = time.monotonic()
    yield
    if (seconds := time.monotonic() - start) >= 1:
        print(f"{name}: {seconds:.0f} s")


def run_stage(stage: str, options: Options) -> bool:
    """Make a stage's result; False where it was up to date."""
    results, _ = STAGES[stage]
    stamp = options.folder / f"{stage}.stamp"
    if is_current(stamp, state(stage, options), [options.folder / name for name in results]):
        return False
    stamp.unlink(missing_ok=True)
    with said_time(stage):
        function(stage)(options)
    write_atomic(stamp, state(stage, options))
    return True


def run(command: str, given: Mapping[str, Any], base: Mapping[str, Any] | None = None) -> int:
    """Run a command after what it needs; its exit status. `base`: see `commands.request`."""
    asked = commands.request(command, given, base)
    check(command, asked)
    if not {"NET", "OUT"} <= set(taken(command)) or COMMANDS[command].alone == asked.options.net:
        return commands.finish(command, asked.options)
    with locked(asked.build.folder):
        # What the build keeps may have changed while another run had it.
        return run_locked(command, commands.request(command, given, base))


def check(command: str, asked: Request) -> None:
    """Refuse, by UserError, what cannot come to an end, before anything is made."""
    for name in needed(command, asked.options):
        if checks := COMMANDS[name].checks:
            options = asked.options if name == command else asked.build
            getattr(commands.module(name), checks)(options)


def say_calibration(folder: Path) -> None:
    """One line: what the tables that are there were measured on; and a warning if that is due."""
    from nuq.formats.basis import calibration_text, warning_of
    from nuq.formats.images import Preprocessing
    from nuq.formats.network import read_manifest

    manifest = read_manifest(folder / "quantized")
    print(calibration_text(manifest["calibration"]))
    if warning := warning_of(manifest, Preprocessing(**manifest["input"]["preprocessing"]).text):
        print(warning, file=sys.stderr)


def say_design(folder: Path) -> None:
    """One line: speed and resources of the design that is there."""
    from nuq import results

    found = results.report(folder)
    print(f"{found.title}: {found.facts['speed']}; estimated: {found.facts['resources']}")


def run_locked(command: str, asked: Request) -> int:
    """Run a command after what it needs, in a folder that no other run changes."""
    commands.say_kept(asked)
    *before, last = needed(command, asked.options)
    for name in (*before, last):
        options = asked.options if name == last else asked.build
        if name in STAGES:
            made = run_stage(name, options)
            if not made and name == "quantize":
                say_calibration(options.folder)
            if not made and name == "codegen":
                say_design(options.folder)
            if not made and name == command:
                print(f"{options.folder}: {name} is up to date")
            commands.keep(name, options)
        else:
            with said_time(name):
                status = commands.finish(name, options)
            if status:
                return status
    if command == "accuracy":
        refresh_report(asked.build)
    return 0


def refresh_report(options: Options) -> None:
    """Write the report of a build again, with its accuracy, where it is of the same network."""
    from nuq.formats.network import read_manifest

    path = options.folder / "report.json"
    if not path.is_file():
        return
    arrays = read_manifest(options.folder / "quantized")["arrays_sha256"]
    if is_current(path, arrays):
        function("report")(options)
