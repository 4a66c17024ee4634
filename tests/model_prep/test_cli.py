# SPDX-License-Identifier: Apache-2.0
"""`python -m nuq.model_prep`: what it writes, when it leaves a folder alone, and how it refuses."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nuq.formats import network as manifest
from nuq.formats.commands import main
from nuq.formats.errors import UserError, run_cli
from nuq.formats.images import ImageSet
from nuq.model_prep import commands, data, networks
from nuq.model_prep.quantize.reference import Reference
from nuq.model_prep.stages import divide
from tests.checkout import python


def quantize(out: Path, *options: str) -> int:
    return run_cli(main, ["quantize", "NET=digits", f"OUT={out}", *options])


def read(out: Path) -> dict[str, Any]:
    entry: dict[str, Any] = json.loads((out / "quantized" / "manifest.json").read_text())
    return entry


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("digits")
    assert quantize(out, "IMAGES=360") == 0
    return out


def test_accuracy_on_the_held_out_digits(made: Path) -> None:
    entry = read(made)
    accuracy = entry["accuracy"]
    assert accuracy["images"] == 360
    assert accuracy["float_top1"] > 97
    assert abs(accuracy["float_top1"] - accuracy["integer_top1"]) <= 1  # KNQ at 4 bits
    assert entry["calibration"]["images"] == 1797 - 360
    assert entry["calibration"]["includes_test_images"] is False
    assert {layer["quantizer"]["bits"] for layer in entry["layers"][:-1]} == {4}


def test_vectors_are_what_the_saved_network_computes(made: Path) -> None:
    network = manifest.load(made / "quantized")
    with np.load(made / "quantized" / "vectors.npz") as vectors:
        images, labels, logits = vectors["images"], vectors["labels"], vectors["float_logits"]
        assert (vectors["input"] == network.input.encode(images)).all()
        assert vectors["input"].dtype == np.int16
        for name, codes in Reference(network).run(vectors["input"]):
            assert (vectors[name] == codes).all()
            assert vectors[name].dtype == (np.int64 if name == "fc5" else np.uint16)
            assert vectors[name].shape[1:] == network.layers[-1].out_shape or name != "fc5"
        raw = vectors["fc5"].reshape(360, -1)
    accuracy = read(made)["accuracy"]
    assert accuracy["integer_top1"] == pytest.approx(100 * (raw.argmax(1) == labels).mean())
    assert accuracy["float_top1"] == pytest.approx(100 * (logits.argmax(1) == labels).mean())
    assert accuracy["agreement"] == pytest.approx(100 * (logits.argmax(1) == raw.argmax(1)).mean())


def test_calibration_and_test_images_are_disjoint() -> None:
    spec = networks.get("digits")
    everything = data.load(spec, None)
    chosen = commands.choose_images(spec, None, 360)
    assert len(chosen.calibration) + len(chosen.test) == len(everything)
    fewer = commands.choose_images(spec, None, 5)
    assert (fewer.test.pixels == chosen.test.pixels[:5]).all()
    assert (fewer.calibration.pixels == chosen.calibration.pixels).all()


def test_photographs_are_calibrated_on_whatever_is_tested() -> None:
    """The hardware and its parameters do not depend on the number of test images."""
    spec = networks.get("alexnet")
    everything = data.load(spec, None)
    for number in (1, 2, len(everything)):
        chosen = commands.choose_images(spec, None, number)
        assert (chosen.test.pixels == everything.pixels[:number]).all()
        assert (chosen.calibration.pixels == everything.pixels[1:]).all()
        assert chosen.overlap == (number > 1)


def test_unlabelled_images_are_disjoint_until_there_are_too_few() -> None:
    pixels = np.arange(100, dtype=np.uint8).reshape(-1, 1, 1, 1) + np.zeros((8, 8), np.uint8)
    images = ImageSet(pixels, np.full(100, -1), None, "mine")
    for number, calibrated in ((1, range(1, 100)), (30, range(30, 100)), (100, range(100))):
        chosen = divide(images, True, number)
        assert chosen.calibration.pixels[:, 0, 0, 0].tolist() == [*calibrated]
        assert chosen.overlap == (number == 100) and len(chosen.test) == number
    many = ImageSet(np.zeros((3000, 1, 8, 8), np.uint8), np.full(3000, -1), None, "many")
    many.pixels[1000:] = 1  # the last 2000, for one test image and for 1000
    assert all(divide(many, True, n).calibration.pixels.all() for n in (1, 1000))


def test_a_current_folder_is_left_alone(
    made: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (made / "quantized" / "manifest.json").stat().st_mtime_ns
    assert quantize(made, "IMAGES=360") == 0
    assert capsys.readouterr().out == f"up to date: {made / 'quantized'}\n"
    assert (made / "quantized" / "manifest.json").stat().st_mtime_ns == before
    monkeypatch.setattr(commands, "build", lambda *_: (_ for _ in ()).throw(UserError("redone")))
    assert quantize(made, "IMAGES=359") == 2  # anything else is done again
    assert capsys.readouterr().err == "error: redone\n"
    assert (made / "quantized" / "manifest.json").stat().st_mtime_ns == before


def test_a_damaged_folder_is_made_again(tmp_path: Path) -> None:
    assert quantize(tmp_path) == 0
    arrays = tmp_path / "quantized" / "arrays.npz"
    good = arrays.read_bytes()
    arrays.write_bytes(good[:-1])
    assert quantize(tmp_path) == 0
    assert arrays.read_bytes() == good


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["SCHEME=enq", "BITS=5", "VARIANT=round"], [("enq", 5)] * 4),
        (["SCHEME=uniform", "BITS=8"], [("uniform", 8)] * 4),
        (["BITS=5,4,3,2", "RULE=floor"], [("knq", bits) for bits in (5, 4, 3, 2)]),
    ],
)
def test_schemes_and_widths(
    tmp_path: Path, options: list[str], expected: list[tuple[str, int]]
) -> None:
    assert quantize(tmp_path, *options) == 0
    quantizers = [layer["quantizer"] for layer in read(tmp_path)["layers"]]
    assert [(one["scheme"], one["bits"]) for one in quantizers[:-1]] == expected
    assert quantizers[-1] is None


def test_a_plan_with_uniform_fully_connected_layers(tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text('[kind.fc]\nscheme = "uniform"\nbits = 10\n[layer.conv1]\nbits = 6\n')
    assert quantize(tmp_path, f"PLAN={plan}", "BITS=auto", "DELTA=2") == 0
    quantizers = [layer["quantizer"] for layer in read(tmp_path)["layers"][:-1]]
    assert [one["scheme"] for one in quantizers] == ["knq"] * 3 + ["uniform"]
    assert quantizers[0]["bits"] == 6
    assert quantizers[3]["bits"] == 10
    assert quantizers[1]["bits"] == quantizers[2]["bits"] < 6


def test_unlabelled_images_have_no_accuracy(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 17, (12, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", images=pixels)
    assert quantize(tmp_path, f"DATA={tmp_path / 'data.npz'}", "IMAGES=2") == 0
    entry = read(tmp_path)
    assert entry["accuracy"] is None
    assert entry["calibration"]["images"] == 10
    assert entry["calibration"]["labels"] is False


def broken_weights(folder: Path) -> Path:
    path = folder / "weights.pth"
    path.write_bytes(b"no checkpoint")
    return path


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["NET=resnet"], "error: NET must be one of alexnet, "),
        (["BITS=9"], "error: BITS of layer conv1 must be 1..8 for knq, not 9"),
        (["BITS=3,3"], "error: BITS must have 4 widths, one per quantized layer (conv1, "),
        (["BITS=many"], "error: BITS must be a number, a comma list of numbers or auto, not"),
        (
            ["SCHEME=up"],
            "error: SCHEME must be one of knq, enq, uniform, ",
        ),
        (["RULE=up"], "error: RULE must be one of nearest, floor, not up"),
        (["VARIANT=up"], "error: VARIANT must be one of round, mid, floor, not up"),
        (["QM=99"], "error: QM must be 2..15, not 99"),
        (["QM=wide"], "error: QM must be a number or auto, not 'wide'"),
        (["DELTA=-1"], "error: DELTA must be a number of 0 or more, not -1.0"),
        (
            ["IMAGES=361"],
            "error: IMAGES must be 1..360, the digits that digits was not trained on, ",
        ),
        (["PLAN=none.toml"], "error: PLAN must be a readable file, not none.toml: No such"),
        (["WEIGHTS=none.pth"], "error: WEIGHTS must be an existing file, not none.pth"),
        (["WEIGHTS=BROKEN"], "error: WEIGHTS must be "),
        (["DATA=none"], "error: DATA must be a folder of images or an .npz file, not none"),
        (["DATA=EMPTY"], "error: DATA must "),
    ],
)
def test_user_errors_exit_2_with_one_sentence(
    tmp_path: Path, options: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"BROKEN": str(broken_weights(tmp_path)), "EMPTY": str(tmp_path / "empty")}
    assert quantize(tmp_path / "out", *[places.get(option, option) for option in options]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(text)
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert not (tmp_path / "out").exists()


def test_a_place_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert quantize(tmp_path / "file") == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert (tmp_path / "file").read_text() == ""


def test_networks_lists_the_registry(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(main, ["networks"]) == 0
    out = capsys.readouterr().out
    assert "alexnet    input 3x224x224, 61,100,840 parameters" in out
    assert [line.split()[0] for line in out.splitlines()] == sorted(networks.registry())


def test_train_is_handed_to_the_trainer(monkeypatch: pytest.MonkeyPatch) -> None:
    from nuq.model_prep.training import train

    seen: list[tuple[object, ...]] = []
    monkeypatch.setattr(train, "train", lambda *given: seen.append(given))
    assert run_cli(main, ["train", "NET=digits"]) == 0
    words = ["DATA=a", "TEST=b", "EPOCHS=3", "CHECKPOINT=c"]
    assert run_cli(main, ["train", "NET=cifar10", *words]) == 0
    assert seen == [("digits", None, None, None, None), ("cifar10", Path("c"), "a", "b", 3)]
    assert run_cli(main, ["train", "NET=none"]) == 2


def test_the_module_runs_as_a_program() -> None:
    done = python("-m", "nuq.model_prep", "quantize", "NET=no", "OUT=here", status=2)
    assert done.stderr.startswith("error: NET must be one of ")
    assert done.stdout == ""
