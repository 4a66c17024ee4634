# SPDX-License-Identifier: Apache-2.0
"""The commands of the study (formats.commands): each a function of the options.

A section whose results are in study.json, made with the same settings, is not run again.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from markupsafe import Markup
from tqdm import tqdm

from nuq.codegen.emit import page
from nuq.formats.build import digest, write_atomic
from nuq.formats.errors import UserError, meant
from nuq.formats.images import ImageSet
from nuq.formats.options import Options
from nuq.model_prep.commands import one_output, subject_of
from nuq.model_prep.graph import Graph
from nuq.model_prep.quantize.plan import AUTO
from nuq.model_prep.source import Source
from nuq.model_prep.stages import Subject, divide
from nuq.model_prep.study import (
    activations,
    compression,
    distributions,
    front,
    head,
    layers,
    order,
    papers,
    plane_widths,
    plots,
    techniques,
    vgg16,
    weights,
)
from nuq.model_prep.study.context import Study
from nuq.model_prep.study.results import BOTH, PAPER, Section, Store

SECTIONS: dict[str, tuple[str, Callable[[Study], Section]]] = {
    "histograms": ("Activations by layer", activations.histograms),
    "distributions": ("Weights, and activations before ReLU", distributions.distributions),
    "uniform": ("Uniform widths", activations.uniform),
    "widths": ("ENQ and KNQ widths by layer", activations.widths),
    "bounds": ("The bound M, floor and nearest", activations.bounds),
    "comparison": ("Half precision, CLNQ, ENQ and KNQ", activations.comparison),
    "vgg16": ("VGG-16's published convolutions", vgg16.vgg16),
    "order": ("The papers' order of schemes", order.order),
    "sqnr": ("SQNR predicted and measured", weights.prediction),
    "sizes": ("Model size against error", weights.sizes),
    "sensitivity": ("Sensitivity of layers, techniques", layers.sensitivity),
    "techniques": ("A technique for each layer", techniques.techniques),
    "compression": ("Zero-data compression", compression.compression),
    "schemes": ("Accuracy against NB", front.schemes),
    "front": ("The Pareto front", front.front),
}
# What a network must have for a section, and what says whether it does; all others take any.
NEEDS: dict[str, tuple[str, Callable[[Graph], bool]]] = {"vgg16": (vgg16.NEEDS, vgg16.is_vgg16)}
_ORIGIN = {PAPER: "Paper", BOTH: "Paper and here"}


def study(options: Options) -> None:
    """The papers' tables on this network; OUT/study/report.html."""
    names = chosen(options.sections)  # before images and weights are loaded
    folder = options.folder / "study"

    def headed(source: Source) -> Source:
        return head.with_head(source, options.head, folder) if options.head else source

    subject, test = with_test_images(subject_of(options, 1, headed), options.images)
    names = fitting(names, subject.loaded.graph, options.sections)
    qm = subject.plan.qm
    if qm == AUTO:
        raise UserError("QM must be a number for a study, not auto; leave it out for 12")
    settings = digest([subject.settings_sha256(test), options.quick])
    store = Store(folder / "study.json", settings)
    print(subject.images.calibration_text)
    context = Study(subject, test, store, qm, options.quick)
    store.about = about(context)
    missing = [name for name in names if name not in store.sections]
    for name in names:
        if name not in missing:
            print(f"{name:<12} up to date")
    with tqdm(missing, desc="study", unit="section", disable=None) as bar:
        for name in bar:
            bar.set_postfix_str(name)
            start = time.perf_counter()
            title, run = SECTIONS[name]
            section = run(context)
            seconds = time.perf_counter() - start
            store.keep(name, title, section, seconds)
            tqdm.write(f"{name:<12} {seconds:8.1f} s")
    store.save()
    write_atomic(folder / "report.html", render(store.about, store.sections))
    print(f"written: {folder / 'report.html'}, {folder / 'study.json'}")


def refinement(options: Options) -> None:
    """Every scheme at several average widths, plain and refined; OUT/refine_table.json."""
    distilled = options.distil_steps != 0  # 0 leaves rows out; a plan has no such number
    subject = subject_of(replace(options, distil_steps=options.distil_steps or None), 1)
    one_output(subject.source)
    test, qm = subject.images.held_out(options.images), subject.plan.qm
    if qm == AUTO:
        raise UserError("QM must be a number for this table, not auto; set QM")
    context = Study(subject, test, Store(options.folder / "study" / "study.json", ""), qm)
    done = []
    print(subject.images.calibration_text)
    print(front.HEADER)
    for row in front.rows(context, options.schemes, options.average, distilled):
        done.append({key: value for key, value in row.items() if key != "rate"})
        print(front.line(row), flush=True)
    path = options.folder / "refine_table.json"
    write_atomic(path, json.dumps(done, indent=2) + "\n")
    print(f"written: {path}")


def planes(options: Options) -> None:
    """A width for each plane of 8 channels against one for each layer; OUT/planes_SEED.json."""
    plane_widths.measure(options)


def chosen(names: Sequence[str]) -> list[str]:
    """The sections of SECTIONS in their order; none is all.

    >>> chosen(("front", "uniform"))
    ['uniform', 'front']
    """
    unknown = sorted(set(names) - SECTIONS.keys())
    if unknown:
        near = meant(unknown[0], SECTIONS)
        raise UserError(f"SECTIONS must be of {', '.join(SECTIONS)}, not {unknown[0]!r}{near}")
    return [name for name in SECTIONS if name in (names or SECTIONS)]


def fitting(names: Sequence[str], graph: Graph, asked: Sequence[str]) -> list[str]:
    """The sections that the network has what they need for; says which are left out.

    Raises:
        UserError: one of `asked` is among those.
    """
    for name, (needs, holds) in NEEDS.items():
        if name in names and not holds(graph):
            if name in asked:
                raise UserError(
                    f"SECTIONS={name} must go with {needs}, not with {graph.name}; give a network "
                    "that has them, as NET=vgg16_conv.onnx"
                )
            print(f"{name:<12} left out: it needs {needs}")
            names = [other for other in names if other != name]
    return list(names)


def with_test_images(subject: Subject, number: int | None) -> tuple[Subject, ImageSet]:
    """(subject, test images): those that do not calibrate with labels, else half of all."""
    images = subject.images
    if images.test.labelled and not images.overlap:
        return subject, images.held_out(number)
    total = len(images.everything)
    apart = images.given or not images.everything.labelled  # what is tested on is not calibrated on
    images = divide(images.everything, apart, number or max(1, total // 2))
    loaded = subject.source.load(images.calibration.pixels)
    return replace(subject, images=images, loaded=loaded), images.test


def about(context: Study) -> dict[str, Any]:
    """What the page says at its top."""
    subject, graph, images = context.subject, context.graph, context.subject.images
    name = subject.spec.name
    facts = {
        "network": f"{name}, {len(graph.layers)} layers, {graph.macs / 1e6:,.1f} M "
        "multiply-accumulates",
        "weights": subject.loaded.origin,
        "images": f"{context.test.source}: {len(images.calibration)} to calibrate and search, "
        f"{len(context.test)} to test" + (", the same ones" if images.overlap else ""),
        "formats": f"qm {context.qm} bits, weights and biases 14 bits unless a table says "
        "otherwise",
        "judged by": "labels" if context.labels else "agreement with the float network, as labels "
        "or trained weights are missing: percentages compare schemes, not accuracies",
        "sources": "; ".join(papers.figures()["sources"].values()),
    }  # fmt: skip
    lead = (
        "The tables and figures of the papers, measured again. Tables on a tinted ground quote a "
        "paper; all others were made on the network, weights and images named here."
    )
    return {"title": f"Quantization study: {name}", "where": context.where, "lead": lead,
            "facts": facts}  # fmt: skip


def render(about: Mapping[str, Any], sections: Mapping[str, Mapping[str, Any]]) -> str:
    """report.html from what study.json keeps.

    Args:
        about: title, lead, where (network, weights, images) and facts, name to text.
        sections: by key.
    """
    parts = []
    for key in (key for key in SECTIONS if key in sections):
        entry = sections[key]
        figures = [plots.draw(f"{key}{n}", one) for n, one in enumerate(entry["figures"])]
        tables = [_table(table, about["where"]) for table in entry["tables"]]
        parts.append(page.Section(entry["title"], (entry["lead"], *figures, *tables)))
    return page.render(
        page.Page(about["title"], about["lead"], parts, facts=about["facts"], contents=True)
    )


def _table(table: Mapping[str, Any], where: str) -> page.Table:
    """One table with its origin; columns without a figure are left out."""
    origin = table["origin"]
    kept = [column for column in zip(table["columns"], *table["rows"], strict=True)
            if any(cell is not None for cell in column[1:])]  # fmt: skip
    columns, *rows = zip(*kept, strict=True)
    caption = Markup("<b>{}.</b> {}").format(_ORIGIN.get(origin, "Here"), table["caption"])
    if origin != PAPER:
        caption += Markup(" [{}]").format(where)
    return page.Table(columns, rows, caption, table["note"], table["digits"], origin)
