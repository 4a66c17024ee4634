# SPDX-License-Identifier: Apache-2.0
"""Measurements on the emulated board: memory and traffic equal the report, time is the model's."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from board import images as pictures
from board import measure
from board.driver import Accelerator
from formats.commands import main
from formats.errors import UserError


def test_measure_command(digits_build, bundle, capsys):
    assert main(["measure", f"OUT={digits_build}", "REPEATS=2", "CLNQ=8,7,6"]) == 0
    text = capsys.readouterr().out
    results = json.loads((digits_build / "measure.json").read_text())
    assert "model of the engine" in text and "measured" not in text.split("written")[0]
    assert (digits_build / "measure.png").stat().st_size > 10_000
    report = json.loads((digits_build / "report.json").read_text())
    assert results["accuracy"]["top1"] == pytest.approx(report["accuracy"]["integer_top1"])
    memory = results["memory"]
    assert memory["code_bytes"] * 8 == report["memory"]["nb_bits"]
    assert memory["half_precision_bytes"] * 8 == report["memory"]["half_precision_bits"]
    assert memory["stored_bytes"] == report["memory"]["packed_bytes"]
    assert memory["allocated_bytes"] == 16 * report["memory"]["arena_bytes"]
    sizes = [layer["activations"] for layer in report["layers"] if layer["kind"] == "conv"]
    clnq = sum(size * bits for size, bits in zip(sizes, (8, 7, 6), strict=True)) / 8
    assert memory["convolutions"]["clnq_bytes"] == clnq
    assert [part["batch"] for part in results["latency"]] == [1, 16]
    for part in results["latency"]:
        assert part["time"] == "model"
        times = part["network"]
        assert times["mean_ms"] == pytest.approx(times["p50_ms"]) == pytest.approx(times["p99_ms"])
        assert times["images_per_s"] == pytest.approx(1e3 * part["batch"] / times["mean_ms"])
        assert part["convolutions"]["mean_ms"] < times["mean_ms"]
        cycles = sum(layer["cycles"] for layer in part["layers"])
        assert times["mean_ms"] == pytest.approx(cycles / 1e5)


def test_clnq_needs_a_width_per_convolution(bundle, device):
    with Accelerator(bundle) as board:
        assert measure.memory(board)["convolutions"]["clnq_bytes"] is None
        with pytest.raises(UserError, match="^CLNQ widths must be one per convolution, 3, not 2"):
            measure.memory(board, (8, 8))
        with pytest.raises(UserError, match=r"^a batch must have 1..16 images"):
            measure.latency(board, np.zeros((17, 1, 8, 8), dtype=np.uint8))


def test_statistics():
    found = measure.statistics([0.001] * 98 + [0.002, 0.003])
    assert found["p50_ms"] == pytest.approx(1) and found["mean_ms"] == pytest.approx(1.03)
    assert found["p99_ms"] == pytest.approx(2.01)


def test_top_k_leaves_out_unknown_labels():
    logits = np.array([[0, 1, 2, 3], [3, 2, 1, 0]])
    assert measure.top_k(logits, np.array([3, -1]), 1) == 100.0
    assert measure.top_k(logits, np.array([-1, -1]), 1) is None
    assert measure.top_k(logits, np.array([3, 0]), 4) is None


def test_npz_of_arrays(tmp_path, golden):
    path = tmp_path / "digits.npz"
    np.savez(path, images=golden["images"], labels=golden["labels"])
    found, labels = pictures.load(path, (1, 8, 8), limit=7)
    assert (found == golden["images"][:7]).all() and (labels == golden["labels"][:7]).all()
    with pytest.raises(UserError, match=r"images must be uint8 \[N, 3, 8, 8\], not uint8 \[360"):
        pictures.load(path, (3, 8, 8))
    np.savez(path, images=golden["images"].transpose(0, 2, 3, 1).repeat(3, axis=3))
    found, labels = pictures.load(path, (3, 8, 8))
    assert found.shape == (360, 3, 8, 8) and (labels == -1).all()
    np.savez(path, other=np.zeros(3))
    with pytest.raises(UserError, match="must hold images and labels, or jpeg, start and label"):
        pictures.load(path, (1, 8, 8))
    path.write_bytes(b"no zip")
    with pytest.raises(UserError, match="must be an npz archive"):
        pictures.load(path, (1, 8, 8))


def test_folder_of_pictures(tmp_path):
    for name, size in (("cat", (40, 60)), ("7", (32, 32)), ("dog", (100, 20))):
        (tmp_path / name).mkdir()
        Image.new("RGB", size, (10, 20, 30)).save(tmp_path / name / "picture.png")
    found, labels = pictures.load(tmp_path, (3, 32, 32), ("dog", "cat"))
    assert found.shape == (3, 3, 32, 32)
    assert labels.tolist() == [7, 1, 0]
    assert (found[:, 2] == 30).all()
    (tmp_path / "cat" / "broken.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match="broken.png must be a picture that Pillow can read"):
        pictures.load(tmp_path, (3, 32, 32))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="must hold pictures"):
        pictures.load(tmp_path / "empty", (3, 32, 32))
    with pytest.raises(UserError, match="must be a folder of pictures or an .npz"):
        pictures.load(tmp_path / "nowhere", (3, 32, 32))


@pytest.mark.data
def test_imagenet_archive(imagenet_path):
    found, labels = pictures.load(imagenet_path, (3, 227, 227), limit=3)
    assert found.shape == (3, 3, 227, 227) and found.std() > 20
    assert labels.shape == (3,)
