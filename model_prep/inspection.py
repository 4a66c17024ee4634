# SPDX-License-Identifier: Apache-2.0
"""A quantized network layer by layer: float values beside what the stored codes stand for.

Where the error arises: the SQNR of a layer's quantizer alone, on the float network's values, beside
that of the layer in the integer network, which all layers before it have a part in. matplotlib is
imported where something is drawn.
"""

import html
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, prod
from typing import Any

import numpy as np

from nuq.formats.network import load
from nuq.formats.options import Options
from nuq.formats.quantizer import Quantizer
from nuq.model_prep import run
from nuq.model_prep.accuracy import decoded
from nuq.model_prep.commands import subject_of
from nuq.model_prep.quantize import fake_quant
from nuq.model_prep.quantize.reference import Reference
from nuq.model_prep.quantize.score import sqnr_db
from nuq.model_prep.run import tensor_of

BLUE, ORANGE, GREY = "#33658a", "#f26419", "#9aa5b1"
CHANNELS = 6  # of a layer that are drawn
BINS = 120


@dataclass(frozen=True, eq=False)
class LayerView:
    """One layer on some images."""

    name: str
    quantizer: Quantizer | None  # None: raw accumulators
    exact: np.ndarray  # float64 [N, C, H, W], of the float network
    alone: np.ndarray  # the same behind this layer's quantizer, float64
    stored: np.ndarray  # what the integer network's codes stand for, float64 [N, C, H, W]
    # float32 [N, C, H, W], what is encoded of the float network: `exact`, by the channels' scale
    # where there is one (equalise), or what stands before an activation that is in the codebook
    encoded: np.ndarray

    @property
    def alone_db(self) -> float:
        """SQNR of the layer's quantizer alone, dB."""
        return _sqnr(self.exact, self.alone)

    @property
    def stored_db(self) -> float:
        """SQNR in the integer network, dB."""
        return _sqnr(self.exact, self.stored)

    @property
    def values(self) -> np.ndarray:
        """What the codes stand for, rising; float64 [2^bits]; raw: none."""
        if self.quantizer is None:
            return np.empty(0)
        return np.sort(self.quantizer.decode_table * 2.0**-self.quantizer.frac)

    @property
    def thresholds(self) -> np.ndarray:
        """Where one code ends and the next begins, in the units of `encoded`; float64."""
        if self.quantizer is None:
            return np.empty(0)
        kept = self.quantizer.values_table.astype(np.float64)
        places = np.flatnonzero(np.diff(kept)) + 1 + self.quantizer.y_min
        return (places - 0.5) * 2.0**-self.quantizer.encoded_frac

    def histogram(self, axis: Any = None) -> Any:
        """Histogram of the float values, with the values of the codes and the thresholds.

        Where the activation is in the codebook, of what stands before it, with the thresholds.

        Args:
            axis: of matplotlib, to draw on; a new figure without one.

        Returns:
            The figure.
        """
        axis = axis or _axes(1, 1, 3.2)[1][0]
        axis.hist(self.encoded.ravel(), BINS, color=BLUE, log=True)
        for where in self.thresholds:
            axis.axvline(where, color=GREY, linewidth=0.7, linestyle=":")
        if self.quantizer is None:
            axis.set_xlabel("value")
        elif self.quantizer.y_frac is None:
            floor = np.full(len(self.values), 0.6)
            axis.plot(self.values, floor, "^", color=ORANGE, markersize=6, clip_on=False)
            axis.set_xlabel("value (triangles: what codes stand for; dotted: thresholds)")
        else:
            axis.set_xlabel("value before the activation (dotted: thresholds)")
        axis.set_ylabel(f"activations of {self.name}")
        return axis.figure

    def maps(self, image: int = 0, channels: int = CHANNELS) -> Any:
        """Feature maps as pictures: float, decoded, their difference; a column a channel.

        Args:
            image: which one.
            channels: at most so many, those with the most energy.

        Returns:
            The figure. A layer of single pixels is drawn as one strip of all its channels.
        """
        exact, stored = self.exact[image], self.stored[image]
        strip = exact.shape[1:] == (1, 1)
        if strip:
            rows = ceil(len(exact) / 64)
            exact, stored = (_strip(one[:, 0, 0], rows) for one in (exact, stored))
        energy = np.square(exact).sum(axis=(1, 2))
        shown = np.sort(np.argsort(-energy, kind="stable")[:channels])
        figure, axes = _axes(3, len(shown), 0.8 if strip else 1.9, 6.4 if strip else None)
        top = max(float(np.abs(exact).max()), 1e-12)
        names = ("float", "decoded", "difference")
        for column, channel in enumerate(shown):
            pictures = exact[channel], stored[channel], stored[channel] - exact[channel]
            for row, picture in enumerate(pictures):
                axis = axes[row * len(shown) + column]
                shape = "auto" if strip else "equal"
                axis.imshow(picture, cmap="RdBu_r", vmin=-top, vmax=top, aspect=shape)
                axis.set_xticks([])
                axis.set_yticks([])
                title = "all channels" if strip else f"channel {channel}"
                axis.set_title(title if row == 0 else "", fontsize=8)
                name = "" if column else names[row]
                axis.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
        figure.suptitle(f"{self.name}: {self.stored_db:.1f} dB", fontsize=10)
        return figure


@dataclass(frozen=True, eq=False)
class Inspection:
    """All layers of a network on some images."""

    network: str
    images: np.ndarray  # uint8 [N, C, H, W]
    layers: tuple[LayerView, ...]

    def __getitem__(self, name: str) -> LayerView:
        """The layer called `name`."""
        return next(layer for layer in self.layers if layer.name == name)

    def __iter__(self) -> Iterator[LayerView]:
        return iter(self.layers)

    def errors(self) -> Any:
        """SQNR of each layer, dB: of its quantizer alone, and in the integer network.

        Where the second falls below the first, the error comes from the layers before.

        Returns:
            The figure.
        """
        figure, (axis,) = _axes(1, 1, 3.4, max(6.0, 0.45 * len(self.layers) + 2))
        places = np.arange(len(self.layers))
        for shift, name, colour in ((-0.2, "alone", BLUE), (0.2, "stored", ORANGE)):
            heights = [getattr(layer, f"{name}_db") for layer in self.layers]
            heights = [value if np.isfinite(value) else 0.0 for value in heights]
            label = {"alone": "its quantizer alone", "stored": "in the integer network"}[name]
            axis.bar(places + shift, heights, 0.4, color=colour, label=label)
        many = len(places) > 6
        axis.set_xticks(
            places, [layer.name for layer in self.layers], rotation=45 if many else 0,
            ha="right" if many else "center",
        )  # fmt: skip
        axis.set_ylabel("SQNR, dB")
        axis.legend(frameon=False, fontsize=8, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1))
        return figure

    def rows(self) -> list[tuple[str, str, str, str]]:
        """(layer, scheme and bits, SQNR alone, SQNR in the network) of each layer, as text."""
        return [
            (
                layer.name,
                f"{layer.quantizer.scheme} {layer.quantizer.bits}" if layer.quantizer else "raw",
                f"{layer.alone_db:.1f}" if layer.quantizer else "-", f"{layer.stored_db:.1f}",
            )
            for layer in self.layers
        ]  # fmt: skip

    def __str__(self) -> str:
        head = ("layer", "stored as", "alone dB", "in the network dB")
        return "\n".join(
            f"{one:<24}{two:>12}{three:>10}{four:>19}"
            for one, two, three, four in [head, *self.rows()]
        )

    def _repr_html_(self) -> str:
        """The table for a notebook."""
        head = ("layer", "stored as", "SQNR alone, dB", "in the network, dB")
        rows = "".join(
            f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>"
            for row in self.rows()
        )
        return (
            f"<table><caption>{html.escape(self.network)}, {len(self.images)} images</caption><tr>"
            f"{''.join(f'<th>{cell}</th>' for cell in head)}</tr>{rows}</table>"
        )


def inspect(options: Options, images: int) -> Inspection:
    """Run both networks on the first test images of a build.

    Args:
        options: the build was made with.
        images: at most so many.

    Raises:
        UserError: there is no quantized network.
    """
    network = load(options.folder / "quantized")
    subject = subject_of(options, options.test_images)
    pixels = subject.images.test.pixels[:images]
    x = subject.to_float(pixels)
    found = Reference(network).run(network.input.encode(pixels))
    views = []
    for layer, (own, encoded, want), (_, codes) in zip(
        network.layers, run.run_encoded(subject.loaded.graph, x), found, strict=True
    ):
        exact = want.double()
        scale = np.ones(exact.shape[1]) if layer.scale is None else layer.scale.astype(np.float64)
        factor = tensor_of(scale).double()[:, None, None]
        scaled = (encoded.double() * factor).float()
        alone = fake_quant.quantize(own, scaled, layer.quantizer).double() / factor
        views.append(LayerView(
            layer.name, layer.quantizer, exact.numpy(), alone.numpy(),
            decoded(layer, codes).reshape(exact.shape), scaled.numpy(),
        ))  # fmt: skip
    return Inspection(network.name, pixels, tuple(views))


def _sqnr(exact: np.ndarray, other: np.ndarray) -> float:
    """Signal to quantization noise, dB."""
    return float(sqnr_db(float(np.square(exact).sum()), float(np.square(exact - other).sum())))


def _strip(values: np.ndarray, rows: int) -> np.ndarray:
    """Values [C] as one picture [1, rows, columns], filled up with 0."""
    columns = ceil(len(values) / rows)
    return np.pad(values, (0, rows * columns - len(values))).reshape(1, rows, columns)


def _axes(rows: int, columns: int, height: float, width: float | None = None) -> Any:
    import matplotlib.pyplot as plt

    size = (width or (1.9 * columns if rows > 1 else 6.4), rows * height if rows > 1 else height)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, constrained_layout=True)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    assert axes.size == prod((rows, columns))
    return figure, list(axes.flat)
