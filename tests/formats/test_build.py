# SPDX-License-Identifier: Apache-2.0
"""Files and folders that appear whole or not at all; errors that end in one line and a status."""

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nuq.formats.build import atomic_dir, digest, sha256_file, write_atomic
from nuq.formats.errors import UserError, run_cli
from tests.checkout import ROOT

NO_SPACE = OSError(28, "No space left on device", "there")
not_root = pytest.mark.skipif(
    os.geteuid() == 0, reason="the superuser may write anywhere; run as another user"
)


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fail(monkeypatch: pytest.MonkeyPatch, name: str, error: BaseException, turn: int = 1) -> None:
    """Let the call number `turn` of a method of Path raise `error`."""
    real, calls = getattr(Path, name), []

    def method(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == turn:
            raise error
        return real(self, target)

    monkeypatch.setattr(Path, name, method)


def raising(error: BaseException):
    def main(_: list[str]) -> int:
        raise error

    return main


def test_bytes_and_text_are_written_and_replaced(tmp_path):
    path = tmp_path / "deep" / "a.bin"
    write_atomic(path, b"one")
    write_atomic(str(path), b"two")
    write_atomic(tmp_path / "t", "é\n")
    assert path.read_bytes() == b"two"
    assert (tmp_path / "t").read_bytes() == "é\n".encode()
    assert listing(path.parent) == ["a.bin"]


@pytest.mark.parametrize(
    ("error", "raised", "text"),
    [(NO_SPACE, UserError, "^there must be accessible, not fail with: No space left on device; "),
     (KeyboardInterrupt(), KeyboardInterrupt, None)],
)  # fmt: skip
def test_a_failed_write_keeps_the_old_file(error, raised, text, tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"old")
    fail(monkeypatch, "replace", error)
    with pytest.raises(raised, match=text):
        write_atomic(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert listing(tmp_path) == ["a"]


def test_places_where_nothing_can_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    (tmp_path / "taken").mkdir()
    for name, text in (("file/out.txt", ""), ("taken", "Is a directory; check its rights and ")):
        place = tmp_path / name
        assert run_cli(lambda _, place=place: write_atomic(place, "x") or 0, []) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1
        assert err.startswith(f"error: {tmp_path}/") and err.endswith(
            "check its rights and free space\n"
        )
        assert f" must be accessible, not fail with: {text}" in err
    assert listing(tmp_path) == ["file", "taken"]


def test_a_folder_replaces_the_old_one_whole(tmp_path):
    path = tmp_path / "deep" / "out"
    for name in ("first", "second"):
        with atomic_dir(path) as folder:
            assert not any(folder.iterdir())
            (folder / name).write_text(name)
            assert name not in (listing(path) if path.exists() else [])
    assert listing(path) == ["second"]
    assert listing(path.parent) == ["out"]


@pytest.mark.parametrize("error", [ValueError, UserError, KeyboardInterrupt])
def test_a_folder_that_fails_leaves_the_old_one(tmp_path, error):
    path = tmp_path / "out"
    with atomic_dir(path) as folder:
        (folder / "kept").write_text("")
    with pytest.raises(error), atomic_dir(path) as folder:
        (folder / "half").write_text("")
        raise error
    assert listing(path) == ["kept"]
    assert listing(tmp_path) == ["out"]


def test_a_folder_comes_back_when_the_last_step_fails(tmp_path, monkeypatch):
    path = tmp_path / "out"
    with atomic_dir(path) as folder:
        (folder / "kept").write_text("")
    fail(monkeypatch, "rename", NO_SPACE, 2)
    text = "must be accessible, not fail with: No space left"
    with pytest.raises(UserError, match=text), atomic_dir(path):
        pass
    assert listing(path) == ["kept"]
    assert listing(tmp_path) == ["out"]


def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path):
    path = tmp_path / "out"
    path.write_text("precious")
    text = f"^{re.escape(str(path))} must be a folder, not a file; remove it"
    with pytest.raises(UserError, match=text), atomic_dir(path):
        raise RuntimeError("the block must not run")
    assert path.read_text() == "precious"
    assert listing(tmp_path) == ["out"]


def test_a_link_to_a_folder_stays_a_link(tmp_path):
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "out").symlink_to(real)
    with atomic_dir(tmp_path / "out") as folder:
        (folder / "a").write_text("")
    assert (tmp_path / "out").is_symlink()
    assert listing(real) == ["a"]
    assert listing(tmp_path) == ["out", "real"]


@not_root
def test_a_folder_without_permission_ends_in_one_line(tmp_path, capsys):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)

    def main(argv: list[str]) -> int:
        with atomic_dir(locked / "out"):
            pass
        return 0

    assert run_cli(main, []) == 2
    assert "Permission denied" in capsys.readouterr().err
    assert listing(locked) == []


@given(st.binary(max_size=5000))
def test_sha256_is_hashlibs(content):
    path = Path("/dev/shm" if Path("/dev/shm").is_dir() else ".") / f"sha.{os.getpid()}"
    try:
        path.write_bytes(content)
        assert sha256_file(path) == hashlib.sha256(content).hexdigest()
    finally:
        path.unlink()


def test_a_digest_sees_settings_names_and_contents(tmp_path):
    digests = set()
    for name, content in (("a", "1"), ("b", "1"), ("a", "2")):
        (tmp_path / name).write_text(content)
        digests |= {digest(settings, [tmp_path / name]) for settings in ([], [1])}
    assert len(digests) == 6
    assert digest([1], [tmp_path / "a"]) in digests


def test_the_result_of_main_is_the_status():
    assert run_cli(len, ["a", "b", "c"]) == 3


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (UserError("BITS must be 1..8,\n  not 9"), 2, "error: BITS must be 1..8, not 9\n"),
        (
            PermissionError(13, "Permission denied", "/a/b"), 2,
            "error: /a/b must be accessible, not fail with: Permission denied; "
            "check its rights and free space\n",
        ),
        (
            OSError("odd"), 2, "error: a file or connection must be accessible, not fail with: "
            "odd; check its rights and free space\n",
        ),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
    ],
)  # fmt: skip
def test_what_a_user_can_mend_becomes_one_line(error, status, text, capsys):
    assert run_cli(raising(error), []) == status
    assert capsys.readouterr() == ("", text)


def test_faults_of_the_program_keep_their_traceback():
    with pytest.raises(ZeroDivisionError):
        run_cli(raising(ZeroDivisionError()), [])


def test_a_reader_that_has_gone_is_no_fault():
    program = (
        "import sys; from nuq.formats.errors import run_cli\n"
        "def main(argv):\n"
        "    while True: print('y' * 1000)\n"
        "sys.exit(run_cli(main))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(30) == 141
        assert process.stderr.read() == b""
