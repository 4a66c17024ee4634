# SPDX-License-Identifier: Apache-2.0
"""The command `study`: run the sections, write study.json and report.html.

A section whose results are in study.json, made with the same settings, is not run again.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from formats.build import write_atomic
from formats.errors import UserError
from formats.images import ImageSet
from formats.options import Options
from model_prep.quantize.plan import AUTO
from model_prep.stages import Subject, divide
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
from model_prep.study.context import Study
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


def about(study: Study) -> dict[str, Any]:
    """What the page says at its top."""
    subject, graph, images = study.subject, study.graph, study.subject.images
    facts = {
        "network": f"{subject.spec.name}, {len(graph.layers)} layers, "
        f"{graph.macs / 1e6:,.1f} M multiply-accumulates",
        "weights": subject.loaded.origin,
        "images": f"{study.test.source}: {len(images.calibration)} to calibrate and search, "
        f"{len(study.test)} to test" + (", the same ones" if images.overlap else ""),
        "formats": f"qm {study.qm} bits, weights and biases 14 bits unless a table says otherwise",
        "judged by": "labels" if study.labels else "agreement with the float network, as labels "
        "or trained weights are missing: percentages compare schemes, not accuracies",
        "sources": "; ".join(papers.figures()["sources"].values()),
    }  # fmt: skip
    lead = (
        "The tables and figures of the papers, measured again. Tables on a tinted ground quote a "
        "paper; all others were made on the network, weights and images named here."
    )
    return {"title": f"Quantization study: {subject.spec.name}", "where": study.where,
            "lead": lead, "facts": facts}  # fmt: skip


def with_test_images(subject: Subject, number: int | None) -> tuple[Subject, ImageSet]:
    """(subject, test images): those that do not calibrate with labels, else half of all."""
    images = subject.images
    if images.test.labelled and not images.overlap:
        return subject, images.held_out(number)
    total = len(images.everything)
    images = divide(images.everything, images.given, number or max(1, total // 2))
    loaded = subject.source.load(images.calibration.pixels)
    return replace(subject, images=images, loaded=loaded), images.test


def run(subject: Subject, options: Options) -> None:
    """The command.

    Args:
        subject: the network and its images.
        options: of the command line.

    Raises:
        UserError: images that cannot be divided, or a width of y that is to be searched.
    """
    subject, test = with_test_images(subject, options.images)
    qm = subject.plan.qm
    if qm == AUTO:
        raise UserError("QM must be a number for a study, not auto; leave it out for 12")
    names = chosen(options.sections)
    folder = options.folder / "study"
    mixed = json.dumps([subject.settings_sha256(test), options.quick])
    digest = hashlib.sha256(mixed.encode()).hexdigest()
    store = Store(folder / "study.json", digest, {})
    study = Study(subject, test, store, qm, options.quick)
    store.about = about(study)
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
