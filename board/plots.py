# SPDX-License-Identifier: Apache-2.0
"""Pictures of the measurements, for the notebook and for `measure`."""

from typing import Any

import numpy as np

from nuq.formats.design import Design

BLUE, ORANGE, GREY = "#33658a", "#f26419", "#9aa5b1"


MANY = 14  # layers whose names have room in one of three pictures side by side
NAME_INCHES = 0.24  # of width that a slanted name needs


def _axes(count: int, height: float = 3.2, layers: int = 0) -> Any:
    """Pictures side by side; of many layers below each other, as wide as their names need."""
    import matplotlib.pyplot as plt

    rows, columns, width = 1, count, 5.2
    if layers > MANY:
        rows, columns, width, height = count, 1, NAME_INCHES * layers + 2, height + 1
    figure, axes = plt.subplots(
        rows, columns, figsize=(width * columns, height * rows), constrained_layout=True
    )
    for axis in np.atleast_1d(axes):
        axis.spines[["top", "right"]].set_visible(False)
    return figure, np.atleast_1d(axes)


def _bars(
    axis: Any, layers: list[dict[str, Any]], label: str, *parts: tuple[str, str, Any]
) -> None:
    """One bar a layer, of parts (name, colour, value of a layer) from the bottom up."""
    below = np.zeros(len(layers))
    for name, colour, value in parts:
        values = np.array([value(layer) for layer in layers])
        axis.bar(range(len(layers)), values, bottom=below, color=colour, label=name)
        below += values
    names = [layer["name"] for layer in layers]
    many = len(names) > 6  # slanted, each ends under its bar
    axis.set_xticks(
        range(len(names)), names, rotation=60 * many, ha="right" if many else "center",
        rotation_mode="anchor" if many else "default", fontsize=8,
    )  # fmt: skip
    axis.set_ylabel(label)


def layer_bars(memory: dict[str, Any], part: dict[str, Any]) -> Any:
    """Three pictures: bits of each layer's codes, bytes moved in DDR, time."""
    figure, axes = _axes(3, layers=len(memory["layers"]))
    bits = ("bits", BLUE, lambda layer: layer["bits"])
    _bars(axes[0], memory["layers"], "bits per activation", bits)
    batch = f"batch of {part['batch']}"
    moved = [
        ("weights", GREY, lambda layer: layer["bytes_weights"] / 1e6),
        ("feature maps read", BLUE, lambda layer: layer["bytes_read"] / 1e6),
        ("feature maps written", ORANGE, lambda layer: layer["bytes_written"] / 1e6),
    ]
    _bars(axes[1], part["layers"], f"MB moved, {batch}", *moved)
    axes[1].legend(frameon=False, fontsize=8)
    times = ("time", ORANGE, lambda layer: layer["mean_ms"])
    _bars(axes[2], part["layers"], f"ms, {batch} ({part['time']})", times)
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
    if centroids is not None:
        axes[1].plot(range(levels), centroids[:levels], "o-", color=ORANGE, markersize=4)
        axes[1].set_xlabel("code")
        axes[1].set_ylabel(f"centroid (of {chosen.qm} bits)")
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
