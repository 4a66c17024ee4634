# SPDX-License-Identifier: Apache-2.0
"""Images of a network's input size: those that DATA names, or scikit-learn's samples.

Normalisation is not applied here: the accelerator's host folds it into a table of 256 entries.
"""

import sys
from functools import partial

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from nuq.formats.errors import UserError
from nuq.formats.images import ImageSet, spaced
from nuq.model_prep.networks.spec import NetworkSpec

SPLIT_SEED = 1797
DIGITS_TEST = 360
# Centres of the crops of a sample photograph, as fractions of (rows, columns) of what is left over.
CROP_PLACES = ((0.5, 0.5), (0.0, 0.0), (0.0, 1.0), (1.0, 0.5))


def load(spec: NetworkSpec, source: str | None, limit: int | None = None) -> ImageSet:
    """Images from a folder, an .npz file, or the network's default source.

    Args:
        spec: gives the input size and the preprocessing.
        source: a path, see `Reader.load`, or None for the default.
        limit: at most so many images, evenly spaced over all of them, the first included.

    Raises:
        UserError: nothing there, not an image, truncated, or empty; names the file.
    """
    if source is None:
        images = _digits() if spec.default_data == "digits" else _photographs(spec)
        return images.take(spaced(len(images), limit))
    bar = partial(tqdm, desc="images", disable=not sys.stderr.isatty())
    return spec.reader.load(source, limit, bar)


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
        image = spec.reader.shrink(Image.fromarray(photograph))
        crops.append([spec.reader.crop(image, place) for place in CROP_PLACES])
    pixels = np.stack([crop for places in zip(*crops, strict=True) for crop in places])
    labels = np.full(len(pixels), -1, np.int64)
    return ImageSet(pixels, labels, None, "scikit-learn sample photographs")


def _digits() -> ImageSet:
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = digits.images.astype(np.uint8)[:, None]
    names = [str(name) for name in digits.target_names]
    return ImageSet(pixels, digits.target.astype(np.int64), names, "scikit-learn digits")
