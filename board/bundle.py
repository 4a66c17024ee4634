# SPDX-License-Identifier: Apache-2.0
"""bundle.zip: everything that goes to a board, made on a PC from build/NET; and its files there.

The same input gives the same bytes. The bundle is made before, and without, synthesis; bitstream
and .hwh are added when they exist. Unpacked, it is a folder whose manifest.json names every file
with its SHA-256; nothing is used before its digest has been compared.
"""

import hashlib
import io
import json
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from nuq.board import __version__
from nuq.board.errors import BundleError
from nuq.formats import program
from nuq.formats.build import atomic_file, digest, sha256_file, sources_digest
from nuq.formats.design import DESIGN, Design, check_bitstream, read_design
from nuq.formats.errors import UserError, call, existing

BUNDLE = "bundle.zip"  # in a build's folder
MANIFEST = "manifest.json"
PARAMETERS = "parameters"  # folder of design, tables, weights and program
TABLES = "parameters/tables.npz"
WEIGHTS = "parameters/weights.bin"
PROGRAM = f"parameters/{program.PROGRAM}"
IMAGES = "images.npz"
BITSTREAM = "accelerator.bit"
HANDOFF = "accelerator.hwh"
FORMAT = 3
LOGITS = "logits/"  # before an output's name in images.npz
SOURCES = Path(__file__).parent
PACKAGES = (SOURCES, SOURCES.with_name("formats"))
NOTEBOOK = "demo.ipynb"
EPOCH = (1980, 1, 1, 0, 0, 0)
IMAGE_SHARE = 0.015  # of the weights' size that test images may take
IMAGE_BYTES = 100_000  # and what they may take in any case
STORED = (".bin", ".bit")  # packed already
# What the bundle's README says of its bitstream.
INSIDE = f"`{BITSTREAM}` is this design's bitstream."
MISSING = (
    f"**There is no bitstream (`{BITSTREAM}`) inside**: this bundle was made before synthesis.\n"
    "Run `make bitstream` and then `make bundle` where Vivado is installed."
)


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


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an npz archive.

    tables.npz: `input/table` int16 [C][256]; `NAME/centroid` and `NAME/threshold` int32.
    images.npz: `images` uint8 [N,C,H,W], `labels` int64 [N]; of each output `logits/NAME` int64
    [N,...].
    """
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def golden_outputs(
    arrays: dict[str, np.ndarray], count: int | None = None
) -> dict[str, np.ndarray]:
    """The integers that images.npz has of the first images, or of all, by output."""
    outputs = {key: one for key, one in arrays.items() if key.startswith(LOGITS)}
    return {key.removeprefix(LOGITS): one[:count] for key, one in outputs.items()}


def _test_images(build: Path, weight_bytes: int, design: Design) -> dict[str, np.ndarray]:
    """The first quantized test images, as many as the bundle's size allows; at least one."""
    path = existing(build / "quantized" / "vectors.npz", f"run {call('quantize')} again")
    with np.load(path, allow_pickle=False) as vectors:
        images, labels = vectors["images"], vectors["labels"]
        outputs = design.by_output({head.name: vectors[head.name] for head in design.heads})
    room = max(IMAGE_BYTES, int(weight_bytes * IMAGE_SHARE))
    size = images[0].nbytes + sum(one[0].nbytes for one in outputs.values())
    count = max(1, min(len(images), room // size))
    logits = {f"{LOGITS}{name}": one[:count] for name, one in outputs.items()}
    return {"images": images[:count], "labels": labels[:count], **logits}


def make_bundle(build: Path, bitstream: Path | None = None, name: str = BUNDLE) -> Path:
    """Write build/bundle.zip.

    Args:
        build: build/NET after `make codegen`.
        bitstream: a .bit with its .hwh beside it, or None to look for build/bitstream.
        name: of the file in `build`.
    """
    design = read_design(build)
    weights = build / "params" / "weights.bin"
    tables = {
        key: array
        for key, array in read_arrays(build / "quantized" / "arrays.npz").items()
        if key.endswith(("/table", "/centroid", "/threshold"))
    }
    readme = (SOURCES / "bundle_readme.md").read_text(encoding="utf-8")
    fabric = _find_bitstream(build, bitstream)
    content: dict[str, bytes | Path] = {
        f"nuq/{package.name}/{path.name}": path
        for package in PACKAGES
        for path in package.glob("*.py")
    }
    content |= {
        "nuq/__init__.py": SOURCES.with_name("__init__.py"),
        NOTEBOOK: SOURCES / NOTEBOOK,
        "README.md": readme.replace("NETWORK", design.network)
        .replace("BITSTREAM", INSIDE if fabric else MISSING)
        .encode(),
        f"{PARAMETERS}/{DESIGN}": build / DESIGN,
        TABLES: npz_bytes(tables),
        IMAGES: npz_bytes(_test_images(build, weights.stat().st_size, design)),
        WEIGHTS: weights,
        PROGRAM: existing(weights.with_name(program.PROGRAM), f"run {call('codegen')} first"),
        **fabric,
    }
    identity = {"id": design.engine_id, "sha256": sources_digest(build / "hls")}
    return _write_zip(build / name, content, identity, design.network)


def _find_bitstream(build: Path, bitstream: Path | None) -> dict[str, Path]:
    """The .bit and .hwh of the bundle; none where synthesis has not been run.

    UserError where they are of another design.
    """
    path = bitstream or build / "bitstream" / BITSTREAM
    if bitstream is None and not path.is_file():
        return {}
    files = {BITSTREAM: path, HANDOFF: path.with_suffix(".hwh")}
    for file in files.values():
        existing(file, "pynq needs .bit and .hwh of the same name")
    check_bitstream(path, build)
    return files


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
            "engine": identity,
            "bitstream": BITSTREAM in content,
            "files": files,
        }
        manifest["manifest_sha256"] = manifest_digest(manifest)
        _write(archive, MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())
    return path


def ids_text(engine_id: str, network_id: str) -> str:
    """The two IDs that a bitstream, program and weights bear, in words."""
    return f"engine {engine_id} (the hardware), network {network_id} (program and weights)"


def other_text(build: Path) -> str | None:
    """One line where build/bundle.zip is not of the network and engine of the build; else None."""
    path, design = build / BUNDLE, read_design(build)
    if not path.is_file():
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            inside = json.loads(archive.read(f"{PARAMETERS}/{DESIGN}"))
        ids = str(inside["engine_id"]), str(inside["network_id"])
    except (zipfile.BadZipFile, KeyError, ValueError):
        return f"note: {path} is no bundle that can be read; {call('bundle')} writes it again"
    if ids == (design.engine_id, design.network_id):
        return None
    return (
        f"note: {path} is of another build: {ids_text(*ids)}, here "
        f"{ids_text(design.engine_id, design.network_id)}; {call('bundle')} writes it again"
    )


def read_zipped_manifest(bundle: Path) -> dict[str, Any]:
    """manifest.json of a bundle that is not unpacked."""
    with zipfile.ZipFile(bundle) as archive:
        manifest: dict[str, Any] = json.loads(archive.read(MANIFEST))
    return manifest


def unpack(bundle: Path, folder: Path) -> Path:
    """Unpack a bundle into a folder, refusing paths that leave it."""
    if not zipfile.is_zipfile(bundle):
        raise UserError(f"{bundle} must be a bundle (zip); make it with {call('bundle')}")
    with zipfile.ZipFile(bundle) as archive:
        for name in archive.namelist():
            if name.startswith("/") or ".." in PurePosixPath(name).parts:
                raise UserError(f"{bundle} must hold relative paths, not {name}; make it again")
        archive.extractall(folder)
    return folder


def manifest_digest(manifest: dict[str, Any]) -> str:
    """SHA-256 of a manifest without its own digest, keys sorted."""
    return digest({key: value for key, value in manifest.items() if key != "manifest_sha256"})


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
