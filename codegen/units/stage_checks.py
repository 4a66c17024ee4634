# SPDX-License-Identifier: Apache-2.0
"""Shows that a stage's Verilog is right: every clock edge against integer sums of products.

The Verilog runs through Yosys' C++ simulation. Operands are the extreme ones in all combinations,
then random ones; groups have random lengths, the clock enable falls at random.
"""

import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from nuq.codegen.units.checks import run_tool, translate
from nuq.codegen.units.render import ENVIRONMENT
from nuq.codegen.units.stages import Stage, measured_stages, verilog
from nuq.formats.build import find_compiler

WORD = 32  # bits of the bench
STALL = 0.1  # share of clock edges without enable, and of steps that add nothing


class Run:
    """Edges with the same `paired` and `start`, and the accumulators behind each."""

    def __init__(
        self, stage: Stage, weight: np.ndarray, value: np.ndarray, paired: bool, seed: int
    ) -> None:
        """Let weight [steps][lanes][simd] and value [steps][simd], both int64, go in one by one."""
        self.stage, self.paired = stage, paired
        rng = np.random.default_rng(seed)
        self.start = [int(word) for word in rng.integers(0, 1 << stage.acc_bits, stage.lanes)]
        self.stimuli: list[np.ndarray] = []
        self.expected: list[list[int] | None] = []  # None: before the first sum
        self._play(weight, value, rng)

    def _play(self, weight: np.ndarray, value: np.ndarray, rng: np.random.Generator) -> None:
        sums = np.einsum("tls,ts->tl", weight, value)
        acc: list[int] | None = None
        due: list[tuple[bool, bool, list[int]]] = []  # steps on their way, the youngest last
        place, count = 0, len(value)
        while place < count + self.stage.latency:
            enabled = bool(rng.random() >= STALL)
            step = place < count and bool(rng.random() >= STALL)
            first = step and (place == 0 or bool(rng.random() < 0.25))
            at = min(place, count - 1)
            row = self._row(enabled, step, first, weight[at], value[at])
            if enabled:
                due.append((step, first, sums[at].tolist()))
                place += step or place >= count
            if enabled and len(due) == self.stage.latency:
                adds, begins, sum_ = due.pop(0)
                if adds:
                    before = self.start if begins or acc is None else acc
                    mask = (1 << self.stage.acc_bits) - 1
                    acc = [(a + b) & mask for a, b in zip(before, sum_, strict=True)]
            self.stimuli.append(row)
            self.expected.append(acc)

    def _row(
        self, enabled: bool, step: bool, first: bool, weight: np.ndarray, value: np.ndarray
    ) -> np.ndarray:
        """The words of one edge, as stage_bench.cpp.j2 reads them."""
        stage = self.stage
        stored = weight[0]
        if self.paired:
            below = weight[0] & ((1 << stage.pair_bits) - 1)
            stored = ((weight[1] - (weight[0] < 0)) << stage.pair_bits) | below
        return np.concatenate([
            [enabled, step, first, self.paired],
            words(stored.tolist(), stage.packed_bits),
            words(value.tolist(), stage.value_bits),
            words(self.start, stage.acc_bits),
        ]).astype("<u4")  # fmt: skip


def words(items: list[int], bits: int) -> list[int]:
    """Items of so many bits beside each other, the first in the lowest bits, as 32-bit words.

    >>> [hex(word) for word in words([1, -1, 2], 12)]
    ['0x2fff001', '0x0']
    """
    mask = (1 << bits) - 1
    packed = sum((item & mask) << (i * bits) for i, item in enumerate(items))
    count = -(-len(items) * bits // WORD)
    return [(packed >> (i * WORD)) & ((1 << WORD) - 1) for i in range(count)]


def runs(stage: Stage, steps: int, seed: int) -> Iterator[Run]:
    """Extreme operands and `steps` random ones, paired and alone where the stage has both."""
    for paired in [True, False] if stage.pair_bits else [False]:
        bits = stage.pair_bits if paired else stage.packed_bits
        rng = np.random.default_rng([seed, paired])
        half, end = 1 << (bits - 1), 1 << (stage.value_bits - 1)
        low = 1 - half if paired else -half  # two weights have no most negative number
        weights, values = [low, half - 1, -1, 0, 1], [-end, end - 1, -1, 0, 1]
        lanes = 2 if paired else 1
        # all multipliers alike, then every one by itself, then any mix
        grid = np.array(list(product(values, *[weights] * lanes)))
        alike = np.repeat(grid[:, :, None], stage.simd, axis=2)
        apart = alike * (np.arange(stage.simd) == np.arange(len(grid))[:, None, None] % stage.simd)
        mixed = np.concatenate([
            rng.choice(values, (steps, 1, stage.simd)),
            rng.choice(weights, (steps, lanes, stage.simd)),
        ], axis=1)  # fmt: skip
        drawn = np.concatenate([
            rng.integers(-end, end, (steps, 1, stage.simd)),
            rng.integers(low, half, (steps, lanes, stage.simd)),
        ], axis=1)  # fmt: skip
        every = np.concatenate([alike, apart, mixed, drawn])
        weight = np.zeros((len(every), stage.lanes, stage.simd), np.int64)
        weight[:, :lanes] = every[:, 1:]
        yield Run(stage, weight, every[:, 0], paired, seed)


def check_stage(stage: Stage, steps: int = 200, seed: int = 1, text: str = "") -> tuple[int, str]:
    """Simulate a stage.

    Args:
        stage: the stage.
        steps: random ones, and as many that mix extreme operands.
        seed: of both.
        text: its Verilog; as rendered where it is empty.

    Returns:
        edges: how many were compared.
        mismatch: the first edge that differs as a sentence, or empty.
    """
    played = list(runs(stage, steps, seed))
    with tempfile.TemporaryDirectory(prefix="units-") as name:
        folder = Path(name)
        (folder / "stage.v").write_text(text or verilog(stage))
        bench = ENVIRONMENT.get_template("rtl/stage_bench.cpp.j2").render(stage=stage)
        (folder / "bench.cpp").write_text(bench)
        stimuli = np.concatenate([row for run in played for row in run.stimuli])
        (folder / "stimuli.bin").write_bytes(stimuli.tobytes())
        flags = translate([stage.name], ["stage.v"], folder)
        run_tool([find_compiler(), "-std=c++14", "-Og", *flags, "bench.cpp", "-o", "bench"], folder)
        run_tool(["./bench"], folder)
        results = np.frombuffer((folder / "results.bin").read_bytes(), dtype="<u4")
    edges = [(run, acc) for run in played for acc in run.expected]
    got = results.reshape(len(edges), -1)
    for place, (run, acc) in enumerate(edges):
        if acc is not None and words(acc, stage.acc_bits) != got[place].tolist():
            how = "paired" if run.paired else "alone"
            actual = [f"{word:#x}" for word in got[place]]
            expected = [f"{word:#x}" for word in words(acc, stage.acc_bits)]
            return len(edges), (f"{stage.name}, {how}: after edge {place} the accumulators must be "
                                f"{' '.join(expected)}, not {' '.join(actual)}")  # fmt: skip
    return len(edges), ""


def check_stages() -> dict[str, Any]:
    """Both stages at the limits of a DSP48E1: compared clock edges, and what differs."""
    stages = [stage for target, stage in measured_stages() if target == "xc7"][:2]
    outcomes = [check_stage(stage) for stage in stages]
    return {
        "edges": sum(edges for edges, _ in outcomes),
        "mismatches": [text for _, text in outcomes if text],
    }
