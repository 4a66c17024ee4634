# SPDX-License-Identifier: Apache-2.0
"""Sections 1 and 2: what activations look like (000, Fig. 1), and uniform widths (000, table I)."""

from typing import Any

import numpy as np

from formats.arithmetic import lowest
from formats.quantizer import Quantizer
from model_prep.allocate.cache import Choice
from model_prep.study import papers, plots
from model_prep.study.context import Study
from model_prep.study.plots import Figure
from model_prep.study.results import Section, Table

_BINS = 96
_SHOWN = 12  # layers drawn
_CENTROIDS = 4  # bits of the table marked
_WIDTHS = range(14, 3, -1)
_HOPELESS = 40.0  # points lost, beyond which narrower codes are not measured


def histograms(study: Study) -> Section:
    """Shares of activations by value, layer by layer, and the centroids of KNQ."""
    choice = study.choice("knq", _CENTROIDS)
    formats = study.formats(study.plan("knq"), "network")
    rows: list[list[Any]] = []
    drawn, small = [], []
    for name, histogram in formats.counts.items():
        quantizer = choice.quantizers[name]
        first = lowest(study.qm, quantizer.signed)
        y = np.arange(first, first + len(histogram))
        values = y * 2.0 ** -formats.fracs[name]
        total = max(1, int(histogram.sum()))
        zero = float(histogram[y == 0].sum() / total)
        mean = float((values * histogram).sum() / total)
        deviation = float(np.sqrt(((values - mean) ** 2 * histogram).sum() / total))
        largest = float(np.abs(values[histogram > 0]).max(initial=0.0))
        rows.append([name, study.elements[name], 100 * zero, mean, deviation, largest,
                     study.calibration.maxima[name]])  # fmt: skip
        small.append(100 * float(histogram[np.abs(values) < largest / 10].sum()) / total)
        drawn.append(_drawn(name, values, histogram, quantizer))
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
    return Section(lead, [table], {"layers": drawn})


def _drawn(
    name: str, values: np.ndarray, histogram: np.ndarray, quantizer: Quantizer
) -> dict[str, Any]:
    """Percent by bin over the occupied range, zeros left out, and centroids within it."""
    seen = np.flatnonzero(histogram)
    low, high = (values[seen[0]], values[seen[-1]]) if len(seen) else (0.0, 1.0)
    other = np.where(values == 0, 0, histogram)
    shares, edges = np.histogram(
        values, bins=_BINS, range=(min(0.0, low), max(high, low + 1e-9)), weights=other
    )
    table = quantizer.decode_table * 2.0**-quantizer.frac
    return {
        "name": name, "edges": edges, "shares": 100 * shares / max(1, int(histogram.sum())),
        "centroids": table[table <= high],
    }  # fmt: skip


def histogram_figures(data: dict[str, Any]) -> list[Figure]:
    """Small histograms, logarithmic, centroids as ticks below."""
    layers = data["layers"]
    step = max(1, -(-len(layers) // _SHOWN))
    chosen = layers[::step]
    columns = min(4, len(chosen))
    rows = -(-len(chosen) // columns)
    with plots.drawing("histograms", rows, columns, (10.2, 0.5 + 1.9 * rows)) as (axes, done):
        for axis in axes.flat[len(chosen) :]:
            axis.set_visible(False)
        for axis, layer in zip(axes.flat, chosen, strict=False):
            shares = np.array(layer["shares"])
            floor = max(1e-6, float(shares[shares > 0].min(initial=1.0)) / 2)
            axis.stairs(
                np.maximum(shares, floor), layer["edges"], baseline=floor, fill=True,
                color="#9fc3cc",
            )  # fmt: skip
            axis.set_yscale("log")
            axis.set_title(plots.short(layer["name"]), loc="left", fontweight="bold")
            axis.vlines(
                layer["centroids"], 0, 0.09, transform=axis.get_xaxis_transform(),
                color=plots.COLOURS["enq"], linewidth=1.3,
            )  # fmt: skip
            axis.grid(axis="x", visible=False)
        for axis in axes[-1]:
            axis.set_xlabel("activation")
        for axis in axes[:, 0]:
            axis.set_ylabel("% of values")
    some = "" if step == 1 else f" Every {step}th layer is drawn."
    caption = (
        "How often activations other than 0 occur, logarithmic, over the calibration images. "
        "Orange marks below: the centroids of KNQ."
    )
    return [Figure(done[0], caption + some)]


def uniform(study: Study) -> Section:
    """Accuracy of uniform codes by width, F searched for each."""
    rows: list[list[Any]] = []
    for bits in study.pick(_WIDTHS, (12, 6, 4)):
        base = study.uniform_format(bits)
        signed = study.plan("knq").signed
        score = study.score(
            Choice({
                name: Quantizer("uniform", bits, bits, frac, signed=name in signed)
                for name, frac in base.fracs.items()
            })
        )  # fmt: skip
        fracs = sorted(set(base.fracs.values()))
        shown = str(fracs[0]) if len(fracs) == 1 else f"{fracs[0]} to {fracs[-1]}"
        rows.append([bits, shown, score["good"], score["top5"], score["agreement"],
                     score["sqnr_db"]])  # fmt: skip
        if score["good"] < study.exact["good"] - _HOPELESS:
            break
    exact = study.exact
    rows.append(["float", "", exact["good"], exact["top5"], exact["agreement"], None])
    best = rows[0][2]
    lost = [row for row in rows[:-1] if row[2] < best - 1]
    kept = min(row[0] for row in rows[:-1] if not lost or row[0] > lost[0][0])
    lead = (
        f"One step for all layers: down to {kept} bits the loss against {rows[0][0]} bits stays "
        "within one point."
    )
    if lost:
        lead += f" At {lost[0][0]} bits it is {best - lost[0][2]:.1f} points."
    table = Table(
        "Uniform codes, one width for all layers; F found on calibration images",
        ["bits", "F", study.goodness, "top-5, %", "agreement with float, %", "output SQNR, dB"],
        rows,
    )  # fmt: skip
    data = {"bits": [r[0] for r in rows[:-1]], "good": [r[2] for r in rows[:-1]],
            "float": exact["good"], "goodness": study.goodness}  # fmt: skip
    return Section(lead, [papers.uniform_widths(), table], data)


def uniform_figures(data: dict[str, Any]) -> list[Figure]:
    """Accuracy over width, the paper's beside."""
    known = papers.figures()["uniform_vgg16_top5"]
    with plots.drawing("uniform", 1, 2, (9.2, 3.1)) as (axes, done):
        here, there = axes[0]
        plots.line(here, "uniform", data["bits"], data["good"])
        plots.level(here, data["float"], "float")
        here.set_title("here", loc="left")
        here.set_ylabel(data["goodness"])
        plots.line(there, "uniform", [int(bits) for bits in known], list(known.values()))
        there.set_title("paper 000, VGG-16", loc="left")
        there.set_ylabel("top-5, %")
        for axis in axes[0]:
            axis.set_xlabel("bits of an activation")
            axis.xaxis.get_major_locator().set_params(integer=True)
    return [Figure(done[0], "Accuracy of uniform codes by width, here and in the paper.")]
