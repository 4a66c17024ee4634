# SPDX-License-Identifier: Apache-2.0
"""Sections 3 to 5: widths by layer (000, tables II to IV), the bound M (VI), comparison (VII)."""

from typing import Any

import numpy as np
import torch

from model_prep import run
from model_prep.allocate import search
from model_prep.allocate.cache import Choice
from model_prep.allocate.measure import goal_of, measuring
from model_prep.footprint import saved_percent
from model_prep.graph import Layer
from model_prep.study import papers, plots
from model_prep.study.context import BOUNDS, Study, kilobytes
from model_prep.study.plots import Figure
from model_prep.study.results import Section, Table

_SEARCHED = ("enq", "knq", "uniform", "clnq")
_CLNQ_NOTE = (
    "CLNQ: one F for the network, so that fewer bits saturate earlier, as the papers' widths "
    "suggest. "
    "'uniform': F of least squared error by layer and width, a stronger baseline than theirs."
)
_BOUND_NAMES = {"none": "without bound", "network": "bound M of the network's F",
                "error": "bound of least error by layer"}  # fmt: skip


def searched(study: Study, scheme: str) -> tuple[dict[str, Any], Choice]:
    """(what the search for the smallest widths found, its quantizers); run once."""
    problem = study.problem(scheme)

    def find() -> dict[str, Any]:
        floats = scheme in ("uniform", "clnq")
        with measuring(problem, study.few(), floats=floats) as measure:
            goal = goal_of(problem, measure)
            found = search.coordinate(problem, measure, goal)
        return {
            "widths": found.widths, "nb": found.nb, "score": found.score, "goal": found.goal,
            "unit": found.unit, "start_bits": found.start_bits, "evaluations": found.evaluations,
        }  # fmt: skip

    found: dict[str, Any] = study.store.remember(f"search {scheme}", find)
    widths = tuple(found["widths"][group.name] for group in problem.groups)
    return found, problem.choice(widths)


def widths(study: Study) -> Section:
    """The smallest E_i and T_i, beside one width for all layers."""
    found = {scheme: searched(study, scheme) for scheme in _SEARCHED}
    summary: list[list[Any]] = []
    for scheme, (result, choice) in found.items():
        single = study.problem(scheme)
        one = single.choice(single.uniform(result["start_bits"]))
        for kind, chosen in (("one width for all", one), ("a width per layer", choice)):
            score = study.score(chosen)
            nb = study.nb(chosen)
            summary.append([plots.label(scheme), kind, nb / study.values, nb,
                            score["good"], score["top5"], score["sqnr_db"]])  # fmt: skip
    by_layer: list[list[Any]] = [
        [name, size, *[result["widths"][name] for result, _ in found.values()]]
        for name, size in study.elements.items()
    ]
    result = found["knq"][0]
    judged = "search images of the calibration set"
    tables = [
        Table(f"Smallest widths whose score on the {judged} stays at the goal "
              f"({result['goal']:.2f} {result['unit']}), scored on the test images",
              ["scheme", "widths", "bits on average", "NB, bits", study.goodness, "top-5, %",
               "output SQNR, dB"], summary, note=_CLNQ_NOTE),
        Table("Bits by layer", ["layer", "values an image", "ENQ, E_i", "KNQ, T_i", "uniform",
                                "CLNQ"], by_layer),
        _centroid_table(study, result["start_bits"]),
    ]  # fmt: skip
    paper = [*papers.widths_by_layer(), papers.centroids()]
    least = min(summary, key=lambda row: row[2])
    lead = (
        f"{least[0]} with {least[1]} needs the fewest bits: {least[2]:.2f} on average. Candidates "
        "run through the activation cache, on calibration images only."
    )
    data = {"layers": list(study.elements), **{s: list(r["widths"].values()) for s, (r, _) in
                                               found.items()}}  # fmt: skip
    return Section(lead, [*paper, *tables], data)


def _centroid_table(study: Study, bits: int) -> Table:
    """Centroids by layer, one row for layers that share."""
    choice = study.choice("knq", min(bits, 5))
    rows: list[list[Any]] = []
    seen = set[int]()
    for name, quantizer in choice.quantizers.items():
        if id(quantizer) not in seen:
            seen.add(id(quantizer))
            rows.append([name, *[int(value) for value in quantizer.decode_table]])
    length = len(rows[0]) - 1
    return Table(
        f"KNQ, {min(bits, 5)} bits: centroids as {study.qm}-bit integers",
        ["layer", *[f"d{number}" for number in range(length)]], rows,
    )  # fmt: skip


def width_figures(data: dict[str, Any]) -> list[Figure]:
    """Widths by layer as steps."""
    names = data["layers"]
    with plots.drawing("widths", 1, 1, (9.6, 3.2)) as (axes, done):
        axis = axes[0, 0]
        for scheme in ("clnq", "uniform", "enq", "knq"):
            plots.line(axis, scheme, range(len(names)), data[scheme], drawstyle="steps-mid")
        plots.name_ticks(axis, names)
        axis.set_ylabel("bits of an activation")
        axis.set_ylim(bottom=0)
        axis.yaxis.get_major_locator().set_params(integer=True)
        axis.legend(ncols=4)
    return [Figure(done[0], "Smallest widths by layer at the same accuracy goal.")]


def bounds(study: Study) -> Section:
    """KNQ with and without the bound, floor against nearest."""
    default = study.subject.source.defaults["bits"]
    middle = default if isinstance(default, int) else 4
    rows: list[list[Any]] = []
    for bits in study.pick((middle - 1, middle), (middle - 1,)):
        for rule in ("nearest", "floor"):
            scores = {
                bound: study.score(study.choice("knq", bits, bound, rule))["good"]
                for bound in BOUNDS
            }
            values = [scores["none"], scores["network"], scores["error"]]
            rows.append([bits, rule, *values, values[1] - values[0], values[2] - values[0]])
    gap = np.mean([rows[i][3] - rows[i + 1][3] for i in range(0, len(rows), 2)])
    lead = (
        "Without bound F falls until the largest activation fits. The papers' bound M is that of "
        "the uniform network; least error chooses it layer by layer. Thresholds half way between "
        f"centroids (nearest) give {gap:+.2f} points against the papers' floor, with M."
    )
    columns = ["bits", "thresholds", *[_BOUND_NAMES[b] for b in ("none", "network", "error")],
               "gain of M, points", "gain of least error, points"]  # fmt: skip
    note = "Where the best F of the uniform network clips nothing, M changes nothing."
    table = Table(f"KNQ, {study.goodness}", columns, rows, note=note)
    labels = [f"{row[0]} bits, {row[1]}" for row in rows]
    data = {"labels": labels, "values": [row[2:5] for row in rows], "goodness": study.goodness,
            "float": study.exact["good"]}  # fmt: skip
    return Section(lead, [papers.clipped(), table], data)


def bound_figures(data: dict[str, Any]) -> list[Figure]:
    """Groups of three bars."""
    values = np.array(data["values"], np.float64)
    colours = ("#c9d2da", "#7fb5c1", plots.COLOURS["knq"])
    with plots.drawing("bounds", 1, 1, (7.2, 3.2)) as (axes, done):
        axis = axes[0, 0]
        for number, (name, colour) in enumerate(zip(_BOUND_NAMES.values(), colours, strict=True)):
            places = np.arange(len(values)) + (number - 1) * 0.26
            axis.bar(places, values[:, number], 0.24, color=colour, label=name)
        plots.level(axis, data["float"], "float")
        axis.set_xticks(range(len(values)), data["labels"])
        axis.set_ylabel(data["goodness"])
        axis.set_ylim(max(0, values.min() - 8), 100 if data["float"] > 90 else None)
        axis.grid(axis="x", visible=False)
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=3, fontsize=8)
    return [Figure(done[0], "KNQ by where activations saturate. The axis does not begin at 0.")]


def half_precision(study: Study) -> dict[str, Any]:
    """The score with activations rounded to IEEE half precision."""

    def halved(layer: Layer, inputs: list[torch.Tensor]) -> torch.Tensor:
        out = study.network.raw(layer, inputs)
        return out.half().float() if layer.name in study.elements else out

    def measured() -> dict[str, Any]:
        parts = [
            run.last(run.run(study.graph, study.network.start(batch), halved)).numpy()
            for batch in study._batches
        ]
        return study.rate(np.concatenate(parts))

    found: dict[str, Any] = study.store.remember("half precision", measured)
    return found


def comparison(study: Study) -> Section:
    """Half precision, ENQ, KNQ and CLNQ in accuracy and NB."""
    half_nb = 16 * study.values
    clnq = study.nb(searched(study, "clnq")[1])
    rows: list[list[Any]] = [_row(study, "half", half_precision(study), half_nb, clnq)]
    for scheme in _SEARCHED:
        choice = searched(study, scheme)[1]
        rows.append(_row(study, scheme, study.score(choice), study.nb(choice), clnq))
    table = Table(
        "Smallest widths by layer. NB: bits of all stored activations of one image",
        ["scheme", study.goodness, "top-5, %", "NB, bits", "NB, kB", "NNB", "saved, %"],
        rows, digits=3, note=_CLNQ_NOTE,
    )  # fmt: skip
    ratio = rows[2][5]
    lead = (
        f"KNQ stores {ratio:.2f} times the bits of CLNQ, uniform codes with a width per layer, "
        f"{rows[2][3] / half_nb:.2f} times those of half precision. The paper: 0.50 on VGG-16, "
        "0.43 on AlexNet."
    )
    data = {"schemes": ["half", *_SEARCHED], "nnb": [row[5] for row in rows],
            "good": [row[1] for row in rows], "goodness": study.goodness}  # fmt: skip
    return Section(lead, [*papers.comparison(), table], data)


def _row(study: Study, name: str, score: dict[str, Any], nb: int, clnq: int) -> list[Any]:
    saved = saved_percent(nb / study.values)
    return [plots.label(name), score["good"], score["top5"], nb, kilobytes(nb), nb / clnq, saved]


def comparison_figures(data: dict[str, Any]) -> list[Figure]:
    """NNB of the paper's two networks and of this one."""
    known = papers.figures()["comparison"]
    groups = {"VGG-16 (paper)": known["vgg16"], "AlexNet (paper)": known["alexnet"]}
    values = {
        name: [row.get(s, {"nnb": np.nan})["nnb"] for s in data["schemes"]]
        for name, row in groups.items()
    }
    values["here"] = data["nnb"]
    with plots.drawing("comparison", 1, 1, (7.2, 3.0)) as (axes, done):
        axis = axes[0, 0]
        for number, scheme in enumerate(data["schemes"]):
            places = np.arange(len(values)) + (number - 2) * 0.17
            heights = [row[number] for row in values.values()]
            bars = axis.bar(places, heights, 0.15, color=plots.COLOURS[scheme],
                            label=plots.label(scheme))  # fmt: skip
            axis.bar_label(bars, fmt="{:.2f}", fontsize=7, padding=2)
        axis.set_xticks(range(len(values)), values)
        axis.set_ylabel("NB relative to CLNQ")
        axis.grid(axis="x", visible=False)
        axis.legend(ncols=5, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.1))
    return [Figure(done[0], "Memory for activations, relative to uniform codes with a width per "
                   "layer (CLNQ).")]  # fmt: skip
