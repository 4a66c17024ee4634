# SPDX-License-Identifier: Apache-2.0
"""Where the time of each layer goes, and where the layer stands under the roofline.

A layer's cycles are load(0) + sum of max(body(p), load(p+1)) over its passes (cost.py).
Each cycle is put down to one cause, so that the causes add up to the layer's time. The roofline is
that of Williams, Waterman and Patterson, CACM 52(4), 2009.
"""

from dataclasses import dataclass

import numpy as np

from nuq.codegen.design.array import Array
from nuq.codegen.design.cost import array_work, batches, stage_counts
from nuq.codegen.design.design import Design
from nuq.codegen.design.rows import Row
from nuq.formats.design import STAGES

# What each stage's excess over the multipliers' work is called.
STAGE_CAUSES = {
    "read": "input", "unpack": "input", "finish": "QK/QE units", "pool": "pool",
    "pack": "output", "write": "output",
}  # fmt: skip
CAUSES = ("multiply", "idle lanes", "first rows", "weights", "input", "QK/QE units", "pool",
          "output", "DRAM")  # fmt: skip


@dataclass(frozen=True)
class LayerTime:
    """Time of one layer for all images."""

    name: str
    causes: dict[str, float]  # seconds by cause, one of CAUSES each; the layer's time in sum
    macs: int  # multiply-accumulates
    bytes_moved: int  # between chip and DRAM

    @property
    def seconds(self) -> float:
        """Time of the layer."""
        return sum(self.causes.values())

    @property
    def bound(self) -> str:
        """What costs most, the multipliers' useful work included."""
        return max(CAUSES, key=lambda cause: self.causes[cause])

    @property
    def intensity(self) -> float:
        """Operations (two a multiply-accumulate) per byte moved; inf where nothing is."""
        return 2 * self.macs / self.bytes_moved if self.bytes_moved else float("inf")

    @property
    def gops(self) -> float:
        """10^9 operations a second."""
        return 2 * self.macs / self.seconds / 1e9


def layer_times(design: Design) -> list[LayerTime]:
    """The time of every layer of a design, in execution order."""
    clock, times = design.part.clock_mhz * 1e6, []
    for layer, row, cost in zip(design.layers, design.rows, design.costs, strict=True):
        macs = layer.macs * design.images
        causes = {cause: cycles / clock for cause, cycles in _cycles(row, design, macs).items()}
        waiting = cost.bytes_moved / (design.part.sustained_gbs * 1e9) - sum(causes.values())
        causes["DRAM"] = max(0.0, waiting)
        times.append(LayerTime(layer.name, causes, macs, cost.bytes_moved))
    return times


def _cycles(row: Row, design: Design, macs: int) -> dict[str, float]:
    """Cycles of a layer for all images by cause, all of CAUSES."""
    total = dict.fromkeys(CAUSES, 0.0)
    for size, times in batches(design.images, design.batch):
        for cause, cycles in _batch_cycles(row, design.array, size).items():
            total[cause] += times * cycles
    useful = min(macs / design.array.products, total["idle lanes"])
    total["multiply"] = useful
    total["idle lanes"] -= useful
    return total


def _batch_cycles(row: Row, array: Array, images: int) -> dict[str, float]:
    """The same for one batch, useful work still among the idle lanes."""
    counts = stage_counts(row, array, images)
    load = counts["load"]
    bodies = np.stack([counts[stage] for stage in STAGES[1:]])
    body, longest = bodies.max(axis=0), bodies.argmax(axis=0)
    compute = counts["compute"]
    work = np.minimum(array_work(row, array, images), compute)
    cycles = {
        "idle lanes": float(work.sum()),
        "first rows": float((compute - work).sum()),
        "weights": float(load[0] + np.maximum(np.append(load[1:], 0) - body, 0).sum()),
    }
    for stage, cause in STAGE_CAUSES.items():
        excess = np.where(longest == STAGES.index(stage) - 1, body - compute, 0).sum()
        cycles[cause] = cycles.get(cause, 0.0) + float(excess)
    return cycles
