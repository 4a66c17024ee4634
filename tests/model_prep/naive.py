# SPDX-License-Identifier: Apache-2.0
"""A direct transcription of docs/formats.md 2 in Python integers, slow and obvious.

The independent check of `quantize.reference`: no torch, no tables, no matrix products, pooling
on the codes.
"""

from __future__ import annotations

import numpy as np

from model_prep.quantize.manifest import QuantizedLayer, QuantizedNetwork
from model_prep.quantize.quantizers.base import Quantizer


def decode(quantizer: Quantizer, code: int) -> int:
    """docs/formats.md 2.2."""
    if quantizer.scheme == "knq":
        return int(quantizer.centroid[code])
    if quantizer.signed and code >= 1 << (quantizer.bits - 1):
        code -= 1 << quantizer.bits
    if quantizer.scheme == "uniform":
        return code
    shift = quantizer.qm - quantizer.bits
    half = (1 << shift) >> 1 if quantizer.variant == "mid" and code != 0 else 0
    return (code << shift) + half


def encode(quantizer: Quantizer, y: int) -> int:
    """docs/formats.md 2.4."""
    if quantizer.scheme == "knq":
        return sum(1 for threshold in quantizer.threshold[1:].tolist() if y >= threshold)
    mask = (1 << quantizer.bits) - 1
    if quantizer.scheme == "uniform":
        return y & mask
    shift = quantizer.qm - quantizer.bits
    if quantizer.variant == "round":
        largest = (1 << (quantizer.bits - 1)) - 1 if quantizer.signed else mask
        return min((y + ((1 << shift) >> 1)) >> shift, largest) & mask
    return (y >> shift) & mask


def requantize(acc: int, shift: int, quantizer: Quantizer, relu: bool) -> int:
    """docs/formats.md 2.3; a ReLU ends at 0 also where the quantizer is signed."""
    y = (acc + (1 << (shift - 1))) >> shift if shift > 0 else acc << -shift
    low, high = 0, (1 << quantizer.qm) - 1
    if quantizer.signed:
        low, high = -(1 << (quantizer.qm - 1)), (1 << (quantizer.qm - 1)) - 1
    return min(max(y, 0 if relu else low), high)


def _accumulators(layer: QuantizedLayer, values: np.ndarray) -> np.ndarray:
    """Sums of one image (object array [C, H, W] of Python integers)."""
    channels, height, width = layer.conv_shape
    in_group, out_group = layer.weight.shape[1], channels // layer.groups
    top, left = layer.pads[:2]
    out = np.empty((channels, height, width), object)
    for o, y, x in np.ndindex(channels, height, width):
        total = int(layer.bias[o]) << layer.bias_shift
        for i, ky, kx in np.ndindex(*layer.weight.shape[1:]):
            row = y * layer.stride[0] + ky * layer.dilation[0] - top
            column = x * layer.stride[1] + kx * layer.dilation[1] - left
            if 0 <= row < values.shape[1] and 0 <= column < values.shape[2]:
                channel = o // out_group * in_group + i
                total += int(layer.weight[o, i, ky, kx]) * int(values[channel, row, column])
        assert abs(total) < 1 << (layer.acc_bits - 1)
        out[o, y, x] = total
    return out


def _pool(layer: QuantizedLayer, codes: np.ndarray) -> np.ndarray:
    """docs/formats.md 2.5."""
    if layer.pool is None:
        return codes
    top, left = layer.pool.pads[:2]
    out = np.empty(layer.out_shape, object)
    for c, y, x in np.ndindex(*layer.out_shape):
        row, column = y * layer.pool.stride[0] - top, x * layer.pool.stride[1] - left
        window = codes[
            c,
            max(row, 0) : row + layer.pool.kernel[0],
            max(column, 0) : column + layer.pool.kernel[1],
        ]
        out[c, y, x] = max(window.ravel().tolist())
    return out


def _window(layer: QuantizedLayer, y: int, x: int) -> tuple[slice, slice]:
    """Rows and columns of an average pool's window, those outside the map left out."""
    row, column = y * layer.stride[0] - layer.pads[0], x * layer.stride[1] - layer.pads[1]
    return (
        slice(max(row, 0), max(row + layer.kernel[0], 0)),
        slice(max(column, 0), max(column + layer.kernel[1], 0)),
    )


def _average(layer: QuantizedLayer, values: np.ndarray) -> np.ndarray:
    """docs/formats.md 2.7: sums times R; the sums alone for the last layer."""
    out = np.empty(layer.conv_shape, object)
    for c, y, x in np.ndindex(*layer.conv_shape):
        window = values[c][_window(layer, y, x)].ravel().tolist()
        acc = sum(window)
        assert abs(acc) < 1 << (layer.acc_bits - 1)
        n = layer.kernel[0] * layer.kernel[1] if layer.average.count_include_pad else len(window)
        out[c, y, x] = acc * ((2**24 + n // 2) // n) if layer.quantizer else acc
    return out


def _factor(table: list[int], q: int) -> int:
    """docs/formats.md 2.8: the look-up."""
    e = max(0, q.bit_length() - 1 - 5) if q else 0
    i, r = 32 * e + (q >> e), q - ((q >> e) << e)
    return table[i] - (((table[i] - table[i + 1]) * r) >> e)


def _normalise(layer: QuantizedLayer, values: np.ndarray) -> np.ndarray:
    """docs/formats.md 2.8: v * g."""
    size, table = layer.lrn.size, layer.lrn_table.tolist()
    out = np.empty(layer.conv_shape, object)
    for c, y, x in np.ndindex(*layer.conv_shape):
        first = max(c - (size - 1) // 2, 0)
        q = sum(int(v) ** 2 for v in values[first : c + size // 2 + 1, y, x])
        out[c, y, x] = int(values[c, y, x]) * _factor(table, q)
    return out


def _result(layer: QuantizedLayer, sources: list[np.ndarray]) -> np.ndarray:
    """What is requantized, from the decoded inputs."""
    if layer.kind == "add":
        one, other = sources
        return one * (1 << layer.in_aligns[0]) + other * (1 << layer.in_aligns[1])
    if layer.kind == "maxpool":
        return sources[0]
    if layer.kind == "avgpool":
        return _average(layer, sources[0])
    if layer.kind == "lrn":
        return _normalise(layer, sources[0])
    return _accumulators(layer, sources[0])


def run(network: QuantizedNetwork, image: np.ndarray) -> dict[str, np.ndarray]:
    """Stored codes of every layer for one image's input codes [C, H, W]; raw sums for the last."""
    stored, quantizers = {"input": image}, {}
    for layer in network.layers:
        sources = []
        for name in layer.inputs:
            maps = []
            for part in network.concats.get(name, (name,)):
                values = [
                    decode(quantizers[part], int(code)) if part in quantizers else int(code)
                    for code in stored[part].ravel()
                ]
                maps.append(np.array(values, object).reshape(stored[part].shape))
            sources.append(np.concatenate(maps))
        sums = _result(layer, sources)
        if layer.quantizer is None:
            stored[layer.name] = sums
            continue
        quantizer = layer.quantizer
        quantizers[layer.name] = quantizer
        relu = layer.relu and layer.kind in ("conv", "fc", "add")
        coded = [
            encode(quantizer, requantize(int(acc), layer.requant_shift, quantizer, relu))
            for acc in sums.ravel().tolist()
        ]
        stored[layer.name] = _pool(layer, np.array(coded, object).reshape(sums.shape))
    return stored
