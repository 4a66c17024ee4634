# SPDX-License-Identifier: Apache-2.0
"""Training images: loaded with the margin that the recipe crops away, then cropped and mirrored."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from nuq.formats.images import ImageSet
from nuq.model_prep import data
from nuq.model_prep.networks.spec import NetworkSpec


def load_whole(spec: NetworkSpec, source: str | None) -> ImageSet:
    """Images with their margin: squares of the recipe's `resize` pixels instead of the crop.

    Where the recipe crops nothing they are of the network's input size. What is taken as it is has
    a margin that repeats its border.

    Raises:
        UserError: as `data.load`.
    """
    return data.load(replace(spec, margins=True), source)


def load_split(
    spec: NetworkSpec, source: str | None, test: str | None, part: Callable[[int], int]
) -> tuple[ImageSet, ImageSet]:
    """(training images of DATA with their margin, test images of the input size).

    Without TEST, `part` says how many of so many images are kept apart.
    """
    fit = load_whole(spec, source)
    if test is not None:
        return fit, data.load(spec, test)
    fit, held_out = data.split(fit, part(len(fit)))
    return fit, replace(held_out, pixels=centre(held_out.pixels, spec.in_shape))


def centre(pixels: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """The centre crop of images [N, C, H, W] that `data.load` gives: `shape` is (C, rows, columns).

    >>> centre(np.arange(5)[None, None, None], (1, 1, 3))
    array([[[[1, 2, 3]]]])
    """
    top, left = (round((pixels.shape[2 + axis] - shape[1 + axis]) / 2) for axis in (0, 1))
    return np.ascontiguousarray(pixels[:, :, top : top + shape[1], left : left + shape[2]])


@dataclass(frozen=True)
class Augmented:
    """Images that come out cropped at random and, where `mirror`, mirrored half of the time."""

    images: ImageSet  # with their margin, see `load_whole`
    shape: tuple[int, int, int]  # (channels, rows, columns) of a crop
    mirror: bool  # whether a mirrored image is as good; not so for digits

    def batches(self, size: int) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        """One epoch in random order (torch's generator): (uint8 [size, C, H, W], int64 [size]).

        The rest that fills no batch is left out, unless there is no full one.
        """
        order = torch.randperm(len(self.images)).numpy()
        for start in range(0, max(1, len(order) - size + 1), size):
            index = order[start : start + size]
            yield self._crop(index), torch.from_numpy(self.images.labels[index])

    def _crop(self, index: np.ndarray) -> np.ndarray:
        pixels = self.images.pixels
        number, (_, rows, columns) = len(index), self.shape
        down, right = (
            torch.randint(0, whole - part + 1, (number, 1)).numpy()
            for whole, part in zip(pixels.shape[2:], (rows, columns), strict=True)
        )
        row, column = down + np.arange(rows), right + np.arange(columns)
        if self.mirror:
            turned = torch.rand(number, 1).numpy() < 0.5
            column = np.where(turned, column[:, ::-1], column)
        plane = np.arange(pixels.shape[1])[None, :, None, None]
        at = index[:, None, None, None], plane, row[:, None, :, None], column[:, None, None, :]
        cropped: np.ndarray = pixels[at]
        return cropped
