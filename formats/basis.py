# SPDX-License-Identifier: Apache-2.0
"""What a quantized network rests on, in words: its calibration, whether it does more than guess.

For whatever uses a network after it was measured.
"""

from collections.abc import Mapping
from math import prod
from typing import Any

FEWEST = 16  # images that say whether a network guesses
SEEDED = "the weights are seeded random numbers: accuracy means nothing"
ABOVE_CHANCE = 0.1  # share of what is above chance that a network must reach not to be guessing


def calibration_text(entry: Mapping[str, Any]) -> str:
    """What a network's tables were measured on, in words; `entry` as in the manifest.

    >>> calibration_text({"images": 7, "source": "a.npz", "labels": False})
    'Calibrated on 7 image(s) of a.npz, without labels'
    """
    if not entry:
        return "Calibrated on unknown images"
    labels = "labelled" if entry["labels"] else "without labels"
    overlap = ", the test images among them" if entry.get("includes_test_images") else ""
    return f"Calibrated on {entry['images']} image(s) of {entry['source']}, {labels}{overlap}"


def chance_warning(top1: float, images: int, classes: int, recipe: str) -> str | None:
    """A warning where a float network's top-1 is little better than guessing, else None.

    Args:
        top1: percent.
        images: that it was measured on.
        classes: that there are.
        recipe: of the images, in words.

    >>> chance_warning(16.9, 360, 10, "p / 255")[:50]
    'warning: float top-1 is 16.9% of 360 images, littl'
    >>> chance_warning(60, 360, 10, ""), chance_warning(0, 8, 10, "")
    (None, None)
    """
    chance = 100 / classes
    if images < FEWEST or classes < 2 or top1 >= chance + ABOVE_CHANCE * (100 - chance):
        return None
    return (
        f"warning: float top-1 is {top1:.1f}% of {images} images, little better than guessing "
        f"among {classes} classes ({chance:.1f}%); check MEAN, STD, SCALE and RESIZE ({recipe}), "
        "the weights, and the order of the labels"
    )


def warning_of(manifest: Mapping[str, Any], recipe: str) -> str | None:
    """What is to be known of a manifest.json's network before its accuracy is believed, else None.

    That its weights are seeded, or `chance_warning`.
    """
    if manifest["weights"] == "seeded":
        return f"WARNING: {SEEDED}"
    measured = manifest["accuracy"]
    if measured is None:
        return None
    classes = prod(manifest["layers"][-1]["out_shape"])
    return chance_warning(measured["float_top1"], measured["images"], classes, recipe)
