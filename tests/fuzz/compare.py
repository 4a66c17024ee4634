# SPDX-License-Identifier: Apache-2.0
"""One network through one build: plan, pack, run, compare codes and iteration counts.

`run` says what differs; UnfitError that the network exceeds the build's limits.
"""

import subprocess
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from codegen.design import planner
from codegen.design.array import Array
from codegen.design.design import Design, assemble
from codegen.design.lowering import knq_tables, lower, lrn_layers
from codegen.design.resources import estimate
from codegen.design.sizes import sizes_of
from codegen.emit import golden, weights_file
from codegen.emit.render import knq_rows
from formats import network
from formats.design import COUNTERS
from formats.errors import UserError
from formats.hardware import find_part
from model_prep.quantize.reference import Reference
from tests.fuzz.builds import Build
from tests.toys import Toy, write_toy

TIMEOUT = 60.0  # seconds for one network
PART = "XC7Z045"


class UnfitError(ValueError):
    """The network exceeds the limits of a build."""


@dataclass(frozen=True)
class Case:
    """A network ready to run."""

    data: bytes  # the program's input file
    # name, output words per image, expected bytes, expected counters of each
    layers: list[tuple[str, int, bytes, dict[str, int]]]
    images: int  # of the batch
    disagreement: str | None  # where the two references differ


def make_plan(toy: Toy, folder: Path, build: Build) -> Design:
    """Quantized network of `folder`, planned with the build's constants."""
    loaded = network.load(folder)
    rng = np.random.default_rng(toy.seed)
    array = Array(build.simd, build.pe, build.pixels, build.weight_ports, build.qk_units)
    lowered = lower(loaded, array, build.weight_rows)
    limits = [limit for limit in (16, 64, 256) if limit < build.line_blocks]
    chosen = [limit for limit in limits if rng.integers(0, 4) == 0]
    for limit in [*chosen, build.line_blocks]:
        cut = [row.cut(array, build.weight_rows, limit) for row in lowered.rows()]
        if all(cut):
            break
    else:
        raise UnfitError(f"buffers of build {build.name}")
    rows = [row for row in cut if row]
    largest = max(row.line_entries for row in rows)
    if choice := int(rng.integers(0, 4)):
        capacity = largest if choice == 1 else build.line_blocks
        rows = [planner.use_line_buffer(row, toy.images, capacity) for row in rows]
    sizes = sizes_of(lowered, rows, array, build.weight_rows, toy.images)
    # part of the feature maps on chip, all that may be, or none
    spare = int(rng.choice([0, 4, 400]))
    part = find_part(PART)
    part = replace(part, bram36=estimate(sizes, part).bram36 + spare, limit=1.0)
    fm = "auto" if rng.integers(0, 4) else "ddr"
    made = assemble(lowered, part, toy.images, rows, replace(sizes, array=replace(array, fm=fm)))
    within = (
        max(row.line_entries for row in rows) <= build.line_blocks
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
        checks = weights_file.write_weights(plan, folder / "weights.bin")
        golden.write_golden(plan, folder, checks)
        weights = (folder / "weights.bin").read_bytes()
        data = (folder / "input.bin").read_bytes()
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
            expected = (folder / name).read_bytes()
            layers.append((layer.name, row.output_words, expected, counts))
    centroid, threshold = knq_rows(knq_tables(plan.network), build.knq_levels)
    lrn = [layer.lrn.table for layer in lrn_layers(plan.network) if layer.lrn]
    head = [len(layers), toy.images, len(centroid), len(lrn), len(weights) // 8,
            plan.arena.address["input"], plan.input_words]  # fmt: skip
    table = [row.values for row in plan.rows]
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
