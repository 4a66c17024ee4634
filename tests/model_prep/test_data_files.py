# SPDX-License-Identifier: Apache-2.0
"""Writing all or nothing, and the wrapper that turns errors into one sentence and a status."""

from __future__ import annotations

import hashlib
import re

import pytest

from formats.build import atomic_dir, sha256_file, write_atomic
from formats.errors import UserError, run_cli


def _raise(error: BaseException):
    def main(_: list[str]) -> int:
        raise error

    return main


def test_result_of_main_is_the_status():
    assert run_cli(len, ["a", "b", "c"]) == 3


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (UserError("BITS must be 1..8,\nnot 9"), 2, "error: BITS must be 1..8, not 9\n"),
        (
            PermissionError(13, "Permission denied", "/a/b"), 2,
            "error: /a/b must be accessible, not fail with: Permission denied; "
            "check its rights and free space\n",
        ),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
    ],
)  # fmt: skip
def test_what_a_user_can_mend_becomes_one_line(error, status, text, capsys):
    assert run_cli(_raise(error), []) == status
    assert capsys.readouterr().err == text


def test_faults_of_the_program_keep_their_traceback():
    with pytest.raises(ZeroDivisionError):
        run_cli(_raise(ZeroDivisionError()), [])


def test_write_replaces_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "new" / "a.txt"
    write_atomic(path, "one")
    write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert [item.name for item in path.parent.iterdir()] == ["a.txt"]
    assert sha256_file(path) == hashlib.sha256(b"two").hexdigest()


def test_write_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    place = tmp_path / "file" / "a"
    with pytest.raises(UserError, match=f"^{re.escape(str(tmp_path))}/file.* must be accessible, "):
        write_atomic(place, "y")
    (tmp_path / "taken").mkdir()
    with pytest.raises(UserError, match=" must be accessible, not fail with: Is a directory; "):
        write_atomic(tmp_path / "taken", "y")
    assert sorted(item.name for item in tmp_path.iterdir()) == ["file", "taken"]


def test_folder_takes_the_place_of_the_old_one(tmp_path):
    target = tmp_path / "deep" / "out"
    for name in ("old", "new"):
        with atomic_dir(target) as folder:
            assert not any(folder.iterdir())
            (folder / name).write_text(name)
    assert [item.name for item in target.iterdir()] == ["new"]
    assert [item.name for item in target.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("error", [UserError("no"), KeyboardInterrupt()])
def test_folder_stays_as_it_was_on_an_error(tmp_path, error):
    target = tmp_path / "out"
    with atomic_dir(target) as folder:
        (folder / "old").write_text("old")
    with pytest.raises(type(error)), atomic_dir(target) as folder:
        (folder / "half").write_text("half")
        raise error
    assert [item.name for item in target.iterdir()] == ["old"]
    assert [item.name for item in tmp_path.iterdir()] == ["out"]


def test_folder_in_the_place_of_a_file(tmp_path):
    (tmp_path / "out").write_text("x")
    text = f"^{re.escape(str(tmp_path / 'out'))} must be a folder, not a file; "
    with pytest.raises(UserError, match=text), atomic_dir(tmp_path / "out"):
        pass
    assert (tmp_path / "out").read_text() == "x"
