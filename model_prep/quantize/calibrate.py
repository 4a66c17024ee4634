# SPDX-License-Identifier: Apache-2.0
"""What the activations of a network look like: maxima, then full histograms, both streamed.

The histogram counts the integers y that encoding will see (docs/formats.md 2.3: rounded half up,
clamped to qm bits, the paper's "pre-process" bound), so it describes any number of images
without loss in 2^qm counters a layer.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Set

import numpy as np
import torch
from tqdm import tqdm

from formats.arithmetic import lowest
from model_prep import run
from model_prep.graph import Graph

_BATCH_VALUES = 600_000  # input values a batch: four images of 224x224, some hundred small ones

ToFloat = Callable[[np.ndarray], torch.Tensor]


def batches(pixels: np.ndarray, title: str = "") -> Iterator[np.ndarray]:
    """Slices of the images (uint8 [N, C, H, W]) that are small enough for one run.

    Args:
        pixels: the images.
        title: of the progress bar on a terminal; empty: no bar.
    """
    step = max(1, min(256, _BATCH_VALUES // max(1, pixels[0].size)))
    quiet = not title or not sys.stderr.isatty()
    with tqdm(total=len(pixels), desc=title, unit="image", disable=quiet, leave=False) as bar:
        for start in range(0, len(pixels), step):
            batch = pixels[start : start + step]
            yield batch
            bar.update(len(batch))


def maxima(graph: Graph, pixels: np.ndarray, to_float: ToFloat) -> dict[str, float]:
    """The largest magnitude of a stored activation, for every layer but the last.

    Args:
        graph: the float network.
        pixels: calibration images, uint8 [N, C, H, W].
        to_float: from pixels to normalised float32 network inputs.
    """
    largest = {layer.name: 0.0 for layer in graph.layers[:-1]}
    with torch.inference_mode():
        for batch in batches(pixels, "largest activations"):
            for layer, stored in run.run_float(graph, to_float(batch)):
                if layer.name in largest:
                    largest[layer.name] = max(largest[layer.name], float(stored.abs().max()))
    return largest


def to_integers(stored: torch.Tensor, qm: int, frac: int, signed: bool = False) -> torch.Tensor:
    """y of docs/formats.md 2.3 for float activations: round half up, clamp (int64).

    >>> to_integers(torch.tensor([-1.0, 0.25, 0.374, 0.375, 99.0]), 4, 2).tolist()
    [0, 1, 1, 2, 15]
    >>> to_integers(torch.tensor([-99.0, -0.375, 99.0]), 4, 2, signed=True).tolist()
    [-8, -1, 7]
    """
    low = lowest(qm, signed)
    return (stored * 2.0**frac + 0.5).floor().clamp(low, low + (1 << qm) - 1).long()


def histograms(
    graph: Graph, pixels: np.ndarray, to_float: ToFloat, qm: int, fracs: Mapping[str, int],
    signed: Set[str] = frozenset(),
) -> dict[str, np.ndarray]:  # fmt: skip
    """Counts of y for every layer but the last.

    Args:
        graph: the float network.
        pixels: calibration images, uint8 [N, C, H, W].
        to_float: from pixels to normalised float32 network inputs.
        qm: width of y.
        fracs: F by layer name.
        signed: layers whose y may be negative.

    Returns:
        int64 [2^qm] by layer name, the smallest y first.
    """
    counts = {name: torch.zeros(1 << qm, dtype=torch.int64) for name in fracs}
    with torch.inference_mode():
        for batch in batches(pixels, "histograms"):
            for layer, stored in run.run_float(graph, to_float(batch)):
                if layer.name in counts:
                    negative = layer.name in signed
                    y = to_integers(stored, qm, fracs[layer.name], negative)
                    y -= lowest(qm, negative)
                    counts[layer.name] += torch.bincount(y.flatten(), minlength=1 << qm)
    return {name: count.numpy() for name, count in counts.items()}
