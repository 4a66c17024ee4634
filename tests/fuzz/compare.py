# SPDX-License-Identifier: Apache-2.0
"""One network through one build: plan, pack, run, compare codes and iteration counts.

`run` says what differs; UnfitError that the network exceeds the build's limits.
"""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from codegen.design import network, planner
from codegen.design.chip import CHIP_SHARE
from codegen.design.cost import STAGES, Engine
from codegen.design.jobs import make_jobs
from codegen.design.parts import find_part
from codegen.design.resources import estimate
from codegen.design.rows import FIELDS, base_row, line_entries, output_words, set_chunks
from codegen.emit import golden, weights_file
from codegen.emit.render import knq_rows
from formats.errors import UserError
from tests.codegen.toy_networks import Toy, write_toy
from tests.fuzz import opinion
from tests.fuzz.builds import Build

COUNTERS = ("bytes_read", "bytes_written", "bytes_weights", "cycles", *STAGES)
TIMEOUT = 60.0  # seconds for one network
PART = "XC7Z045"


class UnfitError(ValueError):
    """The network exceeds the limits of a build."""


@dataclass(frozen=True)
class Case:
    """A network ready to run.

    Attributes:
        data: the program's input file.
        layers: name, output words per image, expected bytes, expected counters of each.
        images: of the batch.
        disagreement: where the two references differ, or None.
    """

    data: bytes
    layers: list[tuple[str, int, bytes, dict[str, int]]]
    images: int
    disagreement: str | None


def make_plan(toy: Toy, folder: Path, build: Build) -> planner.Plan:
    """Quantized network of `folder`, planned with the build's constants."""
    loaded = network.load(folder)
    rng = np.random.default_rng(toy.seed)
    jobs, gather = make_jobs(loaded, build.simd, build.pe, build.weight_rows, pixels=build.pixels)
    rows = [base_row(job, build.simd, build.pe, build.weight_ports) for job in jobs]
    limits = [limit for limit in (16, 64, 256) if limit < build.line_blocks]
    chosen = [limit for limit in limits if rng.integers(0, 4) == 0]
    for limit in [*chosen, build.line_blocks]:
        if all(set_chunks(row, build.simd, build.weight_rows, limit) for row in rows):
            break
    else:
        raise UnfitError(f"buffers of build {build.name}")
    largest = max(line_entries(row) for row in rows)
    if choice := int(rng.integers(0, 4)):
        planner.use_line_buffer(rows, toy.images, largest if choice == 1 else build.line_blocks)
    candidate = planner.Candidate(tuple(rows), build.weight_rows, toy.images, 0)
    engine = Engine(build.simd, build.pe, build.qk_units, build.pixels, build.weight_ports)
    sizes = planner.sizes_of(jobs, candidate, engine)
    # part of the feature maps on chip, all that may be, or none
    spare = int(rng.choice([0, 4, 400]))
    part = find_part(PART)
    part = replace(part, bram36=int((estimate(sizes, part).bram36 + spare) / CHIP_SHARE) + 1)
    made = planner.assemble(
        loaded, part, toy.images, engine, candidate, gather, jobs, sizes,
        fm="auto" if rng.integers(0, 4) else "ddr",
    )  # fmt: skip
    within = (
        max(line_entries(row) for row in rows) <= build.line_blocks
        and sizes.psum_groups <= build.psum_groups
        and made.arena.words <= build.arena_words
        and max(made.chip.words) <= build.chip_words
        and sizes.tree_bits <= 48
        and sizes.acc_bits <= 53
        and sizes.wide_bits <= 64
        and sizes.value_bits <= 17
        and sizes.quant_bits <= 18
    )
    if not within:
        raise UnfitError(f"limits of build {build.name}")
    return made


def prepare(toy: Toy, build: Build) -> Case:
    """Draw, plan and pack a network; UnfitError or ValueError where there is none such."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        made = write_toy(folder / "quantized", toy)
        disagreement = opinion.disagreement(folder / "quantized", made.vectors)
        try:
            plan = make_plan(toy, folder / "quantized", build)
        except UserError as error:
            raise UnfitError(str(error)) from None
        checks = weights_file.write_weights(plan, folder / "weights.bin")
        golden.write_golden(plan, folder, checks)
        weights = (folder / "weights.bin").read_bytes()
        data = (folder / "input.bin").read_bytes()
        layers = []
        for index, (job, row, cost) in enumerate(
            zip(plan.jobs, plan.rows, plan.costs, strict=True)
        ):
            name = golden.golden_name(index, job.layer.name, len(plan.jobs))
            counts = {
                "bytes_read": cost.bytes_read, "bytes_written": cost.bytes_written,
                "bytes_weights": cost.bytes_weights, "cycles": cost.cycles, **cost.counts,
            }  # fmt: skip
            expected = (folder / name).read_bytes()
            layers.append((job.layer.name, output_words(row), expected, counts))
    centroid, threshold = knq_rows(plan.knq, build.knq_levels)
    lrn = [layer.lrn.table for layer in plan.lrn if layer.lrn]
    head = [len(layers), toy.images, len(centroid), len(lrn), len(weights) // 8,
            plan.arena.address["input"], plan.input_words]  # fmt: skip
    table = [[row[field] for field in FIELDS] for row in plan.rows]
    parts = [
        np.array(head, "<i8").tobytes(), np.array(table, "<i4").tobytes(),
        np.array(centroid, "<i4").tobytes(), np.array(threshold, "<i4").tobytes(),
        np.array(lrn, "<i4").tobytes(), weights, data,
        np.array([words for _, words, _, _ in layers], "<i8").tobytes(),
    ]  # fmt: skip
    return Case(b"".join(parts), layers, toy.images, disagreement)


def run(case: Case, program: Path) -> str | None:
    """Run a case; what is wrong, in one sentence, or None."""
    if case.disagreement:
        return case.disagreement
    with tempfile.TemporaryDirectory() as temporary:
        source, target = Path(temporary) / "network", Path(temporary) / "output"
        source.write_bytes(case.data)
        try:
            done = subprocess.run(
                [str(program), str(source), str(target)], capture_output=True, text=True,
                timeout=TIMEOUT, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"the engine must end within {TIMEOUT:g} s"
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
            if counts[counter] != value:
                return f"layer {name}: {counter} must be {counts[counter]}, not {value}"
    return None
