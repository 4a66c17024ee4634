# SPDX-License-Identifier: Apache-2.0
"""Training, and the packaged weights that came out of it."""

from __future__ import annotations

import pytest
import torch

from model_prep import data, train, weights
from model_prep.errors import UserError
from model_prep.float_model import forward


def test_packaged_digits_know_the_images_they_never_saw(digits):
    _, test = data.split(data.load(digits, None), data.DIGITS_TEST)
    graph = weights.load(digits, None, test.pixels).graph
    right = forward(graph, data.to_float(digits, test.pixels)).argmax(1).numpy() == test.labels
    assert len(right) == 360
    assert right.mean() >= 0.98
    assert digits.packaged.stat().st_size < 300_000


def test_training_is_reproducible_and_needs_no_gradient_mode(tmp_path, monkeypatch, digits, capsys):
    monkeypatch.setattr(train, "EPOCHS", 2)
    before = torch.random.get_rng_state(), torch.get_num_threads()
    with torch.no_grad():
        first = train.train("digits", tmp_path / "a.pth")
    second = train.train("digits", tmp_path / "b.pth")
    assert first == second
    assert first > 50  # chance is 10; two epochs gave 67.5
    assert (tmp_path / "a.pth").read_bytes() == (tmp_path / "b.pth").read_bytes()
    assert weights.read_state(digits, tmp_path / "a.pth").keys() == digits.state_shapes.keys()
    assert f"digits: {first:.2f}% of 360 test images; written: " in capsys.readouterr().out
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert torch.get_num_threads() == before[1]


@pytest.mark.slow
def test_full_training_reaches_the_packaged_accuracy(tmp_path):
    assert train.train("digits", tmp_path / "a.pth") >= 98


def test_network_without_a_recipe():
    with pytest.raises(UserError, match=r"^NET must be one with a training recipe \(digits\), not"):
        train.train("vgg16")
