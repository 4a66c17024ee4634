# SPDX-License-Identifier: Apache-2.0
"""The command `accuracy`, and NET=file.onnx through `quantize`; SqueezeNet where there is data."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from nuq import results
from nuq.formats import network as manifest
from nuq.formats.commands import main
from nuq.formats.errors import UserError, run_cli
from nuq.model_prep import commands, data, source, stages
from nuq.model_prep import run as run_module
from nuq.model_prep.quantize import quantizers
from nuq.model_prep.quantize.calibrate import Calibration
from nuq.model_prep.quantize.integers import network_input
from nuq.model_prep.quantize.plan import Settings
from nuq.model_prep.quantize.plan_file import resolve
from nuq.model_prep.quantize.quantizers.histogram import signal_and_noise
from nuq.model_prep.quantize.reference import Reference
from nuq.model_prep.source import Recipe, open_source
from tests.checkout import shared


def small_model(path: Path, channels: int = 3, classes: int = 12) -> Path:
    """Two convolutions side by side, concatenated, summed with themselves, averaged over space."""
    random = np.random.default_rng(1)
    tensors = {
        "w1": random.standard_normal((8, channels, 3, 3)), "b1": random.standard_normal(8),
        "w2": random.standard_normal((8, channels, 3, 3)), "b2": random.standard_normal(8),
        "w3": random.standard_normal((classes, 16, 1, 1)),
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["ar"]),
        helper.make_node("Conv", ["x", "w2", "b2"], ["b"], pads=[1, 1, 1, 1]),
        helper.make_node("Concat", ["ar", "b"], ["ab"], axis=1),
        helper.make_node("Conv", ["ab", "w3"], ["c"]),
        helper.make_node("Add", ["c", "c"], ["cc"]),
        helper.make_node("GlobalAveragePool", ["cc"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, channels, 10, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, classes, 1, 1])],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in tensors.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.save(model, path)
    return path


def labelled(path: Path, number: int = 90, classes: int = 12) -> Path:
    """Noise whose labels say nothing."""
    random = np.random.default_rng(2)
    images = random.integers(0, 256, (number, 10, 8, 3), dtype=np.uint8)
    np.savez(path, images=images, labels=random.integers(0, classes, number))
    return path


def run(command: str, *options: object) -> int:
    return run_cli(main, [command, *map(str, options)])


def result_of(out: Path) -> dict[str, Any]:
    entry: dict[str, Any] = json.loads((out / "accuracy.json").read_text())
    return entry


def test_accuracy_of_an_onnx_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net, images, out = small_model(tmp_path / "S 1.onnx"), labelled(tmp_path / "d.npz"), tmp_path
    assert run("accuracy", f"NET={net}", f"DATA={images}", "BITS=8", f"OUT={out}") == 0
    (text, said), result = capsys.readouterr(), result_of(out)
    assert "45 images for calibration, 45 others for the test, none in both" in text
    assert result["float_runtime"] == "onnxruntime"
    assert (result["images"], result["calibration_images"]) == (45, 45)
    assert result["agreement"] >= 90
    assert "warning: float top-1 is " in said  # the labels say nothing
    assert result["layer_images"] == 45 and "(of 45 images)" in text
    assert [row["name"] for row in result["layers"]] == [
        layer.name for layer in manifest.load(out / "quantized").layers
    ]
    assert all(row["sqnr_db"] > 20 for row in result["layers"])
    assert manifest.read_manifest(out / "quantized")["network"] == "s_1"


def test_nothing_is_said_twice_nor_what_says_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No top-5 of six classes, no accuracy on the one image that was quantized, one agreement."""
    net, images = (
        small_model(tmp_path / "six.onnx", classes=6), labelled(tmp_path / "d.npz", classes=6)
    )  # fmt: skip
    assert run("accuracy", f"NET={net}", f"DATA={images}", "BITS=8", f"OUT={tmp_path}") == 0
    text, result = capsys.readouterr().out, result_of(tmp_path)
    assert "test images: float" not in text and "top-5" not in text and "first 5" not in text
    assert text.count("agree with float") == 1 and "first 1" not in text
    assert sorted(result["paired"]) == ["agreement1", "top1"] and result["float_top5"] is None
    shown = results.read("accuracy", tmp_path).tables[0]
    assert list(shown.head) == ["network", "top-1 %"] and len(shown.rows) == 2
    arguments = (f"NET={small_model(tmp_path / 'a.onnx')}", f"DATA={labelled(tmp_path / 'a.npz')}")
    assert run("accuracy", *arguments, "BITS=8", f"OUT={tmp_path / 'a'}") == 0
    text = capsys.readouterr().out
    assert "top-5 %" in text and "float's first answer among the first 5: " in text


def test_seeded_weights_and_photographs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = small_model(tmp_path / "small.onnx")
    assert run("quantize", f"NET={net}", "WEIGHTS=seeded", f"OUT={tmp_path}") == 0
    assert "SEEDED random weights (WEIGHTS=seeded asks for them)" in capsys.readouterr().err
    network = manifest.load(tmp_path / "quantized")
    assert network.weights == "seeded"
    assert network.concats
    with np.load(tmp_path / "quantized" / "vectors.npz") as vectors:
        for name, codes in Reference(network).run(vectors["input"]):
            assert (vectors[name] == codes).all()


def test_disjoint_or_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net, images = small_model(tmp_path / "small.onnx"), labelled(tmp_path / "d.npz", 70)
    arguments = (f"NET={net}", f"DATA={images}", f"OUT={tmp_path / 'out'}")
    assert run("accuracy", *arguments, "IMAGES=36") == 2
    assert "IMAGES must be 1..35, the 70 images less 35 for calibration" in capsys.readouterr().err
    assert run("accuracy", f"NET={net}", f"OUT={tmp_path / 'out'}") == 2
    assert "DATA must have labels to measure accuracy" in capsys.readouterr().err


def test_an_accuracy_leaves_the_build_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is quantized again, with other test images, before or after it."""
    net, images, out = small_model(tmp_path / "small.onnx"), labelled(tmp_path / "d.npz"), tmp_path
    arguments = (f"NET={net}", f"DATA={images}", "BITS=8", f"OUT={out}")
    assert run("quantize", *arguments, "IMAGES=20") == 0
    made = (out / "quantized" / "manifest.json").stat().st_mtime_ns
    for command in ("accuracy", "quantize"):
        capsys.readouterr()
        assert run(command, *arguments) == 0
        assert "up to date: " in capsys.readouterr().out
        assert (out / "quantized" / "manifest.json").stat().st_mtime_ns == made


def test_csim_logits_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net, images, out = small_model(tmp_path / "small.onnx"), labelled(tmp_path / "d.npz"), tmp_path
    arguments = (f"NET={net}", f"DATA={images}", "IMAGES=20", "BITS=8", f"OUT={out}")
    assert run("accuracy", *arguments, "CSIM=1") == 2
    assert "logits.bin must exist; run `nuq csim`" in capsys.readouterr().err
    with np.load(out / "quantized" / "vectors.npz") as vectors:
        last = manifest.load(out / "quantized").layers[-1].name
        (out / "csim").mkdir()
        vectors[last].astype("<i8").tofile(out / "csim" / "logits.bin")
    assert run("accuracy", *arguments, "CSIM=1") == 0
    result = result_of(out)
    assert result["csim"]["top1"] == result["integer_top1"]
    assert result["csim"]["top5"] == result["integer_top5"]


def test_two_measurements_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net, images = small_model(tmp_path / "small.onnx"), labelled(tmp_path / "d.npz")
    one, two = tmp_path / "one", tmp_path / "two"
    arguments = (f"NET={net}", f"DATA={images}", "BITS=8")
    assert run("accuracy", *arguments, f"OUT={two}", f"AGAINST={one}") == 2
    assert "accuracy.npz must exist; run `nuq accuracy` with that OUT" in capsys.readouterr().err
    assert not two.exists()
    assert run("accuracy", *arguments, f"OUT={one}") == 0
    few = (*arguments, "WEIGHT_BITS=3", f"OUT={two}", f"AGAINST={one}")
    assert run("accuracy", *few) == 0
    found, before = result_of(two), result_of(one)
    for top in ("top1", "top5"):
        change = found[f"integer_{top}"] - before[f"integer_{top}"]
        assert found["against"][top]["difference"] == pytest.approx(change, abs=1e-2)
    gap = found["divergence"]["mean"] - before["divergence"]["mean"]
    assert found["against"]["divergence"]["mean"] == pytest.approx(gap) and gap > 0
    assert run("accuracy", *few, "IMAGES=9") == 2
    assert (
        "AGAINST must be a measurement of this network on these images" in capsys.readouterr().err
    )


def test_every_image_is_decoded_and_run_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once 400 decodes, 601 images through the float network and 10 fits of 5 layers' weights."""
    random, counts = np.random.default_rng(4), dict.fromkeys(("decode", "float", "fit"), 0)
    for number in range(200):
        folder = tmp_path / "images" / str(number % 10)
        folder.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")

    def count(module: Any, name: str, key: str, size: Callable[..., int]) -> None:
        inner = getattr(module, name)

        def counted(*arguments: Any, **keywords: Any) -> Any:
            counts[key] += size(*arguments)
            return inner(*arguments, **keywords)

        monkeypatch.setattr(module, name, counted)

    count(Image, "open", "decode", lambda *_: 1)
    count(run_module, "run_float", "float", lambda _, x: len(x))
    count(run_module, "run_encoded", "float", lambda _, x: 0 if x.requires_grad else len(x))
    count(quantizers, "fit_weights", "fit", lambda *_: 1)
    data = tmp_path / "images"
    assert run("accuracy", "NET=digits", f"DATA={data}", "BITS=8", f"OUT={tmp_path}") == 0
    assert (result_of(tmp_path)["images"], result_of(tmp_path)["calibration_images"]) == (100, 100)
    # calibration, test, and the one image of vectors.npz, which is a set of its own
    assert counts == {"decode": 200, "float": 100 + 100 + 1, "fit": 5}
    assert run("accuracy", "NET=digits", f"DATA={data}", "BITS=8", f"OUT={tmp_path}") == 0
    assert counts == {"decode": 400, "float": 201 + 100, "fit": 5}  # the folder is up to date


@pytest.mark.parametrize(
    ("recipe", "text"),
    [
        (Recipe(mean="1,2"), "^MEAN must be 1 or 3 numbers with commas, not '1,2'$"),
        (Recipe(std="x"), "^STD must be 1 or 3 numbers with commas, not 'x'$"),
        (Recipe(std="0"), "^STD and SCALE must be above 0, not 0 and None$"),
        (Recipe(mean="123,117,104"), "^MEAN must be at most 1, the largest pixel times SCALE, not"),
        (Recipe(resize=9), "^RESIZE must be 10..32768 for a 10x8 input, not 9$"),
    ],
)
def test_bad_recipes(tmp_path: Path, recipe: Recipe, text: str) -> None:
    net = small_model(tmp_path / "small.onnx")
    with pytest.raises(UserError, match=text):
        source.open_source(str(net), None, recipe)


@pytest.mark.parametrize(
    ("recipe", "scale", "mean", "std"),
    [
        (Recipe(), 1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        (Recipe(mean="0.5", std="0.25"), 1 / 255, (0.5,) * 3, (0.25,) * 3),
        (Recipe(std="0.5"), 1 / 255, (0.0,) * 3, (0.5,) * 3),
        (Recipe(scale=1.0, mean="123"), 1.0, (123.0,) * 3, (1.0,) * 3),
        (Recipe(scale=1 / 127.5, mean="1"), 1 / 127.5, (1.0,) * 3, (1.0,) * 3),
    ],
)
def test_means_are_in_the_units_of_torch(
    recipe: Recipe, scale: float, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    found = source.preprocessing((3, 8, 8), recipe)
    assert (found.scale, found.mean, found.std) == (scale, mean, std)


def test_a_network_that_guesses_is_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    network = SimpleNamespace(
        layers=[SimpleNamespace(out_shape=(10, 1, 1))],
        weights="file",
        input=SimpleNamespace(preprocessing=source.preprocessing((3, 8, 8), Recipe())),
    )
    commands.warn_of_chance(16.9, 360, network)
    said = capsys.readouterr().err
    assert said.startswith("warning: float top-1 is 16.9% of 360 images, little better than guess")
    assert "among 10 classes (10.0%); check MEAN, STD, SCALE and RESIZE ((pixel / 255 " in said
    commands.warn_of_chance(99.0, 360, network)
    commands.warn_of_chance(0.0, 5, network)  # too few images to say
    network.weights = "seeded"
    commands.warn_of_chance(10.0, 360, network)
    assert capsys.readouterr().err == ""


def test_a_recipe_needs_a_file() -> None:
    with pytest.raises(
        UserError, match="^MEAN, STD, SCALE, RESIZE and SIDE must go with an ONNX file"
    ):
        source.open_source("digits", None, Recipe(mean="1"))
    with pytest.raises(UserError, match=r"^NET must be an existing ONNX file, not none\.onnx$"):
        source.open_source("none.onnx", None, Recipe())


def test_other_channels_need_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = small_model(tmp_path / "small.onnx", channels=5)
    assert run("quantize", f"NET={net}", f"OUT={tmp_path}") == 2
    assert "DATA must be given for an input of 5 channels" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.data
def test_squeezenet_at_five_bits_with_defaults(tmp_path: Path) -> None:
    """ENQ is within 10 points of KNQ; KNQ's divergence a fifth below that of one F, paired."""
    net, images = shared("data/squeezenet_v1.0.onnx"), shared("data/imagenet500.npz")
    words = [f"NET={net}", f"DATA={images}", "MEAN=123,117,104", "SCALE=1", "RESIZE=256", "BITS=5"]
    (tmp_path / "one.toml").write_text('frac_mode = "network"\n')
    found = {}
    for name, more in {
        "knq": [], "enq": ["SCHEME=enq", f"AGAINST={tmp_path / 'knq'}"],
        "one": [f"PLAN={tmp_path / 'one.toml'}", f"AGAINST={tmp_path / 'knq'}"],
    }.items():  # fmt: skip
        assert run("accuracy", *words, *more, f"OUT={tmp_path / name}") == 0
        found[name] = result_of(tmp_path / name)
    knq, enq, one = found.values()
    assert knq["images"] >= 400
    assert knq["float_top5"] - knq["integer_top5"] <= 1.5
    assert knq["integer_top5"] - enq["integer_top5"] <= 10
    assert knq["divergence"]["mean"] <= 0.8 * one["divergence"]["mean"]
    assert one["against"]["divergence"]["low"] > 0


@pytest.mark.slow
@pytest.mark.data
def test_vgg16_convolutions_keep_17_db_at_five_bits(tmp_path: Path) -> None:
    """All quantizers together, as 002 adds them; one F for the network leaves 13.3 dB."""
    net = open_source(
        str(shared("data/vgg16_conv.onnx")), None, Recipe("123.68,116.779,103.939", "1", 1.0, 256)
    )
    images = data.load(net.spec, str(shared("data/imagenet500.npz")), 8).pixels
    plan = resolve(net.graph, Settings(scheme="knq", bits=5), net.defaults)

    def to_float(pixels: np.ndarray) -> torch.Tensor:
        return data.to_float(net.spec, pixels)

    done = stages.quantization(net.graph, network_input(net.spec), plan, images, None, to_float)
    noise = 0.0
    calibration = Calibration(net.graph, images, to_float, 15, 0)
    for name, chosen in done.quantizers.items():
        frac = int(np.floor(np.log2((1 << 15) / calibration.maxima[name])))
        counts = calibration.counts(15, {name: frac})[name]
        signal, error = signal_and_noise(counts, 0, frac, chosen)
        noise += error / signal
    assert len(done.quantizers) == 13
    assert -10 * np.log10(noise) >= 17.0
