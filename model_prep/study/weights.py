# SPDX-License-Identifier: Apache-2.0
"""Sections 6 and 7: SQNR by layer and widths of weights (paper 002).

SQNR predicted and measured (table 6), step sizes and offsets (tables 1, 3 and 5), and model size
against error for equal and optimised widths (Figs. 3, 4): there fully connected layers stay at 16
bits and outside the size, activations stay float, as in section 5.1.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from tqdm import tqdm

from nuq.formats.errors import call
from nuq.formats.quantizer import Quantizer
from nuq.model_prep.allocate import filling, sqnr
from nuq.model_prep.allocate.budget import undominated
from nuq.model_prep.allocate.cache import Choice
from nuq.model_prep.allocate.measure import measuring
from nuq.model_prep.quantize.calibrate import float_maps
from nuq.model_prep.quantize.fake_quant import FakeQuantized
from nuq.model_prep.quantize.plan import Plan
from nuq.model_prep.quantize.quantizers import optimal_step
from nuq.model_prep.quantize.score import inverse_sqnr, layer_sqnr_db, sqnr_db
from nuq.model_prep.study import papers
from nuq.model_prep.study.context import Study, fixed
from nuq.model_prep.study.plots import Figure, Panel, Series
from nuq.model_prep.study.results import BOTH, Section, Table

_IMAGES = 50  # that layers are compared on
_TARGETS = (25.0, 15.0)  # dB of all weights together
_LIMITS = (4, 16)  # bits of weights that the examples are about
_LINES = {"uniform": "predicted, kappa 3", "predicted": "", "measured": ""}
_EQUAL = (10, 8, 7, 6, 5, 4, 3, 2)
_OPTIMISED = 24  # points of each optimised curve
_RANGE = (2.5, 10.0)  # bits whose SQNR is asked for
_LINE = (3, 4, 5, 6, 7, 8)  # widths that a layer's SQNR is measured at
_TRIED = (2, 3, 4, 5, 6, 7, 8, 10, 12)
_PRICES = (1e-7, 10.0)  # of a bit, in parts of the output's power over the size of the model
_FC_BITS = 16
_GRID = (4, 8, 16, None)  # bits of table 7, None: float
_LEVELS = (1.0, 2.0, 3.0, 5.0, 10.0, 20.0)  # points of error above float
_HOPELESS = 40.0  # points of error above float, beyond which smaller models are not measured
_DRAWN = 30.0  # points of error above float

Widths = Mapping[str, int]  # by layer name
Point = list[Any]  # Mbit, error in percent, output SQNR in dB, bits on average, bits by layer


def _measured(study: Study, plan: Plan, quantizers: Mapping[str, Quantizer]) -> dict[str, float]:
    """SQNR of every layer's stored output on test images."""
    network = FakeQuantized(study.graph, study.subject.input, plan.layers)
    maps = float_maps(study.graph, study.test.pixels[:_IMAGES], study.to_float)
    return layer_sqnr_db(network, maps, quantizers)


def _example(study: Study, target: float) -> list[list[Any]]:
    """[bits of weights, SQNR by kappa 3, by measured steps, measured] of layers with weights."""
    quantizers = study.choice("uniform", study.qm).quantizers
    base = study.plan("uniform", study.qm)
    plan = base.with_values("weight_bits", filling.of_weights(study.graph, base).widths(target))
    plan = plan.each(lambda layer: {"weight_bits": int(np.clip(layer.weight_bits, *_LIMITS))})
    widths = {layer.name: layer.weight_bits for layer in plan.layers}
    paper, _ = filling.predict(
        study.graph, {name: sqnr.KAPPA * widths[name] for name in study.weights},
        {name: sqnr.KAPPA * study.qm for name in quantizers},
    )  # fmt: skip
    steps = filling.weight_steps(study.graph, plan)
    ours, _ = filling.predict(study.graph, steps, filling.code_steps(plan, quantizers, study.fine))
    key = f"layer SQNR {sorted(widths.items())}"
    measured = study.store.remember(key, partial(_measured, study, plan, quantizers))
    return [[part[name] for part in (widths, paper, ours, measured)] for name in study.weights]


def prediction(study: Study) -> Section:
    """Two examples with weight widths by water-filling."""
    names = list(study.weights)
    examples = [_example(study, target) for target in _TARGETS]
    rows = [[name, *one, *other] for name, one, other in zip(names, *examples, strict=True)]
    columns = ["layer"]
    for number in (1, 2):
        columns += [f"{number}: weight bits", f"{number}: kappa 3, dB",
                    f"{number}: measured steps, dB", f"{number}: measured, dB"]  # fmt: skip
    table = Table(
        f"SQNR of layers, activations {study.qm} bits uniform, weights by water-filling for "
        f"{_TARGETS[0]:g} and {_TARGETS[1]:g} dB; {min(_IMAGES, len(study.test))} test images",
        columns, rows,
        note="'kappa 3' predicts from widths alone, as the paper does; 'measured steps' adds up "
        "the measured noise of each quantizer. Fused max pools and ReLU change noise, too.",
    )  # fmt: skip
    gaps = [
        abs(ours - measured)
        for example in examples for _, _, ours, measured in example if measured is not None
    ]  # fmt: skip
    lead = (
        "Noise of all quantizers before a layer adds up, so predictions fall along the network. "
        f"Adding up each quantizer's own noise is off by {np.mean(gaps):.1f} dB on average."
    )
    panels = [
        Panel([Series(key, range(len(names)), [row[column] for row in example], name)
               for column, (key, name) in enumerate(_LINES.items(), 1)],
              f"example {number}", y_label="SQNR of the layer, dB", names=names,
              legend=int(number == 2))
        for number, example in enumerate(examples, 1)
    ]  # fmt: skip
    caption = "SQNR of each layer with weights, predicted and measured."
    tables = [
        *papers.quoted("sqnr"), table, _predictions(),
        papers.computed("step", lambda density, bits, _: optimal_step.computed_step(density, bits)),
        *(_offsets(network) for network in ("cifar10", "alexnet")),
    ]  # fmt: skip
    return Section(lead, tables, [Figure(caption, panels, (10.2, 3.4), share=True)])


def _predictions() -> Table:
    """002's predictions of table 6 computed again from widths alone."""
    offsets = [0, *(row[2] for row in papers.rows("offsets_cifar10"))]
    one, two = (
        sqnr.predicted_sqnr_db([first + offset for offset in offsets], [16] * 6)[1:]
        for first in (13, 12)
    )
    rows = [
        [layer, first, one[index], second, two[index]]
        for index, (layer, first, _, second, _) in enumerate(papers.rows("sqnr"))
    ]
    return Table(
        "002, table 6: predictions printed and computed, dB",
        ["layer", "1: printed", "1: computed", "2: printed", "2: computed"], rows, BOTH,
        "Activations 16 bits, table 3's widths with conv0 at 13 and 12 bits. Conv4 of example 1 is "
        "a misprint (docs/papers.md).",
    )  # fmt: skip


def _offsets(network: str) -> Table:
    """002, tables 3 and 5: more bits than the first layer's, by their numbers of weights."""
    first = papers.figures()["first_layer_millions"][network]
    return papers.computed(
        f"offsets_{network}", lambda _, params, __: round(sqnr.offset_bits(params, first))
    )


class Model:
    """The network with weights in fixed point at chosen widths."""

    def __init__(self, study: Study) -> None:
        self.study = study
        full = {layer.name for layer in study.graph.layers if layer.kind == "fc"}
        layers = [name for name in study.weights if name not in full] or list(study.weights)
        self.sizes = {name: study.weights[name].size for name in layers}
        self.total = sum(self.sizes.values())

    def choice(self, widths: Widths) -> Choice:
        """Float activations; of the optimised layers those not named keep float weights."""
        rest = dict.fromkeys(self.study.weights.keys() - self.sizes.keys(), _FC_BITS)
        named = {**rest, **widths}
        return self.study.variants.choice(
            {name: ("fixed", bits) for name, bits in named.items()}, {}
        )

    def bits(self, widths: Widths) -> int:
        """Size of the optimised layers' weights in bits."""
        return sum(size * widths[name] for name, size in self.sizes.items())

    def curve(self, choices: Sequence[Widths]) -> list[Point]:
        """Points from the largest model down, as long as the error is of interest."""
        points: list[Point] = []
        most = 100 - self.study.exact["good"] + _HOPELESS
        for widths in sorted(choices, key=self.bits, reverse=True):
            score, size = self.study.score(self.choice(widths)), self.bits(widths)
            points.append([size / 1e6, 100 - score["good"], score["sqnr_db"], size / self.total,
                           " ".join(map(str, widths.values()))])  # fmt: skip
            if points[-1][1] > most:
                break
        return points

    def lines(self) -> dict[str, sqnr.Efficiency]:
        """SQNR of each layer's weights over their width: the paper's steps."""

        def line(weight: np.ndarray) -> sqnr.Efficiency:
            signal = float(np.square(weight.astype(np.float64)).sum())
            noise = {bits: float(np.square(fixed(weight, bits) - weight).sum()) for bits in _LINE}
            return sqnr.fit_efficiency({bits: sqnr_db(signal, noise[bits]) for bits in _LINE})

        return {name: line(self.study.weights[name]) for name in self.sizes}

    def output_noise(self) -> dict[str, dict[int, float]]:
        """Inverse SQNR that one layer's weights alone cause in the output, by width, measured."""
        study, base = self.study, self.choice({})

        def measure_all() -> dict[str, Any]:
            noise = {}
            with measuring(study.problem("uniform"), study.few(), "sqnr") as measure:
                names = list(reversed(self.sizes))  # the last layers first, as the cache likes it
                for name in tqdm(names, desc="weights", unit="layer", disable=None, leave=False):
                    noise[name] = {
                        bits: inverse_sqnr(measure.score(self.choice({name: bits}), base)[1])
                        for bits in study.pick(_TRIED, (2, 3, 4, 6, 8, 10))
                    }
            return noise

        noise = study.store.remember(f"output noise {study.quick}", measure_all)
        return {name: {int(bits): one for bits, one in noise[name].items()} for name in self.sizes}

    def balanced(self, noise: Mapping[str, Mapping[int, float]], points: int) -> list[Widths]:
        """Widths of least total noise + price * size over a range of prices.

        As inverse SQNRs add up (002, equation 9), each is the least measured noise for its size.
        """
        choices: list[Widths] = []
        for price in np.geomspace(*_PRICES, 400) / self.total:
            widths = {
                name: min(by_bits, key=lambda b: by_bits[b] + price * self.sizes[name] * b)  # noqa: B023
                for name, by_bits in noise.items()
            }
            if not choices or widths != choices[-1]:
                choices.append(widths)
        low, high = (self.total * round(bits) for bits in _RANGE)
        near = [widths for widths in choices if low <= self.bits(widths) <= high] or choices
        return near[:: -max(1, len(near) // points)]

    def optimised(self, lines: Mapping[str, sqnr.Efficiency], points: int) -> list[Widths]:
        """Widths by water-filling for the SQNR that equal widths of `_RANGE` would have."""
        steps = [sqnr.Step(size, lines[name]) for name, size in self.sizes.items()]
        choices: list[Widths] = []
        for bits in np.linspace(*_RANGE, points):
            target = sqnr.output_sqnr_db(step.efficiency.sqnr_db(bits) for step in steps)
            chosen = sqnr.integer_widths(steps, target)
            widths = dict(zip(self.sizes, chosen, strict=True))
            if widths not in choices:
                choices.append(widths)
        return choices


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
    curve = np.array([point[:2] for point in points], np.float64)
    sizes, errors = curve[undominated(*curve.T)].T
    if not errors[-1] <= error < errors[0]:
        return None
    return float(np.interp(error, errors[::-1], sizes[::-1]))


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


def _grid(study: Study) -> list[Table]:
    """Error by widths of activations and weights, float among them (002, table 7), not tuned."""
    errors: list[list[Any]] = []
    changes: list[list[Any]] = []
    for bits in study.pick(_GRID, (4, None)):
        codes = study.choice("uniform", bits, "error").quantizers if bits else {}
        error: list[Any] = [str(bits or "float")]
        change = error.copy()
        for width in _GRID:
            labels = dict.fromkeys(study.weights, ("fixed", width)) if width else {}
            score = study.score(study.variants.choice(labels, codes))
            found = study.paired(study.exact, score)
            error.append(100 - score["good"])
            change.append(f"{found.difference:+.2f} ({found.low:+.2f} to {found.high:+.2f})")
        errors.append(error)
        changes.append(change)
    columns = ["activations", *[f"weights {bits or 'float'}" for bits in _GRID]]
    title = "before fine-tuning, all layers, uniform codes of own F"
    return [
        Table(f"Error {title}, % (100 less {study.judge})", columns, errors,
              note=f"{call('finetune')} trains such a network (docs/finetune.md)."),
        Table(f"{study.judge} {title}, less float's, points with 95% intervals", columns, changes),
    ]  # fmt: skip


def sizes(study: Study) -> Section:
    """Size against error for equal widths and two ways to optimise them."""
    model = Model(study)
    exact = 100 - study.exact["good"]
    equal = [dict.fromkeys(model.sizes, bits) for bits in study.pick(_EQUAL, (10, 8, 4, 3, 2))]
    (count,) = study.pick((_OPTIMISED,), (4,))
    ways: dict[str, Sequence[Widths]] = {
        "equal": equal,
        "by weights' SQNR (002)": model.optimised(model.lines(), count),
        "by output SQNR, measured": model.balanced(model.output_noise(), count),
    }
    curves = {name: model.curve(choices) for name, choices in ways.items()}
    points = [[name, *point] for name, curve in curves.items() for point in curve]
    others = {name: curve for name, curve in curves.items() if name != "equal"}
    rows = savings(curves["equal"], others, exact)
    columns = ["error, %", "equal widths, Mbit"]
    for name in others:
        columns += [f"{name}, Mbit", "smaller, %"]
    note = (
        "Sizes between measured points are interpolated linearly on each curve (size against the "
        "least error up to that size); levels are float error plus 1 to 20 points. Levels that the "
        "equal widths do not cross are left out."
    )
    tables = [
        *papers.quoted("sizes", "finetuned"),
        *_grid(study),
        *([Table("Size of the weights at equal error", columns, rows, note=note)] if rows else []),
        Table("All measured points: fixed point with the F of least squared error, activations "
              "float, fully connected layers 16 bits",
              ["widths", "Mbit", "error, %", "output SQNR, dB", "bits on average", "bits by layer"],
              points),
    ]  # fmt: skip
    lines = [
        Series(key, [point[0] for point in curve], [point[1] for point in curve],
               "" if name == "equal" else name)
        for key, (name, curve) in zip(("equal", "optimised", "budget"), curves.items(), strict=True)
    ]  # fmt: skip
    panel = Panel(
        lines, x_label="size of the weights, Mbit", y_label=f"error, % (100 less {study.judge})",
        level=exact, limits=(max(0, exact - 2), min(100, exact + _DRAWN)), legend=1,
    )  # fmt: skip
    caption = (
        f"Error against the size of the weights, down to {_DRAWN:g} points above float: a curve "
        "further to the left needs less memory."
    )
    return Section(_lead(rows, list(others)), tables, [Figure(caption, [panel], (7.2, 3.6))])


def _lead(rows: Sequence[Sequence[Any]], names: Sequence[str]) -> str:
    """What the savings come to."""
    parts = []
    for column, name in enumerate(names):
        saved = [row[3 + 2 * column] for row in rows if row[3 + 2 * column] is not None]
        if saved:
            parts.append(
                f"widths {name} change the size by {-np.mean(saved):+.0f}% on average "
                f"({-min(saved):+.0f} to {-max(saved):+.0f}%)"
            )
    if not parts:
        return "The curves do not cross a common error level on this network."
    return "At equal error, " + "; ".join(parts) + ". The paper reports more than 20% less."
