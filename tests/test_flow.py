# SPDX-License-Identifier: Apache-2.0
"""The flow as a user runs it: `make` with its variables, on the digits network."""

import json
import re
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from nuq.dispatch import STAGES, state
from nuq.formats.options import Options
from tests.checkout import error_line, make


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A build of digits and what `make csim` printed."""
    out = tmp_path_factory.mktemp("flow") / "digits"
    done = make("csim", "NET=digits", "IMAGES=360", f"OUT={out}")
    assert done.returncode == 0, done.stdout + done.stderr
    return out, done.stdout


def test_csim_prints_a_table_and_all_three_accuracies(digits):
    _, text = digits
    assert "C-simulation of 360 image(s); codes and bytes are of all of them:\nlayer " in text
    assert "mismatches" in text and "PASSED: every layer is bit-exact" in text
    assert "the last two agree on 360 of 360 images" in text
    for layer in ("conv1", "conv2", "conv3", "fc4", "fc5"):
        assert any(line.split()[0:1] == [layer] for line in text.splitlines())


def test_knq_with_four_bits_is_within_a_point_of_float(digits):
    report = json.loads((digits[0] / "report.json").read_text())
    accuracy = report["csim"]["accuracy"]
    assert accuracy["integer_top1"] == accuracy["csim_top1"]
    assert accuracy["float_top1"] - accuracy["csim_top1"] <= 1.0


def test_packed_bytes_are_nb_over_eight(digits):
    """Within 1% and 8 bytes a plane of NB/8."""
    report = json.loads((digits[0] / "report.json").read_text())
    for layer in report["layers"][:-1]:
        channels, height, width = layer["out_shape"]
        planes = -(-channels // 8)
        bound = channels * height * width * layer["bits"] / 8
        packed = (digits[0] / "golden").glob(f"L*_{layer['name']}.bin").__next__().stat().st_size
        assert packed / 360 <= 1.01 * bound + 8 * planes


@pytest.mark.slow
def test_the_papers_other_schemes_are_bit_exact(tmp_path):
    """Each runs on the conversion units of knq or on uniform codes."""
    schemes = {"conv1": "gaussian", "conv2": "linear", "conv3": "dynamic", "fc4": "optimal"}
    plan = "".join(f'[layer.{name}]\nscheme = "{scheme}"\n' for name, scheme in schemes.items())
    (tmp_path / "plan.toml").write_text("bits = 5\n" + plan)
    out = tmp_path / "digits"
    done = make("csim", "NET=digits", "IMAGES=40", f"PLAN={tmp_path}/plan.toml", f"OUT={out}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASSED: every layer is bit-exact" in done.stdout
    found = [
        layer["quantizer"]
        for layer in json.loads((out / "quantized/manifest.json").read_text())["layers"]
    ]
    assert [one and one["scheme"] for one in found] == ["knq", "knq", "uniform", "uniform", None]


@pytest.mark.slow
@pytest.mark.parametrize("types", ["exact", "timed"])
def test_pairs_are_bit_exact(types, tmp_path):
    """Two products a multiplier, in the types that the hardware has and by the clock."""
    options = ("NET=digits", "PRESET=fast", "STAGE=pairs", "IMAGES=8", f"CSIM_TYPES={types}")
    done = make("csim", *options, f"OUT={tmp_path / 'digits'}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASSED: every layer is bit-exact" in done.stdout


def test_what_is_up_to_date_is_not_repeated(digits):
    done = make("csim", "NET=digits", "IMAGES=360", f"OUT={digits[0]}")
    assert done.returncode == 0
    assert "quantized" not in done.stdout and "multipliers" not in done.stdout
    assert re.search(  # but what is simulated is said
        r"^digits on XC7Z020: [\d,.]+ images/s at 100 MHz .*; estimated: \d+/220 DSP, ",
        done.stdout, re.MULTILINE,
    )  # fmt: skip


def test_a_changed_setting_is_noticed(digits, tmp_path):
    options = Options(net="digits", images=360, out=digits[0])
    stamps = {name: (digits[0] / f"{name}.stamp").read_text() for name in STAGES}
    assert {name: state(name, options) for name in STAGES} == stamps
    wider, narrower = replace(options, pe=16), replace(options, bits="3")
    assert state("quantize", wider) == stamps["quantize"] != state("quantize", narrower)
    assert stamps["codegen"] not in (state("codegen", wider), state("codegen", narrower))
    # an input that changes, and a result that something else has written
    data = tmp_path / "data.npz"
    data.write_bytes(b"1")
    before = state("quantize", replace(options, data=str(data)))
    data.write_bytes(b"12")
    assert state("quantize", replace(options, data=str(data))) != before
    (digits[0] / "quantized" / "manifest.json").touch()
    assert state("quantize", options) != stamps["quantize"]
    assert state("codegen", options) != stamps["codegen"]
    (digits[0] / "report.json").unlink()
    assert make("csim", "NET=digits", "IMAGES=360", f"OUT={digits[0]}").returncode == 0


def test_a_bundle_is_what_was_simulated(tmp_path):
    """Neither scheme, width nor images are forgotten; what differs is said, and nothing is made."""
    out = tmp_path / "build"
    made = ("NET=digits", "SCHEME=enq", "BITS=5", "IMAGES=12", f"OUT={out}")
    assert make("codegen", *made).returncode == 0
    done = make("bundle", "NET=digits", f"OUT={out}", status=0)
    assert "settings.toml: IMAGES=12 SCHEME=enq BITS=5 (" in done.stdout
    assert "Calibrated on 1437 image(s) of scikit-learn digits" in done.stdout
    with zipfile.ZipFile(out / "bundle.zip") as bundle:
        layers = json.loads(bundle.read("parameters/design.json"))["layers"]
    assert [(layer["scheme"], layer["bits"]) for layer in layers[:-1]] == [("enq", 5)] * 4
    before = (out / "bundle.zip").read_bytes()
    line = error_line(make("bundle", "NET=digits", "BITS=4", f"OUT={out}"))
    assert "must be used as it was made, with BITS=5, not with BITS=4" in line
    assert (out / "bundle.zip").read_bytes() == before


BAD = [
    ("NET=alexnot", "^error: NET must be one of .*alexnet.*, not 'alexnot'"),
    ("PE=4096", "^error: .*XC7Z020"),
    ("BITS=99", "^error: BITS of layer conv1 must be 1..8 for knq"),
    ("CSIM_TYPES=slow", "^error: CSIM_TYPES must be one of fast, exact, timed, not 'slow'"),
]


@pytest.mark.parametrize(("option", "pattern"), BAD, ids=[option for option, _ in BAD])
def test_bad_input_ends_in_one_sentence(option, pattern, tmp_path):
    arguments = ["csim", f"OUT={tmp_path / 'out'}", option]
    if not option.startswith("NET="):
        arguments.append("NET=digits")
    line = error_line(make(*arguments))
    assert re.search(pattern, line, re.IGNORECASE), line
    half_written = [p for p in tmp_path.rglob(".*") if p.is_file() or p.is_dir()]
    assert half_written == []
    made = {path.name for path in tmp_path.iterdir()}  # no empty folder
    assert made == ({"out"} if (tmp_path / "out" / "quantized").is_dir() else set())


def test_a_missing_compiler_is_named(digits):
    line = error_line(
        make("csim", "NET=digits", "IMAGES=360", f"OUT={digits[0]}", CXX="no-such-g++")
    )
    assert "no-such-g++" in line and "CXX" in line


def test_an_output_folder_that_cannot_be_made(tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("")
    line = error_line(make("csim", "NET=digits", f"OUT={blocker / 'out'}"))
    assert "the output folder must be writable" in line
