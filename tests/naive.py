# SPDX-License-Identifier: Apache-2.0
"""A naive integer model of every layer kind, in plain numpy loops.

Written from docs/formats.md section 2 alone; it shares no code with the packages, so that a mistake
in either shows. Layers, pools and quantizers are any objects with the manifest's names.
"""

from typing import Any

import numpy as np

LRN_ENTRIES = 1025


def convolve(values: np.ndarray, weight: np.ndarray, layer: Any) -> np.ndarray:
    """Naive integer convolution of values [N, C, H, W], int64."""
    top, left, bottom, right = layer.pads
    padded = np.pad(values, ((0, 0), (0, 0), (top, bottom), (left, right)))
    out, cin, kh, kw = weight.shape
    (sh, sw), (dh, dw) = layer.stride, layer.dilation
    oh = (padded.shape[2] - dh * (kh - 1) - 1) // sh + 1
    ow = (padded.shape[3] - dw * (kw - 1) - 1) // sw + 1
    if oh < 1 or ow < 1:
        raise ValueError("the kernel must fit its map")
    acc = np.zeros((values.shape[0], out, oh, ow), dtype=np.int64)
    per_group = out // layer.groups
    for o in range(out):
        first = o // per_group * cin
        for ky in range(kh):
            for kx in range(kw):
                y, x = ky * dh, kx * dw
                window = padded[:, first : first + cin, y : y + sh * oh : sh, x : x + sw * ow : sw]
                window = window[:, :, :oh, :ow]
                taps = weight[o, :, ky, kx].astype(np.int64)
                acc[:, o] += (window * taps[None, :, None, None]).sum(axis=1)
    return acc


def windows(
    size: tuple[int, int], kernel: Any, stride: Any, pads: Any
) -> tuple[int, int, list[tuple[int, int, slice, slice]]]:
    """Rows and columns of window positions, and (y, x, rows, columns) of each, clipped."""
    (kh, kw), (sh, sw), (top, left, bottom, right) = kernel, stride, pads
    oh = (size[0] + top + bottom - kh) // sh + 1
    ow = (size[1] + left + right - kw) // sw + 1
    if oh < 1 or ow < 1:
        raise ValueError("the window must fit its map")
    places = []
    for y in range(oh):
        for x in range(ow):
            y0, x0 = y * sh - top, x * sw - left
            rows, columns = slice(max(0, y0), y0 + kh), slice(max(0, x0), x0 + kw)
            if rows.start >= min(rows.stop, size[0]) or columns.start >= min(columns.stop, size[1]):
                raise ValueError("every window must reach into the map")
            places.append((y, x, rows, columns))
    return oh, ow, places


def max_pool(codes: np.ndarray, pool: Any) -> np.ndarray:
    """Naive max pool of codes [N, C, H, W]; windows are clipped to the map."""
    oh, ow, places = windows(codes.shape[2:], pool.kernel, pool.stride, pool.pads)
    out = np.zeros((*codes.shape[:2], oh, ow), dtype=codes.dtype)
    for y, x, rows, columns in places:
        out[:, :, y, x] = codes[:, :, rows, columns].max(axis=(2, 3))
    return out


def enlarge(codes: np.ndarray, upscale: Any) -> np.ndarray:
    """Every pixel of codes [N, C, H, W] at all of its places, or each place's channels at it."""
    rows, columns = upscale.factor
    channels = codes.shape[1] // (rows * columns) if upscale.shuffle else codes.shape[1]
    height, width = codes.shape[2] * rows, codes.shape[3] * columns
    out = np.zeros((len(codes), channels, height, width), codes.dtype)
    for dy in range(rows):
        for dx in range(columns):
            first = (dy * columns + dx) * channels if upscale.shuffle else 0
            out[:, :, dy::rows, dx::columns] = codes[:, first : first + channels]
    return out


def window_sums(values: np.ndarray, layer: Any) -> tuple[np.ndarray, np.ndarray]:
    """Sums over the average windows, and how many elements of each lie inside the map."""
    oh, ow, places = windows(values.shape[2:], layer.kernel, layer.stride, layer.pads)
    sums = np.zeros((*values.shape[:2], oh, ow), dtype=np.int64)
    inside = np.zeros((oh, ow), dtype=np.int64)
    for y, x, rows, columns in places:
        part = values[:, :, rows, columns]
        sums[:, :, y, x] = part.sum(axis=(2, 3))
        inside[y, x] = part.shape[2] * part.shape[3]
    return sums, inside


def lrn_table(size: int, alpha: float, beta: float, k: float, frac: int) -> tuple[np.ndarray, int]:
    """The factors of a normalisation, and their table_frac."""
    points = []
    for i in range(LRN_ENTRIES):
        e = 0 if i < 64 else i // 32 - 1
        points.append(i if i < 64 else (i - 32 * e) << e)
    factors = [(k + alpha / size * q * 2.0 ** (-2 * frac)) ** -beta for q in points]
    fits = [f for f in range(25) if max(round(value * 2**f) for value in factors) < 1 << 16]
    if not fits:
        raise ValueError("normalisation factors must fit 16 bits")
    return np.array([round(value * 2 ** fits[-1]) for value in factors], np.int32), fits[-1]


def lrn_factor(table: np.ndarray, q: int) -> int:
    """The factor of a sum of squares, between two entries of the table."""
    e = max(0, q.bit_length() - 6)
    i, r = 32 * e + (q >> e), q - ((q >> e) << e)
    left, right = int(table[i]), int(table[i + 1])
    return left - (((left - right) * r) >> e)


def normalise(values: np.ndarray, size: int, table: np.ndarray) -> np.ndarray:
    """v * g for values [N, C, H, W]."""
    values = values.astype(np.int64)
    out = np.zeros_like(values)
    channels = values.shape[1]
    for c in range(channels):
        part = values[:, max(0, c - (size - 1) // 2) : min(channels, c + size // 2 + 1)]
        squares = (part * part).sum(axis=1)
        factor = np.zeros_like(squares)
        for index, q in np.ndenumerate(squares):
            factor[index] = lrn_factor(table, int(q))
        out[:, c] = values[:, c] * factor
    return out


def signed_number(codes: np.ndarray, bits: int) -> np.ndarray:
    """Two's complement numbers of codes."""
    numbers = codes.astype(np.int64)
    return np.where(numbers >= 1 << (bits - 1), numbers - (1 << bits), numbers)


def decode(codes: np.ndarray, quantizer: Any) -> np.ndarray:
    """Values of codes; the network's input, without a quantizer, is its own value."""
    numbers = np.asarray(codes).astype(np.int64)
    if quantizer is None:
        return numbers
    if quantizer.scheme == "knq":
        return quantizer.centroid[numbers].astype(np.int64)
    if quantizer.signed:
        numbers = signed_number(numbers, quantizer.bits)
    if quantizer.scheme == "uniform":
        return numbers
    shift = quantizer.qm - quantizer.bits
    half = (1 << shift) >> 1 if quantizer.variant == "mid" else 0
    return numbers * (1 << shift) + np.where(numbers != 0, half, 0)


def largest(quantizer: Any) -> int:
    """The largest magnitude that a code stands for."""
    return int(np.abs(decode(np.arange(1 << quantizer.bits), quantizer)).max())


def encode(y: np.ndarray, quantizer: Any) -> np.ndarray:
    """Codes of integers y, as they are stored."""
    if quantizer.scheme == "knq":
        return (y[..., None] >= quantizer.threshold[1:]).sum(axis=-1).astype(np.uint16)
    bits = quantizer.bits
    numbers = y
    if quantizer.scheme == "enq":
        shift = quantizer.qm - bits
        half = (1 << shift) >> 1 if quantizer.variant == "round" else 0
        highest = (1 << (bits - 1)) - 1 if quantizer.signed else (1 << bits) - 1
        numbers = np.minimum((y + half) >> shift, highest)
    return (numbers % (1 << bits)).astype(np.uint16)


def requantize(acc: np.ndarray, shift: int, quantizer: Any, relu: bool) -> np.ndarray:
    """Rounding shift, and clamp to the quantizer's range, to 0 and more for a ReLU."""
    qm, signed = quantizer.qm, quantizer.signed
    low, high = (-(1 << (qm - 1)), (1 << (qm - 1)) - 1) if signed else (0, (1 << qm) - 1)
    if shift > 0:
        y = (acc + (1 << (shift - 1))) >> shift
    else:
        y = acc.astype(object) * (1 << -shift)  # may exceed 64 bits before the clamp
    return np.clip(y, 0 if relu else low, high).astype(np.int64)


def sums(layer: Any, sources: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Accumulators of a layer, and what is requantized: the same, but for factors."""
    values = sources[0]
    if layer.kind == "add":
        values = sum(v * (1 << align) for v, align in zip(sources, layer.in_aligns, strict=True))
    elif layer.kind == "mul":
        values = sources[0] * sources[1]
    elif layer.kind == "avgpool":
        sums, inside = window_sums(values, layer)
        window = layer.kernel[0] * layer.kernel[1]
        count = np.full_like(inside, window) if layer.average.count_include_pad else inside
        return sums, sums * ((2**24 + count // 2) // count)
    elif layer.kind == "lrn":
        return values, normalise(values, layer.lrn.size, layer.lrn.table)
    elif layer.kind != "maxpool":
        bias = layer.bias.astype(np.int64) << layer.bias_shift
        values = convolve(values, layer.weight, layer) + bias[:, None, None]
        if layer.weight_scale is not None:
            return values, values * layer.weight_scale.astype(np.int64)[:, None, None]
    return values, values


def run(network: Any, codes: np.ndarray) -> dict[str, np.ndarray]:
    """Stored codes [N, C, H, W] of every layer for the input's; raw sums for the last."""
    stored, quantizers = {"input": codes}, {"input": None}
    for layer in network.layers:
        sources = []
        for name in layer.inputs:
            parts = network.concats.get(name, (name,))
            values = [decode(stored[part], quantizers[part]) for part in parts]
            sources.append(np.concatenate(values, axis=1))
        acc, product = sums(layer, sources)
        assert np.abs(acc).max() < 1 << (layer.acc_bits - 1), layer.name
        stored[layer.name] = acc
        if layer.quantizer:
            relu = layer.activation and layer.kind != "maxpool"
            y = requantize(product, layer.requant_shift, layer.quantizer, relu)
            out = encode(y, layer.quantizer)
            out = max_pool(out, layer.pool) if layer.pool else out
            stored[layer.name] = enlarge(out, layer.upscale) if layer.upscale else out
        quantizers[layer.name] = layer.quantizer
    return stored
