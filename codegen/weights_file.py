# SPDX-License-Identifier: Apache-2.0
"""params/weights.bin: biases and weights in the order in which the engine consumes them.

Layer, tile of PE output channels, chunk of input channels; a tile's first chunk brings PE biases
(int32, two a word), then come rows of PE*SIMD fields (docs/formats.md). Imports numpy and tqdm.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from codegen.numbers import ceil_div
from codegen.packing import BLOCK_CODES, pack_fields
from codegen.planner import Plan
from codegen.table import Job, Row, chunk_sizes


def pass_bytes(job: Job, row: Row, simd: int, pe: int) -> Iterator[bytes]:
    """The bytes of one layer, pass by pass; none of an operation without weights."""
    if not job.layer.weighted:
        return
    conv = job.conv
    out_group = conv.out_channels // conv.groups
    for group in range(conv.groups):
        for tile in range(row["tiles_per_group"]):
            first = group * out_group + tile * pe
            lanes = min(pe, (group + 1) * out_group - first)
            bias = np.zeros(pe, dtype="<i4")
            bias[:lanes] = job.layer.bias[first : first + lanes]
            for chunk, blocks in enumerate(chunk_sizes(row)):
                start = chunk * row["chunk_blocks"] * BLOCK_CODES
                part = job.weight[first : first + lanes, start : start + blocks * BLOCK_CODES]
                data = pack_fields(order_rows(part, blocks, simd, pe), row["weight_bits"]).tobytes()
                yield bias.tobytes() + data if chunk == 0 else data


def order_rows(weight: np.ndarray, blocks: int, simd: int, pe: int) -> np.ndarray:
    """Weights [lanes, channels, KH, KW] of one pass as [rows, SIMD, PE], zero-filled.

    The list of (kernel row, kernel column, block of 8 channels), block fastest, is cut into rows of
    SIMD/8 items; only its end is filled up.

    >>> rows = order_rows(np.array([5, 6]).reshape(2, 1, 1, 1), 1, 8, 8)
    >>> rows.shape, rows[0, 0].tolist()
    ((1, 8, 8), [5, 6, 0, 0, 0, 0, 0, 0])
    >>> order_rows(np.arange(36).reshape(1, 2, 3, 6), 1, 24, 8)[0, ::8, 0].tolist()
    [0, 1, 2]
    """
    lanes, channels, kernel_h, kernel_w = weight.shape
    items = ceil_div(kernel_h * kernel_w * blocks * BLOCK_CODES, simd) * simd
    rows = np.zeros((items, pe), dtype=weight.dtype)
    taps = rows[: kernel_h * kernel_w * blocks * BLOCK_CODES].reshape(
        kernel_h, kernel_w, blocks * BLOCK_CODES, pe
    )
    taps[:, :, :channels, :lanes] = weight.transpose(2, 3, 1, 0)
    return rows.reshape(-1, simd, pe)


def write_weights(plan: Plan, path: Path) -> list[int]:
    """Write weights.bin; return the CRC-32 of each layer's bytes."""
    checks: list[int] = []
    engine = plan.engine
    with (
        path.open("wb") as file,
        tqdm(
            total=plan.weight_words * 8,
            desc="weights",
            unit="B",
            unit_scale=True,
            disable=not sys.stderr.isatty(),
        ) as progress,
    ):
        for job, row in zip(plan.jobs, plan.rows, strict=True):
            crc = 0
            for data in pass_bytes(job, row, engine.simd, engine.pe):
                file.write(data)
                crc = zlib.crc32(data, crc)
                progress.update(len(data))
            checks.append(crc)
    return checks
