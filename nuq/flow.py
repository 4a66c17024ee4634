# SPDX-License-Identifier: Apache-2.0
"""`Flow`: the commands of `nuq` from Python, for scripts and notebooks.

    from nuq import Flow

    flow = Flow("model.onnx", data="images.npz", part="xc7z020", bits=5)
    flow.quantize()
    flow.simulate()
    print(flow.report.table())
    flow.bundle("out.zip")

Options are those of docs/options.md in lower case, checked by the same table; commands are those of
formats/commands.py, run as `nuq COMMAND NAME=VALUE ...` runs them: what a command needs is made
first, and a build keeps its options.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from nuq import dispatch, results
from nuq.formats import commands, settings
from nuq.formats.commands import COMMANDS, taken
from nuq.formats.errors import UserError, meant
from nuq.formats.options import table, value

if TYPE_CHECKING:
    from nuq.model_prep.inspection import Inspection

Value = str | int | float | Path | Sequence[str | int | float | Path] | None


class FailedError(RuntimeError):
    """A command ended with another status than 0: a simulation or a board that differs."""


class Flow:
    """A network on its way to a board.

    Args:
        net: a name of the registry (alexnet, vgg16, digits, cifar10) or the path of an ONNX file.
        quiet: keep what commands print in their results instead of printing it.
        options: by their names in lower case, as `bits=5` or `bits=[5, 4, 3]`; None is the default.
            They stand for all commands as those of a settings file do: each takes its own, but no
            search the widths of the build, nor an accuracy its number of images; what is given to
            a method is for that run. `config` is a settings file (TOML), which these win over.

    Raises:
        UserError: an option that there is not, or a bad value; so do all commands.
    """

    def __init__(self, net: Value = None, *, quiet: bool = False, **options: Value) -> None:
        self.quiet = quiet
        self._given = _checked(options if net is None else {"net": net, **options})

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={found!r}" for name, found in self._given.items())
        return f"Flow({given})"

    def with_options(self, **options: Value) -> "Flow":
        """A flow with these options besides, or instead of, those that this one has."""
        other = copy(self)
        other._given = _checked({**self._given, **options})
        return other

    @property
    def folder(self) -> Path:
        """The build's folder: OUT, else build/NET."""
        return commands.request("quantize", {}, self._base("quantize")).build.folder

    @property
    def settings(self) -> Mapping[str, Any]:
        """The options that the build was made with, by NAME."""
        return settings.read(self.folder)

    @property
    def report(self) -> results.Result:
        """The report of the design and, once `simulate` has run, of its C-simulation.

        Bytes are those between chip and DRAM for all images, cycles of all images, ms of one.

        Raises:
            UserError: `codegen` or `simulate` has not run.
        """
        if not (self.folder / "report.json").is_file():
            raise UserError(f"{self.folder} must have a report; call simulate() or codegen() first")
        return results.report(self.folder)

    def run(self, command: str, **options: Value) -> results.Result:
        """Run any command of `nuq`.

        Args:
            command: a name of docs/options.md's list, as "explore".
            options: of the command, for this run.

        Returns:
            What it has left in the build.

        Raises:
            UserError: a command or an option that there is not, or bad input.
            FailedError: a simulation or a board gives other values than the reference.
        """
        if command not in COMMANDS:
            raise UserError(
                f"the command must be one that exists, not {command}{meant(command, COMMANDS)}"
            )
        _checked(options)
        given, base = commands.read_words(command, _words(options)), self._base(command)
        printed = ""
        if self.quiet:
            with tempfile.TemporaryFile("w+", buffering=1) as file:
                try:
                    with _stdout_to(file):
                        status = dispatch.run(command, given, base)
                finally:
                    file.seek(0)
                    printed = file.read()
        else:
            status = dispatch.run(command, given, base)
        if status:
            said = printed.strip().splitlines()[-1:] or ["see what it printed"]
            raise FailedError(f"{command} ended with status {status}: {said[0]}")
        asked = commands.request(command, given, base).options
        own = asked.out or Path("build") / command
        folder = asked.folder if "NET" in taken(command) else own
        return results.read(command, folder, printed)

    def _base(self, command: str) -> dict[str, Any]:
        """What of the flow's options a command takes, by NAME."""
        names = set(taken(command))
        if "NET" not in names:  # OUT is the network's
            names.discard("OUT")
        kept = {name: found for name, found in self._given.items() if name.upper() in names}
        return commands.read_words(command, _words(kept))

    # Commands with what they return; others by `run`.

    def quantize(self, **options: Value) -> results.Result:
        """Measure the network on images and choose integer weights and tables (OUT/quantized).

        Returns:
            A table of layers with width, F and SQNR in dB; accuracy on labelled test images in %.
        """
        return self.run("quantize", **options)

    def codegen(self, **options: Value) -> results.Result:
        """Render the accelerator for PART, pack weights and golden vectors; see `report`."""
        return self.run("codegen", **options)

    def simulate(self, **options: Value) -> results.Result:
        """The command csim: compile and run the C-simulation, compare every layer bit for bit.

        Raises:
            FailedError: a layer differs from the integer reference.
        """
        return self.run("csim", **options)

    def accuracy(self, **options: Value) -> results.Result:
        """Float and integer accuracy (%) on labelled images of DATA, with 95% intervals.

        `csim=True` simulates the same images, too.
        """
        return self.run("accuracy", **options)

    def allocate(self, **options: Value) -> results.Result:
        """Find a width (bits) per layer; `flow.with_options(plan=flow.folder / "plan.toml")`."""
        return self.run("allocate", **options)

    def explore(self, **options: Value) -> results.Result:
        """All designs for PART: Pareto front of time and resources, what bounds each layer."""
        return self.run("explore", **options)

    def compare(self, a: str | Path, b: str | Path, **options: Value) -> results.Result:
        """Two builds side by side: accuracy, memory, speed, resources, layers.

        Args:
            a: folder of a build.
            b: of the other.
            options: of the command compare.
        """
        return self.run("compare", a=a, b=b, **options)

    def finetune(self, **options: Value) -> results.Result:
        """Train the quantized network on DATA; OUT/finetuned has weights and plan."""
        return self.run("finetune", **options)

    def study(self, **options: Value) -> results.Result:
        """The papers' tables and figures on the network and DATA."""
        return self.run("study", **options)

    def units(self, **options: Value) -> results.Result:
        """The conversion units QE, CE, QK, CK as Verilog: simulated, proved, synthesized."""
        return self.run("units", **options)

    def engine(self, **options: Value) -> results.Result:
        """Render a general engine for PART into `out` (build/engine), for `engine=` of a flow."""
        return self.run("engine", **options)

    def init(self, config: str | Path, **options: Value) -> Path:
        """Write a settings file with what was found in the network's file and in the images.

        Args:
            config: where to write it, as "own.toml"; `Flow(config=...)` takes it.
            options: to be written beside what was found, as `bits=4`.

        Returns:
            Its path.

        Raises:
            UserError: the file exists already, or the network or the images cannot be read.
        """
        self.run("init", config=config, **options)
        return Path(config)

    def bundle(self, path: str | Path | None = None, **options: Value) -> Path:
        """Write the bundle for a board: driver, parameters, notebook, checks.

        Args:
            path: where to put it besides OUT/bundle.zip.
            options: of the command bundle, as `board="pynq-z2"`.

        Returns:
            The path of the zip file.
        """
        made = self.run("bundle", **options).folder / "bundle.zip"
        return made if path is None else Path(shutil.copyfile(made, path))

    def emulate(self, **options: Value) -> results.Result:
        """Run the unmodified driver on an emulated board, compare every output.

        Raises:
            FailedError: an output differs from the integer reference.
        """
        return self.run("emulate", **options)

    def measure(self, **options: Value) -> results.Result:
        """Accuracy (%), latency (ms; off a board the model's), memory and traffic (bytes)."""
        return self.run("measure", **options)

    def notebook(self, **options: Value) -> Path:
        """Run the bundle's notebook on the emulated board; the path of the executed notebook."""
        folder = self.run("notebook", **options).folder
        return folder / "emulator" / "demo_executed.ipynb"

    def hls(self, **options: Value) -> results.Result:
        """Vitis HLS, where it is installed: synthesis, reports in OUT/hls_report."""
        return self.run("hls", **options)

    def bitstream(self, **options: Value) -> Path:
        """Vivado, where it is installed: the folder of .bit and .hwh for BOARD."""
        return self.run("bitstream", **options).folder / "bitstream"

    def inspect(self, images: int = 4) -> "Inspection":
        """Each layer of the float network beside what the stored codes stand for.

        Args:
            images: of the test images, at most.

        Returns:
            Histograms with the quantizer's values and thresholds, maps, where the error arises.
        """
        from nuq.model_prep.inspection import inspect

        if not (self.folder / "quantized" / "manifest.json").is_file():
            self.quantize()
        asked = commands.request("quantize", {}, self._base("quantize"))
        return inspect(asked.options, images)


def _words(options: Mapping[str, Value]) -> list[str]:
    """Options as on the command line."""
    return [f"{name.upper()}={settings.text_of(found)}" for name, found in options.items()]


def _checked(options: Mapping[str, Value]) -> dict[str, Value]:
    """The options; UserError where one is none, or has a bad value, before a command takes it."""
    known = {name.lower() for name in table()}
    for name, found in options.items():
        if name not in known:
            raise UserError(
                f"Flow must have options that exist, not {name}{meant(name, known)}; "
                "docs/options.md lists them"
            )
        if found is not None:
            value(name.upper(), settings.text_of(found))
    return dict(options)


@contextmanager
def _stdout_to(file: IO[str]) -> Iterator[None]:
    """What this process and those that it starts print goes to a file."""
    before = sys.stdout
    before.flush()
    saved = os.dup(1)
    os.dup2(file.fileno(), 1)
    sys.stdout = file
    try:
        yield
    finally:
        file.flush()
        sys.stdout = before
        os.dup2(saved, 1)
        os.close(saved)
