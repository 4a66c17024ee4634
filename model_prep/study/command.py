# SPDX-License-Identifier: Apache-2.0
"""The command `study`: run the sections, write study.json and report.html.

A section whose results are in study.json, made with the same settings, is not run again.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from formats.build import write_atomic
from formats.errors import UserError
from formats.options import Options
from model_prep.study import (
    activations,
    allocations,
    front,
    layers,
    page,
    papers,
    prediction,
    weights,
)
from model_prep.study.context import Study, Subject
from model_prep.study.plots import Figure
from model_prep.study.results import Section, Store


@dataclass(frozen=True)
class Part:
    """A section: its title, what runs it, what draws its data."""

    title: str
    run: Callable[[Study], Section]
    draw: Callable[[dict[str, Any]], list[Figure]]


PARTS = {
    "histograms": Part(
        "Activations by layer", activations.histograms, activations.histogram_figures
    ),
    "uniform": Part("Uniform widths", activations.uniform, activations.uniform_figures),
    "widths": Part("ENQ and KNQ widths by layer", allocations.widths, allocations.width_figures),
    "bounds": Part("The bound M, floor and nearest", allocations.bounds, allocations.bound_figures),
    "comparison": Part(
        "Half precision, CLNQ, ENQ and KNQ", allocations.comparison, allocations.comparison_figures
    ),
    "sqnr": Part(
        "SQNR predicted and measured", prediction.prediction, prediction.prediction_figures
    ),
    "sizes": Part("Model size against error", weights.sizes, weights.size_figures),
    "sensitivity": Part(
        "Sensitivity of layers, techniques", layers.sensitivity, layers.sensitivity_figures
    ),
    "schemes": Part("Accuracy against NB", front.schemes, front.scheme_figures),
    "front": Part("The Pareto front", front.front, front.front_figures),
}


def chosen(names: Sequence[str]) -> list[str]:
    """The sections of SECTIONS in their order; none is all.

    >>> chosen(("front", "uniform"))
    ['uniform', 'front']
    """
    unknown = sorted(set(names) - PARTS.keys())
    if unknown:
        raise UserError(f"SECTIONS must be of {', '.join(PARTS)}, not {unknown[0]!r}")
    return [name for name in PARTS if name in (names or PARTS)]


def about(subject: Subject, study_where: str, qm: int) -> dict[str, Any]:
    """What the page says at its top."""
    facts = {
        "network": f"{subject.spec.name}, {len(subject.graph.layers)} layers, "
        f"{subject.graph.macs / 1e6:,.1f} M multiply-accumulates",
        "weights": subject.origin,
        "images": f"{subject.test.source}: {len(subject.calibration)} to calibrate and search, "
        f"{len(subject.test)} to test" + (", the same ones" if subject.overlap else ""),
        "formats": f"qm {qm} bits, weights and biases 14 bits unless a table says otherwise",
        "judged by": "labels" if subject.labels else "agreement with the float network, as labels "
        "or trained weights are missing: percentages compare schemes, not accuracies",
        "sources": "; ".join(papers.figures()["sources"].values()),
    }  # fmt: skip
    lead = (
        "The tables and figures of the papers, measured again. Tables on a tinted ground quote a "
        "paper; all others were made on the network, weights and images named here."
    )
    return {"title": f"Quantization study: {subject.spec.name}", "where": study_where,
            "lead": lead, "facts": facts}  # fmt: skip


def run(subject: Subject, settings: str, qm: int, options: Options) -> None:
    """The command.

    Args:
        subject: the network and its images.
        settings: hash of the network, the images and the program.
        qm: width of a decoded activation.
        options: of the command line.
    """
    names = chosen(options.sections)
    folder = options.folder / "study"
    mixed = json.dumps([settings, qm, options.delta, options.quick])
    digest = hashlib.sha256(mixed.encode()).hexdigest()
    store = Store(folder / "study.json", digest, {})
    study = Study(subject, store, qm, options.delta, options.quick)
    store.about = about(subject, study.where, qm)
    open_ = [name for name in names if name not in store.sections]
    for name in names:
        if name not in open_:
            print(f"{name:<12} up to date")
    with tqdm(open_, desc="study", unit="section", disable=None) as bar:
        for name in bar:
            bar.set_postfix_str(name)
            start = time.perf_counter()
            section = PARTS[name].run(study)
            seconds = time.perf_counter() - start
            store.keep(name, PARTS[name].title, section, seconds)
            tqdm.write(f"{name:<12} {seconds:8.1f} s")
    store.save()
    write_page(folder / "report.html", store.about, store.sections)
    print(f"written: {folder / 'report.html'}, {folder / 'study.json'}")


def write_page(
    path: Path, facts: Mapping[str, Any], sections: Mapping[str, Mapping[str, Any]]
) -> None:
    """Draw the figures and write the page."""
    ordered = {name: sections[name] for name in PARTS if name in sections}
    figures: dict[str, Sequence[Figure]] = {
        name: PARTS[name].draw(dict(entry["data"])) for name, entry in ordered.items()
    }
    write_atomic(path, page.render(facts, ordered, figures))
