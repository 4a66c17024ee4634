# SPDX-License-Identifier: Apache-2.0
"""golden/: the packed input, every layer's packed output, and what the test bench must know.

The values come from the reference (vectors.npz); the C-simulation must reproduce every byte
(docs/formats.md).
"""

import zipfile
from pathlib import Path

import numpy as np

from nuq.codegen.design.design import Design
from nuq.formats.errors import UserError, existing
from nuq.formats.packing import pack_maps
from nuq.formats.rules import INPUT


def golden_name(index: int, name: str, layers: int) -> str:
    """File name of a layer's golden output.

    >>> golden_name(3, "conv4", 8), golden_name(3, "conv4", 120)
    ('L03_conv4.bin', 'L003_conv4.bin')
    """
    return f"L{index:0{2 if layers <= 100 else 3}d}_{name}.bin"


def count_images(folder: Path) -> int:
    """Images that vectors.npz holds."""
    with open_vectors(folder) as vectors:
        return int(vectors["labels"].shape[0])


def write_golden(design: Design, folder: Path, weight_checks: list[int]) -> None:
    """Write input.bin, one file per layer, and checks.txt into an existing folder."""
    network = design.network
    with open_vectors(network.folder) as vectors:
        codes = _take(vectors, INPUT, design, network.input.shape)
        _write(folder / "input.bin", design.gather(codes), network.input.bits, 0)
        for index, layer in enumerate(network.layers):
            path = folder / golden_name(index, layer.name, len(network.layers))
            values = _take(vectors, layer.name, design, layer.out_shape)
            if layer.quantizer is None:
                path.write_bytes(values.transpose(0, 2, 3, 1).astype("<i8").tobytes())
            else:
                _write(path, values, layer.quantizer.bits, int(layer.quantizer.encode(0)))
    lines = [f"{design.batch} {design.input_words}\n"]
    for index, (layer, row) in enumerate(zip(network.layers, design.rows, strict=True)):
        words = design.array.weight_ports * row.weight_words(design.array)
        name = golden_name(index, layer.name, len(network.layers))
        lines.append(
            f"{index} {words} {weight_checks[index]:08x} {layer.out_shape[0]} {layer.macs} "
            f"{name} {layer.name}\n"
        )
    (folder / "checks.txt").write_text("".join(lines))


def _write(path: Path, maps: np.ndarray, bits: int, phantom: int) -> None:
    with path.open("wb") as file:
        for codes in maps:
            file.write(pack_maps(codes[None], bits, phantom).tobytes())


def open_vectors(folder: Path) -> np.lib.npyio.NpzFile:
    """vectors.npz of quantized/; UserError where it is none."""
    path = existing(folder / "vectors.npz", "quantize again")
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, zipfile.BadZipFile, EOFError) as error:
        raise UserError(f"{path} must be an npz archive ({error}); quantize again") from None


def _take(
    vectors: np.lib.npyio.NpzFile, key: str, design: Design, shape: tuple[int, int, int]
) -> np.ndarray:
    """vectors[key] of the design's images, [N, *shape]."""
    if key not in vectors.files:
        raise UserError(f"vectors.npz must hold {key}; quantize again")
    values = vectors[key]
    if values.shape[1:] != shape or values.shape[0] < design.images:
        raise UserError(
            f"vectors.npz: {key} must have shape {(design.images, *shape)}, not {values.shape}; "
            f"quantize with IMAGES={design.images}"
        )
    return values[: design.images]
