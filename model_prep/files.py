# SPDX-License-Identifier: Apache-2.0
"""Writing files and folders so that a reader sees the old state or the new one, never a half.

Everything is written under a temporary name in the same folder and then renamed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from model_prep.errors import UserError, os_error_text

_CHUNK = 1 << 20


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


def atomic_write_bytes(path: Path | str, data: bytes) -> None:
    """Write `data` to `path`, making its folder; UserError if that is not possible."""
    path = Path(path)
    temporary = _sibling(path, "tmp")
    with _as_user_error():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(data)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def atomic_write_text(path: Path | str, data: str) -> None:
    """Write `data` as UTF-8 to `path`, making its folder; UserError if that is not possible."""
    atomic_write_bytes(path, data.encode())


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
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
