# SPDX-License-Identifier: Apache-2.0
"""golden/: the packed input, every layer's packed output, and checksums of all parameters.

The values come from the reference (vectors.npz); the C-simulation must reproduce every byte
(docs/formats.md).
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from codegen.design.layers import INPUT
from codegen.design.planner import Plan
from codegen.design.rows import FIELDS, Job, Row, weight_words
from formats.errors import UserError
from formats.packing import pack_maps


def golden_name(index: int, name: str, layers: int) -> str:
    """File name of a layer's golden output.

    >>> golden_name(3, "conv4", 8), golden_name(3, "conv4", 120)
    ('L03_conv4.bin', 'L003_conv4.bin')
    """
    return f"L{index:0{2 if layers <= 100 else 3}d}_{name}.bin"


def count_images(folder: Path) -> int:
    """Images that vectors.npz holds."""
    with _open(folder) as vectors:
        return int(vectors["labels"].shape[0])


def write_golden(plan: Plan, folder: Path, weight_checks: list[int]) -> None:
    """Write input.bin, one file per layer, and checks.txt into an existing folder."""
    network = plan.network
    with _open(network.folder) as vectors:
        codes = _take(vectors, INPUT, plan, network.in_shape)
        _write(folder / "input.bin", plan.gather(codes), network.in_bits, 0)
        for index, job in enumerate(plan.jobs):
            layer = job.layer
            path = folder / golden_name(index, layer.name, len(plan.jobs))
            values = _take(vectors, layer.name, plan, layer.out_shape)
            if layer.quantizer is None:
                path.write_bytes(values.transpose(0, 2, 3, 1).astype("<i8").tobytes())
            else:
                _write(path, values, layer.quantizer.bits, int(layer.quantizer.encode(0)))
    engine, ports = plan.engine, plan.engine.weight_ports

    def words(row: Row) -> int:
        return ports * weight_words(row, engine.simd, engine.pe, ports)

    lines = [
        f"{index} {words(row)} {weights:08x} {row_check(row):08x} {knq_check(job):08x}\n"
        for index, (job, row, weights) in enumerate(
            zip(plan.jobs, plan.rows, weight_checks, strict=True)
        )
    ]
    (folder / "checks.txt").write_text("".join(lines))


def row_check(row: Row) -> int:
    """CRC-32 of a layer's table row as int32."""
    return zlib.crc32(np.array([row[name] for name in FIELDS], dtype="<i4").tobytes())


def knq_check(job: Job) -> int:
    """CRC-32 of the layer's centroids, thresholds and normalisation factors that exist, as int32.

    0 where it has none.
    """
    quantizer, lrn = job.layer.quantizer, job.layer.lrn
    tables = [quantizer.centroid, quantizer.threshold] if quantizer else []
    tables.append(lrn.table if lrn else None)
    crc = 0
    for table in tables:
        if table is not None:
            crc = zlib.crc32(table.astype("<i4").tobytes(), crc)
    return crc


def _write(path: Path, maps: np.ndarray, bits: int, phantom: int) -> None:
    with path.open("wb") as file:
        for codes in maps:
            file.write(pack_maps(codes[None], bits, phantom).tobytes())


def _open(folder: Path) -> np.lib.npyio.NpzFile:
    path = folder / "vectors.npz"
    if not path.is_file():
        raise UserError(f"{path} must exist; quantize again")
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, zipfile.BadZipFile, EOFError) as error:
        raise UserError(f"{path} must be an npz archive ({error}); quantize again") from None


def _take(
    vectors: np.lib.npyio.NpzFile, key: str, plan: Plan, shape: tuple[int, int, int]
) -> np.ndarray:
    """The first `images` items of vectors[key], [N, *shape]."""
    if key not in vectors.files:
        raise UserError(f"vectors.npz must hold {key}; quantize again")
    values = vectors[key]
    if values.shape[1:] != shape or values.shape[0] < plan.images:
        raise UserError(
            f"vectors.npz: {key} must have shape {(plan.images, *shape)}, not {values.shape}; "
            f"quantize with IMAGES={plan.images}"
        )
    return values[: plan.images]
