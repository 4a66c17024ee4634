# SPDX-License-Identifier: Apache-2.0
"""Runs a bundle on the emulated board, from a PC: prepare, compare with the reference, notebook.

The bundle's files are the ones that go to a board; only the bitstream is the C-simulation, compiled
as a shared library by a C++14 compiler.
"""

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from nuq.board.bundle import NOTEBOOK, make_bundle, other_text, unpack
from nuq.board.driver import Accelerator, differing
from nuq.board.emulator import install
from nuq.board.hwh import make_hwh
from nuq.board.measure import predict_all, top_k
from nuq.formats.build import compile_cpp
from nuq.formats.design import read_design, write_stamp
from nuq.formats.errors import UserError, call, existing
from nuq.formats.images import tops

LOG = logging.getLogger(__name__)
STARTUP = "from nuq.board.emulator import install; install()"
NOTEBOOK_TIMEOUT_S = 900
WRAPPER = Path(__file__).parents[1] / "hls_templates" / "sim" / "emulator.cpp"
FLAGS = ("-std=c++14", "-O3", "-march=native", "-fPIC", "-fvisibility=hidden", "-shared",
         "-DCSIM_FAST", "-w")  # fmt: skip


def compile_fabric(build: Path, engine: Path | None = None) -> Path:
    """Compile build/hls into emulator/emulator.bit; nothing to do where it is current.

    The file lies in the build of the engine, where one was given, and serves all its networks.
    """
    source = existing(build / "hls" / "accelerator.cpp", f"run {call('codegen')} first")
    headers = sorted(source.parent.glob("*.hpp"))
    flags = [*FLAGS, "-I", str(source.parent)]
    return compile_cpp(
        flags, [source, WRAPPER], headers, (engine or build) / "emulator" / "emulator.bit"
    )


def prepare(build: Path, engine: Path | None = None) -> Path:
    """build/emulator/bundle: the bundle with the C-simulation as its bitstream, unpacked."""
    design = read_design(build)
    bitstream = compile_fabric(build, engine)
    handoff = make_hwh(design.network, design.clock_mhz, design.weight_ports)
    bitstream.with_suffix(".hwh").write_text(handoff, encoding="utf-8")
    write_stamp(bitstream.parent, build)
    archive = make_bundle(build, bitstream, "emulator/bundle.zip")
    folder = build / "emulator" / "bundle"
    shutil.rmtree(folder, ignore_errors=True)
    unpack(archive, folder)
    archive.unlink()
    return folder


def emulate(build: Path, engine: Path | None = None) -> int:
    """Run every quantized test image; 1 where a logit differs from the integer reference."""
    folder = prepare(build, engine)
    device = install()
    with np.load(build / "quantized" / "vectors.npz", allow_pickle=False) as vectors:
        images, labels = vectors["images"], vectors["labels"]
        design = read_design(build)
        expected = design.by_output({head.name: vectors[head.name] for head in design.heads})
    with Accelerator(folder) as board:
        found = predict_all(board, images, "emulating")
        batch = board.batch
    network = design.network
    wrong = differing(found, expected)
    if design.classifies:
        answers, wanted = (design.answers(next(iter(one.values()))) for one in (found, expected))
        shown = tops(answers.shape[1])
        marks = [(k, top_k(answers, labels, k), top_k(wanted, labels, k)) for k in shown]
        for k, measured, reference in marks:
            if measured is not None:
                print(f"{network}: top-{k} {measured:.3f}%, integer reference {reference:.3f}%")
    print(f"{network}: {len(images)} images")
    LOG.info("%d calls of up to %d images", device.fabric.calls, batch)
    if note := other_text(build):
        print(note)
    if wrong.size:
        names = [name for name, one in expected.items() if (found[name] != one).any()]
        where = f" of {', '.join(names)}" if len(expected) > 1 else ""
        print(f"FAILED: the logits{where} of {wrong.size} images differ, first image {wrong[0]}")
        return 1
    print("PASSED: all logits are bit-exact")
    return 0


def run_notebook(folder: Path) -> Any:
    """Execute the bundle's notebook, unchanged, on an emulated board; return it with outputs."""
    try:
        import nbformat
        from nbclient import NotebookClient
    except ImportError:
        raise UserError("nbclient must be installed to run the notebook; `make install`") from None
    notebook = nbformat.read(folder / NOTEBOOK, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=NOTEBOOK_TIMEOUT_S,
        resources={"metadata": {"path": str(folder)}},
        extra_arguments=[f"--IPKernelApp.exec_lines={STARTUP}"],
    )
    client.execute()
    return notebook
