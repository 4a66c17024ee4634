# SPDX-License-Identifier: Apache-2.0
"""Images from folders and .npz files: every kind of file, the recipe's geometry, damaged data."""

import io
import os
import re
import sys
import zipfile
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nuq.formats.errors import UserError, run_cli
from nuq.formats.images import Preprocessing, Reader, spaced
from tests.checkout import shared

RED = (200, 100, 50)
SMALL = Reader("small", (3, 20, 16), 5, Preprocessing(24, 1.0, (0.0,) * 3, (1.0,) * 3))
LARGE = Reader("alexnet", (3, 224, 224), 1000, Preprocessing(256, 1.0, (0.0,) * 3, (1.0,) * 3))
DIGITS = Reader("digits", (1, 8, 8), 10, Preprocessing(None, 1 / 16, (0.3,), (0.37,), 16))
IMAGES = np.zeros((2, 20, 16, 3), np.uint8)


@pytest.fixture
def picture() -> Image.Image:
    """A smooth, asymmetric RGB picture 90 pixels wide and 61 high."""
    rows, columns = np.mgrid[0:61, 0:90]
    channels = [rows * 4, columns * 2.5, (rows + columns) * 1.5]
    return Image.fromarray(np.stack(channels, -1).astype(np.uint8))


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


def only(folder: Path, reader: Reader = SMALL) -> np.ndarray:
    """The pixels of a folder's one image."""
    images = reader.load(folder)
    assert images.pixels.shape == (1, *reader.shape)
    assert images.pixels.dtype == np.uint8
    return images.pixels[0]


def save(image: Image.Image, *names: str, folder: Path, **options: object) -> None:
    """Save an image under names in a folder, subfolders made."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(folder / name, **options)


def refused(path: Path, text: str, reader: Reader = SMALL, limit: int | None = None) -> None:
    with pytest.raises(UserError, match=f"^{text}"):
        reader.load(path, limit)


def npz(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


# ---------------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize(
    ("reader", "size"),
    [*product([SMALL], [(90, 61), (61, 90), (24, 24), (25, 24), (24, 100), (9, 7), (1, 1)]),
     *product([LARGE], [(517, 301), (256, 256)])],
)  # fmt: skip
def test_geometry_is_the_published_recipes(tmp_path, reader, size):
    pixels = np.random.default_rng(3).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    save(Image.fromarray(pixels), "a.png", folder=tmp_path)
    found, resize = only(tmp_path, reader), reader.preprocessing.resize
    expected = published_recipe(Image.fromarray(pixels), resize, *reader.shape[1:])
    np.testing.assert_array_equal(found, expected)
    if size == (256, 256):  # only cropped
        np.testing.assert_array_equal(found, pixels[16:240, 16:240].transpose(2, 0, 1))


def test_pictures_of_the_inputs_size_are_taken_as_they_are(picture, tmp_path):
    """Alone, beside others, from a folder or an archive; unless RESIZE is said to be for all."""
    pixels = np.random.default_rng(4).integers(0, 256, (20, 16, 3), dtype=np.uint8)
    save(Image.fromarray(pixels), "a.png", folder=tmp_path)
    np.testing.assert_array_equal(only(tmp_path), pixels.transpose(2, 0, 1))
    save(picture, "b.png", folder=tmp_path)
    both = SMALL.load(tmp_path)
    assert both.kept == 1
    small, large = both.pixels
    np.testing.assert_array_equal(small, pixels.transpose(2, 0, 1))
    np.testing.assert_array_equal(large, published_recipe(picture, 24, 20, 16))
    files = [(tmp_path / name).read_bytes() for name in ("a.png", "b.png")]
    content, start = np.frombuffer(b"".join(files), np.uint8), np.cumsum([0, *map(len, files)])
    archive = SMALL.load(npz(tmp_path / "a.npz", jpeg=content, start=start))
    np.testing.assert_array_equal(archive.pixels, both.pixels)
    assert archive.kept == 1

    asked = replace(SMALL, preprocessing=replace(SMALL.preprocessing, resize_all=True))
    resized = asked.load(npz(tmp_path / "b.npz", jpeg=content, start=start))
    assert resized.kept == 0
    enlarged = published_recipe(Image.fromarray(pixels), 24, 20, 16)
    np.testing.assert_array_equal(resized.pixels, np.stack([enlarged, large]))
    arrays = npz(tmp_path / "c.npz", images=pixels[None])  # an array of that shape is the input
    np.testing.assert_array_equal(asked.load(arrays).pixels, small[None])


def test_margins_of_pictures_that_are_taken_as_they_are(picture, tmp_path):
    """What training crops from has the network's own pixels in its middle, whatever the size."""
    pixels = np.random.default_rng(4).integers(0, 256, (20, 16, 3), dtype=np.uint8)
    save(Image.fromarray(pixels), "a.png", folder=tmp_path / "data")
    save(picture, "b.png", folder=tmp_path / "data")
    arrays = npz(tmp_path / "c.npz", images=pixels[None])
    for source in (tmp_path / "data", arrays):
        wide = replace(SMALL, margins=True).load(source).pixels
        assert wide.shape[1:] == (3, 24, 24)
        np.testing.assert_array_equal(wide[:, :, 2:22, 4:20], SMALL.load(source).pixels)
    assert (wide[:, :, :3, :5] == wide[:, :, 2:3, 4:5]).all()  # the border, again and again


def test_files_that_are_no_pictures_are_left_out(tmp_path, capsys):
    """A README.txt beside pictures, or beside class folders, stops nothing."""
    for folder in ("flat", "classes/0", "classes/1"):
        (tmp_path / folder).mkdir(parents=True)
        save(Image.new("L", (40, 30)), "a.png", folder=tmp_path / folder)
    for folder in ("flat", "classes", "classes/0"):
        (tmp_path / folder / "README.txt").write_text("about these")
    assert len(SMALL.load(tmp_path / "flat")) == 1 and len(SMALL.load(tmp_path / "classes")) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3 and said[0].endswith("README.txt left out, no picture by its name")
    (tmp_path / "flat" / "b.PNG").write_text("no picture")
    with pytest.raises(UserError, match="b.PNG is none"):
        SMALL.load(tmp_path / "flat")


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
def test_colours_of_every_mode(tmp_path, mode, colour, suffix, expected):
    save(Image.new(mode, (40, 30), colour), f"a.{suffix}", folder=tmp_path)
    found = only(tmp_path).astype(int)
    lossy = 4 if suffix in ("jpg", "webp") else 0
    assert np.abs(found - np.array(expected)[:, None, None]).max() <= lossy


def test_sixteen_bit_grey_keeps_its_upper_byte(tmp_path):
    wide = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    save(Image.fromarray(wide), "a.png", folder=tmp_path)
    np.testing.assert_array_equal(only(tmp_path, LARGE)[0], (wide >> 8)[16:240, 16:240])


def test_pictures_of_any_size_become_digits(tmp_path):
    save(Image.new("L", (40, 40), 255), "a.png", folder=tmp_path)
    assert (only(tmp_path, DIGITS) == 16).all()


def test_palettes_are_resized_as_colours_and_transparency_is_ignored(picture, tmp_path):
    palette, faded = picture.quantize(32), picture.convert("RGBA")
    faded.putalpha(Image.linear_gradient("L").resize(picture.size))
    for name, image, mode in (("a", palette, "P"), ("b", faded, "RGBA")):
        save(image, f"{name}/a.png", folder=tmp_path)
        assert Image.open(tmp_path / name / "a.png").mode == mode
        expected = published_recipe(palette.convert("RGB") if mode == "P" else picture, 24, 20, 16)
        np.testing.assert_array_equal(only(tmp_path / name), expected)


def test_orientation_tag_does_not_turn_the_picture(picture, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    save(picture, "plain/a.jpg", folder=tmp_path, quality=95)
    save(picture, "turned/a.jpg", folder=tmp_path, quality=95, exif=exif)
    assert Image.open(tmp_path / "turned" / "a.jpg").getexif()[0x0112] == 6
    np.testing.assert_array_equal(only(tmp_path / "plain"), only(tmp_path / "turned"))


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pictures_of_32_bits_are_refused(tmp_path, mode):
    save(Image.new(mode, (40, 30), 7), "a.tiff", folder=tmp_path)
    path = tmp_path / "a.tiff"
    refused(tmp_path, f"DATA must hold images of 8 or 16 bits, but {path} has mode {mode}$")


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "(cannot be decoded|is truncated)"), (b"hello\n", "cannot be decoded"),
     (b"GIF89a", ""), (b"\x89PNG\r\n\x1a\n", ""), (b"\xff\xd8\xff\xe0", ""),
     (None, "is truncated")],
)  # fmt: skip
def test_a_file_that_only_has_an_images_name(picture, tmp_path, content, reason):
    save(picture, "a.png", folder=tmp_path)
    if content is None:
        noise = np.random.default_rng(0).integers(0, 256, (280, 300, 3), dtype=np.uint8)
        save(Image.fromarray(noise), "b.jpg", folder=tmp_path)
        content = (tmp_path / "b.jpg").read_bytes()[:-4000]
    (tmp_path / "b.jpg").write_bytes(content)
    text = f"DATA must hold images only, but {tmp_path / 'b.jpg'} is none: it "
    refused(tmp_path, f"{text}{reason or '(cannot be decoded|is truncated)'}$")


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_damaged_pictures_never_end_in_a_traceback(picture, tmp_path, kind):
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    random = np.random.default_rng(1)
    refusals = 0
    for turn in range(60):
        damaged = bytearray(buffer.getvalue())
        if turn % 3 == 0:
            del damaged[int(random.integers(len(damaged) * 9 // 10)) :]
        else:
            for place in random.integers(0, min(len(damaged), 200 if turn % 2 else 9**9), 3):
                damaged[place] = random.integers(256)
        (tmp_path / "a").write_bytes(damaged)
        try:
            only(tmp_path)
        except UserError as error:
            refusals += 1
            assert str(error).startswith("DATA must hold images ")
    assert refusals >= 15


def test_without_pillow_pictures_are_refused_and_arrays_are_not(picture, tmp_path, monkeypatch):
    save(picture, "data/a.png", folder=tmp_path)
    path = npz(tmp_path / "a.npz", images=IMAGES)
    monkeypatch.setitem(sys.modules, "PIL", None)
    refused(tmp_path / "data", "Pillow must be installed to read or resize pictures; `pip inst")
    assert len(SMALL.load(path)) == 2


# ----------------------------------------------------------------------------------------- folders


def test_a_flat_folder(picture, tmp_path):
    save(picture, "b.png", folder=tmp_path)
    save(picture.convert("L"), "a.png", folder=tmp_path)
    (tmp_path / ".hidden").write_text("not an image")
    images = SMALL.load(str(tmp_path))
    assert images.labels.tolist() == [-1, -1]
    assert images.classes is None and images.source == str(tmp_path)
    grey, colour = images.pixels  # sorted by name
    assert (grey[0] == grey[1]).all() and not (colour[0] == colour[1]).all()


def test_class_folders(picture, tmp_path):
    names = ("dog/1.png", "dog/2.jpg", "cat/1.png", ".cache/1.png", "cat/.DS_Store.png")
    save(picture, *names, folder=tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / ".listing").write_text("")
    images = SMALL.load(tmp_path)
    assert images.labels.tolist() == [0, 1, 1]
    assert images.classes == ["cat", "dog", "empty"]
    names = Reader("small", SMALL.shape, 5, SMALL.preprocessing, ("empty", "dog", "cat"))
    assert names.load(tmp_path).labels.tolist() == [2, 1, 1]


def test_class_folders_with_numbers_for_names_have_these_labels(tmp_path):
    for number in (9, 2, 0):
        save(Image.new("L", (40, 30), number * 16), f"{number}/x.png", folder=tmp_path)
    images = DIGITS.load(tmp_path)
    assert sorted(images.labels.tolist()) == [0, 2, 9]
    assert images.pixels[:, 0, 0, 0].tolist() == images.labels.tolist()
    save(Image.new("L", (40, 30)), "10/x.png", folder=tmp_path)
    text = rf"DATA {tmp_path} must have labels 0\.\.9, as digits has 10 outputs, .* not 10$"
    refused(tmp_path, text, DIGITS)


def test_more_class_folders_than_outputs_are_refused_and_fewer_warned_of(picture, tmp_path, capsys):
    for name in "abcde":
        save(picture, f"{name}/1.png", folder=tmp_path)
    SMALL.load(tmp_path)
    assert capsys.readouterr().err == ""
    save(picture, "f/1.png", folder=tmp_path)
    text = r"must have at most 5 class folders, as small has 5 outputs, not 6 \(a=0, b=1, .* f=5\)$"
    refused(tmp_path, f"DATA {tmp_path} {text}")
    few = tmp_path / "few"
    save(picture, "circle/1.png", "ring/1.png", folder=few)
    assert SMALL.load(few).labels.tolist() == [0, 1]
    said = capsys.readouterr().err
    assert f"warning: DATA {few} has 2 class folders for 5 outputs: circle=0, ring=1. Names" in said
    assert said.count("\n") == 1
    for known in (("circle", "disc", "ring"), ("ring", "circle")):  # as a bundle has them
        named = Reader("small", SMALL.shape, 5, SMALL.preprocessing, known)
        assert named.load(few).labels.tolist() == [known.index("circle"), known.index("ring")]
    save(Image.new("L", (40, 30)), "2/x.png", folder=tmp_path / "numbers")
    assert SMALL.load(tmp_path / "numbers").labels.tolist() == [2]
    assert capsys.readouterr().err == ""


def test_parts_of_a_data_set_are_no_classes(picture, tmp_path):
    save(picture, "train/cat/1.png", "test/cat/1.png", folder=tmp_path / "nested")
    save(picture, "Train/1.png", "val/1.png", folder=tmp_path / "flat")
    save(picture, "cat/in/1.png", folder=tmp_path / "deep")
    for name, parts, best in (("nested", "test, train", "test"), ("flat", "train, val", "val")):
        text = f"DATA must be one part of a data set, as {parts} in {tmp_path / name} seem to be "
        refused(tmp_path / name, f"{text}parts, not classes; give DATA={tmp_path / name / best}$")
    remedy = f"give DATA={tmp_path}/deep/cat, if its folders are classes$"
    refused(tmp_path / "deep", f"DATA must hold images only, but .*/cat/in is no file; {remedy}")
    save(picture, "train/1.png", "bus/1.png", folder=tmp_path / "vehicles")
    assert SMALL.load(tmp_path / "vehicles").classes == ["bus", "train"]


def test_a_folder_without_a_picture_is_not_called_empty(tmp_path):
    (tmp_path / "list.txt").write_text("a")
    text = (
        rf"DATA must hold at least one picture \(.png, .jpg and so on\), but {tmp_path} holds none$"
    )
    refused(tmp_path, text)


def test_limit_takes_some_of_every_class(picture, tmp_path):
    save(picture, *(f"{c}/{n}.png" for c in "abc" for n in range(4)), folder=tmp_path)
    labels = {limit: SMALL.load(tmp_path, limit).labels.tolist() for limit in (1, 3, 99)}
    assert labels == {1: [0], 3: [0, 1, 2], 99: [0] * 4 + [1] * 4 + [2] * 4}


def test_folders_that_hold_something_else(picture, tmp_path):
    empty = f"DATA must hold at least one image, but {tmp_path} is empty"
    refused(tmp_path, empty)
    (tmp_path / "train").mkdir()
    refused(tmp_path, empty)
    save(picture, "train/cat/1.png", folder=tmp_path)
    remedy = f"as train in {tmp_path} seem to be parts, not classes; give DATA={tmp_path}/train$"
    refused(tmp_path, f"DATA must be one part of a data set, {remedy}")
    assert SMALL.load(tmp_path / "train").classes == ["cat"]
    save(picture, "a.png", folder=tmp_path)
    refused(tmp_path, f"DATA must hold images or class folders, not both; move {tmp_path}/a.png")
    (tmp_path / "a.npz.txt").write_text("")
    for name in ("missing", "a.png", "a.npz.txt"):
        path = re.escape(str(tmp_path / name))
        refused(tmp_path / name, f"DATA must be a folder of images or an .npz file, not {path}$")


@given(total=st.integers(1, 500), limit=st.none() | st.integers(0, 600))
def test_spaced_indices_rise_and_start_at_zero(total, limit):
    index = spaced(total, limit)
    assert len(index) == (total if limit is None else min(limit, total))
    assert (np.diff(index) > 0).all()
    assert len(index) == 0 or (index[0] == 0 and index[-1] < total)


# -------------------------------------------------------------------------------------- .npz files


def test_grey_images_in_all_three_orders(tmp_path):
    grey = np.random.default_rng(1).integers(0, 17, (4, 8, 8), dtype=np.uint8)
    for index, images in enumerate((grey, grey[:, None], grey[..., None])):
        labels = np.arange(4, dtype=np.uint8)
        found = DIGITS.load(npz(tmp_path / f"{index}.npz", images=images, label=labels))
        np.testing.assert_array_equal(found.pixels, grey[:, None])
        assert found.pixels.flags.c_contiguous
        assert found.labels.dtype == np.int64
        assert found.labels.tolist() == [0, 1, 2, 3]


def test_colour_images_in_both_orders(tmp_path):
    pixels = np.random.default_rng(2).integers(0, 256, (3, 20, 16, 3), dtype=np.uint8)
    planes = pixels.transpose(0, 3, 1, 2)
    last = SMALL.load(npz(tmp_path / "a.npz", images=pixels, labels=np.array([4, -1, 0])))
    first = SMALL.load(npz(tmp_path / "b.npz", images=planes))
    np.testing.assert_array_equal(last.pixels, first.pixels)
    np.testing.assert_array_equal(last.pixels, planes)
    assert last.labels.tolist() == [4, -1, 0] and first.labels.tolist() == [-1, -1, -1]


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1)])
def test_images_of_another_size_follow_the_recipe(picture, tmp_path, axes):
    path = npz(tmp_path / "a.npz", images=np.asarray(picture).transpose(axes)[None])
    found = SMALL.load(path).pixels[0]
    np.testing.assert_array_equal(found, published_recipe(picture, 24, 20, 16))


def jpegs(picture: Image.Image, folder: Path, count: int) -> dict[str, np.ndarray]:
    """Arrays of an archive of turned pictures, which lie in the folder, too."""
    content, start = b"", [0]
    for turn in range(count):
        save(picture.rotate(40 * turn), f"{turn}.jpg", folder=folder, quality=90)
        content += (folder / f"{turn}.jpg").read_bytes()
        start.append(len(content))
    return {"jpeg": np.frombuffer(content, np.uint8), "start": np.array(start)}


def test_jpegs_equal_the_same_files_in_a_folder(picture, tmp_path):
    arrays = jpegs(picture, tmp_path / "files", 5)
    path = tmp_path / "a.npz"
    np.savez_compressed(path, **arrays, label=[4, 3, 2, 1, 0], classes=np.array(["x"]))
    found, folder = SMALL.load(path), SMALL.load(tmp_path / "files")
    np.testing.assert_array_equal(found.pixels, folder.pixels)
    assert found.labels.tolist() == [4, 3, 2, 1, 0] and found.classes == ["x"]
    assert found.labelled and not folder.labelled
    some = SMALL.load(path, 2)
    assert some.labels.tolist() == [4, 2]
    np.testing.assert_array_equal(some.pixels, found.pixels[[0, 2]])


def test_a_damaged_jpeg_is_named(picture, tmp_path):
    arrays = jpegs(picture, tmp_path / "files", 2)
    jpeg = arrays["jpeg"].copy()
    jpeg[arrays["start"][1] :] = 0
    path = npz(tmp_path / "a.npz", jpeg=jpeg, start=arrays["start"])
    refused(path, f"DATA must hold images only, but image 1 of {path} is none")


@pytest.mark.parametrize(
    ("start", "shown"),
    [([0, 9], "int64 [2]"), ([0, 3, 3, 5], "int64 [4]"), ([0.0, 5.0], "float64 [2]")],
)
def test_wrong_offsets(tmp_path, start, shown):
    path = npz(tmp_path / "a.npz", jpeg=np.zeros(5, np.uint8), start=np.array(start))
    text = f"DATA {path} must hold uint8 `jpeg` and rising integer offsets `start` into it, one "
    refused(path, re.escape(f"{text}more than images, not uint8 [5] and {shown}"))


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"x": IMAGES}, " must hold `images`, or `jpeg` and `start`, not x"),
        ({"images": IMAGES, "labels": np.zeros(3, int)}, " must hold 2 integer labels, one an "),
        ({"images": IMAGES, "labels": np.zeros(2)}, " must hold 2 integer labels, one an image, n"),
        ({"images": IMAGES, "labels": np.array([0, 5])}, " must have labels 0..4, as small"),
        ({"images": IMAGES.astype(float)}, ": `images` must be uint8 [N, H, W, 3] or [N, 3, H, W], "
         "not float64 [2, 20, 16, 3]"),
        ({"images": IMAGES[:, :, :0]}, ": `images` must be uint8 [N, H, W, 3] or [N, 3, H, W], not "
         "uint8 [2, 20, 0, 3]"),
        ({"images": IMAGES[..., 0]}, ": `images` must be uint8 [N, H, W, 3] or [N, 3, H, W], not "
         "uint8 [2, 20, 16]"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("limit", [None, 1])
def test_wrong_contents(tmp_path, arrays, text, limit):
    path = npz(tmp_path / "a.npz", **arrays)
    if limit is None or "labels 0..4" not in text:  # only labels that are taken are compared
        refused(path, re.escape(f"DATA {path}{text}"), limit=limit)


def test_pixels_beyond_those_of_the_digits(tmp_path):
    path = npz(tmp_path / "a.npz", images=np.full((1, 8, 8), 17, np.uint8))
    refused(path, re.escape(f"DATA {path}: pixels must be 0..16 for digits, not 17"), DIGITS)


def test_empty_damaged_and_other_archives(tmp_path):
    path = npz(tmp_path / "a.npz", images=IMAGES[:0])
    refused(path, f"DATA must hold at least one image, but {path} is empty")
    path.write_bytes(npz(tmp_path / "b.npz", images=IMAGES).read_bytes()[:900])
    unreadable = f"DATA must be a readable .npz file, not {path} "
    refused(path, unreadable)
    np.save(tmp_path / "c.npy", IMAGES)
    (tmp_path / "c.npy").rename(path)
    refused(path, f"DATA must be an .npz file, but {path} holds a single array")
    header = b"{'descr': '|u1', 'shape': (3, 20,\n"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("images.npy", b"\x93NUMPY\x01\x00" + bytes([len(header), 0]) + header)
    refused(path, unreadable)
    npz(path, images=np.array([{"code": 1}], dtype=object))
    refused(path, f"{unreadable}[(]Object")


@pytest.mark.parametrize("compressed", [True, False])
def test_damaged_archives_never_end_in_a_traceback(tmp_path, compressed):
    buffer, random, refusals = io.BytesIO(), np.random.default_rng(2), 0
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
            SMALL.load(path)
        except UserError as error:
            refusals += 1
            assert str(error).startswith("DATA ")
            assert "\n" not in " ".join(str(error).split())
    assert refusals > 150


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read anything")
def test_an_unreadable_archive_ends_in_one_line(tmp_path, capsys):
    path = tmp_path / "a.npz"
    path.write_bytes(b"")
    path.chmod(0)
    assert run_cli(lambda _: len(SMALL.load(path)), []) == 2
    assert "Permission denied" in capsys.readouterr().err


@pytest.mark.data
def test_imagenet_images():
    images = LARGE.load(shared("data/imagenet500.npz"), 5)
    assert images.labelled
    assert images.pixels.shape == (5, 3, 224, 224) and images.pixels.std() > 20
    assert images.labels[0] == 0
    assert images.labels[-1] == 800
