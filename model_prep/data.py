# SPDX-License-Identifier: Apache-2.0
"""Images of a network's input size, uint8, from folders, .npz files and scikit-learn's samples.

Normalisation is not applied here: the accelerator's host folds it into a table of 256 entries.
"""

from __future__ import annotations

import io
import itertools
import sys
import tokenize
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from formats.errors import UserError
from model_prep.networks.spec import NetworkSpec

SPLIT_SEED = 1797
DIGITS_TEST = 360
# Centres of the crops of a sample photograph, as fractions of (rows, columns) of what is left over.
CROP_PLACES = ((0.5, 0.5), (0.0, 0.0), (0.0, 1.0), (1.0, 0.5))


@dataclass(frozen=True)
class ImageSet:
    """Images of a network's input size.

    Attributes:
        pixels: uint8 [N, C, H, W].
        labels: int64 [N], -1 where unknown.
        classes: names, or None.
        source: where they come from, for reports.
    """

    pixels: np.ndarray
    labels: np.ndarray
    classes: list[str] | None
    source: str

    def __len__(self) -> int:
        """Number of images."""
        return len(self.pixels)

    @property
    def labelled(self) -> bool:
        """Whether every image has a label."""
        return len(self) > 0 and bool((self.labels >= 0).all())

    def take(self, index: np.ndarray | slice) -> ImageSet:
        """The images at `index`."""
        return ImageSet(self.pixels[index], self.labels[index], self.classes, self.source)


def load(spec: NetworkSpec, source: str | None, limit: int | None = None) -> ImageSet:
    """Images from a folder, an .npz file, or the network's default source.

    Args:
        spec: gives the input size and the recipe.
        source: a path, or None for the default.
        limit: at most so many images, evenly spaced over all of them, the first included.

    Raises:
        UserError: nothing there, not an image, truncated, or empty; names the file.
    """
    if source is None:
        images = _digits() if spec.default_data == "digits" else _photographs(spec)
        return images.take(spaced(len(images), limit))
    path = Path(source)
    if path.is_dir():
        images = _folder(spec, path, limit)
    elif path.suffix == ".npz" and path.is_file():
        images = _npz(spec, path, limit)
    else:
        raise UserError(f"DATA must be a folder of images or an .npz file, not {source}")
    largest = int(images.labels.max())
    if largest >= spec.outputs or images.labels.min() < -1:
        raise UserError(
            f"DATA {path} must have labels 0..{spec.outputs - 1}, as {spec.name} has "
            f"{spec.outputs} outputs, or -1 where unknown, not "
            f"{largest if largest >= spec.outputs else images.labels.min()}"
        )
    return images


def spaced(total: int, limit: int | None) -> np.ndarray:
    """At most `limit` indices of `total`, evenly spaced, as data is often sorted by class.

    >>> spaced(10, 3).tolist(), spaced(2, None).tolist(), spaced(2, 5).tolist()
    ([0, 3, 6], [0, 1], [0, 1])
    """
    count = total if limit is None else min(limit, total)
    return np.arange(count) * total // max(count, 1)


def split(images: ImageSet, n_test: int, seed: int = SPLIT_SEED) -> tuple[ImageSet, ImageSet]:
    """Disjoint (calibration, test) sets; the test set is the last `n_test` of a fixed shuffle.

    A smaller test set is part of a larger one, so what a network was not trained on stays apart.

    Raises:
        UserError: there are fewer than `n_test` images.
    """
    if not 0 <= n_test <= len(images):
        raise UserError(f"number of test images must be 0..{len(images)}, not {n_test}")
    order = np.random.default_rng(seed).permutation(len(images))
    return images.take(order[: len(order) - n_test]), images.take(order[len(order) - n_test :])


def to_float(spec: NetworkSpec, pixels: np.ndarray) -> torch.Tensor:
    """Network input float32 [N, C, H, W] of uint8 pixels: (p*scale - mean) / std."""
    recipe = spec.preprocessing
    mean = torch.tensor(recipe.mean, dtype=torch.float32)[:, None, None]
    std = torch.tensor(recipe.std, dtype=torch.float32)[:, None, None]
    return (torch.from_numpy(pixels).to(torch.float32) * recipe.scale - mean) / std


def _photographs(spec: NetworkSpec) -> ImageSet:
    from sklearn.datasets import load_sample_images

    crops = []
    for photograph in load_sample_images().images:
        image = _shorter_side(Image.fromarray(photograph), spec.preprocessing.resize)
        crops.append([_crop(spec, image, place) for place in CROP_PLACES])
    pixels = np.stack([crop for places in zip(*crops, strict=True) for crop in places])
    labels = np.full(len(pixels), -1, np.int64)
    return ImageSet(pixels, labels, None, "scikit-learn sample photographs")


def _digits() -> ImageSet:
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = digits.images.astype(np.uint8)[:, None]
    names = [str(name) for name in digits.target_names]
    return ImageSet(pixels, digits.target.astype(np.int64), names, "scikit-learn digits")


def _shorter_side(image: Image.Image, size: int | None) -> Image.Image:
    """The image with its shorter side resized to `size` pixels, bilinear and antialiased."""
    width, height = image.size
    if size is None or min(width, height) == size:
        return image
    factor = size / min(width, height)
    target = (max(size, int(width * factor)), max(size, int(height * factor)))
    return image.resize(target, Image.Resampling.BILINEAR)


def _crop(
    spec: NetworkSpec, image: Image.Image, place: tuple[float, float] = (0.5, 0.5)
) -> np.ndarray:
    """uint8 [C, H, W]: a crop of the input size; without a recipe, the whole image resized."""
    channels, rows, columns = spec.in_shape
    image = image.convert("RGB" if channels == 3 else "L")
    if spec.preprocessing.resize is None:
        image = image.resize((columns, rows), Image.Resampling.BILINEAR)
    top = round((image.height - rows) * place[0])
    left = round((image.width - columns) * place[1])
    array = np.asarray(image, np.uint8)[top : top + rows, left : left + columns]
    array = array[None] if channels == 1 else array.transpose(2, 0, 1)
    if spec.preprocessing.pixel_max != 255:
        array = np.round(array * (spec.preprocessing.pixel_max / 255)).astype(np.uint8)
    return np.ascontiguousarray(array)


def _decode(spec: NetworkSpec, content: bytes, name: str) -> np.ndarray:
    """Pixels of an image file's bytes; UserError with `name` if they are no image."""
    try:
        image: Image.Image = Image.open(io.BytesIO(content))
        image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "it is truncated" if "truncated" in str(error) else "it cannot be decoded"
        raise UserError(f"DATA must hold images only, but {name} is none: {reason}") from None
    if image.mode.startswith("I;16"):  # Pillow's own conversion saturates
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise UserError(f"DATA must hold images of 8 or 16 bits, but {name} has mode {image.mode}")
    # Before the resizing, which would pick palette entries and fade colours by transparency.
    image = image.convert("RGB" if spec.in_shape[0] == 3 else "L")
    return _crop(spec, _shorter_side(image, spec.preprocessing.resize))


def _folder(spec: NetworkSpec, path: Path, limit: int | None) -> ImageSet:
    """Images of a flat folder, or of class folders, see _class_labels."""
    entries = _entries(path)
    folders = [item for item in entries if item.is_dir()]
    if folders and len(folders) < len(entries):
        stray = next(item for item in entries if not item.is_dir())
        raise UserError(f"DATA must hold images or class folders, not both; move {stray}")
    if folders:
        numbers, names = _class_labels(folders)
        pairs = [
            (file, label)
            for folder, label in zip(folders, numbers, strict=True)
            for file in _entries(folder)
        ]
    else:
        names = None
        pairs = [(file, -1) for file in entries]
    if not pairs:
        raise UserError(f"DATA must hold at least one image, but {path} is empty")
    pairs = [pairs[index] for index in spaced(len(pairs), limit)]
    bar = tqdm(pairs, desc="images", disable=not sys.stderr.isatty())
    pixels = np.stack([_decode(spec, _contents(file), str(file)) for file, _ in bar])
    labels = np.array([label for _, label in pairs], np.int64)
    return ImageSet(pixels, labels, names, str(path))


def _class_labels(folders: list[Path]) -> tuple[list[int], list[str] | None]:
    """(label of each folder, class names): numbers are labels, other names are counted in order.

    >>> _class_labels([Path("10"), Path("9")]), _class_labels([Path("cat"), Path("dog")])
    (([10, 9], None), ([0, 1], ['cat', 'dog']))
    """
    names = [folder.name for folder in folders]
    if all(name.isdecimal() for name in names):
        return [int(name) for name in names], None
    return list(range(len(names))), names


def _entries(folder: Path) -> list[Path]:
    """What is in a folder, less hidden names, in the order of names."""
    return sorted(item for item in folder.iterdir() if not item.name.startswith("."))


def _contents(file: Path) -> bytes:
    if not file.is_file():
        raise UserError(f"DATA must hold images only, but {file} is no file")
    return file.read_bytes()


def _npz(spec: NetworkSpec, path: Path, limit: int | None) -> ImageSet:
    """Images of an .npz file with `jpeg` and `start`, or with `images`; labels are optional."""
    arrays = _arrays(path)
    if {"jpeg", "start"} <= arrays.keys():
        spans = _spans(path, arrays["jpeg"], arrays["start"])
        total = len(spans)
    elif "images" in arrays:
        images = _planes(spec, path, arrays["images"])
        total = len(images)
    else:
        held = ", ".join(arrays) or "nothing"
        raise UserError(f"DATA {path} must hold `images`, or `jpeg` and `start`, not {held}")
    if total == 0:
        raise UserError(f"DATA must hold at least one image, but {path} is empty")
    labels = _labels(path, arrays, total)
    index = spaced(total, limit)
    if "images" not in arrays:
        bar = tqdm(index, desc="images", disable=not sys.stderr.isatty())
        jpeg = arrays["jpeg"]
        pixels = np.stack(
            [_decode(spec, jpeg[slice(*spans[i])].tobytes(), f"image {i} of {path}") for i in bar]
        )
    else:
        pixels = _fitted(spec, path, images[index])
    classes = [str(name) for name in arrays["classes"]] if "classes" in arrays else None
    return ImageSet(pixels, labels[index], classes, str(path))


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an .npz file."""
    try:
        content = np.load(path, allow_pickle=False)
        if not isinstance(content, np.lib.npyio.NpzFile):
            raise UserError(f"DATA must be an .npz file, but {path} holds a single array")
        with content:
            return {name: content[name] for name in content.files}
    except (zipfile.BadZipFile, zlib.error, tokenize.TokenError, EOFError, OSError, KeyError,
            ValueError, RuntimeError, MemoryError) as error:  # fmt: skip
        if isinstance(error, UserError) or getattr(error, "filename", None) is not None:
            raise
        raise UserError(f"DATA must be a readable .npz file, not {path} ({error})") from None


def _labels(path: Path, arrays: dict[str, np.ndarray], total: int) -> np.ndarray:
    """int64 [total] from `labels` or `label`; -1 where there is neither."""
    labels = arrays.get("labels", arrays.get("label"))
    if labels is None:
        return np.full(total, -1, np.int64)
    if labels.shape != (total,) or labels.dtype.kind not in "iu":
        raise UserError(
            f"DATA {path} must hold {total} integer labels, one an image, "
            f"not {labels.dtype} {list(labels.shape)}"
        )
    return labels.astype(np.int64)


def _spans(path: Path, jpeg: np.ndarray, start: np.ndarray) -> list[tuple[int, int]]:
    """(first, end) of every file in `jpeg`; `start` has one entry more than there are files."""
    good = jpeg.dtype == np.uint8 and jpeg.ndim == 1 and start.dtype.kind in "iu"
    if good and start.ndim == 1 and len(start):
        offsets = [int(offset) for offset in start]
        rising = all(a < b for a, b in itertools.pairwise(offsets))
        if rising and offsets[0] >= 0 and offsets[-1] <= len(jpeg):
            return list(itertools.pairwise(offsets))
    raise UserError(
        f"DATA {path} must hold uint8 `jpeg` and rising integer offsets `start` into it, one more "
        f"than images, not {jpeg.dtype} {list(jpeg.shape)} and {start.dtype} {list(start.shape)}"
    )


def _planes(spec: NetworkSpec, path: Path, images: np.ndarray) -> np.ndarray:
    """uint8 [N, C, H, W] from [N, H, W], [N, H, W, C] or [N, C, H, W], of any size."""
    channels = spec.in_shape[0]
    if images.dtype == np.uint8 and images.ndim and 0 not in images.shape[1:]:
        if images.ndim == 3 and channels == 1:
            return images[:, None]
        if images.ndim == 4 and images.shape[1] == channels:
            return images
        if images.ndim == 4 and images.shape[3] == channels:
            return images.transpose(0, 3, 1, 2)
    raise UserError(
        f"DATA {path}: `images` must be uint8 [N, H, W, {channels}] or [N, {channels}, H, W], "
        f"not {images.dtype} {list(images.shape)}"
    )


def _fitted(spec: NetworkSpec, path: Path, images: np.ndarray) -> np.ndarray:
    """Images of the input size as they are, others (pixels 0..255) resized and cropped."""
    recipe = spec.preprocessing
    if images.shape[1:] == spec.in_shape:
        if images.max() > recipe.pixel_max:
            raise UserError(
                f"DATA {path}: pixels must be 0..{recipe.pixel_max} for {spec.name}, "
                f"not {images.max()}"
            )
        return np.ascontiguousarray(images)
    flat = images[:, 0] if spec.in_shape[0] == 1 else images.transpose(0, 2, 3, 1)
    pictures = (Image.fromarray(np.ascontiguousarray(image)) for image in flat)
    return np.stack([_crop(spec, _shorter_side(picture, recipe.resize)) for picture in pictures])
