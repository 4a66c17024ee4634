# SPDX-License-Identifier: Apache-2.0
"""Files and folders that appear whole or not at all; errors that end in one line and status 2."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from formats import build as files
from formats.errors import UserError, run_cli

ROOT = Path(__file__).resolve().parents[2]
not_root = pytest.mark.skipif(
    os.geteuid() == 0, reason="the superuser may write anywhere; run as another user"
)


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_bytes_and_text_are_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.bin"
    files.write_atomic(path, b"one")
    files.write_atomic(str(path), b"two")
    files.write_atomic(tmp_path / "t", "é\n")
    assert path.read_bytes() == b"two"
    assert (tmp_path / "t").read_bytes() == "é\n".encode()
    assert listing(path.parent) == ["a.bin"]


def test_failed_replacement_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def refuse(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(UserError, match=f"^{path} must be accessible, not fail with: No space"):
        files.write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert listing(tmp_path) == ["a"]


def test_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        files.write_atomic(tmp_path / "a", b"new")
    assert listing(tmp_path) == []


def test_folder_replaces_the_old_one_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "out"
    for name in ("first", "second"):
        with files.atomic_dir(path) as folder:
            (folder / name).write_text(name)
            assert name not in (listing(path) if path.exists() else [])
    assert listing(path) == ["second"]
    assert listing(path.parent) == ["out"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_folder_that_fails_leaves_the_old_one(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "out"
    with files.atomic_dir(path) as folder:
        (folder / "kept").write_text("")
    with pytest.raises(error), files.atomic_dir(path) as folder:
        (folder / "half").write_text("")
        raise error
    assert listing(path) == ["kept"]
    assert listing(tmp_path) == ["out"]


def test_folder_comes_back_when_the_last_step_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out"
    with files.atomic_dir(path) as folder:
        (folder / "kept").write_text("")
    real, calls = Path.rename, []

    def second_fails(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == 2:
            raise OSError(28, "No space left on device", str(target))
        return real(self, target)

    monkeypatch.setattr(Path, "rename", second_fails)
    with (
        pytest.raises(UserError, match="must be accessible, not fail with: No space left"),
        files.atomic_dir(path),
    ):
        pass
    assert listing(path) == ["kept"]
    assert listing(tmp_path) == ["out"]


def test_file_in_the_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text("precious")
    with (
        pytest.raises(UserError, match=f"^{path} must be a folder, not a file; remove it"),
        files.atomic_dir(path),
    ):
        raise RuntimeError("the block must not run")
    assert path.read_text() == "precious"
    assert listing(tmp_path) == ["out"]


def test_link_to_a_folder_stays_a_link(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "out").symlink_to(real)
    with files.atomic_dir(tmp_path / "out") as folder:
        (folder / "a").write_text("")
    assert (tmp_path / "out").is_symlink()
    assert listing(real) == ["a"]
    assert listing(tmp_path) == ["out", "real"]


@given(st.binary(max_size=5000))
def test_sha256_is_hashlibs(content: bytes) -> None:
    path = Path("/dev/shm" if Path("/dev/shm").is_dir() else ".") / f"sha.{os.getpid()}"
    try:
        path.write_bytes(content)
        assert files.sha256_file(path) == hashlib.sha256(content).hexdigest()
    finally:
        path.unlink()


def test_unwritable_place_ends_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")

    def main(argv: list[str]) -> int:
        files.write_atomic(tmp_path / "file" / "out.txt", "x")
        return 0

    assert run_cli(main, []) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {tmp_path}/file")
    assert err.endswith("check its rights and free space\n")
    assert err.count("\n") == 1


@not_root
def test_folder_without_permission_ends_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)

    def main(argv: list[str]) -> int:
        with files.atomic_dir(locked / "out"):
            pass
        return 0

    assert run_cli(main, []) == 2
    assert "Permission denied" in capsys.readouterr().err
    assert listing(locked) == []


def test_run_cli_returns_what_main_returns() -> None:
    assert run_cli(lambda argv: len(argv), ["a", "b", "c"]) == 3


def test_user_error_of_many_lines_is_printed_on_one(capsys: pytest.CaptureFixture[str]) -> None:
    def main(argv: list[str]) -> int:
        raise UserError("BITS must be 1..16,\n  not 17")

    assert run_cli(main, []) == 2
    assert capsys.readouterr() == ("", "error: BITS must be 1..16, not 17\n")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (PermissionError(13, "Permission denied", "/x/y"), "error: /x/y must be accessible, not "),
        (OSError("odd"), "error: a file or connection must be accessible, not fail with: odd;"),
    ],
)
def test_errors_of_the_system_are_one_line(
    error: OSError, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(argv: list[str]) -> int:
        raise error

    assert run_cli(main, []) == 2
    err = capsys.readouterr().err
    assert err.startswith(text)
    assert err.count("\n") == 1


def test_faults_of_the_program_keep_their_traceback() -> None:
    def main(argv: list[str]) -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_cli(main, [])


def test_interrupt_and_broken_pipe_have_their_own_status() -> None:
    program = (
        "import sys; from formats.errors import run_cli\n"
        "def main(argv):\n"
        "    if argv: raise KeyboardInterrupt\n"
        "    while True: print('y' * 1000)\n"
        "sys.exit(run_cli(main))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, "x"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stderr) == (130, "error: interrupted\n")
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(30) == 141
        assert process.stderr.read() == b""
