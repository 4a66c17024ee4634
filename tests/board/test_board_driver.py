# SPDX-License-Identifier: Apache-2.0
"""The unmodified driver on the emulated board: bit-exact, whole or by layer, any batch.

AlexNet at full size, at 3 bits: 8 photographs in one batch, bundle size, activation memory.
"""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pynq
import pytest

from nuq.board.bundle import BUNDLE, make_bundle
from nuq.board.driver import Accelerator
from nuq.board.emulate import emulate, prepare
from nuq.board.measure import memory
from nuq.formats.ending import Step
from nuq.formats.errors import UserError


def test_all_digits_equal_the_reference_image_by_image(bundle, digits_build, golden, device):
    with np.load(digits_build / "quantized" / "vectors.npz") as vectors:
        images, labels, logits = vectors["images"], vectors["labels"], vectors["fc5"][:, :, 0, 0]
    assert (golden["images"] == images).all() and (golden["logits"] == logits).all()
    with Accelerator(bundle) as board:
        found = board.predict(images)
    assert found.dtype == np.int64
    assert (found == logits).all()
    report = json.loads((digits_build / "report.json").read_text())
    top1 = 100 * (found.argmax(axis=1) == labels).mean()
    assert top1 == pytest.approx(report["accuracy"]["integer_top1"])


@pytest.mark.parametrize("batch", [1, 7, 256, 1000])
@pytest.mark.parametrize("by_layer", [False, True])
def test_any_batch_gives_the_same_logits(bundle, golden, device, batch, by_layer):
    with Accelerator(bundle, batch=batch) as board:
        assert board.batch == min(batch, 256)
        found = board.predict(golden["images"][:20], by_layer)
        assert (found == golden["logits"][:20]).all()
        calls = -(-20 // board.batch)
        assert len(board.calls) == calls * (5 if by_layer else 1)


def test_counters_are_the_predicted_ones(bundle, digits_build, golden, device):
    """One batch of the planner's size: bytes and cycles of every layer as in the report."""
    layers = json.loads((digits_build / "report.json").read_text())["layers"]
    totals = [Counter() for _ in layers]
    with Accelerator(bundle, batch=256) as board:
        board.predict(golden["images"], by_layer=True)
        for call in board.calls:
            totals[call.first].update(call.counters)
        assert [layer.name for layer in board.design.layers] == [item["name"] for item in layers]
    for layer, total in zip(layers, totals, strict=True):
        busiest = max(layer["counts"].values())
        assert (total["cycles"], total["bytes_read"]) == (busiest, layer["bytes_read"])


def test_activations_are_the_stored_codes(bundle, digits_build, golden, device):
    with Accelerator(bundle) as board, np.load(digits_build / "quantized/vectors.npz") as vectors:
        for layer in board.design.layers[:-1]:
            found = board.activations(golden["images"][:20], layer.name)
            assert (found == vectors[layer.name][:20]).all(), layer.name


def test_classes_best_first(bundle, golden, device):
    with Accelerator(bundle) as board:
        for best, row in zip(
            board.classify(golden["images"][:5], 3), golden["logits"][:5], strict=True
        ):
            assert [index for index, _, _ in best] == list(np.argsort(-row, kind="stable")[:3])
            assert best[0][1] == str(best[0][0])
            assert best[0][2] == row[best[0][0]] * board.design.outputs[0].scale
        assert board.predict(golden["images"][:0]).shape == (0, 10)


def test_the_host_does_the_networks_ending(bundle, golden, device):
    """A softmax, then the class: what `predict` gives stays as it is."""
    images, logits = golden["images"][:5], golden["logits"][:5]
    with Accelerator(bundle) as board:
        softmax = Step("softmax", axis=1)
        (output,) = board.design.outputs
        board.design = replace(board.design, outputs=(replace(output, ending=(softmax,)),))
        values = logits * output.scale
        expected = np.exp(values) / np.exp(values).sum(axis=1, keepdims=True)
        assert board.outputs(images) == pytest.approx(expected)
        argmax = Step("argmax", axis=1, keep=False)
        chosen = replace(output, ending=(softmax, argmax))
        board.design = replace(board.design, outputs=(chosen,))
        assert (board.outputs(images) == logits.argmax(axis=1)).all()
        assert (board.predict(images) == logits).all()


def test_bad_arguments(bundle, golden, device):
    with pytest.raises(UserError, match="^batch must be 1 or more, not 0"):
        Accelerator(bundle, batch=0)
    with Accelerator(bundle) as board:
        with pytest.raises(UserError, match=r"^images must be uint8 \[N, 1, 8, 8\], not float64"):
            board.predict(golden["images"] / 255)
        with pytest.raises(UserError, match=r"not uint8 \[8, 8\]"):
            board.predict(golden["images"][0, 0])
        with pytest.raises(UserError, match="^layer must be no head, as fc5"):
            board.activations(golden["images"][:1], "fc5")
        assert (board.predict(golden["images"][:3]) == golden["logits"][:3]).all()
    with pytest.raises(UserError, match="^the accelerator must be open, not closed"):
        board.predict(golden["images"][:1])


def test_two_boards_at_the_same_time(bundle, golden, device):
    with Accelerator(bundle) as first, Accelerator(bundle) as second:
        assert device.live_buffers == 6
        for board in (first, second):
            assert (board.predict(golden["images"][:3]) == golden["logits"][:3]).all()


def test_emulate_says_what_it_compared(digits_build, bundle, capsys):
    """And no top-5, which says nothing of ten classes, nor what only its developers can use."""
    (digits_build / BUNDLE).unlink(missing_ok=True)
    assert emulate(digits_build) == 0
    text = capsys.readouterr().out
    assert [line.split(":")[0] for line in text.splitlines()] == ["digits", "digits", "PASSED"]
    assert "top-1" in text and "top-5" not in text and "digits: 360 images\n" in text
    assert pynq.Device.active_device.live_buffers == 0
    assert text.endswith("PASSED: all logits are bit-exact\n")


@pytest.mark.slow
def test_ten_thousand_runs_leak_nothing(bundle, golden, device):
    def resident() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))

    with Accelerator(bundle, batch=1) as board:
        for run in range(10_000):
            if run == 1_000:
                before = resident()
            place = run % 360
            image = golden["images"][place : place + 1]
            assert (board.predict(image) == golden["logits"][place]).all()
        assert resident() - before < 1_024  # kB
        assert device.live_buffers == 3


@pytest.mark.slow
def test_eight_photographs_in_one_batch(alexnet_build, capsys, caplog):
    caplog.set_level("INFO")
    assert emulate(alexnet_build) == 0
    text = capsys.readouterr().out
    assert "calls of up to 8 images" in caplog.text
    assert "alexnet: 8 images\n" in text and "PASSED: all logits are bit-exact" in text


@pytest.mark.slow
def test_bundle_is_within_two_percent_of_its_weights(alexnet_build):
    weights = (alexnet_build / "params" / "weights.bin").stat().st_size
    assert weights <= make_bundle(alexnet_build).stat().st_size <= 1.02 * weights


@pytest.mark.slow
def test_activation_memory_at_three_bits(alexnet_build, device):
    report = json.loads((alexnet_build / "report.json").read_text())["memory"]
    with Accelerator(prepare(alexnet_build), batch=8, self_test=False) as board:
        found = memory(board)
    assert found["code_bytes"] / found["half_precision_bytes"] == 3 / 16
    assert found["allocated_bytes"] == 8 * report["arena_bytes"]
