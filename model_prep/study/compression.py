# SPDX-License-Identifier: Apache-2.0
"""Zero-data compression of stored codes, with which 000 closes: what it would save, measured.

Three forms: a bit that says whether a value is 0, with codes for the others; the entropy of a
layer's codes, which no code word by word goes below on average; and a bit for each block of 8
channels, the engine's unit of storage, with codes for the blocks that are not all 0.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nuq.formats.quantizer import Quantizer
from nuq.model_prep.footprint import megabytes
from nuq.model_prep.quantize.calibrate import float_maps
from nuq.model_prep.quantize.fake_quant import integers
from nuq.model_prep.study.context import Study
from nuq.model_prep.study.plots import Figure, Panel, Series
from nuq.model_prep.study.results import Section, Table

BLOCK = 8  # channels
_WIDTHS = (5, 4, 3)
_WEIGHT_BITS = 14
_IMAGES = 16  # that blocks are counted on


@dataclass(frozen=True)
class Bits:
    """Stored bits a value of one layer."""

    zeros: float  # share of codes that are 0
    mask: float  # 1 + bits * (1 - zeros)
    entropy: float  # of the codes
    blocks: float  # 1 / 8 + bits * (share of blocks that are not all 0)


def entropy(counts: np.ndarray) -> float:
    """Bits a symbol of these counts.

    >>> entropy(np.array([2, 1, 1, 0]))
    1.5
    """
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


def bits_of(counts: np.ndarray, bits: int, filled: float) -> Bits:
    """Of a layer whose codes occur `counts` times, and `filled` of whose blocks are not all 0.

    >>> bits_of(np.array([3, 1, 0, 0]), 2, 0.5)
    Bits(zeros=0.75, mask=1.5, entropy=0.8112781244591328, blocks=1.125)
    """
    zeros = float(counts[0] / counts.sum())
    return Bits(zeros, 1 + bits * (1 - zeros), entropy(counts), 1 / BLOCK + bits * filled)


def filled_blocks(codes: np.ndarray) -> float:
    """The share of blocks of 8 channels with a code other than 0, of codes [N, C, H, W].

    >>> filled_blocks(np.arange(16).reshape(1, 16, 1, 1) // 15)
    0.5
    """
    number, channels, *sides = codes.shape
    padded = np.zeros((number, -(-channels // BLOCK) * BLOCK, *sides), bool)
    padded[:, :channels] = codes != 0
    return float(padded.reshape(number, -1, BLOCK, *sides).any(axis=2).mean())


def _filled(study: Study, quantizers: Mapping[str, Quantizer]) -> dict[str, float]:
    """`filled_blocks` by layer, of float's maps of test images."""
    parts: dict[str, list[float]] = {name: [] for name in quantizers}
    names = [layer.name for layer in study.graph.layers]
    for batch, maps in float_maps(study.graph, study.test.pixels[:_IMAGES], study.to_float):
        for name, stored in zip(names, maps, strict=True):
            if name in quantizers:
                form = quantizers[name]
                codes = form.encode(integers(stored, form).numpy())
                parts[name] += [filled_blocks(codes)] * len(batch)
    return {name: float(np.mean(part)) for name, part in parts.items()}


def measured(study: Study, bits: int) -> dict[str, Bits]:
    """By layer, KNQ with the F of least error."""
    plan = study.plan("knq", bits)
    formats = study.formats(plan, "error")
    quantizers = formats.fit(plan)
    filled = study.store.remember(f"blocks {bits}", lambda: _filled(study, quantizers))
    found = {}
    for name, form in quantizers.items():
        counts = np.bincount(
            form.encode_table, weights=formats.counts[name], minlength=1 << form.bits
        )
        found[name] = bits_of(counts, form.bits, filled[name])
    return found


def traffic(study: Study, by_layer: Mapping[str, float]) -> float:
    """Bits of one image's maps to and from DRAM: each written once, read once by each reader.

    Args:
        study: the network.
        by_layer: stored bits a value.
    """
    times = dict.fromkeys(study.elements, 1)
    for layer in study.graph.layers:
        for source in study.graph.sources_of(layer):
            if source in times:
                times[source] += 1
    return sum(study.elements[name] * by_layer[name] * times[name] for name in by_layer)


_FORMS = {"plain": "codes", "mask": "zero mask and codes", "entropy": "entropy of the codes",
          "blocks": "mask of 8 channels and codes"}  # fmt: skip


def compression(study: Study) -> Section:
    """Bits a value, memory and DRAM traffic by form and width."""
    weights = _WEIGHT_BITS * sum(values.size for values in study.weights.values())
    rows: list[list[Any]] = []
    layers: list[list[Any]] = []
    means: dict[tuple[int, str], float] = {}
    widths = study.pick(_WIDTHS, (4,))
    for bits in widths:
        found = measured(study, bits)
        plain = 0.0
        for form, title in _FORMS.items():
            by_layer = {name: float(bits) if form == "plain" else getattr(one, form)
                        for name, one in found.items()}  # fmt: skip
            nb = sum(study.elements[name] * value for name, value in by_layer.items())
            moved = traffic(study, by_layer)
            plain = plain or moved
            means[bits, form] = nb / study.values
            less = plain - moved
            rows.append([bits, title, means[bits, form], megabytes(nb), megabytes(moved),
                         100 * less / plain, 100 * less / (plain + weights)])  # fmt: skip
        if bits == widths[0]:
            layers = [[name, study.elements[name], 100 * one.zeros, one.mask, one.entropy,
                       one.blocks] for name, one in found.items()]  # fmt: skip
    first = widths[0]
    lead = (
        f"Of {first} bits a value a zero mask leaves {means[first, 'mask']:.2f}, entropy coding at "
        f"best {means[first, 'entropy']:.2f}, a mask of whole blocks {means[first, 'blocks']:.2f}. "
        f"Weights ({megabytes(weights):.1f} MB an image at {_WEIGHT_BITS} bits) stay as they are."
    )
    tables = [
        Table("Maps of one image, KNQ with the F of least error",
              ["bits", "form", "bits a value", "NB, MB", "traffic of maps, MB",
               "saved of it, %", "saved of it and the weights, %"], rows, digits=3,
              note="Traffic is the least there can be: a map is written once and read once by each "
              "layer behind it, weights are read once. Codes' shares are those of the calibration "
              f"images, blocks are counted on {min(_IMAGES, len(study.test))} test images."),
        Table(f"{first} bits by layer, bits a value",
              ["layer", "values", "zeros, %", *list(_FORMS.values())[1:]], layers),
    ]  # fmt: skip
    keys = {"mask": "uniform", "entropy": "knq", "blocks": "enq"}
    names = [row[0] for row in layers]
    series = [
        Series(keys[form], range(len(names)), [row[3 + number] for row in layers], _FORMS[form])
        for number, form in enumerate(keys)
    ]
    panel = Panel(series, y_label="bits a value", names=names, legend=3,
                  limits=(0, None))  # fmt: skip
    caption = f"Stored bits a value by layer, of {first} bits."
    return Section(lead, tables, [Figure(caption, [panel], (9.6, 3.2))])
