# SPDX-License-Identifier: Apache-2.0
"""bundle.zip: the same bytes every time, small, and refused where any byte has changed."""

import hashlib
import json
import shutil
import zipfile
from dataclasses import replace

import pytest

from nuq.board.bundle import (
    BITSTREAM,
    BUNDLE,
    HANDOFF,
    MANIFEST,
    make_bundle,
    manifest_digest,
    other_text,
    read_zipped_manifest,
    unpack,
)
from nuq.board.commands import check_board
from nuq.board.driver import Accelerator
from nuq.board.emulate import emulate
from nuq.board.errors import BundleError, DesignError, MemoryShortageError
from nuq.formats.build import sha256_file
from nuq.formats.commands import main
from nuq.formats.design import read_design, write_stamp
from nuq.formats.errors import UserError, run_cli
from tests.checkout import execute, python


def renew_manifest(folder):
    """A manifest that is right about the files as they are: only the design's ID can object."""
    manifest = json.loads((folder / MANIFEST).read_text())
    for name in manifest["files"]:
        path = folder / name
        manifest["files"][name] = {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
    manifest["manifest_sha256"] = manifest_digest(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))


def test_the_same_input_gives_the_same_bytes(digits_build):
    first = make_bundle(digits_build).read_bytes()
    assert make_bundle(digits_build, name="again.zip").read_bytes() == first
    assert len(first) < 1_000_000
    (digits_build / "again.zip").unlink()


def test_a_bundle_of_another_build_is_said_to_be(digits_build, other_build, bundle, capsys):
    """As where a build was made again with other options, and emulated, after `nuq bundle`."""
    path = make_bundle(digits_build)
    assert other_text(digits_build) is None
    shutil.copyfile(make_bundle(other_build), path)
    assert emulate(digits_build) == 0
    mine, other = read_design(digits_build), read_design(other_build)
    assert (
        f"note: {path} is of another build: engine {other.engine_id} (the hardware), network "
        f"{other.network_id} (program and weights), here engine {mine.engine_id}"
    ) in capsys.readouterr().out
    path.write_bytes(b"PK")
    assert "is no bundle that can be read; `nuq bundle` writes" in (other_text(digits_build) or "")
    assert main(["bundle", f"OUT={digits_build}"]) == 0
    said = f"engine {mine.engine_id} (the hardware), network {mine.network_id} (program and"
    assert said in capsys.readouterr().out and other_text(digits_build) is None
    (other_build / BUNDLE).unlink()


def test_manifest_has_every_file_and_the_design(digits_build, tmp_path):
    folder = unpack(make_bundle(digits_build), tmp_path / "bundle")
    manifest = json.loads((folder / MANIFEST).read_text())
    files = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert files == {MANIFEST, *manifest["files"]}
    for name, entry in manifest["files"].items():
        data = (folder / name).read_bytes()
        assert entry == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    report = json.loads((digits_build / "report.json").read_text())
    assert manifest["engine"]["id"] == report["engine_id"]
    assert "# digits on a Zynq board" in (folder / "README.md").read_text()
    notebook = json.loads((folder / "demo.ipynb").read_text())
    assert all(not cell.get("outputs") for cell in notebook["cells"])
    with pytest.raises(BundleError, match="accelerator.bit must be part of the bundle; this one"):
        Accelerator(folder)


def test_any_changed_byte_of_any_file_is_refused_by_name(bundle_copy, device):
    names = json.loads((bundle_copy / MANIFEST).read_text())["files"]
    expected = {BITSTREAM, HANDOFF, "parameters/design.json", "demo.ipynb", "nuq/board/driver.py"}
    assert expected <= set(names)
    for index, name in enumerate(sorted(names)):
        path = bundle_copy / name
        data = path.read_bytes()
        changed = bytearray(data)
        changed[index * 7919 % len(data)] ^= 1
        path.write_bytes(changed)
        with pytest.raises(BundleError, match=f"{name} must be unchanged since it was made"):
            Accelerator(bundle_copy)
        path.write_bytes(data[:-1])
        with pytest.raises(BundleError, match=f"{name} must be unchanged since it was made"):
            Accelerator(bundle_copy)
        path.unlink()
        with pytest.raises(BundleError, match=f"{name} must exist; copy the bundle again"):
            Accelerator(bundle_copy)
        path.write_bytes(data)
    Accelerator(bundle_copy).close()


def test_changed_manifests_are_refused(bundle_copy, device):
    path = bundle_copy / MANIFEST
    data = path.read_bytes()
    for place in range(0, len(data), 97):
        changed = bytearray(data)
        changed[place] ^= 1
        path.write_bytes(changed)
        try:
            same = json.loads(changed) == json.loads(data)
        except ValueError:
            same = False
        if same:  # the byte was white space between values
            continue
        with pytest.raises(BundleError, match="manifest.json"):
            Accelerator(bundle_copy)
    path.unlink()
    with pytest.raises(BundleError, match="manifest.json must exist; unpack bundle.zip"):
        Accelerator(bundle_copy)


def test_another_designs_bitstream_is_refused_by_its_id(bundle_copy, other_bundle, device):
    shutil.copyfile(other_bundle / BITSTREAM, bundle_copy / BITSTREAM)
    renew_manifest(bundle_copy)
    mine, other = (
        json.loads((folder / MANIFEST).read_text())["engine"]["id"]
        for folder in (bundle_copy, other_bundle)
    )
    assert mine != other
    text = f"^the bitstream must be of engine {mine} .digits., not {other}; use the bitstream"
    with pytest.raises(DesignError, match=text):
        Accelerator(bundle_copy)


def test_another_designs_parameters_are_refused(bundle_copy, other_bundle, device):
    path = "parameters/program.bin"
    kept = (bundle_copy / path).read_bytes()
    shutil.copyfile(other_bundle / path, bundle_copy / path)
    renew_manifest(bundle_copy)
    with pytest.raises(DesignError, match=r"^parameters/program.bin must be of engine .* network"):
        Accelerator(bundle_copy)
    (bundle_copy / path).write_bytes(kept)
    for name in ("parameters/design.json", "parameters/weights.bin"):
        shutil.copyfile(other_bundle / name, bundle_copy / name)
    renew_manifest(bundle_copy)
    with pytest.raises(DesignError, match="^parameters must be of engine"):
        Accelerator(bundle_copy)


def test_bitstream_is_added_when_there_is_one(digits_build, bundle, tmp_path):
    bitstream = tmp_path / "vivado.bit"
    shutil.copyfile(bundle / BITSTREAM, bitstream)
    with pytest.raises(UserError, match="vivado.hwh must exist; pynq needs .bit and .hwh"):
        make_bundle(digits_build, bitstream)
    shutil.copyfile(bundle / HANDOFF, bitstream.with_suffix(".hwh"))
    write_stamp(tmp_path, digits_build)
    path = make_bundle(digits_build, bitstream, "with_bitstream.zip")
    assert {BITSTREAM, HANDOFF} <= set(zipfile.ZipFile(path).namelist())
    assert read_zipped_manifest(path)["bitstream"] is True
    assert b"`accelerator.bit` is this design's" in zipfile.ZipFile(path).read("README.md")
    path.unlink()


def test_a_foreign_bitstream_is_refused_by_its_stamp(digits_build, other_build, bundle, tmp_path):
    bitstream, stamp = tmp_path / "a.bit", tmp_path / "design.json"
    shutil.copyfile(bundle / HANDOFF, bitstream.with_suffix(".hwh"))
    bitstream.write_bytes(b"ab")
    with pytest.raises(UserError, match="a.bit must have the design.json beside it that says of"):
        make_bundle(digits_build, bitstream)
    write_stamp(tmp_path, other_build)
    mine, other = (read_design(build).engine_id for build in (digits_build, other_build))
    with pytest.raises(UserError, match=f"a.bit must be of engine {mine}, .* not of {other}; run"):
        make_bundle(digits_build, bitstream)
    write_stamp(tmp_path, digits_build)
    bitstream.write_bytes(b"a")
    with pytest.raises(UserError, match="a.bit must be as it was made; copy it again with its"):
        make_bundle(digits_build, bitstream)
    bitstream.write_bytes(b"ab")
    stamp.write_text(stamp.read_text().replace('sources_sha256": "', 'sources_sha256": "0'))
    with pytest.raises(UserError, match="a.bit must be made from the sources in .*hls; run"):
        make_bundle(digits_build, bitstream)


def test_a_bundle_says_that_no_bitstream_is_inside(digits_build, capsys):
    assert main(["bundle", f"OUT={digits_build}"]) == 0
    assert "no bitstream is inside: `nuq bitstream` and" in capsys.readouterr().out
    archive = zipfile.ZipFile(digits_build / "bundle.zip")
    assert b"There is no bitstream (`accelerator.bit`) inside" in archive.read("README.md")
    assert read_zipped_manifest(digits_build / "bundle.zip")["bitstream"] is False


def test_archives_that_leave_their_folder_are_refused(tmp_path):
    path = tmp_path / "evil.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../outside", "x")
    with pytest.raises(UserError, match="must hold relative paths, not ../outside"):
        unpack(path, tmp_path / "folder")
    with pytest.raises(UserError, match="^.*text.zip must be a bundle"):
        (tmp_path / "text.zip").write_text("x")
        unpack(tmp_path / "text.zip", tmp_path / "folder")


def test_boards(digits_build):
    design = read_design(digits_build)
    check_board("pynq-z2", design)
    with pytest.raises(UserError, match="^BOARD must be one of .*pynq-z1, .*, not 'zx81'"):
        check_board("zx81", design)
    with pytest.raises(UserError, match="^BOARD zcu104 has an XCZU7EV, but the design is for an"):
        check_board("zcu104", design)
    large = replace(design, weight_words=1 << 25)
    with pytest.raises(MemoryShortageError, match="^pynq-z2: free contiguous memory must be at"):
        check_board("pynq-z2", large)


def test_a_bundle_has_its_own_command_line(bundle):
    """`python -m nuq.board` of the unpacked bundle, with nothing of the repository on the path."""
    for word, status in (("--help", 0), ("BUNDEL=.", 2)):
        done = python("-m", "nuq.board", "measure", word, folder=bundle, status=status)
        assert "BUNDLE" in (done.stderr if status else done.stdout)
    code = "import nuq.board as b, nuq.formats.commands as f; print(b.__file__, f.__file__)"
    assert python("-c", code, folder=bundle).stdout.count(str(bundle)) == 2


def test_what_a_bundle_imports_first_runs_in_python_3_10():
    """PYNQ 3.0.1 has it; numpy need not be there for this much."""
    code = "import nuq.formats.build, nuq.formats.commands as c; c.main(['measure', '--help'])"
    old = shutil.which("python3.10")
    if old is None or execute(old, "-c", "").returncode:
        pytest.skip("python3.10 is not installed")
    assert "BUNDLE" in execute(old, "-c", code, status=0).stdout


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            ["bundle", "OUT=nowhere"],
            "error: nowhere/design.json must exist; run `nuq codeg",
        ),
        (["emulate", "OUT=nowhere"], "error: nowhere/design.json must exist; run `nuq codeg"),
        (["measure", "BUNDLE=nowhere"], "error: nowhere/manifest.json must exist; unpack"),
        (["measure", "BUNDLE=.", "REPEATS=x"], "error: REPEATS must be an integer of 1 or more"),
    ],
)
def test_command_line_errors(arguments, text, capsys):
    assert run_cli(main, arguments) == 2
    found = capsys.readouterr().err
    assert found.startswith(text) and found.count("\n") == 1


def test_without_pynq_there_is_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert run_cli(main, ["emulate", "OUT=nowhere"]) == 2
    assert capsys.readouterr().err.startswith("error: the package pynq must be installed")
