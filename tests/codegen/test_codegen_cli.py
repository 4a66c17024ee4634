# SPDX-License-Identifier: Apache-2.0
"""The command line: what it writes, what it leaves alone, and how it refuses."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nuq.codegen.emit.report_model import Report
from nuq.codegen.emit.report_page import render_html
from nuq.formats.commands import main
from nuq.formats.design import read_design
from nuq.formats.errors import run_cli
from nuq.formats.packing import unpack_maps
from tests.checkout import python
from tests.toys import Toy, ToyLayer, change_json, read_json

SMALL = Toy(in_shape=(3, 6, 6), layers=[ToyLayer(10, pads=(1, 1, 1, 1)), ToyLayer(5)])


@pytest.fixture
def build(make_toy: Callable[..., Path]) -> Path:
    return make_toy(SMALL)


@pytest.fixture
def refused(build: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command on the build that must end with exit status 2; its one line on stderr."""

    def run(command: str, *options: str) -> str:
        assert run_cli(main, [command, f"OUT={build}", *options]) == 2
        text = capsys.readouterr().err
        assert text.startswith("error: ") and text.count("\n") == 1
        return text

    return run


def test_generate_writes_everything_once(build: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["codegen", f"OUT={build}"]) == 0
    golden = sorted(path.name for path in (build / "golden").iterdir())
    assert golden == ["L00_layer0.bin", "L01_layer1.bin", "checks.txt", "input.bin"]
    assert {"accelerator.cpp", "network.hpp", "engine.hpp", "run_hls.tcl"} <= {
        path.name for path in (build / "hls").iterdir()
    }
    report = read_json(build)
    assert report["csim"] is None and report["weights"] == "seeded"
    seconds = capsys.readouterr().out.split(" s at ")[0].split()[-1]
    assert float(seconds) == pytest.approx(report["performance"]["seconds"], rel=0.005)
    assert (build / "params" / "weights.bin").stat().st_size == report["memory"]["weight_bytes"]
    before = (build / "report.json").stat().st_mtime_ns
    assert main(["codegen", f"OUT={build}"]) == 0
    assert capsys.readouterr().out.endswith("up to date\n")
    assert (build / "report.json").stat().st_mtime_ns == before
    assert main(["codegen", f"OUT={build}", "PE=16"]) == 0
    assert (build / "report.json").stat().st_mtime_ns > before
    assert not [path for path in build.iterdir() if path.name.startswith(".")]


def test_golden_holds_the_reference(build: Path) -> None:
    assert main(["codegen", f"OUT={build}"]) == 0
    vectors = np.load(build / "quantized" / "vectors.npz")
    data = np.fromfile(build / "golden" / "L00_layer0.bin", np.uint8).reshape(2, -1)
    assert np.array_equal(unpack_maps(data, (10, 6, 6), 3), vectors["layer0"])
    raw = np.fromfile(build / "golden" / "L01_layer1.bin", "<i8").reshape(2, 4, 4, 5)
    assert np.array_equal(raw.transpose(0, 3, 1, 2), vectors["layer1"])


def test_packed_bytes_are_within_a_percent_of_nb(build: Path) -> None:
    assert main(["codegen", f"OUT={build}"]) == 0
    layer = read_json(build)["layers"][0]
    planes = -(-layer["out_shape"][0] // 8)
    whole = layer["nb_bits"] / 8 * planes * 8 / layer["out_shape"][0]
    assert whole <= layer["packed_bytes"] <= 1.01 * whole + 8 * planes


def test_fewer_images(build: Path, refused: Callable[..., str]) -> None:
    assert main(["codegen", f"OUT={build}", "IMAGES=1"]) == 0
    assert read_json(build)["images"] == 1
    text = refused("codegen", "IMAGES=3")
    assert text == "error: IMAGES must be at most the 2 that were quantized, not 3\n"


def test_the_number_of_test_images_is_none_of_the_hardwares(build: Path) -> None:
    """BATCH is the hardware's: IMAGES changes neither its ID nor its block RAM."""
    found = []
    for options in (["IMAGES=1"], ["IMAGES=2"], ["IMAGES=2", "BATCH=2"]):
        assert main(["codegen", f"OUT={build}", *options]) == 0
        report = read_json(build)
        found.append((report["engine_id"], report["resources"]["estimate"]))
        assert report["images"] == int(options[0][-1])
    assert found[0] == found[1]
    assert found[2][0] != found[0][0] and read_json(build)["engine"]["batch"] == 2


def test_the_report_and_the_driver_have_one_latency(build: Path) -> None:
    """Cycles or DRAM, whichever takes longer, layer by layer; what binds is said."""
    assert main(["codegen", f"OUT={build}", "IMAGES=1", "CLOCK=150"]) == 0
    report, design = read_json(build), read_design(build)
    assert design.predicted_seconds == pytest.approx(report["performance"]["seconds"])
    bound = [layer["dram_bound"] for layer in report["layers"]]
    assert bound == [design.is_dram_bound(one.cycles, one.bytes_moved) for one in design.layers]
    slow = replace(design, dram_gbs=design.dram_gbs / 100)
    assert slow.predicted_seconds > design.predicted_seconds
    assert all(slow.is_dram_bound(one.cycles, one.bytes_moved) for one in design.layers)


def test_a_report_says_how_images_are_read_and_what_was_calibrated_on(build: Path) -> None:
    assert main(["codegen", f"OUT={build}"]) == 0
    report = read_json(build)
    manifest = read_json(build / "quantized", "manifest")
    assert report["preprocessing"] == manifest["input"]["preprocessing"]
    assert report["calibration"] == manifest["calibration"]
    assert "Input: (pixel * 1 - 0) / 1" in (build / "report.html").read_text()
    assert "Calibrated on " in (build / "report.html").read_text()


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("PART=xc9", "PART must be one of XC7Z020, XCZU3EG, .* not 'xc9'; "),
        ("SIMD=12", "SIMD must be a positive multiple of 8, not 12\n"),
        ("PE=0", "PE must be a positive multiple of 8, not 0\n"),
        ("PE=64", "toy with SIMD=8 PE=64 must fit XC7Z020: DSP: needs 512"),
        ("PE=256", "toy with .* must fit XC7Z020: weights of PE=256 output channels take 3,584 "),
        ("PIXELS=0", "PIXELS must be 1..8, not 0\n"),
        ("PIXELS=9", "PIXELS must be 1..8, not 9\n"),
        ("PIXELS=x", "PIXELS must be an integer, not 'x'\n"),
        ("WEIGHT_PORTS=4", "WEIGHT_PORTS must be one of 1, 2, 3 "),
        ("LIMIT=0", "LIMIT must be a number above 0 and at most 1, not '0'\n"),
        ("CLOCK=fast", "CLOCK must be a number from 1 to 1000, not 'fast'\n"),
        ("CLOCK=5000", "CLOCK must be a number from 1 to 1000, not '5000'\n"),
        ("BATCH=0", "BATCH must be an integer of 1 or more, not '0'\n"),
    ],
)
def test_bad_options_leave_nothing(
    build: Path, option: str, text: str, refused: Callable[..., str]
) -> None:
    command = "explore" if option.split("=")[0] in ("LIMIT", "CLOCK", "BATCH") else "codegen"
    assert re.match(f"error: {text}", refused(command, option))
    assert [path.name for path in build.iterdir()] == ["quantized"]


def test_nothing_quantized(tmp_path: Path, refused: Callable[..., str]) -> None:
    text = refused("codegen", f"OUT={tmp_path}")
    assert "quantized must exist; run `nuq quantize` first" in text
    assert "report.json must exist; run" in refused("csim", f"OUT={tmp_path}")


def test_changed_arrays_are_refused(build: Path, refused: Callable[..., str]) -> None:
    path = build / "quantized" / "arrays.npz"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert "arrays.npz must have the SHA-256 " in refused("codegen")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda m: m.update(format=2), "manifest.json must "),
        (lambda m: m.pop("qm"), "manifest.json must follow its schema: "),
        (lambda m: m["layers"][0]["quantizer"].update(scheme="odd"), "must follow its schema: "),
        (lambda m: m["layers"][0].update(acc_bits=20), "layer layer0: acc_bits must be at least "),
        (lambda m: m["layers"][1].update(inputs=["a"]), "layer layer1: input must be an earlier "),
        (lambda m: m["layers"][1].update(inputs=["layer0", "input"]), "layer layer1: inputs must "),
        (lambda m: m["layers"][0].update(weight_bits=9), "layer layer0: weights must fit 9 bits"),
        (lambda m: m["layers"][0].update(kernel=[3, 2]), "layer0/weight must have shape "),
    ],
)
def test_bad_manifest(
    build: Path, change: Callable[[dict], object], text: str, refused: Callable[..., str]
) -> None:
    change_json(build / "quantized" / "manifest.json", change)
    assert text in refused("codegen")
    assert [item.name for item in build.iterdir()] == ["quantized"]


def test_vectors_of_another_network(build: Path, refused: Callable[..., str]) -> None:
    path = build / "quantized" / "vectors.npz"
    vectors = dict(np.load(path))
    vectors["layer0"] = vectors["layer0"][:, :, :3]
    np.savez(path, **vectors)
    text = refused("codegen")
    assert "vectors.npz: layer0 must have shape (2, 10, 6, 6), not (2, 10, 3, 6)" in text
    path.write_bytes(b"no archive")
    assert "vectors.npz must be an npz archive" in refused("codegen")


def test_no_permission(
    build: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]
) -> None:
    def deny(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied", str(build / "hls"))

    monkeypatch.setattr(Path, "mkdir", deny)
    text = refused("codegen")
    assert text.startswith(f"error: {build / 'hls'} must be accessible, not fail with: Permission")


def test_a_failure_keeps_what_was_there(
    build: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]
) -> None:
    assert main(["codegen", f"OUT={build}"]) == 0
    before = {path: path.read_bytes() for path in build.rglob("*") if path.is_file()}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nuq.codegen.emit.golden.write_golden", full)
    assert "No space left" in refused("codegen", "PE=16")
    assert {path: path.read_bytes() for path in build.rglob("*") if path.is_file()} == before


def test_report_escapes_text(build: Path) -> None:
    assert main(["codegen", f"OUT={build}"]) == 0
    report = read_json(build)
    page = render_html(
        Report.model_construct(
            **{**dict(Report.model_validate(report)), "network": "<script>alert(1)</script>"}
        )
    )
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert main(["report", f"OUT={build}"]) == 0


def test_report_follows_its_schema(build: Path, refused: Callable[..., str]) -> None:
    assert main(["codegen", f"OUT={build}"]) == 0
    change_json(build / "report.json", lambda report: report["layers"][0].update(cycles="many"))
    text = refused("report")
    assert "report.json must follow its schema: layers/0/cycles: " in text


def test_parts_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["parts"]) == 0
    assert "XC7Z020" in capsys.readouterr().out
    shown = python("-m", "nuq.codegen", "--help").stdout
    assert "csim" in shown and "bundle" in shown


def test_the_package_needs_no_torch(build: Path) -> None:
    code = (
        f"import sys; from nuq.formats.commands import main; main(['codegen', 'OUT={build}']); "
        "print([m for m in ('torch', 'model_prep', 'hls4ml') if m in sys.modules])"
    )
    assert python("-c", code).stdout.endswith("\n[]\n")
