# SPDX-License-Identifier: Apache-2.0
"""Pictures and labels from files: an .npz archive or a folder, brought to the network's size.

Reading JPEG and PNG needs Pillow, which PYNQ images have.
"""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from formats.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
MARGIN = 8 / 7  # a picture's short side before the centre is cut out, 256 for 224
NUMBERED = re.compile(r"\d+")


def load(
    path: Path, shape: tuple[int, int, int], classes: tuple[str, ...] = (), limit: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels.

    Args:
        path: an .npz with `images` (uint8 [N,C,H,W] or [N,H,W,C]) and `labels`, or with `jpeg`
            (bytes of all files), `start` (offsets) and `label`; or a folder of pictures, whose
            subfolders are named after classes (a name, or a number).
        shape: [C, H, W] of the network's input.
        classes: names, for the folder's subfolders.
        limit: read so many images only; 0 for all.

    Returns:
        uint8 [N, C, H, W] and int64 [N], -1 where unknown.
    """
    if path.is_dir():
        return _from_folder(path, shape, classes, limit)
    if path.suffix != ".npz" or not path.is_file():
        raise UserError(f"{path} must be a folder of pictures or an .npz archive that exists")
    try:
        with np.load(path, allow_pickle=False) as archive:
            if "jpeg" in archive.files:
                return _from_jpegs(archive, shape, limit)
            if "images" in archive.files:
                return _from_arrays(archive, path, shape, limit)
            names = ", ".join(archive.files)
    except (ValueError, zipfile.BadZipFile, EOFError) as error:
        raise UserError(f"{path} must be an npz archive ({error})") from None
    raise UserError(f"{path} must hold images and labels, or jpeg, start and label, not {names}")


def fit(picture: Any, shape: tuple[int, int, int]) -> np.ndarray:
    """A Pillow picture as uint8 [C, H, W]: scaled by its short side, then the centre."""
    channels, height, width = shape
    picture = picture.convert("L" if channels == 1 else "RGB")
    if (picture.height, picture.width) != (height, width):
        scale = max(height / picture.height, width / picture.width) * MARGIN
        if picture.height >= height and picture.width >= width and scale > 1:
            scale = 1.0  # large enough to cut from, as stored
        size = (round(picture.width * scale), round(picture.height * scale))
        picture = picture.resize((max(size[0], width), max(size[1], height)))
        left, top = (picture.width - width) // 2, (picture.height - height) // 2
        picture = picture.crop((left, top, left + width, top + height))
    pixels = np.asarray(picture, dtype=np.uint8).reshape(height, width, channels)
    return pixels.transpose(2, 0, 1)


def _open(source: Any, name: str) -> Any:
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise UserError(
            f"{name} needs Pillow to be read; `pip install pillow`, or give an .npz with `images`"
        ) from None
    try:
        return Image.open(source)
    except UnidentifiedImageError:
        raise UserError(f"{name} must be a picture that Pillow can read") from None


def _from_arrays(
    archive: Any, path: Path, shape: tuple[int, int, int], limit: int
) -> tuple[np.ndarray, np.ndarray]:
    images = archive["images"][: limit or None]
    if images.ndim == 4 and images.shape[1:] == (shape[1], shape[2], shape[0]) != shape:
        images = images.transpose(0, 3, 1, 2)
    if images.dtype != np.uint8 or images.shape[1:] != shape:
        raise UserError(
            f"{path}: images must be uint8 [N, {', '.join(map(str, shape))}], not "
            f"{images.dtype} {list(images.shape)}"
        )
    labels = archive["labels"] if "labels" in archive.files else np.full(len(images), -1)
    return np.ascontiguousarray(images), labels[: len(images)].astype(np.int64)


def _from_jpegs(
    archive: Any, shape: tuple[int, int, int], limit: int
) -> tuple[np.ndarray, np.ndarray]:
    data, start, labels = archive["jpeg"], archive["start"], archive["label"]
    count = min(limit or len(labels), len(labels))
    ends = np.append(start, len(data))
    pictures = [
        fit(_open(io.BytesIO(data[ends[i] : ends[i + 1]].tobytes()), f"picture {i}"), shape)
        for i in range(count)
    ]
    return np.stack(pictures), labels[:count].astype(np.int64)


def _from_folder(
    path: Path, shape: tuple[int, int, int], classes: tuple[str, ...], limit: int
) -> tuple[np.ndarray, np.ndarray]:
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
    if not files:
        raise UserError(f"{path} must hold pictures ({', '.join(SUFFIXES)}), not none")
    files = files[: limit or None]
    numbers = {name: index for index, name in enumerate(classes)}
    labels = []
    for file in files:
        name = file.parent.name if file.parent != path else ""
        number = int(name) if NUMBERED.fullmatch(name) else -1
        labels.append(numbers.get(name, number))
    return np.stack([fit(_open(file, str(file)), shape) for file in files]), np.array(labels)
