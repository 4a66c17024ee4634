# SPDX-License-Identifier: Apache-2.0
"""Section 7: model size against error for equal and optimised widths of weights (002, Figs. 3, 4).

Fully connected layers stay at 16 bits and outside the size, activations stay float, as in the
paper's section 5.1.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from formats.arithmetic import at_frac, to_fixed
from model_prep.allocate import sqnr
from model_prep.allocate.cache import Choice, FloatBase
from model_prep.allocate.measure import measuring
from model_prep.quantize.score import inverse_sqnr, sqnr_db
from model_prep.study import papers, plots
from model_prep.study.context import Study
from model_prep.study.plots import Figure
from model_prep.study.results import PAPER, Section, Table

_EQUAL = (10, 8, 7, 6, 5, 4, 3, 2)
_OPTIMISED = 24  # points of each optimised curve
_RANGE = (2.5, 10.0)  # bits whose SQNR is asked for
_LINE = (3, 4, 5, 6, 7, 8)  # widths that a layer's SQNR is measured at
_TRIED = (2, 3, 4, 5, 6, 7, 8, 10, 12)
_PRICES = (1e-7, 10.0)  # of a bit, in parts of the output's power over the size of the model
_FC_BITS = 16
_LEVELS = (1.0, 2.0, 3.0, 5.0, 10.0, 20.0)  # points of error above float
_HOPELESS = 40.0  # points of error above float, beyond which smaller models are not measured
_FINER = 3
_SEARCHED = 256  # images at most that a layer's effect on the output is measured on


def fixed(weight: np.ndarray, bits: int) -> torch.Tensor:
    """Weights in fixed point with the F of least squared error (float32); few may saturate."""
    exact = weight.astype(np.float64)
    _, frac = to_fixed(exact, bits)
    trials = [at_frac(exact, bits, frac + more) * 2.0 ** -(frac + more) for more in
              range(_FINER + 1)]  # fmt: skip
    best = min(trials, key=lambda values: float(np.square(values - exact).sum()))
    return torch.from_numpy(best.astype(np.float32))


class Model:
    """The network with weights in fixed point at chosen widths."""

    def __init__(self, study: Study) -> None:
        self.study = study
        weighted = [layer for layer in study.graph.layers if layer.has_weights]
        self.layers = {one.name: one.weight for one in weighted if one.kind != "fc"}
        self.rest = {one.name: one.weight for one in weighted if one.kind == "fc"}
        if not self.layers:
            self.layers, self.rest = self.rest, {}
        self.sizes = {name: weight.size for name, weight in self.layers.items()}
        self._float = FloatBase(study.graph, lambda weight, label: fixed(weight, label[1]))

    def choice(self, widths: Mapping[str, int]) -> Choice:
        """Float activations; layers that are not named keep float weights."""
        bits = {**dict.fromkeys(self.rest, _FC_BITS), **widths}
        return self._float.choice({name: ("fixed", own) for name, own in bits.items()}, {})

    def bits(self, widths: Mapping[str, int]) -> int:
        """Size of the optimised layers' weights in bits."""
        return sum(size * widths[name] for name, size in self.sizes.items())

    def point(self, widths: Mapping[str, int]) -> list[Any]:
        """[size in Mbit, error in percent, output SQNR in dB, bits on average, widths]."""
        score = self.study.score(self.choice(widths))
        size = self.bits(widths)
        return [size / 1e6, 100 - score["good"], score["sqnr_db"],
                size / sum(self.sizes.values()), " ".join(map(str, widths.values()))]  # fmt: skip

    def curve(self, choices: Sequence[Mapping[str, int]]) -> list[list[Any]]:
        """Points from the largest model down, as long as the error is of interest."""
        found: list[list[Any]] = []
        most = 100 - self.study.exact["good"] + _HOPELESS
        for widths in sorted(choices, key=self.bits, reverse=True):
            found.append(self.point(widths))
            if found[-1][1] > most:
                break
        return found

    def own_lines(self) -> dict[str, sqnr.Efficiency]:
        """SQNR of each layer's weights over their width: the paper's steps."""

        def measured(weight: np.ndarray) -> sqnr.Efficiency:
            signal = float(np.square(weight.astype(np.float64)).sum())
            return sqnr.fit_efficiency({
                bits: sqnr_db(signal, float(np.square(fixed(weight, bits).numpy() - weight).sum()))
                for bits in _LINE
            })  # fmt: skip

        return {name: measured(weight) for name, weight in self.layers.items()}

    def output_noise(self) -> dict[str, dict[int, float]]:
        """Inverse SQNR that one layer's weights alone cause in the output, by width, measured."""
        base = self.choice({})

        def run() -> dict[str, dict[int, float]]:
            problem, few = self.study.problem("uniform"), self.study.few(_SEARCHED)
            found: dict[str, dict[int, float]] = {}
            with measuring(problem, few, "sqnr") as measure:
                names = list(reversed(self.layers))  # the last layers first, as the cache likes it
                for name in tqdm(names, desc="weights", unit="layer", disable=None, leave=False):
                    found[name] = {
                        bits: inverse_sqnr(measure.score(self.choice({name: bits}), base)[1])
                        for bits in self.study.pick(_TRIED, (2, 3, 4, 6, 8, 10))
                    }
            return found

        found = self.study.store.remember(f"output noise {self.study.quick}", run)
        return {name: {int(bits): noise for bits, noise in found[name].items()}
                for name in self.layers}  # fmt: skip

    def balanced(self, noise: Mapping[str, Mapping[int, float]], points: int,
                 ) -> list[dict[str, int]]:  # fmt: skip
        """Widths of least total noise + price * size over a range of prices.

        As inverse SQNRs add up (002, equation 9), each is the least measured noise for its size.
        """
        found: list[dict[str, int]] = []
        for price in np.geomspace(_PRICES[0], _PRICES[1], 400) / sum(self.sizes.values()):
            widths = {
                name: min(by_bits, key=lambda b: by_bits[b] + price * self.sizes[name] * b)  # noqa: B023
                for name, by_bits in noise.items()
            }
            if not found or widths != found[-1]:
                found.append(widths)
        low, high = (self.bits(dict.fromkeys(self.sizes, round(bits))) for bits in _RANGE)
        near = [widths for widths in found if low <= self.bits(widths) <= high] or found
        step = max(1, len(near) // points)
        return near[::-step]

    def optimised(self, lines: Mapping[str, sqnr.Efficiency], points: int) -> list[dict[str, int]]:
        """Widths by water-filling for the SQNR that equal widths of `_RANGE` would have."""
        steps = [sqnr.Step(size, lines[name]) for name, size in self.sizes.items()]
        found: list[dict[str, int]] = []
        for bits in np.linspace(*_RANGE, points):
            target = sqnr.output_sqnr_db(step.efficiency.sqnr_db(bits) for step in steps)
            chosen = sqnr.integer_widths(steps, target)
            widths = dict(zip(self.sizes, chosen, strict=True))
            if widths not in found:
                found.append(widths)
        return found


def size_at(points: Sequence[Sequence[float]], error: float) -> float | None:
    """The size at which a curve's error falls to `error`, by linear interpolation.

    Args:
        points: (size, error); the least error up to each size makes the curve.
        error: the level.

    Returns:
        None where the curve does not cross the level.

    >>> size_at([(1.0, 30.0), (2.0, 10.0), (3.0, 12.0), (4.0, 8.0)], 20.0)
    1.5
    """
    ordered = sorted((point[0], point[1]) for point in points)
    before: tuple[float, float] | None = None
    for size, value in ordered:
        if before is not None and value >= before[1]:
            continue
        if value <= error:
            if before is None:
                return None
            share = (before[1] - error) / (before[1] - value)
            return before[0] + share * (size - before[0])
        before = (size, value)
    return None


def savings(
    equal: Sequence[Sequence[float]], others: Mapping[str, Sequence[Sequence[float]]], exact: float
) -> list[list[Any]]:
    """Rows: error level, size of equal widths, and size and percent saved by each other curve."""
    rows = []
    for above in _LEVELS:
        base = size_at(equal, exact + above)
        row: list[Any] = [exact + above, base]
        for points in others.values():
            size = size_at(points, exact + above)
            saved = 100 * (1 - size / base) if size is not None and base is not None else None
            row += [size, saved]
        if base is not None and any(cell is not None for cell in row[2:]):
            rows.append(row)
    return rows


def sizes(study: Study) -> Section:
    """Size against error for equal widths and two ways to optimise them."""
    model = Model(study)
    exact = 100 - study.exact["good"]
    equal = model.curve([
        dict.fromkeys(model.sizes, bits) for bits in study.pick(_EQUAL, (10, 8, 4, 3, 2))
    ])  # fmt: skip
    count = study.pick((_OPTIMISED,), (4,))[0]
    ways = {
        "weights' SQNR (002)": model.optimised(model.own_lines(), count),
        "output SQNR, measured": model.balanced(model.output_noise(), count),
    }
    curves = {name: model.curve(found) for name, found in ways.items()}
    rows = savings(equal, curves, exact)
    columns = ["error, %", "equal widths, Mbit"]
    for name in curves:
        columns += [f"by {name}, Mbit", "smaller, %"]
    points = [["equal", *row] for row in equal] + [
        [f"by {name}", *row] for name, found in curves.items() for row in found
    ]
    tables = [
        Table("Paper 002, section 5.1: model size at equal error, CIFAR-10",
              ["optimised against equal widths"],
              [[f"more than {papers.figures()['smaller_at_equal_error_pct']}% smaller below about "
                "25 Mbit"]], PAPER),
        *(_at_equal_error(columns, rows) if rows else []),
        Table("All measured points: fixed point with the F of least squared error, activations "
              "float, fully connected layers 16 bits",
              ["widths", "Mbit", "error, %", "output SQNR, dB", "bits on average", "bits by layer"],
              points),
    ]  # fmt: skip
    data = {
        "equal": [row[:2] for row in equal], "exact": exact, "goodness": study.goodness,
        "curves": {name: [row[:2] for row in found] for name, found in curves.items()},
    }  # fmt: skip
    return Section(_lead(rows, list(curves)), tables, data)


def _at_equal_error(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[Table]:
    note = (
        "Sizes between measured points are interpolated linearly on each curve (size against the "
        "least error up to that size); levels are float error plus 1 to 20 points. Levels that the "
        "equal widths do not cross are left out."
    )
    return [Table("Size of the weights at equal error", columns, rows, note=note)]


def _lead(rows: Sequence[Sequence[Any]], names: Sequence[str]) -> str:
    """What the savings come to."""
    parts = []
    for number, name in enumerate(names):
        saved = [row[3 + 2 * number] for row in rows if row[3 + 2 * number] is not None]
        if saved:
            parts.append(
                f"widths by {name} change the size by {-np.mean(saved):+.0f}% on average "
                f"({-min(saved):+.0f} to {-max(saved):+.0f}%)"
            )
    if not parts:
        return "The curves do not cross a common error level on this network."
    return "At equal error, " + "; ".join(parts) + ". The paper reports more than 20% less."


def size_figures(data: dict[str, Any]) -> list[Figure]:
    """Size against error."""
    with plots.drawing("sizes", 1, 1, (7.2, 3.6)) as (axes, done):
        axis = axes[0, 0]
        curves = {"equal widths": ("equal", data["equal"])}
        for key, (name, points) in zip(
            ("optimised", "budget"), data["curves"].items(), strict=True
        ):
            curves[f"by {name}"] = (key, points)
        for name, (key, points) in curves.items():
            size, error = np.array(sorted(points)).T
            plots.line(axis, key, size, error, label=name)
        plots.level(axis, data["exact"], "float")
        axis.set_xlabel("size of the weights, Mbit")
        axis.set_ylabel(f"error, % (100 less {data['goodness'].removesuffix(', %')})")
        top = data["exact"] + 30
        axis.set_ylim(max(0, data["exact"] - 2), min(100, top))
        axis.legend()
    return [Figure(done[0], "Error against the size of the weights, down to 30 points above float: "
                   "a curve further to the left needs less memory.")]  # fmt: skip
