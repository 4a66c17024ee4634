# SPDX-License-Identifier: Apache-2.0
"""The sample images, the split into calibration and test, and the float input."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_sample_images

from nuq.formats.errors import UserError
from nuq.formats.images import ImageSet
from nuq.model_prep import data, networks

ALEXNET = networks.get("alexnet")


def test_photographs_take_turns_and_reach_the_corners():
    images = data.load(ALEXNET, None)
    assert images.pixels.shape == (8, 3, 224, 224) and images.pixels.dtype == np.uint8
    assert images.labels.tolist() == [-1] * 8 and not images.labelled
    assert len({image.tobytes() for image in images.pixels}) == 8
    for index, photograph in enumerate(load_sample_images().images):
        whole = Image.fromarray(photograph).resize((383, 256), Image.Resampling.BILINEAR)
        whole = np.asarray(whole).transpose(2, 0, 1)
        # (383 - 224) / 2 = 79.5, rounded to even
        corners = [whole[:, 16:240, 80:304], whole[:, :224, :224], whole[:, :224, -224:]]
        corners.append(whole[:, -224:, 80:304])
        np.testing.assert_array_equal(images.pixels[index::2], np.stack(corners))
    again = data.load(networks.get("vgg16"), None)
    np.testing.assert_array_equal(again.pixels, images.pixels)
    np.testing.assert_array_equal(data.load(ALEXNET, None, 1).pixels, images.pixels[:1])


def test_digits_are_split_the_same_way_every_time(digits):
    images = data.load(digits, None)
    assert images.pixels.shape == (1797, 1, 8, 8) and images.pixels.max() == 16
    assert images.labelled and images.classes == list("0123456789")
    fit, test = data.split(images, data.DIGITS_TEST)
    again, _ = data.split(data.load(digits, None), data.DIGITS_TEST)
    assert (len(fit), len(test)) == (1437, 360)
    np.testing.assert_array_equal(fit.pixels, again.pixels)
    assert set(test.labels) == set(range(10))
    order = np.random.default_rng(1797).permutation(1797)
    np.testing.assert_array_equal(test.labels, images.labels[order[-360:]])


@given(total=st.integers(1, 60), seed=st.integers(0, 99), parts=st.data())
def test_split_is_a_partition_and_small_tests_are_part_of_large_ones(total, seed, parts):
    large = parts.draw(st.integers(0, total))
    small = parts.draw(st.integers(0, large))
    pixels = np.arange(total, dtype=np.uint8)[:, None, None, None]
    images = ImageSet(pixels, np.full(total, -1), None, "test")
    rest, test = data.split(images, large, seed)
    assert len(test) == large
    both = [*rest.pixels.flatten(), *test.pixels.flatten()]
    assert sorted(both) == list(range(total))
    _, inner = data.split(images, small, seed)
    assert set(inner.pixels.flatten()) <= set(test.pixels.flatten())
    with pytest.raises(UserError, match=rf"^number of test images must be 0\.\.{total}, not "):
        data.split(images, total + 1)


def test_to_float_is_the_published_recipe(digits):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 224, 224), dtype=np.uint8)
    got = data.to_float(ALEXNET, pixels)
    assert got.dtype == torch.float32
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    want = (pixels / 255 - mean[:, None, None]) / std[:, None, None]
    np.testing.assert_allclose(got.numpy(), want, atol=1e-5)
    every = np.arange(17, dtype=np.uint8)[:, None, None, None].repeat(8, 2).repeat(8, 3)
    found = data.to_float(digits, every)[:, 0, 0, 0].numpy()
    np.testing.assert_allclose(found, (np.arange(17) / 16 - 0.3) / 0.37, atol=1e-6)
