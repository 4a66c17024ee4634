# SPDX-License-Identifier: Apache-2.0
"""AlexNet at full size: 8 photographs in one batch, bundle size, activation memory at 3 bits."""

import json

import pytest

from board.bundle import make_bundle
from board.driver import Accelerator
from board.emulate import emulate, prepare
from board.measure import memory

pytestmark = pytest.mark.slow


def test_eight_photographs_in_one_batch(alexnet_build, capsys):
    assert emulate(alexnet_build) == 0
    text = capsys.readouterr().out
    assert "8 images, up to 8 at a time" in text and "PASSED: all logits are bit-exact" in text


def test_bundle_is_within_two_percent_of_its_weights(alexnet_build):
    weights = (alexnet_build / "params" / "weights.bin").stat().st_size
    assert weights <= make_bundle(alexnet_build).stat().st_size <= 1.02 * weights


def test_activation_memory_at_three_bits(alexnet_build, device):
    report = json.loads((alexnet_build / "report.json").read_text())["memory"]
    with Accelerator(prepare(alexnet_build), batch=8, self_test=False) as board:
        found = memory(board)
    assert found["code_bytes"] / found["half_precision_bytes"] == 3 / 16
    assert found["allocated_bytes"] == 8 * report["arena_bytes"]
