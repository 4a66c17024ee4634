# SPDX-License-Identifier: Apache-2.0
"""The command `planes`: a width and a table for each plane of 8 channels, against one a layer.

At equal bits of stored values and tables together, with and without distillation, on test images
that nothing was calibrated on. A run has one SEED, of the classes that sensitivity draws and of
distillation's crops and order; the runs that OUT holds are summed up together.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nuq.formats.build import write_atomic
from nuq.formats.errors import UserError
from nuq.formats.images import ImageSet
from nuq.formats.options import Options
from nuq.model_prep.commands import one_output, subject_of
from nuq.model_prep.graph import Graph
from nuq.model_prep.quantize.calibrate import batches
from nuq.model_prep.quantize.plan import AUTO, TECHNIQUES, Plan
from nuq.model_prep.quantize.refine import pipeline
from nuq.model_prep.quantize.refine.distil import Recipe, distil
from nuq.model_prep.stages import Subject
from nuq.model_prep.stats import compare, divergences, mean_interval, paired
from nuq.model_prep.study import tables
from nuq.model_prep.study.context import check_rectified
from nuq.model_prep.study.group_student import GroupStudent
from nuq.model_prep.study.tables import Tabled

KINDS = {
    "layers": "width and table a layer, one of each for a concatenation's parts",
    "parts": "width and table a layer, also for each part",
    "planes": "width and table a plane",
    "merged": "the same widths, a table for the planes of a layer with one width",
    "shared": "width a plane, tables of the whole layer for each width",
}
_MEASURED = 16  # images of a batch of the gradients


class Experiment:
    """A network whose channels are measured, and the float answers on the test images."""

    def __init__(self, subject: Subject, test: ImageSet) -> None:
        """Measure; UserError where planes would not be a layer's own."""
        check_rectified(subject.graph)
        plan = replace(subject.plan, refine=TECHNIQUES)
        for layer in plan.layers:
            if layer.scheme not in (None, "knq") or not layer.counted:
                raise UserError(
                    f"layer {layer.name} must have the scheme knq and stored values of its own to "
                    "be divided into planes; choose another NET, or SCHEME=knq"
                )
        self.subject, self.test, self.plan = subject, test, plan
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.qm, self.pixels = int(plan.qm), subject.images.calibration.pixels
        self.measured = pipeline.measure(
            subject.graph, plan, self.qm, self.pixels, subject.to_float
        )
        exact = self.measured.exact
        inputs = (subject.to_float(batch) for batch in _split(self.pixels, _MEASURED))
        self.channels = tables.channel_histograms(exact, inputs, plan, self.qm, self.measured.fracs)
        self.float_logits = self.logits(self.student(exact, None))

    def student(self, graph: Graph, tabled: Tabled | None) -> GroupStudent:
        """The network on the device."""
        return GroupStudent(graph, self.subject.input, self.plan.layers, tabled, self.device)

    def logits(self, student: GroupStudent) -> np.ndarray:
        """Outputs for the test images, float32 [N, classes]."""
        done = []
        with torch.no_grad():
            for batch in batches(self.test.pixels):
                floats = student.tables is None
                x = self.to_float(batch) if floats else student.inputs(batch)
                done.append(student(x.contiguous(memory_format=torch.channels_last)).cpu().numpy())
        return np.concatenate(done)

    def to_float(self, pixels: np.ndarray) -> torch.Tensor:
        """Network inputs on the device."""
        return self.subject.to_float(pixels).to(self.device)

    def widths(self, average: float) -> dict[str, Tabled]:
        """The kinds at as many bits as one width a layer takes at this average."""
        fracs = self.measured.fracs
        layers = tables.by_layers(self.plan, self.measured, self.channels, average)
        groups = tables.in_planes(self.channels, fracs, self.qm)
        total = layers.nb + layers.table_bits
        planes = tables.own_tables(groups, fracs, self.qm, total)
        return {
            "layers": layers,
            "parts": tables.own_tables(tables.in_layers(self.channels), fracs, self.qm, total),
            "planes": planes, "merged": tables.merged(planes, fracs, self.qm),
            "shared": tables.layer_tables(groups, layers, fracs, self.qm, total),
        }  # fmt: skip

    def learned(self, tabled: Tabled, steps: int) -> tuple[Graph, Tabled]:
        """The network with weights in their stored format, and its tables."""
        graph = self.measured.exact
        if steps:
            student = self.student(graph, tabled)
            # The few images that would be left out decide by chance whether what was learned is
            # kept, and so which kind is better: every image is learned from.
            recipe = Recipe(steps=steps, seed=self.plan.seed, held_out=0)
            distil(student, self.pixels, self.to_float, recipe)
            graph, tabled = student.trained(), student.tabled(tabled)
        return _stored(graph, self.plan), tabled

    def rows(self, averages: Sequence[float], steps: Sequence[int]) -> Iterator[dict[str, Any]]:
        """A row a kind, average and number of steps, the widths by layer of each first."""
        for average in averages:
            kinds = self.widths(average)
            for number in steps:
                for kind, tabled in kinds.items():
                    start = time.perf_counter()
                    graph, learned = self.learned(tabled, number)
                    logits = self.logits(self.student(graph, learned))
                    yield {
                        "seed": self.plan.seed, "kind": kind, "average": average, "steps": number,
                        "nb": tabled.nb, "table_bits": tabled.table_bits,
                        "elements": tabled.elements_by_width(), **self.answers(logits),
                        "seconds": time.perf_counter() - start,
                    }  # fmt: skip

    def answers(self, logits: np.ndarray) -> dict[str, Any]:
        """What `summary` needs of outputs, image by image."""
        labels = self.test.labels
        order = np.argsort(-logits, axis=1, kind="stable")[:, :5]
        found = compare(self.float_logits, logits, labels)
        done: dict[str, Any] = {
            "divergence": divergences(self.float_logits, logits).tolist(),
            "right1": (order[:, 0] == labels).tolist(),
            "agreement": found["agreement1"]["percent"], "top1": found["top1"]["difference"],
        }  # fmt: skip
        if "top5" in found:  # of more than ten classes
            done["right5"] = (order == labels[:, None]).any(axis=1).tolist()
            done["top5"] = found["top5"]["difference"]
        return done


def _split(pixels: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for first in range(0, len(pixels), size):
        yield pixels[first : first + size]


def _stored(graph: Graph, plan: Plan) -> Graph:
    """The graph with the values that its weights have as they are stored."""
    layers = []
    for layer, own in zip(graph.layers, plan.layers, strict=True):
        if layer.has_weights:
            stored = own.fit_weights(layer.weight)
            bias, frac = stored.fixed_bias(layer.bias, own.bias_bits)
            layer = replace(
                layer, weight=stored.values.astype(np.float32),
                bias=stored.scaled(bias * 2.0**-frac).astype(np.float32),
            )  # fmt: skip
        layers.append(layer)
    return Graph(graph.name, graph.in_shape, layers, dict(graph.concats), graph.heads)


def measure(options: Options) -> None:
    """Run one SEED; OUT/planes_SEED.json, and what all of OUT's come to."""
    # 0 leaves distillation out; a plan has no such number
    subject = subject_of(replace(options, distil_steps=options.distil_steps or None), 1)
    one_output(subject.source)
    test = subject.images.held_out(options.images)
    if subject.plan.qm == AUTO:
        raise UserError("QM must be a number to divide layers into planes, not auto; set QM")
    steps = subject.plan.distil_steps if options.distil_steps is None else options.distil_steps
    experiment = Experiment(subject, test)
    path = options.folder / f"planes_{subject.plan.seed}.json"
    done: list[dict[str, Any]] = []
    print(f"{len(test)} test images, on {experiment.device}")
    for row in experiment.rows(options.average, sorted({0, steps})):
        done.append(row)
        print(line(row), flush=True)
        write_atomic(path, json.dumps(done) + "\n")
    show(options.folder)


def line(row: Mapping[str, Any]) -> str:
    """A row as text."""
    names = {"top-1": "top1", "top-5": "top5"}
    tops = ", ".join(f"{name} {row[key]:+.2f}" for name, key in names.items() if key in row)
    return (
        f"{row['average']:g} bits, {row['steps']} steps, seed {row['seed']}, {row['kind']:<7} "
        f"KL {np.mean(row['divergence']):.4f}, agreement {row['agreement']:.1f}, "
        f"{tops}, "
        f"{(row['nb'] + row['table_bits']) / 1e6:.3f} Mbit ({row['table_bits'] / 1e3:.1f} kbit of "
        f"tables), {row['seconds']:.1f} s"
    )


def show(folder: Path) -> None:
    """Print medians over the seeds of a folder, and differences from widths by layer."""
    rows = [
        row for path in sorted(folder.glob("planes_*.json")) for row in json.loads(path.read_text())
    ]
    keys = sorted({(row["average"], row["steps"]) for row in rows})
    for average, steps in keys:
        own = [row for row in rows if (row["average"], row["steps"]) == (average, steps)]
        seeds = sorted({row["seed"] for row in own})
        print(f"{average:g} bits, {steps} steps, seeds {', '.join(map(str, seeds))}")
        for kind in KINDS:
            these = [row for row in own if row["kind"] == kind]
            if these:
                print(f"  {summary(these, [row for row in own if row['kind'] == 'layers'])}")


def summary(rows: Sequence[Mapping[str, Any]], layers: Sequence[Mapping[str, Any]]) -> str:
    """Median (least to most) over the seeds; differences are those of all seeds' means."""
    means = [float(np.mean(row["divergence"])) for row in rows]
    text = f"{rows[0]['kind']:<7} KL {_spread(means, '.4f')}"
    for key in [key for key in ("agreement", "top1", "top5") if key in rows[0]]:
        text += f"  {key} {_spread([row[key] for row in rows], '.2f')}"
    partners = [one for row in rows for one in layers if one["seed"] == row["seed"]]
    if rows[0]["kind"] == "layers" or len(partners) != len(rows):
        return text
    ratio = np.median(means) / np.median([np.mean(one["divergence"]) for one in partners])
    change = np.mean(
        [np.subtract(row["divergence"], one["divergence"])
         for row, one in zip(rows, partners, strict=True)], axis=0,
    )  # fmt: skip
    found = mean_interval(change)
    text += f"\n          of layers {ratio:.3f}, KL {_interval(found, 'mean', '.4f')}"
    for key in [key for key in ("right1", "right5") if key in rows[0]]:
        each = [
            paired(np.array(one[key]), np.array(row[key]))
            for row, one in zip(rows, partners, strict=True)
        ]
        middle = sorted(each, key=lambda one: one.difference)[len(each) // 2]
        text += f", top-{key[-1]} {_interval(vars(middle), 'difference', '.2f')}"
    return text


def _spread(values: Sequence[float], form: str) -> str:
    return f"{np.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def _interval(found: Mapping[str, float], key: str, form: str) -> str:
    return f"{found[key]:+{form}} ({found['low']:+{form}} to {found['high']:+{form}})"
