# SPDX-License-Identifier: Apache-2.0
"""Sections 9 and 10: accuracy against NB for every scheme with intervals, and the Pareto front.

Differences are paired, image by image, as the same images are hard for every network. Refined
networks have the same widths, weights and tables moved; refinement sees the calibration images
without their labels.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
from tqdm import tqdm

from nuq.formats.images import percent_correct
from nuq.formats.quantizer import Quantizer
from nuq.model_prep.allocate import budget
from nuq.model_prep.allocate.cache import Choice
from nuq.model_prep.allocate.measure import measuring
from nuq.model_prep.footprint import average_bits
from nuq.model_prep.graph import Graph
from nuq.model_prep.quantize.fake_quant import FakeQuantized
from nuq.model_prep.quantize.plan import TECHNIQUES, Plan
from nuq.model_prep.quantize.refine import pipeline
from nuq.model_prep.quantize.sharing import share
from nuq.model_prep.stats import compare, divergences
from nuq.model_prep.study.activations import half_precision, searched
from nuq.model_prep.study.context import Study, kilobytes
from nuq.model_prep.study.plots import Figure, Panel, Series, label
from nuq.model_prep.study.results import Section, Table

SCHEMES = ("knq", "enq", "uniform")
NAMES = {
    "knq": "KNQ, refined",
    "enq": "ENQ, rounded, refined",
    "uniform": "uniform, refined",
    "best": "KNQ, refined, widths by expected loss",
}
_OPTIONS = {"knq": {"rule": "nearest"}, "enq": {"variant": "round"}}  # ENQ rounds, as the others do
_REFINED_WIDTHS = (3.0, 4.0)
_AVERAGES = (3.0, 3.25, 4.0)  # bits of an activation where every layer has a width of its own
_WIDTHS = (3, 4, 5, 6)
_POINTS = 9
_IMAGES = 24  # the front is searched on
_FIT_BITS = 4  # width that F of the front is chosen for
_FRONT_SCORES = ("good", "agreement", "sqnr_db")


def equal_widths(study: Study, scheme: str, bits: float) -> Plan:
    """One width for all layers, refined by all techniques."""
    own = {"scheme": scheme, "bits": int(bits), "options": _OPTIONS.get(scheme, {})}
    plan = study.subject.plan.each(lambda one: own if one.scheme else {})
    return share(study.graph, replace(plan, refine=TECHNIQUES))


def _measured(study: Study) -> pipeline.Measured:
    """Channel scales and weighted histograms, the same for all schemes and widths."""
    plan, pixels = equal_widths(study, "knq", 3), study.calibration.pixels
    measure = partial(pipeline.measure, study.graph, plan, study.qm, pixels, study.to_float)
    return study.once(("measured",), measure)


def allocated(study: Study, scheme: str, bits: float) -> Plan:
    """A scheme at `bits` bits on average, widths by expected loss, without labels."""
    plan = equal_widths(study, scheme, bits)
    losses = budget.expected_losses(plan, _measured(study))
    return budget.for_average(plan, study.graph, losses, bits)


def score(study: Study, plan: Plan) -> dict[str, Any]:
    """Of the refined network: see `rate`."""
    pixels, source = study.calibration.pixels, study.subject.input
    done = pipeline.refine(_measured(study), plan, source, pixels, study.to_float)
    return rate(study, plan, done.graph, done.quantizers)


def rate(
    study: Study, plan: Plan, graph: Graph, quantizers: Mapping[str, Quantizer]
) -> dict[str, Any]:
    """NB, accuracy in percent, comparison with float (`stats.compare`), and `Study.rate`."""
    choice = Choice(quantizers)
    outputs = study.outputs(choice, FakeQuantized(graph, study.subject.input, plan.layers))
    exact, labels = study.float_logits, study.test.labels
    return {
        "nb": study.nb(choice), "average_bits": average_bits(graph, plan),
        "percent1": percent_correct(outputs, labels),
        "percent5": percent_correct(outputs, labels, 5),
        "divergence": float(divergences(exact, outputs).mean()), "rate": study.rate(outputs),
        **compare(exact, outputs, labels),
    }  # fmt: skip


def refined(study: Study) -> dict[tuple[str, float], dict[str, Any]]:
    """Scores with NB, by (scheme, bits) and, for widths by expected loss, ("best", bits)."""
    keys = [(scheme, bits) for scheme in study.pick(SCHEMES, ()) for bits in _REFINED_WIDTHS]
    keys += [("best", bits) for bits in study.pick(_AVERAGES, _AVERAGES[:1])]

    def measure(scheme: str, bits: float) -> dict[str, Any]:
        best = scheme == "best"
        plan = allocated(study, "knq", bits) if best else equal_widths(study, scheme, bits)
        scores = score(study, plan)
        return {"nb": scores["nb"], **scores["rate"]}

    return {
        key: study.store.remember(f"refined {key[0]} {key[1]:g}", partial(measure, *key))
        for key in tqdm(keys, desc="refinement", unit="network", disable=None, leave=False)
    }


HEADER = (
    f"{'scheme':<8}{'bits':>5}  {'kind':<10}{'NB/n':>7}{'top-1':>8}{'top-5':>8}{'d top-1':>9}"
    f"{'d top-5':>9}  {'95% interval':<16}{'agree':>7}{'KL':>9}"
)


def line(row: Mapping[str, Any]) -> str:
    """A row as text: percentages, points against float, agreement in percent, divergence (nats)."""
    one, five = row["top1"], row.get("top5")
    interval = "" if five is None else f"{five['low']:+.2f}..{five['high']:+.2f}"
    change = "-" if five is None else f"{five['difference']:+.2f}"
    return (
        f"{row['scheme']:<8}{row['asked']:>5g}  {row['kind']:<10}{row['average_bits']:>7.3f}"
        f"{row['percent1']:>8.2f}{row['percent5']:>8.2f}{one['difference']:>+9.2f}{change:>9}"
        f"  {interval:<16}{row['agreement1']['percent']:>7.2f}{row['divergence']:>9.4f}"
    )


def rows(
    study: Study, schemes: Sequence[str], averages: Sequence[float], distilled: bool
) -> Iterator[dict[str, Any]]:
    """One row a scheme, average width and kind: plain, allocated, refined.

    "plain" has one width for all layers and the scheme's own fit to plain histograms, F per layer;
    "allocated" spends the same NB by expected loss, with the techniques that need no learning;
    "refined" adds distillation.

    Args:
        study: the network and its images.
        schemes: names of quantizers.
        averages: stored bits an activation; one that is no integer has no plain row.
        distilled: whether there are rows with distillation.
    """
    kinds = {"allocated": TECHNIQUES[:-1], **({"refined": TECHNIQUES} if distilled else {})}
    for scheme in schemes:
        for average in averages:
            start = {"scheme": scheme, "asked": average}
            if average == int(average):
                plan = equal_widths(study, scheme, average)
                formats = study.calibration.formats(study.qm, study.fitting)
                plain = rate(study, plan, study.graph, formats.fit(plan))
                yield {**start, "kind": "plain", **plain}
            for kind, techniques in kinds.items():
                plan = replace(allocated(study, scheme, average), refine=techniques)
                yield {**start, "kind": kind, **score(study, plan)}


def at_widths(study: Study) -> dict[tuple[str, int], Choice]:
    """Every scheme at every width, with the bound of least error."""
    widths = study.pick(_WIDTHS, (3, 5))
    return {
        (scheme, bits): study.choice(scheme, bits, "error") for scheme in SCHEMES for bits in widths
    }


def _row(study: Study, name: str, width: float, score: Mapping[str, Any], nb: int) -> list[Any]:
    """Scores and paired differences from float; of top-5 None where it means nothing."""
    differences: list[float | None] = []
    for which in ("right", "right5"):
        change = score[which] and study.paired(study.exact, score, which)
        differences += [change.difference, change.low, change.high] if change else [None] * 3
    return [name, width, kilobytes(nb), *study.cells(score), *differences]


def schemes(study: Study) -> Section:
    """Schemes at equal widths, with paired intervals."""
    choices = at_widths(study)
    scores = {key: study.score(choice) for key, choice in choices.items()}
    plain: dict[str, list[list[Any]]] = {}
    moved: dict[str, list[list[Any]]] = {}
    for (scheme, bits), score in scores.items():
        row = _row(study, label(scheme), float(bits), score, study.nb(choices[scheme, bits]))
        plain.setdefault(scheme, []).append(row)
    for (scheme, width), score in refined(study).items():
        row = _row(study, NAMES[scheme], width, score, score["nb"])
        moved.setdefault(scheme, []).append(row)
    rows = sum([*plain.values(), *moved.values()], [])
    against: list[list[Any]] = []
    for bits in (bits for scheme, bits in scores if scheme == "knq"):
        for other in ("enq", "uniform"):
            gain = study.paired(scores[other, bits], scores["knq", bits])
            against.append([bits, f"KNQ less {label(other)}", gain.difference, gain.low, gain.high,
                            gain.p_value])  # fmt: skip
    ends = ["95% interval, from", "to"]
    tables = [
        Table("Every layer at one width, bound of least error, and refined; difference in points",
              ["scheme", "bits", "NB, kB", *study.headings(), "difference", *ends,
               "top-5 difference", *ends], rows,
              note="Differences are from float, with bootstrap intervals of paired differences. "
              "'Refined' moves weights and tables towards float's outputs on unlabelled "
              "calibration images; widths, tables' sizes and hardware stay. ENQ is the papers' "
              "floor except where it says 'rounded'."),
        Table("KNQ against the others at equal NB, points",
              ["bits", "difference of", "points", *ends, "p (McNemar)"], against, digits=3),
    ]  # fmt: skip
    least = against[0][0]
    best = max((row for row in rows if row[1] == least), key=lambda row: row[3])
    lead = (
        f"At {least} bits KNQ is {against[0][2]:+.1f} points against ENQ and {against[1][2]:+.1f} "
        f"against uniform codes of F by layer. The best at {least} bits is {best[0]}, "
        f"{best[7]:+.1f} points from float ({best[8]:+.1f} to {best[9]:+.1f}). No label is used "
        "to make any of these networks."
    )
    return Section(lead, tables, [_scheme_figure(study, plain, moved)])


def _scheme_figure(
    study: Study, plain: Mapping[str, list[list[Any]]], moved: Mapping[str, list[list[Any]]]
) -> Figure:
    """Difference from float over NB, with intervals."""
    series = []
    for number, (key, rows) in enumerate(plain.items()):
        nb, middle, low, high = (np.array([row[i] for row in rows]) for i in (2, 7, 8, 9))
        shift = 1 + 0.012 * (number - 1)  # so that intervals lie beside each other
        series.append(Series(key, shift * nb, middle, ends=(low, high)))
    for key, rows in moved.items():
        own, name = ("refined", "KNQ, refined, own widths") if key == "best" else (key, NAMES[key])
        nb, middle = (np.array([row[i] for row in rows]) for i in (2, 7))
        series.append(Series(own, nb, middle, name, "stars"))
    panel = Panel(series, x_label="NB, kB an image", y_label=f"{study.judge}, points from float",
                  level=0.0, legend=1)  # fmt: skip
    caption = (
        "Loss against float by memory for activations, with 95% intervals of the paired "
        "difference; stars are refined networks."
    )
    return Figure(caption, [panel], (7.2, 3.6))


def front_points(study: Study) -> list[dict[str, Any]]:
    """The label-free front of KNQ: widths per layer for output SQNR, by rising NB."""
    problem = study.problem("knq", _FIT_BITS)

    def search() -> list[dict[str, Any]]:
        (number,) = study.pick((_POINTS,), (4,))
        with measuring(problem, study.few(_IMAGES), "sqnr", floats=False) as measure:
            points = budget.front(problem, measure, points=number, swaps=2)
        return [asdict(point) for point in points]

    return study.store.remember(f"front {study.quick}", search)


def _candidates(study: Study) -> list[tuple[str, str, Mapping[str, Any], int]]:
    """(scheme, what, score, NB) of all points."""
    problem = study.problem("knq", _FIT_BITS)
    front = (problem.choice(tuple(point["widths"])) for point in front_points(study))
    choices = [("budget", label("budget"), choice) for choice in front]
    choices += [
        (scheme, f"{label(scheme)}, {bits} bits", choice)
        for (scheme, bits), choice in at_widths(study).items()
    ]
    choices += [
        (scheme, f"{label(scheme)}, smallest widths", searched(study, scheme)[1])
        for scheme in (*SCHEMES, "clnq")
    ]
    return [
        *((key, what, study.score(choice), study.nb(choice)) for key, what, choice in choices),
        *(("refined", f"{NAMES[scheme]}, {width:g} bits", score, score["nb"])
          for (scheme, width), score in refined(study).items()),
        ("half", label("half"), half_precision(study), 16 * study.values),
    ]  # fmt: skip


def front(study: Study) -> Section:
    """All measured points, and those that no other beats."""
    points = _candidates(study)
    nb = np.array([kilobytes(bits) for *_, bits in points])
    good = np.array([score["good"] for _, _, score, _ in points])
    sqnr = np.array([score["sqnr_db"] for _, _, score, _ in points], np.float64)
    best = budget.undominated(nb, -good)
    clean = budget.undominated(nb, -np.nan_to_num(sqnr, nan=1e9))
    rows = [
        [what, nb[index], bits / study.values, *study.cells(score, _FRONT_SCORES), index in best,
         index in clean]
        for index, (_, what, score, bits) in enumerate(points)
    ]  # fmt: skip
    rows.sort(key=lambda row: row[1])
    table = Table(
        "All points measured on the test images",
        ["codes", "NB, kB", "bits on average", *study.headings(_FRONT_SCORES), "on the front",
         "on the front of SQNR"], rows,
    )  # fmt: skip
    lead = (
        f"{len(best)} of {len(points)} points are beaten by no other in NB and {study.judge}; "
        f"from the smallest: {', '.join(points[index][1] for index in best[:4])}."
    )
    panels = []
    for values, title in ((good, study.goodness), (sqnr, "output SQNR, dB")):
        there = np.flatnonzero(~np.isnan(values))
        corners = there[budget.undominated(nb[there], -values[there])]
        series = [Series("best", nb[corners], values[corners], kind="front")]
        for key in dict.fromkeys(points[index][0] for index in there):
            own = [index for index in there if points[index][0] == key]
            series.append(Series(key, nb[own], values[own], kind="points"))
        panels.append(
            Panel(series, x_label="NB, kB an image (logarithmic)", y_label=title, logarithmic="x",
                  level=study.exact["good"] if values is good else None,
                  legend=int(values is sqnr))
        )  # fmt: skip
    caption = (
        "Every measured point; the line joins those that no other beats in both memory and quality."
    )
    return Section(lead, [table], [Figure(caption, panels, (10.2, 3.8))])
