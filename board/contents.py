# SPDX-License-Identifier: Apache-2.0
"""The files of an unpacked bundle: names, digests, content.

A bundle is a folder whose manifest.json names every file with its SHA-256; nothing is used before
its digest has been compared.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from board.errors import BundleError
from formats.build import digest, sha256_file
from formats.design import Design

MANIFEST = "manifest.json"
DESIGN = "parameters/design.json"
TABLES = "parameters/tables.npz"
WEIGHTS = "parameters/weights.bin"
IMAGES = "images.npz"
BITSTREAM = "accelerator.bit"
HANDOFF = "accelerator.hwh"
FORMAT = 1
COUNTERS = (
    "bytes_read",
    "bytes_written",
    "bytes_weights",
    "cycles",
    "load",
    "read",
    "unpack",
    "compute",
    "finish",
    "pool",
    "pack",
    "write",
)


def manifest_digest(manifest: dict[str, Any]) -> str:
    """SHA-256 of a manifest without its own digest, keys sorted."""
    content = {key: value for key, value in manifest.items() if key != "manifest_sha256"}
    return digest(content)


def read_manifest(folder: Path) -> dict[str, Any]:
    """manifest.json of an unpacked bundle, its own digest compared."""
    path = folder / MANIFEST
    if not path.is_file():
        raise BundleError(f"{path} must exist; unpack bundle.zip and give the folder it makes")
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        stated, version = manifest["manifest_sha256"], manifest["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{path} must be a bundle's manifest ({error}); copy it again") from None
    if version != FORMAT:
        raise BundleError(f"{path}: format must be {FORMAT}, not {version}; make the bundle again")
    if stated != manifest_digest(manifest):
        raise BundleError(f"{path} must be unchanged since it was made; copy the bundle again")
    return manifest


def check_files(folder: Path, manifest: dict[str, Any]) -> None:
    """BundleError with the file's name where any byte of any file has changed."""
    for name, entry in sorted(manifest["files"].items()):
        path = folder / name
        if not path.is_file():
            raise BundleError(f"{path} must exist; copy the bundle again")
        if path.stat().st_size != entry["bytes"] or sha256_file(path) != entry["sha256"]:
            raise BundleError(f"{path} must be unchanged since it was made; copy the bundle again")


def read_design(folder: Path) -> Design:
    """design.json of an unpacked bundle."""
    return Design.of(json.loads((folder / DESIGN).read_text(encoding="utf-8")))


def read_tables(folder: Path) -> dict[str, np.ndarray]:
    """tables.npz: `input/table` int16 [C][256]; `NAME/centroid` and `NAME/threshold` int32."""
    with np.load(folder / TABLES, allow_pickle=False) as tables:
        return {name: tables[name] for name in tables.files}


def read_images(folder: Path) -> dict[str, np.ndarray]:
    """images.npz: `images` uint8 [N,C,H,W], `labels` int64 [N], `logits` int64 [N,...]."""
    with np.load(folder / IMAGES, allow_pickle=False) as images:
        return {name: images[name] for name in images.files}
