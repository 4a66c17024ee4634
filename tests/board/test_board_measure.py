# SPDX-License-Identifier: Apache-2.0
"""Measurements on the emulated board: memory and traffic equal the report, time is the model's."""

import json
from dataclasses import replace

import numpy as np
import pytest

from nuq import dispatch
from nuq.board import measure
from nuq.board.driver import Accelerator
from nuq.formats.commands import main
from nuq.formats.design import TRAFFIC, read_design
from nuq.formats.errors import UserError


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
        # what takes longer, cycles at 100 MHz or bytes at 75% of the DRAM's peak, as in the report
        both = [
            (layer["cycles"] / 1e5, sum(layer[name] for name in TRAFFIC) / 1.575e6)
            for layer in part["layers"]
        ]
        assert times["mean_ms"] == pytest.approx(sum(map(max, both)))
        assert [layer["dram_bound"] for layer in part["layers"]] == [b > a for a, b in both]


def test_a_batch_that_the_engine_does_not_take_is_not_measured_silently(digits_build, capsys):
    most = read_design(digits_build).batch
    words = ["measure", f"OUT={digits_build}", "REPEATS=1"]
    assert main([*words, f"BATCH={most + 1}"]) == 0
    told = capsys.readouterr().err
    assert f"takes {most} image(s) a run, which is what is measured, not BATCH={most + 1}; " in told
    assert main([*words, f"BATCH={most}"]) == 0
    assert "takes" not in capsys.readouterr().err


def test_a_bundle_that_is_none_is_refused_before_a_build_is_made(tmp_path):
    wrong = ["measure", "NET=digits", f"BUNDLE={tmp_path}/none", f"OUT={tmp_path}/build"]
    with pytest.raises(UserError, match=r"none/manifest.json must exist; unpack bundle\.zip"):
        main(wrong, dispatch.run)
    assert not (tmp_path / "build").exists()


def test_a_slow_dram_binds_every_layer(bundle, golden, device):
    with Accelerator(bundle) as board:
        board.design = replace(board.design, dram_gbs=1e-3)
        found = measure.latency(board, golden["images"][:1], 1)
        assert all(layer["dram_bound"] for layer in found["layers"])
        moved = sum(layer[name] for layer in found["layers"] for name in TRAFFIC)
        assert found["network"]["mean_ms"] == pytest.approx(moved / 1e3)


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
