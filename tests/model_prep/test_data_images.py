# SPDX-License-Identifier: Apache-2.0
"""Image files of every kind, the recipe's geometry, and damaged or misleading data sets."""

from __future__ import annotations

import io
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from formats.errors import UserError, run_cli
from model_prep import data, networks
from model_prep.networks.spec import NetworkSpec

Block = Callable[..., Image.Image]
RED = (200, 100, 50)


def published_recipe(image: Image.Image, size: int, rows: int, columns: int) -> np.ndarray:
    """torchvision's Resize(size) and CenterCrop, written from its documentation; [C, H, W]."""
    image = image.convert("RGB")
    width, height = image.size
    if width <= height:
        width, height = size, int(size * height / width)
    else:
        width, height = int(size * width / height), size
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    top, left = round((height - rows) / 2), round((width - columns) / 2)
    return np.asarray(image)[top : top + rows, left : left + columns].transpose(2, 0, 1)


def only(spec: NetworkSpec, folder: Path) -> np.ndarray:
    """The pixels of a folder's one image."""
    images = data.load(spec, str(folder))
    assert images.pixels.shape == (1, *spec.in_shape)
    assert images.pixels.dtype == np.uint8
    return images.pixels[0]


@pytest.mark.parametrize(
    "size", [(90, 61), (61, 90), (24, 24), (25, 24), (24, 100), (9, 7), (1, 1)]
)
def test_geometry_is_the_published_recipes(
    small: NetworkSpec, picture: Image.Image, tmp_path: Path, size: tuple[int, int]
) -> None:
    image = picture.resize(size)
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(only(small, tmp_path), published_recipe(image, 24, 20, 16))


def test_alexnets_geometry_is_the_published_recipes(tmp_path: Path) -> None:
    spec = networks.get("alexnet")
    pixels = np.random.default_rng(3).integers(0, 256, (301, 517, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    expected = published_recipe(Image.fromarray(pixels), 256, 224, 224)
    np.testing.assert_array_equal(only(spec, tmp_path), expected)


@pytest.mark.parametrize(
    ("mode", "colour", "suffix", "expected"),
    [
        ("RGB", RED, "png", RED),
        ("RGB", RED, "bmp", RED),
        ("RGBA", (*RED, 255), "png", RED),
        ("RGBA", (*RED, 40), "png", RED),
        ("LA", (77, 3), "png", (77, 77, 77)),
        ("L", 77, "png", (77, 77, 77)),
        ("L", 77, "jpg", (77, 77, 77)),
        ("1", 1, "png", (255, 255, 255)),
        ("I;16", 40000, "png", (156, 156, 156)),
        ("RGB", RED, "jpg", RED),
        ("RGB", RED, "webp", RED),
        ("CMYK", (55, 155, 205, 0), "jpg", RED),
    ],
)
def test_colours_of_every_mode(
    small: NetworkSpec, block: Block, tmp_path: Path, mode: str, colour: int | tuple[int, ...],
    suffix: str, expected: tuple[int, int, int],
) -> None:  # fmt: skip
    block(mode, colour).save(tmp_path / f"a.{suffix}")
    found = only(small, tmp_path).astype(int)
    lossy = 4 if suffix in ("jpg", "webp") else 0
    assert np.abs(found - np.array(expected)[:, None, None]).max() <= lossy


def test_palette_picture_is_resized_as_colours(
    small: NetworkSpec, picture: Image.Image, tmp_path: Path
) -> None:
    palette = picture.quantize(32)
    palette.save(tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").mode == "P"
    expected = published_recipe(palette.convert("RGB"), 24, 20, 16)
    np.testing.assert_array_equal(only(small, tmp_path), expected)


def test_transparency_is_ignored(small: NetworkSpec, picture: Image.Image, tmp_path: Path) -> None:
    faded = picture.convert("RGBA")
    faded.putalpha(Image.linear_gradient("L").resize(picture.size))
    faded.save(tmp_path / "a.png")
    np.testing.assert_array_equal(only(small, tmp_path), published_recipe(picture, 24, 20, 16))


def test_orientation_tag_does_not_turn_the_picture(
    small: NetworkSpec, picture: Image.Image, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, extra in (("plain", {}), ("turned", {"exif": exif})):
        (tmp_path / name).mkdir()
        picture.save(tmp_path / name / "a.jpg", quality=95, **extra)
    assert Image.open(tmp_path / "turned" / "a.jpg").getexif()[0x0112] == 6
    plain, turned = (only(small, tmp_path / name) for name in ("plain", "turned"))
    np.testing.assert_array_equal(plain, turned)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pictures_of_32_bits_are_refused(
    small: NetworkSpec, block: Block, tmp_path: Path, mode: str
) -> None:
    path = tmp_path / "a.tiff"
    block(mode, 7).save(path)
    text = f"^DATA must hold images of 8 or 16 bits, but {path} has mode {mode}$"
    with pytest.raises(UserError, match=text):
        data.load(small, str(tmp_path))


@pytest.mark.parametrize(
    "content", [b"", b"hello\n", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"]
)
def test_file_that_only_has_an_images_name(
    small: NetworkSpec, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    text = f"^DATA must hold images only, but {path} is none: it (cannot be decoded|is truncated)$"
    with pytest.raises(UserError, match=text):
        data.load(small, str(tmp_path))


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_damaged_pictures_never_end_in_a_traceback(
    small: NetworkSpec, picture: Image.Image, tmp_path: Path, kind: str
) -> None:
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    random = np.random.default_rng(1)
    refused = 0
    for turn in range(60):
        damaged = bytearray(buffer.getvalue())
        if turn % 3 == 0:
            del damaged[int(random.integers(len(damaged) * 9 // 10)) :]
        else:
            for place in random.integers(0, min(len(damaged), 200 if turn % 2 else 9**9), 3):
                damaged[place] = random.integers(256)
        (tmp_path / "a").write_bytes(damaged)
        try:
            only(small, tmp_path)
        except UserError as error:
            refused += 1
            assert str(error).startswith("DATA must hold images ")
    assert refused >= 15


def test_hidden_files_and_folders_are_skipped(
    small: NetworkSpec, picture: Image.Image, tmp_path: Path
) -> None:
    for name in ("b", "a", ".cache"):
        (tmp_path / name).mkdir()
        (tmp_path / name / ".DS_Store").write_bytes(b"\0")
        picture.save(tmp_path / name / "1.png")
    (tmp_path / ".listing").write_text("")
    images = data.load(small, str(tmp_path))
    assert images.labels.tolist() == [0, 1]
    assert images.classes == ["a", "b"]
    assert images.source == str(tmp_path)


def test_deeper_folders_are_refused(
    small: NetworkSpec, picture: Image.Image, tmp_path: Path
) -> None:
    (tmp_path / "train" / "cat").mkdir(parents=True)
    picture.save(tmp_path / "train" / "cat" / "1.png")
    text = f"^DATA must hold images only, but {tmp_path}/train/cat is no file$"
    with pytest.raises(UserError, match=text):
        data.load(small, str(tmp_path))
    assert data.load(small, str(tmp_path / "train")).classes == ["cat"]


def test_empty_class_folder_keeps_its_label(
    small: NetworkSpec, picture: Image.Image, tmp_path: Path
) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    picture.save(tmp_path / "c" / "1.png")
    images = data.load(small, str(tmp_path))
    assert images.labels.tolist() == [2]
    assert images.classes == ["a", "b", "c"]


def test_class_folders_with_numbers_for_names_have_these_labels(
    digits: NetworkSpec, block: Block, tmp_path: Path
) -> None:
    for number in (9, 2, 0):
        (tmp_path / str(number)).mkdir()
        block("L", number * 16).save(tmp_path / str(number) / "x.png")
    images = data.load(digits, str(tmp_path))
    assert sorted(images.labels.tolist()) == [0, 2, 9]
    assert images.pixels[:, 0, 0, 0].tolist() == images.labels.tolist()
    (tmp_path / "10").mkdir()
    block("L", 0).save(tmp_path / "10" / "x.png")
    text = rf"^DATA {tmp_path} must have labels 0\.\.9, as digits has 10 outputs, .* not 10$"
    with pytest.raises(UserError, match=text):
        data.load(digits, str(tmp_path))


def test_limit_takes_some_of_every_class(
    small: NetworkSpec, picture: Image.Image, tmp_path: Path
) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        for number in range(4):
            picture.save(tmp_path / name / f"{number}.png")
    labels = {limit: data.load(small, str(tmp_path), limit).labels.tolist() for limit in (1, 3, 99)}
    assert labels == {1: [0], 3: [0, 1, 2], 99: [0] * 4 + [1] * 4 + [2] * 4}


@pytest.mark.parametrize("name", ["missing", "a.png", "a.npz.txt"])
def test_source_must_be_a_folder_or_an_npz(
    small: NetworkSpec, picture: Image.Image, tmp_path: Path, name: str
) -> None:
    picture.save(tmp_path / "a.png")
    path = tmp_path / name
    text = f"^DATA must be a folder of images or an .npz file, not {re.escape(str(path))}$"
    with pytest.raises(UserError, match=text):
        data.load(small, str(path))


# ------------------------------------------------------------------------------------- .npz files


def test_grey_images_in_all_three_orders(digits: NetworkSpec, tmp_path: Path) -> None:
    grey = np.random.default_rng(1).integers(0, 17, (4, 8, 8), dtype=np.uint8)
    for index, images in enumerate((grey, grey[:, None], grey[..., None])):
        path = tmp_path / f"{index}.npz"
        np.savez(path, images=images, label=np.arange(4, dtype=np.uint8))
        found = data.load(digits, str(path))
        np.testing.assert_array_equal(found.pixels, grey[:, None])
        assert found.pixels.flags.c_contiguous
        assert found.labels.dtype == np.int64
        assert found.labels.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("order", ["rows", "planes"])
def test_images_of_another_size_follow_the_recipe(
    small: NetworkSpec, picture: Image.Image, tmp_path: Path, order: str
) -> None:
    images = np.asarray(picture)[None]
    np.savez(tmp_path / "a.npz", images=images if order == "rows" else images.transpose(0, 3, 1, 2))
    found = data.load(small, str(tmp_path / "a.npz")).pixels[0]
    np.testing.assert_array_equal(found, published_recipe(picture, 24, 20, 16))


def test_jpegs_equal_the_same_files_in_a_folder(
    small: NetworkSpec, picture: Image.Image, tmp_path: Path
) -> None:
    content, start = b"", [0]
    (tmp_path / "files").mkdir()
    for turn in range(5):
        path = tmp_path / "files" / f"{turn}.jpg"
        picture.rotate(40 * turn).save(path, quality=90)
        content += path.read_bytes()
        start.append(len(content))
    jpeg = np.frombuffer(content, np.uint8)
    np.savez_compressed(tmp_path / "a.npz", jpeg=jpeg, start=start, label=[4, 3, 2, 1, 0])
    found = data.load(small, str(tmp_path / "a.npz"))
    folder = data.load(small, str(tmp_path / "files"))
    np.testing.assert_array_equal(found.pixels, folder.pixels)
    assert found.labels.tolist() == [4, 3, 2, 1, 0]
    assert found.labelled
    assert not folder.labelled
    some = data.load(small, str(tmp_path / "a.npz"), 2)
    assert some.labels.tolist() == [4, 2]
    np.testing.assert_array_equal(some.pixels, found.pixels[[0, 2]])


@pytest.mark.parametrize("compressed", [True, False])
def test_damaged_npz_never_ends_in_a_traceback(
    small: NetworkSpec, tmp_path: Path, compressed: bool
) -> None:
    buffer, random, refused = io.BytesIO(), np.random.default_rng(2), 0
    images = random.integers(0, 256, (2, 3, 20, 16), dtype=np.uint8)
    (np.savez_compressed if compressed else np.savez)(buffer, images=images, labels=np.arange(2))
    path = tmp_path / "a.npz"
    for turn in range(300):
        damaged = bytearray(buffer.getvalue())
        if turn % 3 == 0:
            del damaged[int(random.integers(len(damaged))) :]
        else:
            for place in random.integers(0, 250, 3):
                damaged[place if turn % 2 else -1 - place] = random.integers(256)
        path.write_bytes(damaged)
        try:
            data.load(small, str(path))
        except UserError as error:
            refused += 1
            assert str(error).startswith("DATA ")
            assert "\n" not in " ".join(str(error).split())
    assert refused > 150


def test_array_whose_header_breaks_off_is_refused(small: NetworkSpec, tmp_path: Path) -> None:
    header = b"{'descr': '|u1', 'shape': (3, 20,\n"
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("images.npy", b"\x93NUMPY\x01\x00" + bytes([len(header), 0]) + header)
    with pytest.raises(UserError, match=f"^DATA must be a readable .npz file, not {path} "):
        data.load(small, str(path))


def test_pickled_arrays_are_refused(small: NetworkSpec, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, images=np.array([{"code": 1}], dtype=object))
    with pytest.raises(
        UserError, match=f"^DATA must be a readable .npz file, not {path} [(]Object"
    ):
        data.load(small, str(path))


def test_more_labels_than_images_are_refused_under_a_limit_too(
    small: NetworkSpec, tmp_path: Path
) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, images=np.zeros((4, 20, 16, 3), np.uint8), labels=np.arange(5))
    for limit in (None, 2):
        with pytest.raises(UserError, match=rf"^DATA {path} must hold 4 integer labels, one an"):
            data.load(small, str(path), limit)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read anything")
def test_unreadable_npz_ends_in_one_line(
    small: NetworkSpec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(b"")
    path.chmod(0)

    def main(argv: list[str]) -> int:
        data.load(small, str(path))
        return 0

    assert run_cli(main, []) == 2
    assert "Permission denied" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------- samples


def test_photographs_are_the_same_every_time_for_every_imagenet_network() -> None:
    first = data.load(networks.get("alexnet"), None)
    second = data.load(networks.get("vgg16"), None)
    np.testing.assert_array_equal(first.pixels, second.pixels)
    assert first.labels.tolist() == [-1] * 8
    np.testing.assert_array_equal(
        data.load(networks.get("alexnet"), None, 1).pixels, first.pixels[:1]
    )


def test_photographs_take_turns_and_reach_the_corners() -> None:
    from sklearn.datasets import load_sample_images

    images = data.load(networks.get("alexnet"), None)
    for index, photograph in enumerate(load_sample_images().images):
        whole = np.asarray(
            Image.fromarray(photograph).resize((383, 256), Image.Resampling.BILINEAR)
        )
        whole = whole.transpose(2, 0, 1)
        corners = [whole[:, 16:240, 80:304], whole[:, :224, :224], whole[:, :224, -224:]]
        corners.append(whole[:, -224:, 80:304])
        np.testing.assert_array_equal(images.pixels[index::2], np.stack(corners))


def test_float_input_of_every_pixel_value(digits: NetworkSpec) -> None:
    pixels = np.arange(17, dtype=np.uint8)[:, None, None, None].repeat(8, 2).repeat(8, 3)
    found = data.to_float(digits, pixels)[:, 0, 0, 0].numpy()
    np.testing.assert_allclose(found, (np.arange(17) / 16 - 0.3) / 0.37, atol=1e-6)


def test_digits_are_split_the_same_way_every_time(digits: NetworkSpec) -> None:
    images = data.load(digits, None)
    fit, test = data.split(images, data.DIGITS_TEST)
    again, _ = data.split(data.load(digits, None), data.DIGITS_TEST)
    assert (len(fit), len(test)) == (1437, 360)
    np.testing.assert_array_equal(fit.pixels, again.pixels)
    assert set(test.labels) == set(range(10))
    order = np.random.default_rng(1797).permutation(1797)
    np.testing.assert_array_equal(test.labels, images.labels[order[-360:]])
