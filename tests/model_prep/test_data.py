# SPDX-License-Identifier: Apache-2.0
"""Images from folders, .npz files and scikit-learn's samples."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from formats.errors import UserError
from model_prep import data, networks

ALEXNET = networks.get("alexnet")
IMAGENET = Path(__file__).resolve().parents[3] / "shared" / "data" / "imagenet500.npz"


@pytest.fixture
def photo() -> Image.Image:
    """A picture of 300x280 pixels, different everywhere."""
    pixels = np.random.default_rng(0).integers(0, 256, (280, 300, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def _refused(path: Path, text: str, spec=ALEXNET) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(text)}"):
        data.load(spec, str(path))


def _npz(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


def _jpegs(*images: Image.Image) -> dict[str, np.ndarray]:
    content, start = b"", [0]
    for image in images:
        buffer = io.BytesIO()
        image.save(buffer, "jpeg", quality=95)
        content += buffer.getvalue()
        start.append(len(content))
    return {"jpeg": np.frombuffer(content, np.uint8), "start": np.array(start)}


def test_default_photographs_are_different_crops():
    images = data.load(ALEXNET, None)
    assert images.pixels.shape == (8, 3, 224, 224)
    assert images.pixels.dtype == np.uint8
    assert not images.labelled
    assert len({image.tobytes() for image in images.pixels}) == 8
    from sklearn.datasets import load_sample_image

    china = Image.fromarray(load_sample_image("china.jpg"))
    small = np.asarray(china.resize((383, 256), Image.Resampling.BILINEAR))
    centre = small[16:240, 80:304].transpose(2, 0, 1)  # (383 - 224) / 2 = 79.5, rounded to even
    np.testing.assert_array_equal(images.pixels[0], centre)


def test_default_digits():
    spec = networks.get("digits")
    images = data.load(spec, None)
    assert images.pixels.shape == (1797, 1, 8, 8)
    assert images.pixels.max() == 16
    assert images.labelled
    assert images.classes == list("0123456789")


def test_to_float_is_the_published_recipe():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 224, 224), dtype=np.uint8)
    got = data.to_float(ALEXNET, pixels)
    assert got.dtype == torch.float32
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    want = (pixels / 255 - mean[:, None, None]) / std[:, None, None]
    np.testing.assert_allclose(got.numpy(), want, atol=1e-5)


@given(total=st.integers(1, 500), limit=st.none() | st.integers(0, 600))
def test_spaced_indices_rise_and_start_at_zero(total, limit):
    index = data.spaced(total, limit)
    assert len(index) == (total if limit is None else min(limit, total))
    assert (np.diff(index) > 0).all()
    assert len(index) == 0 or (index[0] == 0 and index[-1] < total)


@given(total=st.integers(1, 60), seed=st.integers(0, 99), parts=st.data())
def test_split_is_a_partition_and_small_tests_are_part_of_large_ones(total, seed, parts):
    large = parts.draw(st.integers(0, total))
    small = parts.draw(st.integers(0, large))
    pixels = np.arange(total, dtype=np.uint8)[:, None, None, None]
    images = data.ImageSet(pixels, np.full(total, -1), None, "test")
    rest, test = data.split(images, large, seed)
    assert len(test) == large
    both = [*rest.pixels.flatten(), *test.pixels.flatten()]
    assert sorted(both) == list(range(total))
    _, inner = data.split(images, small, seed)
    assert set(inner.pixels.flatten()) <= set(test.pixels.flatten())


def test_split_of_more_than_there_are():
    images = data.load(ALEXNET, None)
    with pytest.raises(UserError, match=r"^number of test images must be 0\.\.8, not 9$"):
        data.split(images, 9)


def test_flat_folder(tmp_path, photo):
    photo.save(tmp_path / "b.png")
    photo.convert("L").save(tmp_path / "a.png")
    (tmp_path / ".hidden").write_text("not an image")
    images = data.load(ALEXNET, str(tmp_path))
    assert images.labels.tolist() == [-1, -1]
    assert images.classes is None
    grey = images.pixels[0]  # sorted by name
    assert (grey[0] == grey[1]).all()
    assert not (images.pixels[1][0] == images.pixels[1][1]).all()


def test_class_folders(tmp_path, photo):
    for name in ("dog", "cat", ".git"):
        (tmp_path / name).mkdir()
        photo.save(tmp_path / name / "1.png")
    photo.save(tmp_path / "dog" / "2.jpg")
    images = data.load(ALEXNET, str(tmp_path))
    assert images.labels.tolist() == [0, 1, 1]
    assert images.classes == ["cat", "dog"]
    assert data.load(ALEXNET, str(tmp_path), 2).labels.tolist() == [0, 1]


def test_image_of_256_pixels_is_only_cropped(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    got = data.load(ALEXNET, str(tmp_path)).pixels[0]
    np.testing.assert_array_equal(got, pixels[16:240, 16:240].transpose(2, 0, 1))


def test_sixteen_bit_grey_keeps_its_upper_byte(tmp_path):
    wide = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(wide).save(tmp_path / "a.png")
    got = data.load(ALEXNET, str(tmp_path)).pixels[0, 0]
    np.testing.assert_array_equal(got, (wide >> 8)[16:240, 16:240])


def test_grey_photographs_of_any_size_become_digits(tmp_path):
    Image.fromarray(np.full((40, 40), 255, np.uint8)).save(tmp_path / "a.png")
    got = data.load(networks.get("digits"), str(tmp_path)).pixels
    assert got.shape == (1, 1, 8, 8)
    assert (got == 16).all()


def test_folder_with_a_text_file(tmp_path, photo):
    photo.save(tmp_path / "a.png")
    (tmp_path / "b.txt").write_text("hello")
    text = f"DATA must hold images only, but {tmp_path / 'b.txt'} is none: it cannot be decoded"
    _refused(tmp_path, text)


def test_truncated_image(tmp_path, photo):
    path = tmp_path / "a.jpg"
    photo.save(path)
    path.write_bytes(path.read_bytes()[:-4000])
    _refused(tmp_path, f"DATA must hold images only, but {path} is none: it is truncated")


def test_empty_folders(tmp_path):
    _refused(tmp_path, f"DATA must hold at least one image, but {tmp_path} is empty")
    (tmp_path / "cat").mkdir()
    _refused(tmp_path, f"DATA must hold at least one image, but {tmp_path} is empty")


def test_folder_of_both_images_and_classes(tmp_path, photo):
    (tmp_path / "cat").mkdir()
    photo.save(tmp_path / "a.png")
    text = f"DATA must hold images or class folders, not both; move {tmp_path / 'a.png'}"
    _refused(tmp_path, text)


def test_source_that_is_neither_folder_nor_npz(tmp_path):
    _refused(tmp_path / "no", f"DATA must be a folder of images or an .npz file, not {tmp_path}")


def test_npz_of_images_in_both_orders(tmp_path):
    pixels = np.random.default_rng(2).integers(0, 256, (3, 224, 224, 3), dtype=np.uint8)
    labels = np.array([5, -1, 999])
    last = data.load(ALEXNET, str(_npz(tmp_path / "a.npz", images=pixels, labels=labels)))
    planes = pixels.transpose(0, 3, 1, 2)
    first = data.load(ALEXNET, str(_npz(tmp_path / "b.npz", images=planes)))
    np.testing.assert_array_equal(last.pixels, first.pixels)
    np.testing.assert_array_equal(last.pixels, planes)
    assert last.labels.tolist() == [5, -1, 999]
    assert first.labels.tolist() == [-1, -1, -1]


def test_npz_of_larger_images_is_resized_and_cropped(tmp_path, photo):
    photo.save(tmp_path / "a.png")
    path = _npz(tmp_path / "a.npz", images=np.asarray(photo)[None])
    (tmp_path / "a").mkdir()
    (tmp_path / "a.png").rename(tmp_path / "a" / "a.png")
    want = data.load(ALEXNET, str(tmp_path / "a")).pixels
    np.testing.assert_array_equal(data.load(ALEXNET, str(path)).pixels, want)


def test_npz_of_jpeg_files(tmp_path, photo):
    arrays = _jpegs(photo, photo.rotate(90), photo.rotate(180))
    path = _npz(tmp_path / "a.npz", **arrays, label=np.array([7, 8, 9]), classes=np.array(["x"]))
    images = data.load(ALEXNET, str(path))
    assert images.labels.tolist() == [7, 8, 9]
    assert images.classes == ["x"]
    assert images.pixels.shape == (3, 3, 224, 224)
    np.testing.assert_array_equal(data.load(ALEXNET, str(path), 2).pixels, images.pixels[[0, 1]])


def test_npz_with_a_damaged_jpeg_names_it(tmp_path, photo):
    arrays = _jpegs(photo, photo)
    jpeg = arrays["jpeg"].copy()
    jpeg[arrays["start"][1] :] = 0
    path = _npz(tmp_path / "a.npz", jpeg=jpeg, start=arrays["start"])
    _refused(path, f"DATA must hold images only, but image 1 of {path} is none")


@pytest.mark.parametrize(
    ("start", "shown"),
    [([0, 9], "int64 [2]"), ([0, 3, 3, 5], "int64 [4]"), ([0.0, 5.0], "float64 [2]")],
)
def test_npz_with_wrong_offsets(tmp_path, start, shown):
    path = _npz(tmp_path / "a.npz", jpeg=np.zeros(5, np.uint8), start=np.array(start))
    text = f"DATA {path} must hold uint8 `jpeg` and rising integer offsets `start` into it, one "
    _refused(path, f"{text}more than images, not uint8 [5] and {shown}")


IMAGES = np.zeros((2, 224, 224, 3), np.uint8)


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"x": IMAGES}, "must hold `images`, or `jpeg` and `start`, not x"),
        ({"images": IMAGES, "labels": np.zeros(3, int)}, "must hold 2 integer labels, one an "),
        ({"images": IMAGES, "labels": np.zeros(2)}, "must hold 2 integer labels, one an image, no"),
        ({"images": IMAGES, "labels": np.array([0, 1000])}, "must have labels 0..999, as alexnet"),
    ],
)
def test_npz_with_wrong_contents(tmp_path, arrays, text):
    path = _npz(tmp_path / "a.npz", **arrays)
    _refused(path, f"DATA {path} {text}")


@pytest.mark.parametrize(
    ("images", "shown"),
    [(IMAGES.astype(float), "float64 [2, 224, 224, 3]"), (IMAGES[:, :, :0], "uint8 [2, 224, 0, 3]"),
     (IMAGES[..., 0], "uint8 [2, 224, 224]")],
)  # fmt: skip
def test_npz_with_wrong_images(tmp_path, images, shown):
    path = _npz(tmp_path / "a.npz", images=images)
    text = "`images` must be uint8 [N, H, W, 3] or [N, 3, H, W], not "
    _refused(path, f"DATA {path}: {text}{shown}")


def test_empty_and_damaged_npz(tmp_path):
    path = _npz(tmp_path / "a.npz", images=IMAGES[:0])
    _refused(path, f"DATA must hold at least one image, but {path} is empty")
    path.write_bytes(_npz(tmp_path / "b.npz", images=IMAGES).read_bytes()[:900])
    _refused(path, f"DATA must be a readable .npz file, not {path} (")
    np.save(tmp_path / "c.npy", IMAGES)
    (tmp_path / "c.npy").rename(path)
    _refused(path, f"DATA must be an .npz file, but {path} holds a single array")


def test_npz_pixels_beyond_those_of_the_digits(tmp_path):
    path = _npz(tmp_path / "a.npz", images=np.full((1, 8, 8), 17, np.uint8))
    text = f"DATA {path}: pixels must be 0..16 for digits, not 17"
    _refused(path, text, networks.get("digits"))


@pytest.mark.data
def test_imagenet_images():
    if not IMAGENET.is_file():
        pytest.skip("needs ../shared/data/imagenet500.npz beside the checkout")
    images = data.load(ALEXNET, str(IMAGENET), 5)
    assert images.labelled
    assert images.pixels.shape == (5, 3, 224, 224)
    assert images.labels[0] == 0
    assert images.labels[-1] == 800
