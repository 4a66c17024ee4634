# SPDX-License-Identifier: Apache-2.0
"""Training, and the packaged weights that came out of it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from nuq.formats.errors import UserError
from nuq.formats.images import percent_correct
from nuq.model_prep import data, networks, weights
from nuq.model_prep.quantize.calibrate import batches
from nuq.model_prep.run import forward
from nuq.model_prep.training import train
from nuq.model_prep.training.augment import Augmented, centre, load_whole
from tests.checkout import shared


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
    with pytest.raises(
        UserError, match=r"^NET must be one with a training recipe \(cifar10, digits\), not"
    ):
        train.train("vgg16")


@pytest.fixture()
def coloured(tmp_path: Path) -> Path:
    """600 images of 32x32 noise whose colour is their class."""
    generator = np.random.default_rng(1)
    labels = np.arange(600) % 10
    palette = generator.integers(40, 215, (10, 3))
    images = palette[labels][:, None, None] + generator.integers(-40, 41, (600, 32, 32, 3))
    path = tmp_path / "coloured.npz"
    np.savez(path, images=images.astype(np.uint8), labels=labels)
    return path


def test_photographs_are_learnt_and_normalisation_is_folded(
    coloured, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(train.Recipe, "__init__", _small_batches(train.Recipe))
    first = train.train("cifar10", tmp_path / "a.pth", str(coloured), epochs=3)
    second = train.train("cifar10", tmp_path / "b.pth", str(coloured), epochs=3)
    assert first == second
    assert first > 60  # chance is 10
    assert (tmp_path / "a.pth").read_bytes() == (tmp_path / "b.pth").read_bytes()
    assert f"cifar10: {first:.2f}% of 60 test images; written: " in capsys.readouterr().out
    state = torch.load(tmp_path / "a.pth", weights_only=True)
    assert all(tensor.dtype == torch.float16 for tensor in state.values())
    again = weights.read_state(networks.get("cifar10"), tmp_path / "a.pth")
    assert sum(array.size for array in again.values()) == 214_282


def _small_batches(recipe):
    """The recipe's constructor with another default of `batch`."""
    original = recipe.__init__
    return lambda self, *args, **more: original(self, *args, **{"batch": 30, **more})


@pytest.mark.parametrize(
    ("net", "source", "sentence"),
    [
        ("cifar10", None, "DATA must be given to train cifar10: an .npz file with `jpeg`, `start`"),
        ("digits", "x.npz", "DATA and TEST must be absent for digits"),
        ("cifar10", "x.npz", "DATA must be a folder of images or an .npz file, not x.npz"),
    ],
)
def test_training_images_that_do_not_fit(net, source, sentence, tmp_path):
    with pytest.raises(UserError) as caught:
        train.train(net, tmp_path / "a.pth", source)
    assert sentence in str(caught.value)
    assert not (tmp_path / "a.pth").exists()


def test_unlabelled_training_images(tmp_path):
    np.savez(tmp_path / "x.npz", images=np.zeros((20, 32, 32, 3), np.uint8))
    with pytest.raises(UserError, match="^DATA must have a label for every image"):
        train.train("cifar10", tmp_path / "a.pth", str(tmp_path / "x.npz"))
    with pytest.raises(UserError, match="^EPOCHS must be 1 or more, not 0"):
        train.train("cifar10", tmp_path / "a.pth", str(tmp_path / "x.npz"), epochs=0)


def test_crops_and_mirrors_of_the_whole_image(coloured):
    spec = networks.get("cifar10")
    whole = load_whole(spec, str(coloured))
    assert whole.pixels.shape == (600, 3, 32, 32)
    assert np.array_equal(
        centre(whole.pixels, spec.in_shape), data.load(spec, str(coloured)).pixels
    )
    seen = {
        (label, crop.tobytes())
        for image, label in zip(whole.pixels[:4], range(4), strict=True)
        for down in range(9)
        for right in range(9)
        for crop in (image[:, down : down + 24, right : right + 24],)
        for crop in (crop, crop[:, :, ::-1])
    }
    four = Augmented(whole.take(slice(4)), spec.in_shape, mirror=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = [
            (int(label), crop.tobytes())
            for _ in range(30)
            for crops, labels in four.batches(4)
            for crop, label in zip(crops, labels, strict=True)
        ]
    assert len(found) == 120 and set(found) <= seen
    assert len(set(found)) > 60


@pytest.mark.data
def test_packaged_cifar10_knows_the_test_images():
    spec = networks.get("cifar10")
    test = data.load(spec, str(shared("data/cifar10_test.npz")), 1000)
    graph = weights.load(spec, None, test.pixels).graph
    logits = [forward(graph, data.to_float(spec, part)).numpy() for part in batches(test.pixels)]
    assert percent_correct(np.concatenate(logits), test.labels) > 70
    assert spec.packaged.stat().st_size < 1_000_000
