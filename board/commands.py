# SPDX-License-Identifier: Apache-2.0
"""The commands of board (formats.commands): each a function of the options.

Those that need pynq or a compiler import them when they run.
"""

import importlib.util
import json
import logging
import sys
from pathlib import Path
from typing import Any

from nuq.board.errors import MemoryShortageError
from nuq.board.memory import MB, shortage
from nuq.formats.build import write_atomic
from nuq.formats.design import Design, read_design
from nuq.formats.errors import UserError, call, existing
from nuq.formats.hardware import Board
from nuq.formats.options import Options


def check_board(name: str, design: Design) -> None:
    """UserError where the design is for another part; a warning where memory is too small."""
    from nuq.formats.hardware import find_board

    board = find_board(name)
    _check_part(board, design.part)
    free = board.contiguous_mib << 20
    if free and design.weight_bytes + design.arena_bytes > free:
        raise MemoryShortageError(f"{name}: {shortage(design, free)}")


def _check_part(board: Board, part: str) -> None:
    if board.part != part:
        raise UserError(
            f"BOARD {board.name} has an {board.part}, but the design is for an {part}; "
            f"generate it with PART={board.part.lower()}"
        )


def check_options(options: Options) -> None:
    """Refuse, by UserError, a board that there is not, or that has another part, and a .bit that
    is missing.
    """
    from nuq.formats.hardware import find_board, find_part

    if options.board and options.engine is None:
        _check_part(find_board(options.board), find_part(options.part).name)
    if options.bitstream:
        existing(options.bitstream, "BITSTREAM= takes the path of a .bit")


def check_bundle(options: Options) -> None:
    """Refuse, by UserError, a BUNDLE that is no unpacked bundle."""
    if options.bundle:
        from nuq.board.bundle import read_manifest

        read_manifest(options.bundle)


def bundle(options: Options) -> None:
    """Write bundle.zip."""
    from nuq.board.bundle import ids_text, make_bundle, read_zipped_manifest

    design = read_design(options.folder)
    if options.board:
        check_board(options.board, design)
    path = make_bundle(options.folder, options.bitstream)
    weights, inside = design.weight_bytes, read_zipped_manifest(path)["bitstream"]
    print(
        f"{path}: {path.stat().st_size:,} bytes, of which weights {weights:,} "
        f"({weights / MB:.1f} MB); {ids_text(design.engine_id, design.network_id)}"
    )
    print(
        "the bitstream is inside"
        if inside
        else f"no bitstream is inside: {call('bitstream')} and {call('bundle')} again for a board"
    )


def emulate(options: Options) -> int:
    """Run the bundle on the emulated board; 1 where a logit differs."""
    _prepare(options)
    from nuq.board.emulate import emulate

    return emulate(options.folder, options.engine)


def notebook(options: Options) -> None:
    """Run the notebook on the emulated board."""
    _prepare(options)
    import nbformat

    from nuq.board.emulate import prepare, run_notebook

    path = options.folder / "emulator" / "demo_executed.ipynb"
    nbformat.write(run_notebook(prepare(options.folder, options.engine)), path)
    print(path)


def measure(options: Options) -> None:
    """Accuracy, latency, memory and traffic of BUNDLE on this board, else of the emulated one."""
    _prepare(options)
    from nuq.board.bundle import IMAGES, read_arrays
    from nuq.board.driver import Accelerator
    from nuq.board.measure import measure, table

    if options.bundle:
        folder, out = options.bundle, options.out or options.bundle
    else:
        from nuq.board.emulate import prepare
        from nuq.board.emulator import install

        folder, out = prepare(options.folder, options.engine), options.folder
        install()
    with Accelerator(folder, batch=options.batch or 16) as board:
        if (options.batch or 0) > (most := board.design.batch):
            print(
                f"warning: this engine takes {most} image(s) a run, which is what is measured, not "
                f"BATCH={options.batch}; {call(f'codegen BATCH={options.batch}')} makes another",
                file=sys.stderr,
            )
        if options.data:
            loaded = board.design.reader.load(options.data, options.measure_images)
            images, labels = loaded.pixels, loaded.labels
        else:
            golden, few = read_arrays(folder / IMAGES), slice(options.measure_images)
            images, labels = golden["images"][few], golden["labels"][few]
        results = measure(board, images, labels, options.repeats, options.clnq or None)
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / "measure.json", json.dumps(results, indent=1) + "\n")
    print(table(results))
    print(f"written: {out / 'measure.json'}{_plot(out / 'measure.png', results)}")


def _prepare(options: Options) -> None:
    """Say more where asked to; UserError without what stands for the board."""
    if importlib.util.find_spec("pynq") is None:
        raise UserError(
            "the package pynq must be installed to run a board or the emulated one, which it is "
            "not; use Python 3.11 or 3.12, for which `pip install` brings it"
        )
    logging.basicConfig(level=logging.INFO if options.verbose else logging.WARNING)


def _plot(path: Path, results: dict[str, Any]) -> str:
    """Draw the per-layer picture; text for the last line, empty without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        return " (no picture: matplotlib is not installed)"
    matplotlib.use("Agg")
    from nuq.board.plots import layer_bars

    layer_bars(results["memory"], results["latency"][-1]).savefig(path, dpi=110)
    return f", {path}"
