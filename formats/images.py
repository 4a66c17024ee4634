# SPDX-License-Identifier: Apache-2.0
"""Images as a network takes them: read from files, resized, cropped, and turned into input values.

PC and board read the same DATA by the same recipe, so a photograph gives the same pixels on both.
Normalisation is a table: an input code for each of the 256 values of a pixel. Pillow, which reads
and resizes pictures, is imported where a picture is read.
"""

import io
import itertools
import sys
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nuq.formats.errors import UserError

Progress = Callable[[Sequence[Any]], Iterable[Any]]
LEVELS = 256  # of a pixel
TOP5_ABOVE = 10  # classes: of fewer, an answer among five says little
# How names of pictures end; a file without such an end is one, too, if it has none at all.
PICTURES = frozenset(
    f".{end}"
    for end in [
        "jpg",
        "jpeg",
        "jpe",
        "jfif",
        "jp2",
        "png",
        "apng",
        "bmp",
        "dib",
        "gif",
        "tif",
        "tiff",
        "webp",
        "avif",
        "ppm",
        "pgm",
        "pbm",
        "pnm",
        "tga",
        "pcx",
        "sgi",
        "ico",
    ]
)


@dataclass(frozen=True)
class Preprocessing:
    """The published way from an image file to a network's input."""

    # length of the shorter side before the middle is cut out, in pixels; None: the whole image is
    # resized to the input
    resize: int | None
    scale: float  # a pixel p becomes (p * scale - mean[c]) / std[c]
    mean: tuple[float, ...]  # per channel
    std: tuple[float, ...]
    pixel_max: int = LEVELS - 1  # largest pixel value (16 for scikit-learn's digits)

    @classmethod
    def plain(cls, channels: int) -> "Preprocessing":
        """Images resized to the input, pixels as they are."""
        return cls(None, 1.0, (0.0,) * channels, (1.0,) * channels)

    @property
    def text(self) -> str:
        """The recipe in words.

        >>> Preprocessing(256, 1 / 255, (0.5,) * 3, (0.25,) * 3).text
        '(pixel * 0.00392157 - 0.5) / 0.25, shorter side to 256, the middle cut out'
        >>> Preprocessing.plain(1).text
        '(pixel * 1 - 0) / 1, resized to the input'
        """
        mean, std = (
            ",".join(f"{number:g}" for number in (numbers[:1] if len({*numbers}) == 1 else numbers))
            for numbers in (self.mean, self.std)
        )
        if self.resize is None:
            cut = "resized to the input"
        else:
            cut = f"shorter side to {self.resize}, the middle cut out"
        return f"(pixel * {self.scale:g} - {mean}) / {std}, {cut}"

    def values(self) -> np.ndarray:
        """Network input (float64 [C, 256]) of each pixel value.

        >>> Preprocessing(None, 1 / 16, (0.5,), (0.25,), 16).values()[0, [0, 8, 16]].tolist()
        [-2.0, 0.0, 2.0]
        """
        mean, std = (np.array(numbers)[:, None] for numbers in (self.mean, self.std))
        return (np.arange(LEVELS)[None] * self.scale - mean) / std


@dataclass(frozen=True)
class ImageSet:
    """Images of a network's input size."""

    pixels: np.ndarray  # uint8 [N, C, H, W]
    labels: np.ndarray  # int64 [N], -1 where unknown
    classes: list[str] | None
    source: str  # where they come from, for reports

    def __len__(self) -> int:
        """Number of images."""
        return len(self.pixels)

    @property
    def labelled(self) -> bool:
        """Whether every image has a label."""
        return len(self) > 0 and bool((self.labels >= 0).all())

    def take(self, index: np.ndarray | slice) -> "ImageSet":
        """The images at `index`."""
        return ImageSet(self.pixels[index], self.labels[index], self.classes, self.source)


def spaced(total: int, limit: int | None) -> np.ndarray:
    """At most `limit` indices of `total`, evenly spaced, as data is often sorted by class.

    >>> spaced(10, 3).tolist(), spaced(2, None).tolist(), spaced(2, 5).tolist()
    ([0, 3, 6], [0, 1], [0, 1])
    """
    count = total if limit is None else min(limit, total)
    return np.arange(count) * total // max(count, 1)


def look_up(table: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Input codes (int16 [N, C, H, W]) of pixels (uint8, same shape): code = table[c][pixel].

    >>> table = np.arange(256, dtype=np.int16)[None] - 128
    >>> look_up(table, np.array([[[[0, 255]]]], dtype=np.uint8)).tolist()
    [[[[-128, 127]]]]
    """
    codes = np.empty(pixels.shape, dtype=np.int16)
    for channel, row in enumerate(table):
        codes[:, channel] = row[pixels[:, channel]]
    return codes


def best_classes(logits: np.ndarray, top: int) -> np.ndarray:
    """Indices [N, top] of the largest logits [N, classes], best first; ties: the lower class.

    >>> best_classes(np.array([[3, 3, 1], [0, 1, 2]]), 2).tolist()
    [[0, 1], [2, 1]]
    """
    return np.argsort(-logits, axis=1, kind="stable")[:, :top]


def tops(classes: int) -> tuple[int, ...]:
    """Which top-k say something of an answer among so many classes.

    >>> tops(10), tops(1000)
    ((1,), (1, 5))
    """
    return (1, 5) if classes > TOP5_ABOVE else (1,)


def percent_correct(logits: np.ndarray, labels: np.ndarray, top: int = 1) -> float:
    """How many of the labels (int [N]) are among the `top` largest logits [N, classes], in percent.

    >>> percent_correct(np.array([[0, 1, 2], [5, 0, 3]]), np.array([1, 0]), top=2)
    100.0
    """
    return float(100 * (best_classes(logits, top) == labels[:, None]).any(axis=1).mean())


@dataclass(frozen=True)
class Reader:
    """Reads DATA for one network."""

    network: str  # name, for messages
    shape: tuple[int, int, int]  # channels, rows, columns of the input
    outputs: int  # labels are 0..outputs-1, or -1 where unknown
    preprocessing: Preprocessing  # from a picture to pixels
    classes: tuple[str, ...] = ()  # names of the outputs, which class folders may bear

    def load(
        self, source: str | Path, limit: int | None = None, progress: Progress = iter
    ) -> ImageSet:
        """Images from a folder or an .npz file.

        Args:
            source: the path. A folder holds pictures, or a folder of pictures for each class; an
                .npz holds `images`, or `jpeg` (all files' bytes) and `start` (their offsets and the
                end), and may hold `labels` or `label`, and `classes`.
            limit: at most so many images, evenly spaced over all of them, the first included.
            progress: goes through what is to be decoded, and shows how far it is.

        Raises:
            UserError: nothing there, not an image, truncated, or empty; names the file.
        """
        path = Path(source)
        if path.is_dir():
            images = self._folder(path, limit, progress)
        elif path.suffix == ".npz" and path.is_file():
            images = self._npz(path, limit, progress)
        else:
            raise UserError(f"DATA must be a folder of images or an .npz file, not {source}")
        largest = int(images.labels.max())
        if largest >= self.outputs or images.labels.min() < -1:
            raise UserError(
                f"DATA {path} must have labels 0..{self.outputs - 1}, as {self.network} has "
                f"{self.outputs} outputs, or -1 where unknown, not "
                f"{largest if largest >= self.outputs else images.labels.min()}"
            )
        return images

    def decode(self, content: bytes, name: str) -> np.ndarray:
        """Pixels (uint8 [C, H, W]) of a picture's bytes; UserError with `name` if they are none."""
        library = pillow()
        try:
            image = library.open(io.BytesIO(content))
            image.load()
        except (OSError, SyntaxError, ValueError, library.DecompressionBombError) as error:
            reason = "it is truncated" if "truncated" in str(error) else "it cannot be decoded"
            raise UserError(f"DATA must hold images only, but {name} is none: {reason}") from None
        if image.mode.startswith("I;16"):  # Pillow's own conversion saturates
            image = library.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        elif image.mode in ("I", "F"):
            raise UserError(
                f"DATA must hold images of 8 or 16 bits, but {name} has mode {image.mode}"
            )
        # Before the resizing, which would pick palette entries and fade colours by transparency.
        return self.crop(self.shrink(image.convert(self._mode)))

    @property
    def _mode(self) -> str:
        return "RGB" if self.shape[0] == 3 else "L"

    def shrink(self, image: Any) -> Any:
        """The picture with its shorter side resized as the recipe says, bilinear, antialiased."""
        size, (width, height) = self.preprocessing.resize, image.size
        if size is None or min(width, height) == size:
            return image
        factor = size / min(width, height)
        target = (max(size, int(width * factor)), max(size, int(height * factor)))
        return image.resize(target, pillow().Resampling.BILINEAR)

    def crop(self, image: Any, place: tuple[float, float] = (0.5, 0.5)) -> np.ndarray:
        """uint8 [C, H, W]: the input's size cut out; where nothing is cut, all of it resized.

        Args:
            image: a Pillow picture.
            place: of the crop, as fractions of the (rows, columns) that are left over.
        """
        channels, rows, columns = self.shape
        image = image.convert(self._mode)
        if self.preprocessing.resize is None:
            image = image.resize((columns, rows), pillow().Resampling.BILINEAR)
        top = round((image.height - rows) * place[0])
        left = round((image.width - columns) * place[1])
        array = np.asarray(image, np.uint8)[top : top + rows, left : left + columns]
        array = array[None] if channels == 1 else array.transpose(2, 0, 1)
        if self.preprocessing.pixel_max != LEVELS - 1:
            array = np.round(array * (self.preprocessing.pixel_max / (LEVELS - 1))).astype(np.uint8)
        return np.ascontiguousarray(array)

    def _folder(self, path: Path, limit: int | None, progress: Progress) -> ImageSet:
        """Images of a flat folder, or of class folders, see class_labels."""
        entries = _entries(path)
        folders = [item for item in entries if item.is_dir()]
        if folders and len(folders) < len(entries):
            stray = next(item for item in entries if not item.is_dir())
            raise UserError(f"DATA must hold images or class folders, not both; move {stray}")
        names: list[str] | None = None
        pairs = [(file, -1) for file in entries]
        if folders:
            numbers, names = class_labels([folder.name for folder in folders], self.classes)
            pairs = [
                (file, label)
                for folder, label in zip(folders, numbers, strict=True)
                for file in _entries(folder)
            ]
        if not pairs:
            raise UserError(f"DATA must hold at least one image, but {path} is empty")
        pairs = [pairs[index] for index in spaced(len(pairs), limit)]
        pixels = np.stack([self.decode(_contents(file), str(file)) for file, _ in progress(pairs)])
        labels = np.array([label for _, label in pairs], np.int64)
        return ImageSet(pixels, labels, names, str(path))

    def _npz(self, path: Path, limit: int | None, progress: Progress) -> ImageSet:
        """Images of an .npz file with `jpeg` and `start`, or with `images`; labels are optional."""
        arrays = _arrays(path)
        spans, images = [], np.empty(0)
        if {"jpeg", "start"} <= arrays.keys():
            spans = _spans(path, arrays["jpeg"], arrays["start"])
        elif "images" in arrays:
            images = arrays["images"]
            if self.shape[1:] == (1, 1) and images.ndim == 2:  # a vector of features each
                images = images[:, :, None, None]
            images = _planes(self.shape[0], path, images)
        else:
            held = ", ".join(arrays) or "nothing"
            raise UserError(f"DATA {path} must hold `images`, or `jpeg` and `start`, not {held}")
        total = len(spans) or len(images)
        if total == 0:
            raise UserError(f"DATA must hold at least one image, but {path} is empty")
        labels = _labels(path, arrays, total)
        index = spaced(total, limit)
        if spans:
            files = (
                (i, arrays["jpeg"][slice(*spans[i])].tobytes()) for i in progress(index.tolist())
            )
            pixels = np.stack([self.decode(data, f"image {i} of {path}") for i, data in files])
        else:
            pixels = self._fitted(path, images[index])
        classes = [str(name) for name in arrays["classes"]] if "classes" in arrays else None
        return ImageSet(pixels, labels[index], classes, str(path))

    def _fitted(self, path: Path, images: np.ndarray) -> np.ndarray:
        """Images of the input size as they are, others (pixels 0..255) resized and cropped."""
        if images.shape[1:] == self.shape:
            if images.max() > self.preprocessing.pixel_max:
                raise UserError(
                    f"DATA {path}: pixels must be 0..{self.preprocessing.pixel_max} for "
                    f"{self.network}, not {images.max()}"
                )
            return np.ascontiguousarray(images)
        flat = images[:, 0] if self.shape[0] == 1 else images.transpose(0, 2, 3, 1)
        pictures = (pillow().fromarray(np.ascontiguousarray(image)) for image in flat)
        return np.stack([self.crop(self.shrink(picture)) for picture in pictures])


def pillow() -> Any:
    """Pillow's module Image; UserError where it is not installed."""
    try:
        from PIL import Image
    except ImportError:
        raise UserError(
            "Pillow must be installed to read or resize pictures; `pip install pillow`, or give an "
            ".npz with `images` of the network's input size"
        ) from None
    return Image


def class_labels(
    folders: Sequence[str], classes: Sequence[str] = ()
) -> tuple[list[int], list[str] | None]:
    """(label of each folder, class names) of the names of class folders.

    Numbers are labels, names that are all the network's classes are these, and other names are
    counted in order.

    >>> class_labels(["10", "9"]), class_labels(["cat", "dog"])
    (([10, 9], None), ([0, 1], ['cat', 'dog']))
    >>> class_labels(["dog"], ["cat", "dog"])
    ([1], ['cat', 'dog'])
    """
    if all(name.isdecimal() for name in folders):
        return [int(name) for name in folders], None
    if set(folders) <= set(classes):
        return [classes.index(name) for name in folders], list(classes)
    return list(range(len(folders))), list(folders)


def _entries(folder: Path) -> list[Path]:
    """Pictures and folders in a folder, less hidden names, in the order of names.

    What is left out for its name, such as README.txt, is said on stderr.
    """
    items = sorted(item for item in folder.iterdir() if not item.name.startswith("."))
    others = [
        item for item in items
        if item.suffix and item.suffix.lower() not in PICTURES and item.is_file()
    ]  # fmt: skip
    if others:
        more = f" and {len(others) - 1} more" if others[1:] else ""
        print(f"note: DATA: {others[0]}{more} left out, no picture by its name", file=sys.stderr)
    return [item for item in items if item not in others]


def _contents(file: Path) -> bytes:
    if not file.is_file():
        raise UserError(f"DATA must hold images only, but {file} is no file")
    return file.read_bytes()


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


def _planes(channels: int, path: Path, images: np.ndarray) -> np.ndarray:
    """uint8 [N, C, H, W] from [N, H, W], [N, H, W, C] or [N, C, H, W], of any size."""
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
