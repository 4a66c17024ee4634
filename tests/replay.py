# SPDX-License-Identifier: Apache-2.0
"""What four networks come to, as digests: a change that is not meant to move bytes must not.

`python -m tests.replay --write` stores the digests of `quantized/`, `hls/`, `params/` and `golden/`
in replay.json; test_replay.py compares. Headers that are copied as they are do not count, nor do
hashes of the program itself. torch is held to one thread and AVX2, so that sums have one order
where libraries allow it; the last bits of the float network's outputs and of the SQNR still depend
on the processor, so of these the form counts, not the values. Every integer counts.
"""

import argparse
import hashlib
import json
import re
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx

from nuq.formats.program import PROGRAM, Program
from tests.checkout import ROOT, execute
from tests.model_prep.onnx.onnx_models import build, node, random, save

RECORD = Path(__file__).with_name("replay.json")
FOLDERS = ("quantized", "hls", "params", "golden")
BUILDS: dict[str, tuple[str, ...]] = {
    "digits": ("NET=digits", "IMAGES=20"),
    "cifar10": ("NET=cifar10",),
    "dag": ("BITS=4", "IMAGES=2"),
    "alexnet": ("NET=alexnet", "BITS=3", "WEIGHTS=seeded"),
}
ONE_ORDER = {
    "OMP_NUM_THREADS": "1", "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "AVX2",
}  # fmt: skip
_DESIGN_ID = re.compile(rb"DESIGN_ID = 0x[0-9a-f]+")  # a hash of the engine's sources
_PROGRAM = ("settings_sha256", "arrays_sha256")


def dag() -> onnx.ModelProto:
    """A network with a residual add, a concatenation, an average pool and an LRN."""
    shapes = {"a": (16, 3, 3, 3), "b": (16, 16, 3, 3), "c": (24, 16, 1, 1), "d": (10, 40, 1, 1)}
    weights = {
        name: random(seed, *shape) * np.float32(np.prod(shape[1:]) ** -0.5)
        for seed, (name, shape) in enumerate(shapes.items())
    }
    nodes = [
        node("Conv", "x a", "conv_a", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Relu", "conv_a", "relu_a"),
        node("LRN", "relu_a", "lrn", size=5, alpha=1e-2, beta=0.75, bias=1.0),
        node("Conv", "lrn b", "conv_b", pads=[1, 1, 1, 1]),
        node("Add", "conv_b lrn", "add"),
        node("Relu", "add", "relu_b"),
        node("Conv", "relu_b c", "conv_c"),
        node("Relu", "conv_c", "relu_c"),
        node("Concat", "relu_b relu_c", "concat", axis=1),
        node("AveragePool", "concat", "mean", kernel_shape=[3, 3], strides=[2, 2]),
        node("Conv", "mean d", "conv_d"),
        node("GlobalAveragePool", "conv_d", "y"),
    ]
    return build(nodes, weights, (1, 3, 40, 36))


def _file_digest(path: Path, manifest_sha256: str) -> str:
    """SHA-256 of a file's meaning: integers by content, text without the hashes of the program."""
    digest = hashlib.sha256()
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            for key in sorted(arrays.files):
                digest.update(f"{key} {arrays[key].dtype} {arrays[key].shape}".encode())
                if arrays[key].dtype.kind != "f":
                    digest.update(np.ascontiguousarray(arrays[key]).data)
    elif path.name == "manifest.json":
        manifest = json.loads(path.read_text())
        kept = {key: value for key, value in manifest.items() if key not in _PROGRAM}
        for layer in kept["layers"]:
            layer["sqnr_db"] = layer["sqnr_db"] is not None
        digest.update(json.dumps(kept, sort_keys=True).encode())
    elif path.name == PROGRAM:
        program = Program(np.fromfile(path, "<u8"))
        digest.update(b"".join(program.record(k).tobytes() for k in range(program.layers)))
    else:
        text = path.read_bytes().replace(manifest_sha256.encode(), b"")
        digest.update(_DESIGN_ID.sub(b"DESIGN_ID", text))
    return digest.hexdigest()


def folder_digest(folder: Path, manifest_sha256: str) -> str:
    """One digest, 16 hexadecimal digits, over names and contents of a folder's files."""
    digest = hashlib.sha256()
    copied = {path.name: path.read_bytes() for path in (ROOT / "hls_templates").rglob("*.hpp")}
    for path in sorted(item for item in folder.rglob("*") if item.is_file()):
        if copied.get(path.name) != path.read_bytes():
            name = path.relative_to(folder).as_posix()
            digest.update(f"{name} {_file_digest(path, manifest_sha256)}\n".encode())
    return digest.hexdigest()[:16]


def replay(name: str, scratch: Path) -> dict[str, str]:
    """Build one network as a user does; the digest of each of FOLDERS.

    Args:
        name: a key of BUILDS.
        scratch: an empty folder.
    """
    arguments = BUILDS[name]
    if name == "dag":
        arguments = (*arguments, f"NET={save(dag(), scratch / 'dag.onnx')}")
    execute("make", "codegen", f"OUT={scratch / 'build'}", *arguments, status=0, **ONE_ORDER)
    manifest = (scratch / "build/quantized/manifest.json").read_bytes()
    digest = hashlib.sha256(manifest).hexdigest()
    return {folder: folder_digest(scratch / "build" / folder, digest) for folder in FOLDERS}


def recorded() -> dict[str, dict[str, str]]:
    """The digests that replay.json holds, by build and folder."""
    record: dict[str, dict[str, str]] = json.loads(RECORD.read_text())
    return record


def has_avx2() -> bool:
    """Whether this processor can sum in the order that the digests were made with."""
    info = Path("/proc/cpuinfo")
    return info.is_file() and re.search(r"\bavx2\b", info.read_text()) is not None


def main(arguments: list[str] | None = None) -> int:
    """Print the digests of the builds that are named (default: all); --write stores them."""
    parser = argparse.ArgumentParser(prog="python -m tests.replay", description=main.__doc__)
    parser.add_argument("builds", nargs="*", help=", ".join(BUILDS))
    parser.add_argument("--write", action="store_true", help="store them in replay.json")
    options = parser.parse_args(arguments)
    record = recorded() if RECORD.is_file() else {}
    for name in options.builds or BUILDS:
        with tempfile.TemporaryDirectory() as scratch:
            digests = replay(name, Path(scratch))
        same = "same" if digests == record.get(name) else "changed"
        print(name, same, *(f"{folder} {digest}" for folder, digest in digests.items()))
        record[name] = digests
    if options.write:
        RECORD.write_text(json.dumps(record, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
