# SPDX-License-Identifier: Apache-2.0
"""Networks as people bring them: float values are onnxruntime's, integers the C-simulation's.

All run on one engine, which is compiled once.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from activation_cases import ACTIVATIONS
from cases import CASES, IMAGE, body, side_by_side
from enlarged_cases import ENLARGED, odd_width_decoder
from gate_cases import GATES
from onnx_models import build, compare, node, runtime, runtimes, save

from nuq.codegen.emit import csim
from nuq.formats.commands import main, parse
from nuq.formats.design import read_design
from nuq.formats.errors import run_cli
from nuq.formats.network import load
from nuq.formats.packing import unpack_raw
from nuq.model_prep.inspection import inspect
from nuq.model_prep.onnx import load_onnx
from nuq.model_prep.source import Recipe, folded
from tests.checkout import needs_compiler

IMAGES = 4
ENGINE = ("SIMD=8", "PE=24", "PIXELS=1")
EVERY = CASES | ACTIVATIONS | ENLARGED | GATES


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An engine that runs them all."""
    folder = tmp_path_factory.mktemp("engine")
    assert main(["engine", f"OUT={folder}", *ENGINE]) == 0
    flags, csim.FLAGS = csim.FLAGS, tuple(flag.replace("-O3", "-O1") for flag in csim.FLAGS)
    yield folder
    csim.FLAGS = flags


@pytest.mark.parametrize("name", EVERY)
def test_float_values_are_those_of_onnxruntime(name: str, tmp_path: Path) -> None:
    compare(EVERY[name](), tmp_path)


def test_a_files_own_normalisation_is_in_the_inputs_table(tmp_path: Path) -> None:
    """No layer holds it, and pixels become what the file makes of them, with a recipe or not."""
    for name, scale in (("input_scale_inside", 1.0), ("channels_last_input", 1.0)):
        path = save(CASES[name](), tmp_path / f"{name}.onnx")
        imported = load_onnx(path)
        assert [layer.kind for layer in imported.graph.layers] == ["conv", "avgpool", "fc"]
        for recipe, factor in ((Recipe(), scale), (Recipe(mean="0.5", std="2", scale=0.5), 0.5)):
            found = folded(imported, recipe).values()
            own = recipe.mean is not None
            pixels = (np.arange(256) * factor - 0.5 * own) / (2 if own else 1)
            expected = pixels * imported.scale[:, None] + imported.shift[:, None]
            assert found == pytest.approx(expected, rel=1e-5, abs=1e-5)
    mean = -imported.shift / imported.scale
    assert mean == pytest.approx([120, 110, 100])


def test_what_they_become(tmp_path: Path) -> None:
    """A norm of positive factors lies behind its pool, two means in a row are one."""
    for name, kinds, pooled in (
        ("norm_before_max_pool", ["conv", "conv", "conv", "avgpool", "fc"], 0),
        ("negative_norm_before_max_pool", ["conv", "conv", "conv", "avgpool", "fc"], 1),
        ("signed_max_pool", ["conv", "conv", "fc"], 0),
        ("mean_side_by_side", ["conv", "avgpool", "fc"], None),
        ("rectangular_average", ["conv", "avgpool", "fc"], None),
        (
            "residual_excitation",
            ["conv", "avgpool", "conv", "conv", "mul", "add", "conv", "avgpool", "fc"],
            None,
        ),
        ("gated_map", ["conv", "conv", "mul", "conv", "avgpool", "fc"], None),
    ):
        layers = load_onnx(save(EVERY[name](), tmp_path / "m.onnx")).graph.layers
        assert [layer.kind for layer in layers] == kinds
        assert [i for i, layer in enumerate(layers) if layer.pool] == [
            place for place in (pooled,) if place is not None
        ]


def test_signed_pools_need_codes_of_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save(CASES["signed_max_pool"](), tmp_path / "signed.onnx")
    np.savez(tmp_path / "data.npz", images=np.zeros((9, 1, 16, 16), np.uint8) + 7)
    options = [f"NET={path}", f"DATA={tmp_path / 'data.npz'}", "SCHEME=enq", "BITS=4"]
    assert run_cli(main, ["quantize", *options, f"OUT={tmp_path / 'out'}"]) == 2
    assert "a max pool of values that may be negative must have codes" in capsys.readouterr().err
    assert not (tmp_path / "out" / "quantized").exists()


def test_a_normalisation_of_pixels_up_to_1_gets_them_so(tmp_path: Path) -> None:
    nodes, constants = body("d", last="y")
    before = [node("Sub", "x mean", "b"), node("Div", "b std", "d")]
    constants |= {"mean": np.float32(0.5), "std": np.float32(0.25)}
    imported = load_onnx(save(build(before + nodes, constants, IMAGE), tmp_path / "m.onnx"))
    assert folded(imported, Recipe()).values()[:, [0, 255]] == pytest.approx(
        np.array([[-2.0, 2.0]] * 3)
    )


@pytest.mark.parametrize("name", ["sigmoid_output", "softmax_output", "channels_last_input"])
def test_accuracy_of_what_the_file_answers(name: str, tmp_path: Path) -> None:
    """Labels that onnxruntime's own output gives: float has them all, also of one sigmoid."""
    model = CASES[name]()
    path = save(model, tmp_path / f"{name}.onnx")
    network = load_onnx(path)
    pixels = np.random.default_rng(4).integers(0, 256, (60, *network.in_shape), dtype=np.uint8)
    values = folded(network, Recipe()).values()
    inputs = np.stack([values[c][pixels[:, c]] for c in range(len(values))], 1).astype(np.float32)
    answers = np.concatenate([runtime(model, network, x[None]) for x in inputs])
    one = answers.shape[1] == 1
    labels = (answers[:, 0] > 0.5).astype(int) if one else answers.argmax(axis=1)
    np.savez(tmp_path / "data.npz", images=pixels, labels=labels)
    options = [f"NET={path}", f"DATA={tmp_path / 'data.npz'}", f"OUT={tmp_path / 'out'}"]
    assert main(["accuracy", *options]) == 0
    result = json.loads((tmp_path / "out" / "accuracy.json").read_text())
    assert result["float_top1"] == 100
    assert result["integer_top1"] >= 60


@pytest.mark.parametrize("scheme", ["knq", "uniform"])
@pytest.mark.parametrize("ranges", [(100, 1), (1, 100)])
def test_parts_of_unequal_ranges_keep_their_codes(
    scheme: str, ranges: tuple[float, float], tmp_path: Path
) -> None:
    """Nearly as many dB in every layer as where both parts have one range."""
    found = {}
    for name, (first, second) in {"equal": (1, 1), "unequal": ranges}.items():
        path = save(side_by_side("Concat", first, second), tmp_path / f"{name}.onnx")
        pixels = np.random.default_rng(3).integers(0, 256, (40, *IMAGE[1:]), dtype=np.uint8)
        labels = np.arange(40) % 10
        np.savez(tmp_path / "data.npz", images=pixels, labels=labels)
        words = [f"NET={path}", f"DATA={tmp_path / 'data.npz'}", f"SCHEME={scheme}", "BITS=5"]
        assert main(["accuracy", *words, f"OUT={tmp_path / name}"]) == 0
        result = json.loads((tmp_path / name / "accuracy.json").read_text())
        found[name] = [layer["sqnr_db"] for layer in result["layers"]]
        layers = load(tmp_path / name / "quantized").layers
        scales = [layer.scale for layer in layers[1:3]]
        assert [one is None for one in scales] == [name == "equal" or by == 100 for by in ranges]
        views = inspect(parse("accuracy", [*words, f"OUT={tmp_path / name}", "IMAGES=4"]), 4).layers
        assert all(view.alone_db > 20 for view in views if view.quantizer)
    assert found["unequal"] == pytest.approx(found["equal"], abs=2)  # 64 is not 100


@needs_compiler
@pytest.mark.parametrize("name", EVERY)
def test_integers_are_those_of_the_c_simulation(name: str, tmp_path: Path, engine: Path) -> None:
    """And what the host makes of them is close to onnxruntime's output at 5 bits."""
    model = EVERY[name]()
    path, out = save(model, tmp_path / f"{name}.onnx"), tmp_path / "out"
    network = load_onnx(path)
    shape = (40, *network.in_shape)
    pixels = np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8)
    np.savez(tmp_path / "data.npz", images=pixels)
    options = [f"NET={path}", f"DATA={tmp_path / 'data.npz'}", f"IMAGES={IMAGES}", "BITS=5"]
    assert main(["quantize", *options, f"OUT={out}"]) == 0
    assert main(["codegen", f"OUT={out}", f"ENGINE={engine}"]) == 0
    assert main(["csim", f"OUT={out}", f"ENGINE={engine}"]) == 0
    stored, design = load(out / "quantized"), read_design(out)
    assert stored.outputs == network.outputs
    assert [(one.name, one.layer, one.ending) for one in design.outputs] == [
        (one.name, one.layer, one.ending) for one in network.outputs
    ]
    words = np.fromfile(out / "csim" / "logits.bin", "<i8").reshape(IMAGES, -1)
    parts = unpack_raw(words, [head.out_shape for head in design.heads])
    integers = design.by_output(dict(zip(stored.heads, parts, strict=True)))
    found = [one.finished(integers[one.name]) for one in design.outputs]
    with np.load(out / "quantized" / "vectors.npz") as vectors:
        images = vectors["images"]
    inputs = (stored.input.encode(images) * 2.0**-stored.input.frac).astype(np.float32)
    for number, x in enumerate(inputs):
        for mine, expected in zip(found, runtimes(model, network, x[None]), strict=True):
            close(np.asarray(mine[number]), expected.reshape(np.asarray(mine[number]).shape))


@needs_compiler
def test_rows_that_are_no_whole_words_need_wide_tiles(
    tmp_path: Path, engine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = odd_width_decoder()
    compare(model, tmp_path)
    np.savez(tmp_path / "data.npz", images=np.zeros((4, 3, 10, 10), np.uint8) + 7)
    options = [f"NET={save(model, tmp_path / 'odd.onnx')}", f"DATA={tmp_path / 'data.npz'}"]
    for bits, status in ((5, 2), (4, 0)):
        out = [f"OUT={tmp_path / str(bits)}"]
        assert main(["quantize", *options, f"BITS={bits}", "IMAGES=2", *out]) == 0
        assert run_cli(main, ["codegen", f"ENGINE={engine}", *out]) == status
    assert "PE must be 32 or more to store its channels at 2x2 places" in capsys.readouterr().err
    assert main(["csim", f"ENGINE={engine}", *out]) == 0


def close(found: np.ndarray, expected: np.ndarray) -> None:
    """Equal classes, or values whose distance is a tenth of theirs."""
    if np.issubdtype(expected.dtype, np.integer):
        assert (found == expected).all()
    else:
        assert np.linalg.norm(found - expected) <= 0.1 * max(1.0, float(np.linalg.norm(expected)))
