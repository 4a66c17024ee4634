# SPDX-License-Identifier: Apache-2.0
"""One network through one build: plan, pack, run, compare codes and iteration counts.

`run` says what differs; UnfitError that the network exceeds the build's limits.
"""

import resource
import signal
import subprocess
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from nuq.codegen.design import planner
from nuq.codegen.design.design import Design
from nuq.codegen.emit import golden
from nuq.codegen.emit.generate import write_parameters
from nuq.formats import network
from nuq.formats.build import write_atomic
from nuq.formats.design import COUNTERS
from nuq.formats.errors import UserError
from nuq.model_prep.quantize.reference import Reference
from tests.fuzz.builds import Build
from tests.toys import Toy, write_toy

SECONDS = 60  # of CPU for one network


class UnfitError(ValueError):
    """The network exceeds the limits of a build."""


@dataclass(frozen=True)
class Case:
    """A network ready to run."""

    files: dict[str, bytes]  # params and golden, by their path
    # name, output words per image, expected bytes, expected counters of each
    layers: list[tuple[str, int, bytes, dict[str, int]]]
    images: int  # of the batch
    disagreement: str | None  # where the two references differ


def make_plan(toy: Toy, folder: Path, build: Build) -> Design:
    """Quantized network of `folder`, planned for a random part of the build's engine."""
    loaded, engine = network.load(folder), build.engine
    rng = np.random.default_rng(toy.seed)
    limits = [limit for limit in (16, 64, 256) if limit < build.line_blocks]
    chosen = [limit for limit in limits if rng.integers(0, 4) == 0]
    # part of the feature maps on chip, all that may be, or none
    share = int(rng.choice([0, 1 << 8, 1 << 30]))
    ahead = bool(rng.integers(0, 4))
    deep_a, deep_b = (min(share, words) for words in engine.sizes.chip_words)
    for limit in [*chosen, build.line_blocks]:
        sizes = replace(
            engine.sizes, line_blocks=limit, line_high_blocks=limit, chip_words=(deep_a, deep_b)
        )
        part = replace(engine, sizes=sizes)
        try:
            fm = "auto" if share else "ddr"
            return planner.plan_for(loaded, part, toy.images, fm, (toy.images,), ahead)
        except UserError as error:
            reason = error
    raise UnfitError(f"build {build.name}: {reason}")


def reference_fault(folder: Path, vectors: dict[str, np.ndarray]) -> str | None:
    """Where model_prep's integer reference differs from the naive model's `vectors`, or None.

    They are two opinions on a toy network's files, the C++ engine is the third.
    """
    torch.set_num_threads(1)  # small networks, and one process per core
    for name, values in Reference(network.load(folder)).run(vectors["input"]):
        wrong = np.argwhere(values != vectors[name])
        if len(wrong):
            place = tuple(int(i) for i in wrong[0])
            return (
                f"layer {name}: the integer reference says {values[place]} at {place}, "
                f"the naive model {vectors[name][place]}"
            )
    return None


def prepare(toy: Toy, build: Build) -> Case:
    """Draw, plan and pack a network; UnfitError or ValueError where there is none such."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        made = write_toy(folder / "quantized", toy)
        disagreement = reference_fault(folder / "quantized", made.vectors)
        try:
            plan = make_plan(toy, folder / "quantized", build)
        except UserError as error:
            raise UnfitError(str(error)) from None
        params, vectors = folder / "params", folder / "golden"
        for place in (params, vectors):
            place.mkdir()
        write_parameters(plan, build.files[0], params, vectors)
        files = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for place in (params, vectors)
            for path in sorted(place.iterdir())
        }
        layers = []
        for index, (layer, row, cost) in enumerate(
            zip(plan.layers, plan.rows, plan.costs, strict=True)
        ):
            name = golden.golden_name(index, layer.name, len(plan.rows))
            counts = {
                "bytes_read": cost.bytes_read, "bytes_written": cost.bytes_written,
                "bytes_weights": cost.bytes_weights, "cycles": max(cost.counts.values()),
                **cost.counts,
            }  # fmt: skip
            expected = files[f"golden/{name}"]
            layers.append((layer.name, row.output_words, expected, counts))
    return Case(files, layers, plan.batch, disagreement)


def _limit_cpu() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 5))


def run(case: Case, program: Path, timed: bool = False) -> str | None:
    """Run a case; what is wrong, in one sentence, or None. A timed program's cycles are more."""
    if case.disagreement:
        return case.disagreement
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        target = folder / "output"
        for name, content in case.files.items():
            write_atomic(folder / name, content)
        command = [str(program), str(folder / "params"), str(folder / "golden"), str(target)]
        # a busy machine does not count, as it would by the clock
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, preexec_fn=_limit_cpu
        )
        if done.returncode == -signal.SIGXCPU:
            return f"the engine must end within {SECONDS} s of CPU"
        if done.returncode != 0:
            lines = [line for line in done.stderr.splitlines() if "error" in line.lower()]
            return f"the engine stopped with status {done.returncode}: {' '.join(lines[:1])}"
        found = target.read_bytes()
    position = 0
    for name, words, expected, counts in case.layers:
        size = 8 * (len(COUNTERS) + 1)
        numbers = np.frombuffer(found, "<u8", len(COUNTERS) + 1, position).tolist()
        output = found[position + size : position + size + 8 * words * case.images]
        position += size + len(output)
        if output != expected:
            first = next(i for i in range(len(expected)) if output[i] != expected[i])
            return f"layer {name}: byte {first} of {len(expected)} differs"
        if numbers[-1]:
            return f"layer {name}: {numbers[-1]} words changed outside its output"
        for counter, value in zip(COUNTERS, numbers, strict=False):
            if timed and counter == "cycles" and value >= counts[counter]:
                continue
            if counts[counter] != value:
                return f"layer {name}: {counter} must be {counts[counter]}, not {value}"
    return None
