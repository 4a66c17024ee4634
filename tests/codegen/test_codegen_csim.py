# SPDX-License-Identifier: Apache-2.0
"""The generated C++ against the naive integer model: bit-exact, and as many cycles as predicted."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from codegen.design import planner
from codegen.emit import csim
from formats.build import find_compiler, find_headers
from formats.commands import main
from formats.errors import UserError
from formats.options import Options
from tests.checkout import needs_compiler
from tests.toys import POOL2, POOL3, Toy, ToyLayer, mixed_layers


def grouped() -> Toy:
    """Grouped and dilated convolutions, a branch, an early layer whose output is not read."""
    layers = [
        ToyLayer(32, (3, 3), (2, 2), (1, 1, 1, 1), scheme="uniform", bits=8),
        ToyLayer(64, (3, 3), pads=(2, 2, 2, 2), dilation=(2, 2), groups=2, scheme="knq", bits=2),
        ToyLayer(16, (1, 1), source="layer0", scheme="enq", bits=6, variant="floor"),
        ToyLayer(24, (3, 2), groups=4, pads=(1, 1, 0, 0), source="layer1", scheme="knq", bits=5),
        ToyLayer(40, (3, 3), (3, 1), source="layer3", scheme="uniform", bits=16, pool=POOL2),
        ToyLayer(7, (1, 1), kind="fc"),
    ]
    return Toy(in_shape=(3, 19, 17), layers=layers, in_bits=8, weight_bits=8, images=3, seed=5)


def chunked() -> Toy:
    """More weight rows than the (reduced) weight buffer holds, several images, a fc over a map."""
    layers = [
        ToyLayer(72, (3, 3), pads=(1, 1, 1, 1), pool=POOL3, scheme="knq", bits=3),
        ToyLayer(70, (3, 3), pads=(1, 1, 1, 1), scheme="knq", bits=3),
        ToyLayer(33, (5, 5), scheme="enq", bits=3, variant="round", kind="fc"),
        ToyLayer(30, (1, 1), kind="fc"),
    ]
    return Toy(in_shape=(8, 9, 9), layers=layers, images=4, seed=7)


def run(build: Path, *options: str) -> dict:
    """Run csim on a generated folder; return report.json."""
    assert main(["csim", f"OUT={build}", *options]) == 0
    return json.loads((build / "report.json").read_text())


def check(report: dict, layers: int) -> None:
    """No mismatch, and every predicted count is the counted one."""
    assert report["csim"]["mismatches"] == 0
    assert len(report["csim"]["layers"]) == layers
    for predicted, counted in zip(report["layers"], report["csim"]["layers"], strict=False):
        assert {key: counted[key] for key in predicted["counts"]} == predicted["counts"]
        for key in ("cycles", "bytes_read", "bytes_written", "bytes_weights"):
            assert counted[key] == predicted[key], (predicted["name"], key)


@needs_compiler
@pytest.mark.parametrize(("simd", "pe"), [(8, 24), (16, 8)])
def test_mixed_network(make_toy: Callable[..., Path], simd: int, pe: int) -> None:
    build = make_toy()
    assert main(["codegen", f"OUT={build}", f"SIMD={simd}", f"PE={pe}"]) == 0
    report = run(build)
    check(report, 6)
    assert report["csim"]["accuracy"]["same_logits"] == 2


@needs_compiler
def test_groups_dilation_branches(make_toy: Callable[..., Path]) -> None:
    build = make_toy(grouped())
    assert main(["codegen", f"OUT={build}", "PART=XC7Z045", "SIMD=16"]) == 0
    check(run(build), 6)


@needs_compiler
@pytest.mark.parametrize("batch", [2, 256])
def test_chunks_and_batches(
    make_toy: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(planner, "WEIGHT_ROWS", (40,))
    monkeypatch.setattr(planner, "MAX_BATCH", batch)
    build = make_toy(chunked())
    assert main(["codegen", f"OUT={build}", "PE=16"]) == 0
    report = run(build)
    check(report, 4)
    assert report["engine"]["batch"] == min(batch, 4)
    assert max(layer["chunks"] for layer in report["layers"]) > 2


@needs_compiler
def test_exact_types_and_sanitizers_agree(make_toy: Callable[..., Path]) -> None:
    build = make_toy(Toy(in_shape=(3, 14, 13), layers=mixed_layers(), weight_bits=16, images=1))
    assert main(["codegen", f"OUT={build}"]) == 0
    fast = run(build)
    logits = (build / "csim" / "logits.bin").read_bytes()
    exact = run(build, "CSIM_TYPES=exact", "SANITIZE=1")
    assert exact["csim"]["types"] == "exact"
    check(exact, len(fast["layers"]))
    assert (build / "csim" / "logits.bin").read_bytes() == logits
    check(run(build, "CSIM_TYPES=exact", "SANITIZE=1", "FIRST_LAYERS=2"), 2)


@needs_compiler
def test_program_is_built_once(
    make_toy: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csim, "FLAGS", ("-std=c++14", "-O0"))
    build = make_toy(Toy(in_shape=(3, 6, 6), layers=[ToyLayer(8), ToyLayer(5)]))
    assert main(["codegen", f"OUT={build}"]) == 0
    options = Options(out=build)
    program = csim.compile_bench(options)
    before = program.stat().st_mtime_ns
    assert csim.compile_bench(options).stat().st_mtime_ns == before
    with (build / "hls" / "tables.hpp").open("a") as file:
        file.write("\n")
    assert csim.compile_bench(options).stat().st_mtime_ns > before


def test_missing_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(
        UserError, match=r"^the C\+\+ compiler no-such-compiler must exist on the PATH .* set CXX"
    ):
        find_compiler()


def test_missing_headers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XILINX_HLS", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"^ap_int\.h and hls_stream\.h must exist, none in .*include"
    ):
        find_headers()


def test_vitis_headers_come_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "include"
    folder.mkdir()
    for name in ("ap_int.h", "hls_stream.h"):
        (folder / name).touch()
    monkeypatch.setenv("XILINX_HLS", str(tmp_path))
    assert find_headers() == folder
