# SPDX-License-Identifier: Apache-2.0
"""Files and folders that appear whole or not at all, and only where what they depend on changed.

Everything is written under a temporary name in the same folder and then renamed. A digest over
settings and files, stored beside a result, says whether it is up to date.
"""

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nuq.formats.errors import UserError, os_error_text

_MESSAGE_LINES = 40
_BLOCK = 1 << 20
PROGRAM = Path(__file__).resolve().parents[1]


def _sibling(path: Path, suffix: str) -> Path:
    """A hidden name beside `path` that no other running process uses."""
    return path.with_name(f".{path.name}.{os.getpid()}.{suffix}")


@contextmanager
def _as_user_error() -> Iterator[None]:
    """Report an error of the operating system as one sentence that names the path."""
    try:
        yield
    except OSError as error:
        raise UserError(os_error_text(error)) from error


@contextmanager
def atomic_file(path: Path | str) -> Iterator[Path]:
    """Write a file aside and put it in the place of `path` when the block ends well.

    Yields:
        The path to write. If the block raises, it is removed and `path` stays as it was.

    Raises:
        UserError: the operating system refuses.
    """
    path = Path(path)
    temporary = _sibling(path, "tmp")
    with _as_user_error():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_atomic(path: Path | str, content: str | bytes) -> None:
    """Write bytes, or text as UTF-8, making the folder; UserError if that is not possible."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def atomic_dir(path: Path | str) -> Iterator[Path]:
    """Build a folder aside and put it in the place of `path` when the block ends well.

    Where `path` is a link, the folder that it leads to is the one replaced.

    Yields:
        The folder to write into. If the block raises, it is removed and `path` stays as it was.

    Raises:
        UserError: `path` is a file, or the operating system refuses.
    """
    path = Path(path).resolve()
    temporary, previous = _sibling(path, "tmp"), _sibling(path, "old")
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} must be a folder, not a file; remove it or choose another")
    with _as_user_error():
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
    try:
        yield temporary
        with _as_user_error():
            _swap(path, temporary, previous)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(previous, ignore_errors=True)


def _swap(path: Path, new: Path, previous: Path) -> None:
    """Rename `new` to `path`; what `path` was becomes `previous`, or comes back on failure."""
    replaced = path.exists()
    if replaced:
        path.rename(previous)
    try:
        new.rename(path)
    except OSError:
        if replaced:
            previous.rename(path)
        raise


def sha256_file(path: Path | str) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    result = hashlib.sha256()
    with Path(path).open("rb") as stream:  # hashlib.file_digest is not in Python 3.10 of boards
        while block := stream.read(_BLOCK):
            result.update(block)
    return result.hexdigest()


def digest(settings: Any, files: Iterable[Path] = ()) -> str:
    """SHA-256 over a JSON value, and over the names and contents of files in their order.

    >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 1})
    True
    """
    result = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for path in files:
        result.update(f"{path.name} {sha256_file(path)}".encode())
    return result.hexdigest()


def is_current(record: Path, digest: str, outputs: Iterable[Path] = ()) -> bool:
    """Whether all outputs stand, and `record`, a stamp or manifest, says what they were made from.

    Args:
        record: the file that was written last.
        digest: of all that the outputs depend on now.
        outputs: files and folders.
    """
    if not record.is_file() or not all(path.exists() for path in outputs):
        return False
    return digest.encode() in record.read_bytes()


def program_files(*folders: str) -> list[Path]:
    """Sources, templates and data of this package and of others beside it.

    A result depends on the program that made it: its digest is over these files, too.
    """
    return [
        path
        for folder in ("formats", *folders)
        for path in sorted((PROGRAM / folder).rglob("*"))
        if path.is_file() and path.suffix != ".pyc"
    ]


def sources_digest(folder: Path) -> str:
    """SHA-256 over generated hardware sources, what a bitstream is built from: no test bench."""
    sources = sorted(folder.glob("*.[hc]pp"))
    return digest([], [path for path in sources if "testbench" not in path.name])


def free_memory() -> int:
    """Bytes that the system could give to this process."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        fields = dict(line.split(":", 1) for line in lines)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError, IndexError):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def find_compiler() -> str:
    """Path of the C++ compiler: CXX, else g++ on the PATH."""
    name = os.environ.get("CXX") or "g++"
    path = shutil.which(name)
    if path is None:
        raise UserError(
            f"the C++ compiler {name} must exist on the PATH ({os.environ.get('PATH', '')}); "
            "install g++ or set CXX to a C++14 compiler"
        )
    return path


def find_headers() -> Path:
    """Folder of ap_int.h and hls_stream.h: of Vitis HLS (XILINX_HLS) or of the package hls4ml.

    The package's folder is located without importing it.
    """
    tried = []
    if os.environ.get("XILINX_HLS"):
        tried.append(Path(os.environ["XILINX_HLS"]) / "include")
    spec = importlib.util.find_spec("hls4ml")
    for place in (spec.submodule_search_locations or []) if spec else []:
        tried.append(Path(place) / "templates" / "vivado" / "ap_types")
    for folder in tried:
        if (folder / "ap_int.h").is_file() and (folder / "hls_stream.h").is_file():
            return folder
    where = ", ".join(str(folder) for folder in tried) or "XILINX_HLS and the package hls4ml"
    raise UserError(
        f"ap_int.h and hls_stream.h must exist, none in {where}; "
        "`pip install hls4ml` or set XILINX_HLS to a Vitis HLS installation"
    )


def compile_cpp(
    flags: Sequence[str], sources: Sequence[Path], headers: Sequence[Path], program: Path
) -> Path:
    """Compile C++ sources to `program`; nothing to do where compiler, flags and files are the same.

    Args:
        flags: of the compiler; the folder of ap_int.h is added.
        sources, headers: what is compiled, as one unit, and what that includes.
        program: the file to write; PROGRAM.sha256 beside it says what it was made of.

    Raises:
        UserError: no compiler, no headers, or the compiler refuses; its messages go to stderr.
    """
    command = [find_compiler(), *flags, "-isystem", str(find_headers())]
    current = digest(command, [*sources, *headers])
    stamp = program.with_name(f"{program.name}.sha256")
    if is_current(stamp, current, [program]):
        return program
    with atomic_file(program) as new:
        first = [word for path in sources[:-1] for word in ("-include", str(path.resolve()))]
        result = subprocess.run(  # as one unit: they share headers that take seconds
            [*command, *first, str(sources[-1]), "-o", str(new)],
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode != 0:
            print("\n".join(result.stderr.splitlines()[:_MESSAGE_LINES]), file=sys.stderr)
            raise UserError(
                f"{command[0]} must compile {sources[0].parent}; its messages are above"
            )
    write_atomic(stamp, current)
    return program
