# SPDX-License-Identifier: Apache-2.0
"""Images as a network takes them: read from files, resized, cropped, and turned into input values.

PC and board read the same DATA by the same recipe, so a photograph gives the same pixels on both.
Normalisation is a table: an input code for each of the 256 values of a pixel. Pillow, which reads
and resizes pictures, is imported where a picture is read. What a folder holds: formats.folders.
"""

import io
import itertools
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nuq.formats.errors import UserError
from nuq.formats.folders import labelled_files
from nuq.formats.schema import stored

Progress = Callable[[Sequence[Any]], Iterable[Any]]
LEVELS = 256  # of a pixel
TOP5_ABOVE = 10  # classes: of fewer, an answer among five says little


@dataclass(frozen=True)
class Preprocessing:
    """The published way from an image file to a network's input.

    A picture that has exactly the input's size is taken as it is, unless `resize_all`.
    """

    # length of the shorter side before the middle is cut out, in pixels; None: the whole image is
    # resized to the input
    resize: int | None
    scale: float  # a pixel p becomes (p * scale - mean[c]) / std[c]
    mean: tuple[float, ...]  # per channel
    std: tuple[float, ...]
    pixel_max: int = LEVELS - 1  # largest pixel value (16 for scikit-learn's digits)
    # whether pictures of the input's size are resized, too, as who sets RESIZE asks for
    resize_all: bool = stored(sparse=True, default=False)

    @classmethod
    def plain(cls, channels: int) -> "Preprocessing":
        """Images resized to the input, pixels as they are."""
        return cls(None, 1.0, (0.0,) * channels, (1.0,) * channels)

    @property
    def text(self) -> str:
        """The recipe in words.

        >>> Preprocessing(256, 1 / 255, (0.5,) * 3, (0.25,) * 3, resize_all=True).text
        '(pixel / 255 - 0.5) / 0.25, shorter side to 256, the middle cut out'
        >>> Preprocessing(9, 1, (0,), (1,)).text.partition(", ")[2]
        "shorter side to 9, the middle cut out; pictures of the input's size as they are"
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
            kept = "" if self.resize_all else "; pictures of the input's size as they are"
            cut = f"shorter side to {self.resize}, the middle cut out{kept}"
        parts = 1 / self.scale
        whole = round(parts) > 1 and abs(parts - round(parts)) < 1e-9 * parts
        scaled = f"/ {round(parts)}" if whole else f"* {self.scale:g}"
        return f"(pixel {scaled} - {mean}) / {std}, {cut}"

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
    kept: int = 0  # how many were taken as they are, when they were read

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
    # whether images keep the margin that the recipe cuts away, which training crops at random
    margins: bool = False

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

    def decode(self, content: bytes, name: str) -> Any:
        """The Pillow picture in a file's bytes, grey or RGB; UserError with `name` if none."""
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
        return image.convert(self._mode)

    @property
    def _mode(self) -> str:
        return "RGB" if self.shape[0] == 3 else "L"

    @property
    def _size(self) -> tuple[int, int]:
        """(rows, columns) of what is read: the input's, or with its margins."""
        side = self.preprocessing.resize or 0 if self.margins else 0
        return max(side, self.shape[1]), max(side, self.shape[2])

    def keeps(self, image: Any) -> bool:
        """Whether a Pillow picture is taken as it is, without resizing."""
        exact = (image.height, image.width) == self.shape[1:]
        return exact and not self.preprocessing.resize_all

    def fit(self, image: Any) -> np.ndarray:
        """uint8 [C, H, W] of a Pillow picture: as it is in the input's size, else by the recipe."""
        if self.keeps(image):
            return self._framed(self._pixels(image)[None])[0]
        return self.crop(self.shrink(image))

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
        rows, columns = self._size
        image = image.convert(self._mode)
        if self.preprocessing.resize is None:
            image = image.resize((columns, rows), pillow().Resampling.BILINEAR)
        top = round((image.height - rows) * place[0])
        left = round((image.width - columns) * place[1])
        return self._pixels(image)[:, top : top + rows, left : left + columns]

    def _pixels(self, image: Any) -> np.ndarray:
        """uint8 [C, H, W] of a picture, in the network's channels and range."""
        array = np.asarray(image.convert(self._mode), np.uint8)
        array = array[None] if self.shape[0] == 1 else array.transpose(2, 0, 1)
        if self.preprocessing.pixel_max != LEVELS - 1:
            array = np.round(array * (self.preprocessing.pixel_max / (LEVELS - 1))).astype(np.uint8)
        return np.ascontiguousarray(array)

    def _framed(self, pixels: np.ndarray) -> np.ndarray:
        """Images of the input's size; with margins, which none of them has, of repeated borders."""
        gaps = [whole - part for whole, part in zip(self._size, self.shape[1:], strict=True)]
        # round, as in `crop`: the middle is cut out at the same place
        sides = [(round(gap / 2), gap - round(gap / 2)) for gap in gaps]
        return np.pad(pixels, ((0, 0), (0, 0), *sides), "edge")

    def _folder(self, path: Path, limit: int | None, progress: Progress) -> ImageSet:
        """Images of a flat folder, or of class folders, see `folders.labelled_files`."""
        pairs, names = labelled_files(path, self.network, self.outputs, self.classes)
        pairs = [pairs[index] for index in spaced(len(pairs), limit)]
        files = ((file.read_bytes(), str(file)) for file, _ in progress(pairs))
        labels = np.array([label for _, label in pairs], np.int64)
        return self._decoded(files, labels, names, path)

    def _decoded(
        self, files: Iterable[tuple[bytes, str]], labels: np.ndarray, classes: list[str] | None,
        path: Path,
    ) -> ImageSet:  # fmt: skip
        """Images of the bytes of pictures, each with its name."""
        kept, pixels = 0, []
        for content, name in files:
            picture = self.decode(content, name)
            kept += self.keeps(picture)
            pixels.append(self.fit(picture))
        return ImageSet(np.stack(pixels), labels, classes, str(path), kept)

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
        classes = [str(name) for name in arrays["classes"]] if "classes" in arrays else None
        if spans:
            files = (
                (arrays["jpeg"][slice(*spans[i])].tobytes(), f"image {i} of {path}")
                for i in progress(index.tolist())
            )
            return self._decoded(files, labels[index], classes, path)
        pixels, kept = self._fitted(path, images[index])
        return ImageSet(pixels, labels[index], classes, str(path), kept)

    def _fitted(self, path: Path, images: np.ndarray) -> tuple[np.ndarray, int]:
        """Images of the input's size as they are, others (pixels 0..255) not; how many are kept.

        An array of the input's shape is the input, whatever RESIZE says of pictures.
        """
        if images.shape[1:] == self.shape:
            if images.max() > self.preprocessing.pixel_max:
                raise UserError(
                    f"DATA {path}: pixels must be 0..{self.preprocessing.pixel_max} for "
                    f"{self.network}, not {images.max()}"
                )
            return np.ascontiguousarray(self._framed(images)), len(images)
        flat = images[:, 0] if self.shape[0] == 1 else images.transpose(0, 2, 3, 1)
        pictures = (pillow().fromarray(np.ascontiguousarray(image)) for image in flat)
        return np.stack([self.fit(picture) for picture in pictures]), 0


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
