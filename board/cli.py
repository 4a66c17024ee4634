# SPDX-License-Identifier: Apache-2.0
"""Command line: bundle, emulate, measure, notebook.

Commands that need pynq or a compiler import them when they run.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path
from typing import Any, NoReturn

from board.design import WORD_BYTES, parse_design
from board.errors import MemoryShortageError
from board.memory import MB, shortage
from formats.build import write_atomic
from formats.errors import UserError

BOARDS = Path(__file__).with_name("boards.json")


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are UserErrors."""

    def error(self, message: str) -> NoReturn:
        """Refuse the command line."""
        raise UserError(f"{message}; see {self.prog} --help")


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return the exit status."""
    options = make_parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO if options.verbose else logging.WARNING)
    status: int = options.run(options)
    return status


def make_parser() -> argparse.ArgumentParser:
    """The argument parser, one subcommand each."""
    parser = Parser(prog="python -m board", description="bundles, the emulated board, measurements")
    parser.add_argument("--verbose", action="store_true", help="say what the driver does")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("bundle", help="write bundle.zip for a board")
    command.add_argument("--build", type=Path, required=True, help="build folder of the network")
    command.add_argument("--board", default="", help="check that design and memory fit this board")
    command.add_argument("--bitstream", type=Path, help=".bit with its .hwh beside it")
    command.set_defaults(run=_bundle)

    command = commands.add_parser("emulate", help="run the bundle on the emulated board")
    command.add_argument("--build", type=Path, required=True, help="build folder of the network")
    command.set_defaults(run=_emulate)

    command = commands.add_parser("notebook", help="run the notebook on the emulated board")
    command.add_argument("--build", type=Path, required=True, help="build folder of the network")
    command.set_defaults(run=_notebook)

    command = commands.add_parser("measure", help="accuracy, latency, memory, traffic")
    place = command.add_mutually_exclusive_group(required=True)
    place.add_argument("--build", type=Path, help="build folder: measure the emulated board")
    place.add_argument("--bundle", type=Path, help="unpacked bundle: measure this board")
    command.add_argument("--data", type=Path, help="folder or .npz; default: the bundle's images")
    command.add_argument("--limit", default="0", help="images to read; default: all")
    command.add_argument("--batch", default="16", help="images at a time (default %(default)s)")
    command.add_argument("--repeats", default="20", help="timed runs (default %(default)s)")
    command.add_argument("--clnq", default="", help="widths to compare with, one a convolution")
    command.add_argument("--out", type=Path, help="folder of measure.json and .png")
    command.set_defaults(run=_measure)
    return parser


def _integer(name: str, text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise UserError(f"{name} must be an integer of at least {least}, not {text!r}")
    return value


def check_board(name: str, description: dict[str, Any]) -> None:
    """UserError where the design is for another part; a warning where memory is too small."""
    boards: dict[str, dict[str, Any]] = json.loads(BOARDS.read_text(encoding="utf-8"))
    if name not in boards:
        raise UserError(f"BOARD must be one of {', '.join(boards)}, not {name}")
    board = boards[name]
    if board["part"] != description["part"]:
        raise UserError(
            f"BOARD {name} has an {board['part']}, but the design is for an {description['part']}; "
            f"generate it with PART={board['part'].lower()}"
        )
    design = parse_design(description)
    free = board["contiguous_mb"] * (1 << 20)
    if design.weight_words * WORD_BYTES + design.arena_bytes > free:
        raise MemoryShortageError(f"{name}: {shortage(design, free)}")


def _bundle(options: argparse.Namespace) -> int:
    from board.bundle import describe_design, make_bundle

    description = describe_design(options.build)
    if options.board:
        check_board(options.board, description)
    path = make_bundle(options.build, options.bitstream)
    weights = description["weight_words"] * WORD_BYTES
    print(
        f"{path}: {path.stat().st_size:,} bytes, of which weights {weights:,} "
        f"({weights / MB:.1f} MB); design {description['design_id']}"
    )
    return 0


def _emulate(options: argparse.Namespace) -> int:
    from board.emulate import emulate

    return emulate(options.build)


def _notebook(options: argparse.Namespace) -> int:
    import nbformat

    from board.emulate import prepare, run_notebook

    path = options.build / "emulator" / "demo_executed.ipynb"
    nbformat.write(run_notebook(prepare(options.build)), path)
    print(path)
    return 0


def _measure(options: argparse.Namespace) -> int:
    from board.design import read_images
    from board.driver import Accelerator
    from board.images import load
    from board.measure import measure, table

    repeats, limit = _integer("repeats", options.repeats, 1), _integer("limit", options.limit, 0)
    clnq = tuple(_integer("clnq", part, 1) for part in options.clnq.split(",") if part) or None
    folder, out = options.bundle, options.out or options.bundle
    if options.build:
        from board.emulate import prepare
        from board.emulator import install

        folder, out = prepare(options.build), options.out or options.build
        install()
    with Accelerator(folder, batch=_integer("batch", options.batch, 1)) as board:
        if options.data:
            design = board.design
            images, labels = load(options.data, design.input_shape, design.classes, limit)
        else:
            golden = read_images(folder)
            images, labels = golden["images"], golden["labels"]
            if limit:
                images, labels = images[:limit], labels[:limit]
        results = measure(board, images, labels, repeats, clnq)
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / "measure.json", json.dumps(results, indent=1) + "\n")
    print(table(results))
    print(f"written: {out / 'measure.json'}{_plot(out / 'measure.png', results)}")
    return 0


def _plot(path: Path, results: dict[str, Any]) -> str:
    """Draw the per-layer picture; text for the last line, empty without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        return " (no picture: matplotlib is not installed)"
    matplotlib.use("Agg")
    from board.plots import layer_bars

    layer_bars(results["memory"], results["latency"][-1]).savefig(path, dpi=110)
    return f", {path}"
