# SPDX-License-Identifier: Apache-2.0
"""bundle.zip: everything that goes to a board, made on a PC from build/NET.

The same input gives the same bytes. The bundle is made before, and without, synthesis; bitstream
and .hwh are added when they exist.
"""

import hashlib
import io
import json
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from board import __version__
from board.contents import (
    BITSTREAM,
    DESIGN,
    FORMAT,
    HANDOFF,
    IMAGES,
    MANIFEST,
    TABLES,
    WEIGHTS,
    manifest_digest,
)
from formats.build import atomic_file, sources_digest
from formats.design import Design
from formats.errors import UserError

SOURCES = Path(__file__).parent
PACKAGES = (SOURCES, SOURCES.with_name("formats"))
NOTEBOOK = "demo.ipynb"
README = "README.md"
README_SOURCE = SOURCES / "bundle_readme.md"
EPOCH = (1980, 1, 1, 0, 0, 0)
IMAGE_SHARE = 0.015  # of the weights' size that test images may take
IMAGE_BYTES = 100_000  # and what they may take in any case
STORED = (".bin", ".bit")  # packed already


def generated_design(build: Path) -> Design:
    """The design that was generated in a build folder."""
    path = build / "design.json"
    if not path.is_file():
        raise UserError(f"{path} must exist; run `make codegen` first")
    return Design.of(json.loads(path.read_text(encoding="utf-8")))


def npz_bytes(arrays: dict[str, np.ndarray]) -> bytes:
    """An npz archive whose bytes depend on its content only.

    >>> npz_bytes({"a": np.zeros(3)}) == npz_bytes({"a": np.zeros(3)})
    True
    """
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.save(content, np.ascontiguousarray(array), allow_pickle=False)
            _write(archive, f"{name}.npy", content.getvalue())
    return stream.getvalue()


def _test_images(build: Path, weight_bytes: int, last: str) -> dict[str, np.ndarray]:
    """The first quantized test images, as many as the bundle's size allows; at least one."""
    path = build / "quantized" / "vectors.npz"
    if not path.is_file():
        raise UserError(f"{path} must exist; run `make quantize` again")
    with np.load(path, allow_pickle=False) as vectors:
        images, labels, logits = vectors["images"], vectors["labels"], vectors[last]
    channels, height, width = logits.shape[1:]
    if height * width == 1:
        logits = logits.reshape(-1, channels)
    room = max(IMAGE_BYTES, int(weight_bytes * IMAGE_SHARE))
    count = max(1, min(len(images), room // (images[0].nbytes + logits[0].nbytes)))
    return {"images": images[:count], "labels": labels[:count], "logits": logits[:count]}


def _tables(build: Path) -> dict[str, np.ndarray]:
    with np.load(build / "quantized" / "arrays.npz", allow_pickle=False) as arrays:
        wanted = [n for n in arrays.files if n.endswith(("/table", "/centroid", "/threshold"))]
        return {name: arrays[name] for name in wanted}


def make_bundle(build: Path, bitstream: Path | None = None, name: str = "bundle.zip") -> Path:
    """Write build/bundle.zip.

    Args:
        build: build/NET after `make codegen`.
        bitstream: a .bit with its .hwh beside it, or None to look for build/bitstream.
        name: of the file in `build`.
    """
    design = generated_design(build)
    weights = build / "params" / "weights.bin"
    content: dict[str, bytes | Path] = {
        f"{package.name}/{path.name}": path for package in PACKAGES for path in package.glob("*.py")
    }
    content[NOTEBOOK] = SOURCES / NOTEBOOK
    readme = README_SOURCE.read_text(encoding="utf-8")
    content[README] = readme.replace("NETWORK", design.network).encode()
    content[DESIGN] = build / "design.json"
    content[TABLES] = npz_bytes(_tables(build))
    content[IMAGES] = npz_bytes(_test_images(build, weights.stat().st_size, design.layers[-1].name))
    content[WEIGHTS] = weights
    content.update(_find_bitstream(build, bitstream))
    identity = {"id": f"{design.design_id:08x}", "sha256": sources_digest(build / "hls")}
    return _write_zip(build / name, content, identity, design.network)


def _find_bitstream(build: Path, bitstream: Path | None) -> dict[str, Path]:
    """The .bit and .hwh of the bundle; none where synthesis has not been run."""
    path = bitstream or build / "bitstream" / BITSTREAM
    if bitstream is None and not path.is_file():
        return {}
    handoff = path.with_suffix(".hwh")
    for file in (path, handoff):
        if not file.is_file():
            raise UserError(f"{file} must exist; pynq needs .bit and .hwh of the same name")
    return {BITSTREAM: path, HANDOFF: handoff}


def _write(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    info = zipfile.ZipInfo(name, EPOCH)
    info.external_attr = 0o644 << 16
    packed = name.endswith(STORED)
    info.compress_type = zipfile.ZIP_STORED if packed else zipfile.ZIP_DEFLATED
    archive.writestr(info, data)


def _write_zip(
    path: Path, content: dict[str, bytes | Path], identity: dict[str, str], network: str
) -> Path:
    """Write manifest and files."""
    files = {}
    with atomic_file(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name in sorted(content):
            item = content[name]
            data = item.read_bytes() if isinstance(item, Path) else item
            files[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            _write(archive, name, data)
        manifest: dict[str, Any] = {
            "format": FORMAT,
            "generator": f"board {__version__}",
            "network": network,
            "design": identity,
            "files": files,
        }
        manifest["manifest_sha256"] = manifest_digest(manifest)
        _write(archive, MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())
    return path


def unpack(bundle: Path, folder: Path) -> Path:
    """Unpack a bundle into a folder, refusing paths that leave it."""
    if not zipfile.is_zipfile(bundle):
        raise UserError(f"{bundle} must be a bundle (zip); make it with `make bundle`")
    with zipfile.ZipFile(bundle) as archive:
        for name in archive.namelist():
            parts = PurePosixPath(name).parts
            if name.startswith("/") or ".." in parts:
                raise UserError(f"{bundle} must hold relative paths, not {name}; make it again")
        archive.extractall(folder)
    return folder
