# SPDX-License-Identifier: Apache-2.0
"""`init`: the settings file that it writes says what the network gets without it."""

import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nuq.formats import commands, settings
from nuq.formats.commands import main
from nuq.formats.errors import UserError
from nuq.formats.images import Preprocessing
from nuq.formats.options import Options
from nuq.model_prep import initial
from nuq.model_prep.source import Recipe, open_source
from tests.model_prep.onnx.onnx_models import build, node, random, save


def write_model(path: Path, channels: int = 3, normalise: bool = False) -> Path:
    """A convolution with ReLU and a fully connected layer on 8x8 images, 5 outputs."""
    constants = {"w": random(1, 4, channels, 3, 3), "v": random(2, 4, 5),
                 "shift": np.full((1, channels, 1, 1), 0.5, np.float32)}  # fmt: skip
    first = [node("Sub", "x shift", "n")] if normalise else [node("Identity", "x", "n")]
    nodes = [
        *first, node("Conv", "n w", "c", pads=[1, 1, 1, 1]), node("Relu", "c", "r"),
        node("GlobalAveragePool", "r", "p"), node("Flatten", "p", "f"), node("MatMul", "f v", "y"),
    ]  # fmt: skip
    return save(build(nodes, constants, (1, channels, 8, 8)), path)


def recipe_of(net: Path, values: dict[str, object]) -> Preprocessing:
    """What a network's images go through with a file's options."""
    names = ("MEAN", "STD", "SCALE", "RESIZE")
    return open_source(
        str(net), None, Recipe(*(values.get(name) for name in names))
    ).spec.preprocessing


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize(
    "words", [[], ["MEAN=0.5", "STD=0.5"], ["MEAN=123,117,104", "SCALE=1", "RESIZE=20"]]
)
def test_the_file_repeats_what_was_found(words, normalise, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    net = write_model(tmp_path / "own.onnx", normalise=normalise)
    assert main(["init", "NET=own.onnx", *words]) == 0
    said, written = capsys.readouterr().out, (tmp_path / "own.toml").read_text()
    assert "own: input 3x8x8, 5 outputs, 3 layers (1 conv, 1 avgpool, 1 fc), 137 parameters" in said
    assert "BITS as a list has a width for each of" in written and said.count("\n") < 9
    entries = tomllib.loads(written)
    assert entries["NET"] == "own.onnx"  # beside the file, wherever that is
    values = settings.read_file(tmp_path / "own.toml")
    assert values["NET"] == str(net)
    given = commands.read_words("quantize", [f"NET={net}", *words])
    assert recipe_of(net, values) == recipe_of(net, given)


def test_every_default_can_be_uncommented(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "own.onnx")
    assert main(["init", "NET=own.onnx", "BOARD=zcu104", "CONFIG=a.toml"]) == 0
    lines = [line.removeprefix("# ") for line in (tmp_path / "a.toml").read_text().splitlines()]
    (tmp_path / "b.toml").write_text("\n".join(line for line in lines if line[:2].isupper()
                                               and " = " in line))  # fmt: skip
    all_set = settings.read_file(tmp_path / "b.toml")
    assert {*initial.SHOWN} <= {*all_set}
    found = {name: value for name, value in all_set.items() if value is not None}
    assert found["PART"] == "xczu7ev" and found["PRESET"] == "accurate"
    with pytest.raises(UserError, match=r"a.toml exists already; remove it, or set CONFIG="):
        main(["init", "NET=own.onnx", "CONFIG=a.toml"])


def test_images_are_tried(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "own.onnx")
    images = np.zeros((6, 3, 8, 8), np.uint8)
    np.savez(tmp_path / "good.npz", images=images, labels=np.arange(6) % 5)
    np.savez(tmp_path / "bad.npz", images=images, labels=np.arange(6) + 5)
    assert main(["init", "NET=own.onnx", "DATA=good.npz"]) == 0
    assert "data: " in capsys.readouterr().out
    assert settings.read_file(tmp_path / "own.toml")["DATA"] == str(tmp_path / "good.npz")
    with pytest.raises(UserError, match=r"bad.npz must have labels 0\.\.4"):
        main(["init", "NET=own.onnx", "DATA=bad.npz", "CONFIG=b.toml"])
    assert not (tmp_path / "b.toml").exists()


def test_what_nobody_said_is_marked_as_guessed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "own.onnx")
    write_model(tmp_path / "norm.onnx", normalise=True)
    for words, names in (
        (["NET=own.onnx", "CONFIG=a.toml"], ["MEAN", "STD", "SCALE"]),
        (["NET=own.onnx", "CONFIG=b.toml", "MEAN=0.5", "STD=0.5"], ["SCALE"]),
        (["NET=own.onnx", "CONFIG=c.toml", "MEAN=9", "STD=1", "SCALE=1"], []),
        (["NET=norm.onnx", "CONFIG=d.toml"], []),
    ):
        assert main(["init", *words]) == 0
        said, written = capsys.readouterr().out, Path(words[1].partition("=")[2]).read_text()
        assert (f"\nguessed: {', '.join(names)}, which the file" in said) == bool(names)
        assert written.count("; guessed, check") == len(names)
        assert '\n# RESIZE = ""\n' in written  # else pictures of the input's size are resized, too


def test_sizes_and_classes_of_the_images_are_said(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "own.onnx")
    for name in ("circle", "cross", "ring"):
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "data" / name / "a.png")
    for number in ("", " RESIZE=9"):
        main(
            ["init", "NET=own.onnx", "DATA=data", f"CONFIG=own{number[-1:]}.toml", *number.split()]
        )
    said = capsys.readouterr()
    start = f"data: {tmp_path}/data, with labels; of the first 3: 3 "
    assert f"{start}of the input's size, taken" in said.out
    assert f"{start}resized\n" in said.out
    assert "\n3 classes: circle=0, cross=1, ring=2\n" in said.out
    assert "has 3 class folders for 5 outputs: circle=0, cross=1, ring=2." in said.err
    Image.new("RGB", (80, 50)).save(tmp_path / "data" / "ring" / "b.png")
    main(["init", "NET=own.onnx", "DATA=data", "CONFIG=mixed.toml"])
    said = capsys.readouterr()
    assert "of the first 4: 3 of the input's size, taken as they are, 1 resized\n" in said.out


def test_a_terminal_is_asked_for_what_is_not_set(capsys):
    asked: list[str] = []
    answers = iter(["", "fest", "fast", "pynq-z2"])

    def answer(question: str) -> str:
        asked.append(question.split()[0])
        return next(answers)

    found = initial.ask(Options(net="own.onnx", bits="5"), answer)
    assert asked == ["DATA", "PRESET", "PRESET", "BOARD"]
    assert "did you mean fast?" in capsys.readouterr().out
    assert (found.data, found.preset, found.bits, found.board) == (None, "fast", "5", "pynq-z2")
