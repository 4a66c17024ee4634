# SPDX-License-Identifier: Apache-2.0
"""Sections 9 and 10: accuracy against NB for every scheme with intervals, and the Pareto front.

Differences are paired, image by image, as the same images are hard for every network.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from model_prep.allocate import budget
from model_prep.allocate.cache import Choice
from model_prep.allocate.measure import measuring
from model_prep.stats import paired
from model_prep.study import plots
from model_prep.study.allocations import half_precision, searched
from model_prep.study.context import Study, kilobytes
from model_prep.study.plots import Figure
from model_prep.study.refined import NAMES, refined
from model_prep.study.results import Section, Table

SCHEMES = ("knq", "enq", "uniform")
_WIDTHS = (3, 4, 5, 6)
_POINTS = 9
_IMAGES = 24  # the front is searched on
_FIT_BITS = 4  # width that F of the front is chosen for


def at_widths(study: Study) -> dict[str, dict[int, Choice]]:
    """Every scheme at every width, with the bound of least error."""
    widths = study.pick(_WIDTHS, (3, 5))
    return {
        scheme: {bits: study.choice(scheme, bits, "error") for bits in widths} for scheme in SCHEMES
    }


def _point(
    study: Study, exact: np.ndarray, score: Mapping[str, Any], nb: int
) -> list[float]:  # fmt: skip
    """[NB in kB, difference from float in points, and its 95% interval]."""
    found = paired(exact, study.right(score))
    return [kilobytes(nb), found.difference, found.low, found.high]


def _cells(study: Study, score: Mapping[str, Any], point: Sequence[float]) -> list[Any]:
    """A row behind scheme and bits; the last three are None where top-5 means nothing."""
    five: list[float | None] = [None, None, None]
    if score["right5"] is not None:
        found = paired(study.right(study.exact, "right5"), study.right(score, "right5"))
        five = [found.difference, found.low, found.high]
    return [point[0], score["good"], score["top5"], score["agreement"], score["sqnr_db"],
            *point[1:], *five]  # fmt: skip


def schemes(study: Study) -> Section:
    """Schemes at equal widths, with paired intervals."""
    exact = study.exact
    float_right = study.right(exact)
    rows: list[list[Any]] = []
    against: list[list[Any]] = []
    data: dict[str, Any] = {"goodness": study.goodness, "float": exact["good"]}
    choices = at_widths(study)
    scores = {
        scheme: {bits: study.score(choice) for bits, choice in by_bits.items()}
        for scheme, by_bits in choices.items()
    }
    for scheme, by_bits in choices.items():
        points = []
        for bits, choice in by_bits.items():
            score, nb = scores[scheme][bits], study.nb(choice)
            points.append(_point(study, float_right, score, nb))
            rows.append([plots.label(scheme), float(bits), *_cells(study, score, points[-1])])
        data[scheme] = points
    data["refined"] = {}
    for name, score in refined(study).items():
        scheme, width = name.split()
        point = _point(study, float_right, score, score["nb"])
        data["refined"].setdefault(scheme, []).append(point)
        what = NAMES[scheme]
        rows.append([what, float(width), *_cells(study, score, point)])
    for bits in choices["knq"]:
        right = study.right(scores["knq"][bits])
        for other in SCHEMES[1:]:
            found = paired(study.right(scores[other][bits]), right)
            against.append([bits, f"KNQ less {plots.label(other)}", found.difference, found.low,
                            found.high, found.p_value])  # fmt: skip
    interval = "95% interval"
    tables = [
        Table("Every layer at one width, bound of least error, and refined; difference in points",
              ["scheme", "bits", "NB, kB", study.goodness, "top-5, %", "agreement with float, %",
               "output SQNR, dB", "difference", f"{interval}, from", "to", "top-5 difference",
               f"{interval}, from", "to"], rows,
              note="Differences are from float, with bootstrap intervals of paired differences. "
              "'Refined' moves weights and tables towards float's outputs on unlabelled "
              "calibration images; widths, tables' sizes and hardware stay. ENQ is the papers' "
              "floor except where it says 'rounded'."),
        Table("KNQ against the others at equal NB, points",
              ["bits", "difference of", "points", f"{interval}, from", "to", "p (McNemar)"],
              against, digits=3),
    ]  # fmt: skip
    least = min(choices["knq"])
    gains = [row for row in against if row[0] == least]
    lead = (
        f"At {least} bits KNQ is {gains[0][2]:+.1f} points against ENQ and {gains[1][2]:+.1f} "
        "against uniform codes of F by layer. "
    )
    best = max((row for row in rows if row[1] == least), key=lambda row: row[3])
    lead += f"The best at {least} bits is {best[0]}, {best[7]:+.1f} points from float "
    lead += f"({best[8]:+.1f} to {best[9]:+.1f}). No label is used to make any of these networks."
    return Section(lead, tables, data)


def scheme_figures(data: dict[str, Any]) -> list[Figure]:
    """Difference from float over NB, with intervals."""
    with plots.drawing("schemes", 1, 1, (7.2, 3.6)) as (axes, done):
        axis = axes[0, 0]
        keys = [key for key in SCHEMES if key in data]
        for number, key in enumerate(keys):
            nb, middle, low, high = np.array(data[key], np.float64).T
            shift = 1 + 0.012 * (number - (len(keys) - 1) / 2)
            axis.errorbar(
                nb * shift, middle, yerr=[middle - low, high - middle], capsize=2.5, elinewidth=1,
                marker=plots.MARKERS[key], color=plots.COLOURS[key], label=plots.label(key),
            )  # fmt: skip
        for key, points in data["refined"].items():
            nb, middle, _, _ = np.array(points, np.float64).T
            colour = "refined" if key == "best" else key
            name = "KNQ, refined, own widths" if key == "best" else NAMES[key]
            axis.plot(nb, middle, marker="*", markersize=9, linestyle=(0, (2, 2)),
                      color=plots.COLOURS[colour], label=name)  # fmt: skip
        plots.level(axis, 0.0, "float")
        axis.set_xlabel("NB, kB an image")
        axis.set_ylabel(f"{data['goodness'].removesuffix(', %')}, points from float")
        axis.legend()
    return [Figure(done[0], "Loss against float by memory for activations, with 95% intervals of "
                   "the paired difference; stars are refined networks.")]  # fmt: skip


def front_points(study: Study) -> list[dict[str, Any]]:
    """The label-free front of KNQ: widths per layer for output SQNR, by rising NB."""
    problem = study.problem("knq", _FIT_BITS)

    def run() -> list[dict[str, Any]]:
        with measuring(problem, study.few(_IMAGES), "sqnr", floats=False) as measure:
            points = budget.front(problem, measure, points=study.pick((_POINTS,), (4,))[0], swaps=2)
        return [asdict(point) for point in points]

    found: list[dict[str, Any]] = study.store.remember(f"front {study.quick}", run)
    return found


def _candidates(study: Study) -> list[tuple[str, str, Mapping[str, Any], int]]:
    """(scheme, what, score, NB) of all points."""
    problem = study.problem("knq", _FIT_BITS)
    found: list[tuple[str, str, Mapping[str, Any], int]] = []
    for point in front_points(study):
        score = study.score(problem.choice(tuple(point["widths"])))
        found.append(("budget", "KNQ, widths for output SQNR", score, point["nb"]))
    for scheme, by_bits in at_widths(study).items():
        for bits, choice in by_bits.items():
            what = f"{plots.label(scheme)}, {bits} bits"
            found.append((scheme, what, study.score(choice), study.nb(choice)))
    for scheme in (*SCHEMES, "clnq"):
        choice = searched(study, scheme)[1]
        what = f"{plots.label(scheme)}, smallest widths"
        found.append((scheme, what, study.score(choice), study.nb(choice)))
    for name, score in refined(study).items():
        scheme, width = name.split()
        what = NAMES[scheme]
        found.append(("refined", f"{what}, {width} bits", score, score["nb"]))
    found.append(("half", "half precision", half_precision(study), 16 * study.values))
    return found


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Positions of the points (cost, gain) that no other beats, by rising cost.

    >>> pareto([(1.0, 5.0), (2.0, 4.0), (3.0, 9.0), (1.0, 6.0)])
    [3, 2]
    """
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1]))
    kept: list[int] = []
    for index in order:
        if not kept or points[index][1] > points[kept[-1]][1]:
            kept.append(index)
    return kept


def front(study: Study) -> Section:
    """All measured points, and those that no other beats."""
    points = _candidates(study)
    best = set(pareto([(nb, score["good"]) for _, _, score, nb in points]))
    clean = set(pareto([(nb, score["sqnr_db"] or 1e9) for _, _, score, nb in points]))
    rows = [
        [what, kilobytes(nb), nb / study.values, score["good"], score["agreement"],
         score["sqnr_db"], index in best, index in clean]
        for index, (_, what, score, nb) in enumerate(points)
    ]  # fmt: skip
    rows.sort(key=lambda row: row[1])
    table = Table(
        "All points measured on the test images",
        ["codes", "NB, kB", "bits on average", study.goodness, "agreement with float, %",
         "output SQNR, dB", "on the front", "on the front of SQNR"], rows,
    )  # fmt: skip
    names = [points[index][1] for index in sorted(best, key=lambda i: points[i][3])]
    lead = (
        f"{len(best)} of {len(points)} points are beaten by no other in NB and "
        f"{study.goodness.removesuffix(', %')}; from the smallest: {', '.join(names[:4])}."
    )
    data = {
        "points": [[key, kilobytes(nb), score["good"], score["sqnr_db"]]
                   for key, _, score, nb in points],
        "float": study.exact["good"], "goodness": study.goodness,
    }  # fmt: skip
    return Section(lead, [table], data)


def front_figures(data: dict[str, Any]) -> list[Figure]:
    """Both fronts as steps through the measured points."""
    names = {"budget": "KNQ, widths for output SQNR"}
    with plots.drawing("front", 1, 2, (10.2, 3.8)) as (axes, done):
        for axis, column, title in (
            (axes[0, 0], 2, data["goodness"]), (axes[0, 1], 3, "output SQNR, dB"),
        ):  # fmt: skip
            points = [point for point in data["points"] if point[column] is not None]
            best = pareto([(point[1], point[column]) for point in points])
            axis.plot(
                [points[i][1] for i in best], [points[i][column] for i in best],
                drawstyle="steps-post", color=plots.INK, linewidth=1, zorder=1,
            )  # fmt: skip
            for key in dict.fromkeys(point[0] for point in points):
                own = [point for point in points if point[0] == key]
                axis.scatter(
                    [point[1] for point in own], [point[column] for point in own], s=30, zorder=2,
                    marker=plots.MARKERS[key], color=plots.COLOURS[key],
                    label=names.get(key, plots.label(key)),
                )  # fmt: skip
            plots.logarithmic(axis)
            axis.set_xlabel("NB, kB an image (logarithmic)")
            axis.set_ylabel(title)
        plots.level(axes[0, 0], data["float"], "float")
        axes[0, 1].legend(fontsize=8)
    return [Figure(done[0], "Every measured point; the line joins those that no other beats in "
                   "both memory and quality.")]  # fmt: skip
