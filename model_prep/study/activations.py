# SPDX-License-Identifier: Apache-2.0
"""Sections 1 to 5: activations and their codes (papers 000 and 001).

What activations look like (000, Fig. 1), uniform widths (table I), widths by layer (tables II to
IV), the bound M (VI) and the comparison of schemes (VII).
"""

from typing import Any

import numpy as np
import torch

from nuq.formats.arithmetic import lowest
from nuq.formats.quantizer import Quantizer
from nuq.model_prep import footprint, run
from nuq.model_prep.allocate import search
from nuq.model_prep.allocate.cache import Choice
from nuq.model_prep.allocate.measure import goal_of, measuring
from nuq.model_prep.graph import Layer
from nuq.model_prep.quantize.fracs import uniform_codes
from nuq.model_prep.study import papers
from nuq.model_prep.study.context import Study, kilobytes
from nuq.model_prep.study.plots import Figure, Panel, Series, label, short
from nuq.model_prep.study.results import BOTH, Section, Table

_BINS = 96
_SHOWN = 12  # layers drawn
_CENTROIDS = 4  # bits of the table marked
_WIDTHS = range(14, 3, -1)
_HOPELESS = 40.0  # points lost, beyond which narrower codes are not measured
BOUNDS = ("none", "network", "error")
_SEARCHED = ("enq", "knq", "uniform", "clnq")
_SCORES = ("good", "top5", "sqnr_db")
_CLNQ_NOTE = (
    "CLNQ: one F for the network, so that fewer bits saturate earlier, as the papers' widths "
    "suggest. "
    "'uniform': F of least squared error by layer and width, a stronger baseline than theirs."
)


def histograms(study: Study) -> Section:
    """Shares of activations by value, layer by layer, and the centroids of KNQ."""
    choice = study.choice("knq", _CENTROIDS)
    formats = study.formats(study.plan("knq"), "network")
    step = -(-len(formats.counts) // _SHOWN)
    rows: list[list[Any]] = []
    small, panels = [], []
    for number, (name, histogram) in enumerate(formats.counts.items()):
        quantizer = choice.quantizers[name]
        y = lowest(study.qm, quantizer.signed) + np.arange(len(histogram))
        values = y * 2.0 ** -formats.fracs[name]
        shares = histogram / max(1, int(histogram.sum()))
        mean = (values * shares).sum()
        deviation = np.sqrt(((values - mean) ** 2 * shares).sum())
        largest = np.abs(values[histogram > 0]).max(initial=0.0)
        rows.append([name, study.elements[name], 100 * shares[y == 0].sum(), mean, deviation,
                     largest, study.calibration.maxima[name]])  # fmt: skip
        small.append(100 * shares[np.abs(values) < largest / 10].sum())
        if number % step == 0:
            panels.append(_panel(name, values, 100 * shares, quantizer))
    sizes, zeros = [row[1] for row in rows], [row[2] for row in rows]
    lead = (
        f"{np.average(zeros, weights=sizes):.0f}% of all activations are 0, and "
        f"{np.average(small, weights=sizes):.0f}% are below a tenth of their layer's largest: "
        f"equal steps spend most codes on few values. KNQ ({_CENTROIDS} bits, marked) puts its "
        "centroids where activations are."
    )
    table = Table(
        "Activations of the calibration images by layer; 'kept' is the largest within the bound M",
        ["layer", "values an image", "zeros, %", "mean", "deviation", "largest kept", "largest"],
        rows, digits=3,
    )  # fmt: skip
    some = "" if step == 1 else f" Every {step}th layer is drawn."
    caption = (
        "How often activations other than 0 occur, logarithmic, over the calibration images. "
        f"Orange marks below: the centroids of KNQ.{some}"
    )
    height = 0.5 + 1.9 * -(-len(panels) // 4)
    return Section(lead, [table], [Figure(caption, panels, (10.2, height), min(4, len(panels)))])


def _panel(name: str, values: np.ndarray, shares: np.ndarray, quantizer: Quantizer) -> Panel:
    """Percent by bin over the occupied range, zeros left out, and centroids within it."""
    low, high = values[shares > 0][[0, -1]]
    other = np.where(values == 0, 0, shares)
    bins, edges = np.histogram(
        values, _BINS, (min(0.0, low), max(high, low + 1e-9)), weights=other
    )  # fmt: skip
    table = quantizer.decode_table * 2.0**-quantizer.frac
    series = [Series(name, edges, bins), Series("knq", table[table <= high], ())]
    return Panel(series, short(name), "activation", "% of values", "histogram", logarithmic="y")


def uniform(study: Study) -> Section:
    """Accuracy of uniform codes by width, F searched for each."""
    exact = study.exact
    rows: list[list[Any]] = []
    for bits in study.pick(_WIDTHS, (12, 6, 4)):
        fracs = study.uniform_format(bits).fracs
        score = study.score(Choice(uniform_codes(bits, fracs, study.plan("knq").signed)))
        least, most = min(fracs.values()), max(fracs.values())
        shown = str(least) if least == most else f"{least} to {most}"
        rows.append([bits, shown, *study.cells(score)])
        if score["good"] < exact["good"] - _HOPELESS:
            break
    best = rows[0][2]
    lost = [row for row in rows if row[2] < best - 1]
    kept = min(row[0] for row in rows if not lost or row[0] > lost[0][0])
    lead = (
        f"One step for all layers: down to {kept} bits the loss against {rows[0][0]} bits stays "
        "within one point."
    )
    if lost:
        lead += f" At {lost[0][0]} bits it is {best - lost[0][2]:.1f} points."
    table = Table(
        "Uniform codes, one width for all layers; F found on calibration images",
        ["bits", "F", *study.headings()],
        [*rows, ["float", "", *study.cells(exact)]],
    )
    (quoted,) = papers.quoted("uniform")
    printed = Series("uniform", [int(bits) for bits in quoted.columns[1:]],
                     papers.rows("uniform")[0][1:])  # fmt: skip
    here = Series("uniform", [row[0] for row in rows], [row[2] for row in rows])
    bits_of = "bits of an activation"
    panels = [
        Panel([here], "here", bits_of, study.goodness, level=exact["good"], integers="x"),
        Panel([printed], "paper 000, VGG-16", bits_of, "top-5, %", integers="x"),
    ]
    caption = "Accuracy of uniform codes by width, here and in the paper."
    return Section(lead, [quoted, table], [Figure(caption, panels, (9.2, 3.1))])


def searched(study: Study, scheme: str) -> tuple[dict[str, Any], Choice]:
    """(what the search for the smallest widths found, its quantizers); run once."""
    problem = study.problem(scheme)

    def find() -> dict[str, Any]:
        floats = scheme in ("uniform", "clnq")
        with measuring(problem, study.few(), floats=floats) as measure:
            goal = goal_of(problem, measure)
            best = search.coordinate(problem, measure, goal)
        return {"widths": best.widths, "goal": goal, "unit": best.unit, "start": best.start_bits}

    result = study.store.remember(f"search {scheme}", find)
    widths = tuple(result["widths"][group.name] for group in problem.groups)
    return result, problem.choice(widths)


def widths(study: Study) -> Section:
    """The smallest E_i and T_i, beside one width for all layers."""
    results = {}
    summary: list[list[Any]] = []
    for scheme in _SEARCHED:
        results[scheme], smallest = searched(study, scheme)
        problem = study.problem(scheme)
        one = problem.choice(problem.uniform(results[scheme]["start"]))
        for kind, choice in (("one width for all", one), ("a width per layer", smallest)):
            nb = study.nb(choice)
            scores = study.cells(study.score(choice), _SCORES)
            summary.append([label(scheme), kind, nb / study.values, nb, *scores])
    by_layer: list[list[Any]] = [
        [name, size, *[results[scheme]["widths"][name] for scheme in _SEARCHED]]
        for name, size in study.elements.items()
    ]
    goal, unit, start = (results["knq"][key] for key in ("goal", "unit", "start"))
    tables = [
        *papers.quoted("enq", "clnq", "centroids"),
        Table("Smallest widths whose score on the search images of the calibration set stays at "
              f"the goal ({goal:.2f} {unit}), scored on the test images",
              ["scheme", "widths", "bits on average", "NB, bits", *study.headings(_SCORES)],
              summary, note=_CLNQ_NOTE),
        Table("Bits by layer",
              ["layer", "values an image", "ENQ, E_i", "KNQ, T_i", "uniform", "CLNQ"], by_layer),
        _centroid_table(study, min(start, 5)),
    ]  # fmt: skip
    least = min(summary, key=lambda row: row[2])
    lead = (
        f"{least[0]} with {least[1]} needs the fewest bits: {least[2]:.2f} on average. Candidates "
        "run through the activation cache, on calibration images only."
    )
    names = list(study.elements)
    steps = [
        Series(scheme, range(len(names)), list(results[scheme]["widths"].values()), kind="steps")
        for scheme in ("clnq", "uniform", "enq", "knq")
    ]
    panel = Panel(
        steps, y_label="bits of an activation", names=names, limits=(0, None), integers="y",
        legend=4,
    )  # fmt: skip
    caption = "Smallest widths by layer at the same accuracy goal."
    return Section(lead, tables, [Figure(caption, [panel], (9.6, 3.2))])


def _centroid_table(study: Study, bits: int) -> Table:
    """Centroids by layer, one row for layers that share."""
    quantizers = study.choice("knq", bits).quantizers
    first = {id(one): name for name, one in reversed([*quantizers.items()])}
    rows = [[name, *quantizers[name].decode_table] for name in reversed(first.values())]
    return Table(
        f"KNQ, {bits} bits: centroids as {study.qm}-bit integers",
        ["layer", *[f"d{number}" for number in range(len(rows[0]) - 1)]], rows,
    )  # fmt: skip


def bounds(study: Study) -> Section:
    """KNQ with and without the bound, floor against nearest."""
    default = study.subject.source.defaults["bits"]
    middle = default if isinstance(default, int) else 4
    rows: list[list[Any]] = []
    for bits in study.pick((middle - 1, middle), (middle - 1,)):
        for rule in ("nearest", "floor"):
            none, network, error = (
                study.score(study.choice("knq", bits, bound, rule))["good"] for bound in BOUNDS
            )
            rows.append([bits, rule, none, network, error, network - none, error - none])
    gap = np.mean([rows[i][3] - rows[i + 1][3] for i in range(0, len(rows), 2)])
    lead = (
        "Without bound F falls until the largest activation fits. The papers' bound M is that of "
        "the uniform network; least error chooses it layer by layer. Thresholds half way between "
        f"centroids (nearest) give {gap:+.2f} points against the papers' floor, with M."
    )
    columns = ["bits", "thresholds", *map(label, BOUNDS), "gain of M, points",
               "gain of least error, points"]  # fmt: skip
    note = "Where the best F of the uniform network clips nothing, M changes nothing."
    table = Table(f"KNQ, {study.goodness}", columns, rows, note=note)
    by_bound = [[row[column] for row in rows] for column in (2, 3, 4)]
    level = study.exact["good"]
    panel = Panel(
        [Series(bound, range(len(rows)), column)
         for bound, column in zip(BOUNDS, by_bound, strict=True)],
        y_label=study.goodness, kind="bars", names=[f"{row[0]} bits, {row[1]}" for row in rows],
        level=level, limits=(max(0, np.min(by_bound) - 8), 100 if level > 90 else None), legend=3,
    )  # fmt: skip
    caption = "KNQ by where activations saturate. The axis does not begin at 0."
    return Section(
        lead, [*papers.quoted("bound"), table], [Figure(caption, [panel], (7.2, 3.2))]
    )  # fmt: skip


def half_precision(study: Study) -> dict[str, Any]:
    """The score with activations rounded to IEEE half precision."""

    def half(layer: Layer, inputs: list[torch.Tensor]) -> torch.Tensor:
        out = study.network.raw(layer, inputs)
        return out.half().float() if layer.name in study.elements else out

    def rate() -> dict[str, Any]:
        starts = map(study.network.start, study.batches)
        parts = [
            run.outputs(study.graph, run.run(study.graph, start, half)).numpy() for start in starts
        ]
        return study.rate(np.concatenate(parts))

    return study.store.remember("half precision", rate)


def comparison(study: Study) -> Section:
    """Half precision, ENQ, KNQ and CLNQ in accuracy and NB."""
    choices = {scheme: searched(study, scheme)[1] for scheme in _SEARCHED}
    scores = {"half": half_precision(study)} | {s: study.score(c) for s, c in choices.items()}
    nb = {"half": 16 * study.values} | {s: study.nb(choice) for s, choice in choices.items()}
    nnb = {scheme: bits / nb["clnq"] for scheme, bits in nb.items()}
    rows = [
        [label(scheme), score["good"], score["top5"], nb[scheme], kilobytes(nb[scheme]),
         nnb[scheme], footprint.saved_percent(nb[scheme] / study.values)]
        for scheme, score in scores.items()
    ]  # fmt: skip
    table = Table(
        "Smallest widths by layer. NB: bits of all stored activations of one image",
        ["scheme", study.goodness, "top-5, %", "NB, bits", "NB, kB", "NNB", "saved, %"],
        rows, digits=3, note=_CLNQ_NOTE,
    )  # fmt: skip
    lead = (
        f"KNQ stores {nnb['knq']:.2f} times the bits of CLNQ, uniform codes with a width per "
        f"layer, {nb['knq'] / nb['half']:.2f} times those of half precision. The paper: 0.50 on "
        "VGG-16, 0.43 on AlexNet."
    )
    printed = {(net, scheme): value for net, scheme, _, _, value in papers.rows("comparison")}
    bars = [
        Series(scheme, range(3), [printed.get(("vgg16", scheme)), printed.get(("alexnet", scheme)),
                                  nnb[scheme]]) for scheme in nnb
    ]  # fmt: skip
    panel = Panel(
        bars, y_label="NB relative to CLNQ", kind="bars", legend=5, digits=2,
        names=["VGG-16 (paper)", "AlexNet (paper)", "here"],
    )  # fmt: skip
    caption = (
        "Memory for activations, relative to uniform codes with a width per layer (CLNQ)."
    )  # fmt: skip
    return Section(
        lead, [*papers.quoted("comparison"), _printed_nb(), table],
        [Figure(caption, [panel], (7.2, 3.0))],
    )  # fmt: skip


def _printed_nb() -> Table:
    """The arithmetic that gives the NB of 000, table VII."""
    saved = papers.figures()["saved_vgg16_pct"]
    nb = footprint.table_vii(footprint.VGG16_CONV, saved)
    rows = [
        [scheme, saved[scheme], nb[scheme], megabytes, nb[scheme] / nb["clnq"], nnb]
        for net, scheme, _, megabytes, nnb in papers.rows("comparison") if net == "vgg16"
    ]  # fmt: skip
    return Table(
        "NB of VGG-16 computed again: 54 MB of floats times what 001's table VII does not save",
        ["scheme", "saved, %", "computed, MB", "printed, MB", "computed NNB", "printed NNB"],
        rows, BOTH, "How the tables come to their NB is in docs/papers.md.", 3,
    )  # fmt: skip
