# SPDX-License-Identifier: Apache-2.0
"""Pictures of the measurements, for the notebook and for `measure`."""

from typing import Any

import numpy as np

from formats.design import Design

BLUE, ORANGE, GREY = "#33658a", "#f26419", "#9aa5b1"


def _axes(count: int, height: float = 3.2) -> Any:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, count, figsize=(5.2 * count, height), constrained_layout=True)
    return figure, np.atleast_1d(axes)


def _bars(axis: Any, names: list[str], values: list[float], label: str, colour: str) -> None:
    axis.bar(range(len(names)), values, color=colour)
    axis.set_xticks(range(len(names)), names, rotation=60 if len(names) > 6 else 0)
    axis.set_ylabel(label)
    axis.spines[["top", "right"]].set_visible(False)


def layer_bars(memory: dict[str, Any], part: dict[str, Any]) -> Any:
    """Three pictures: bits of each layer's codes, bytes moved in DDR, time."""
    figure, axes = _axes(3)
    names = [layer["name"] for layer in memory["layers"]]
    _bars(
        axes[0], names, [layer["bits"] for layer in memory["layers"]], "bits per activation", BLUE
    )
    names = [layer["name"] for layer in part["layers"]]
    below = np.zeros(len(names))
    kinds = (("bytes_weights", "weights", GREY), ("bytes_read", "feature maps read", BLUE))
    for key, label, colour in (*kinds, ("bytes_written", "feature maps written", ORANGE)):
        values = np.array([layer[key] for layer in part["layers"]]) / 1e6
        axes[1].bar(range(len(names)), values, bottom=below, color=colour, label=label)
        below += values
    axes[1].set_xticks(range(len(names)), names, rotation=60 if len(names) > 6 else 0)
    axes[1].set_ylabel(f"MB moved, batch of {part['batch']}")
    axes[1].legend(frameon=False, fontsize=8)
    axes[1].spines[["top", "right"]].set_visible(False)
    how = "model" if part["time"] == "model" else "measured"
    times = [layer["mean_ms"] for layer in part["layers"]]
    _bars(axes[2], names, times, f"ms, batch of {part['batch']} ({how})", ORANGE)
    return figure


def code_histogram(
    design: Design, layer: str, codes: np.ndarray, centroids: np.ndarray | None
) -> Any:
    """How often each code of a layer occurs, and the value that each code stands for."""
    chosen = design.layers[design.layer_index(layer)]
    levels = 1 << chosen.bits
    counts = np.bincount(codes.reshape(-1), minlength=levels)
    figure, axes = _axes(1 if centroids is None else 2)
    axes[0].bar(range(levels), 100 * counts / counts.sum(), color=BLUE)
    axes[0].set_xlabel(f"code, {chosen.bits} bits")
    axes[0].set_ylabel(f"% of the activations of {layer}")
    axes[0].spines[["top", "right"]].set_visible(False)
    if centroids is not None:
        axes[1].plot(range(levels), centroids[:levels], "o-", color=ORANGE, markersize=4)
        axes[1].set_xlabel("code")
        axes[1].set_ylabel(f"centroid (of {chosen.qm} bits)")
        axes[1].spines[["top", "right"]].set_visible(False)
    return figure


def pictures(images: np.ndarray, titles: list[str]) -> Any:
    """Images uint8 [N, C, H, W] side by side with a title each."""
    import matplotlib.pyplot as plt

    columns = min(4, len(images))
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(3.2 * columns, 4.2 * rows), squeeze=False, constrained_layout=True
    )
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, title in zip(axes.flat, images, titles, strict=False):
        pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
        axis.imshow(pixels, cmap="gray_r" if len(image) == 1 else None)
        axis.set_title(title, fontsize=9, loc="left", family="monospace")
    return figure
