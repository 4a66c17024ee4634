# SPDX-License-Identifier: Apache-2.0
"""The papers' schemes side by side at equal widths, and whether their order holds (000, table VII).

Each row says where its codes saturate, so that none depends on a default. The figures come from
fake-quantized float32 runs; some rows are run in integers, too, and compared image by image.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from tqdm import tqdm

from nuq.formats.network import Network
from nuq.formats.quantizer import Quantizer
from nuq.model_prep.allocate.cache import Choice
from nuq.model_prep.quantize.fracs import uniform_codes
from nuq.model_prep.quantize.integers import quantize_layers
from nuq.model_prep.quantize.reference import Reference
from nuq.model_prep.study import papers, vgg16
from nuq.model_prep.study.activations import searched
from nuq.model_prep.study.context import Study, kilobytes
from nuq.model_prep.study.plots import Figure, Panel, Series
from nuq.model_prep.study.results import Section, Table

Key = tuple[str, int | None]  # of a row: its name, and bits unless each layer has its own width
_WIDTHS = (5, 4, 3)
_AS_GOOD = 1.0  # points that "as good" may lose
_PROVED = 32  # images that are run in integers, too
ROWS: Mapping[str, tuple[str, str]] = {  # key of the plot's styles: scheme, where it saturates
    "knq_floor": ("KNQ, floor (000)", "M of one F"),
    "knq": ("KNQ, nearest", "M of one F"),
    "knq_own": ("KNQ, nearest", "own F, least error"),
    "enq_one": ("ENQ, one qm", "M of one F"),
    "enq": ("ENQ, own q_i", "2^q_i steps of one F"),
    "uniform": ("uniform", "own F, least error"),
    "uniform_one": ("uniform, one F", "one F, the best of the width"),
    "uniform_steps": ("uniform, steps of qm", "2^bits steps of one F"),
}
# What the papers say of (first, second); CLNQ has a width for each layer.
BETTER = {
    ("knq_floor", "enq"): "KNQ is better than ENQ",
    ("knq", "enq"): "KNQ is better than ENQ",
    ("knq_floor", "enq_one"): "KNQ is better than ENQ",
    ("knq", "uniform"): "KNQ is better than uniform codes",
    ("enq", "uniform"): "ENQ is better than uniform codes",
    ("knq_floor", "uniform_one"): "KNQ is better than uniform codes",
    ("knq", "uniform_one"): "KNQ is better than uniform codes",
    ("enq", "uniform_one"): "ENQ is better than uniform codes",
}
AS_GOOD = {
    ("knq_floor", "clnq"): "KNQ is as good as CLNQ, which has more bits",
    ("knq", "clnq"): "KNQ is as good as CLNQ, which has more bits",
    ("enq", "clnq"): "ENQ is as good as CLNQ, which has more bits",
}


def base_fracs(study: Study) -> Mapping[str, int]:
    """One F for the network: the papers' 0 for VGG-16, else that of the best uniform network."""
    if vgg16.is_vgg16(study.graph):
        return dict.fromkeys(study.elements, 0)
    return study.uniform_format(study.qm).fracs


def clnq(study: Study) -> dict[str, Quantizer]:
    """Uniform codes of one F: the papers' widths q_i for VGG-16, else the smallest found here."""
    if vgg16.is_vgg16(study.graph):
        return vgg16.published(base_fracs(study))["clnq"]
    return dict(searched(study, "clnq")[1].quantizers)


def uniform(study: Study, bits: int, fracs: Mapping[str, int]) -> Choice:
    """Uniform codes of one width with these F, as 000's table I has them: narrower saturate."""
    return Choice(uniform_codes(bits, fracs, study.plan("knq").signed))


def choices(study: Study) -> dict[Key, Choice]:
    """Every row's quantizers by (key, bits); bits None: a width for each layer."""
    base, widths = base_fracs(study), clnq(study)
    # q_i bits of one F reach as far as qm bits of an F that is larger by what they lack
    own = {name: base[name] + study.qm - form.bits for name, form in widths.items()}
    one, below = (study.calibration.formats(study.qm, fracs) for fracs in (base, own))
    found: dict[Key, Choice] = {}
    for bits in study.pick(_WIDTHS, (4,)):
        found |= {
            ("knq", bits): Choice(one.fit(study.plan("knq", bits, "nearest"))),
            ("knq_floor", bits): Choice(one.fit(study.plan("knq", bits, "floor"))),
            ("enq", bits): Choice(below.fit(study.plan("enq", bits))),
            ("uniform", bits): study.choice("uniform", bits, "error"),
            ("uniform_one", bits): uniform(study, bits, study.uniform_format(bits).fracs),
            ("uniform_steps", bits): uniform(study, bits, base),
        }
        if ("clnq", None) not in found:  # once, and with what does not bear fewer bits
            found |= {
                ("clnq", None): Choice(widths),
                ("knq_own", bits): study.choice("knq", bits, "error", "nearest"),
                ("enq_one", bits): Choice(one.fit(study.plan("enq", bits))),
            }
    if vgg16.is_vgg16(study.graph):
        found["enq row", None] = Choice(vgg16.published(base)["enq"])
    return found


NAMES = {
    "clnq": ("CLNQ", "2^q_i steps of one F"),
    "enq row": (f"ENQ, row {vgg16.ENQ_ROW} of 000, own q_i", "2^q_i steps of one F"),
}


def in_integers(study: Study, choice: Choice, images: int) -> tuple[int, float]:
    """(images whose first answer is the figures' own, SQNR in dB) of the bit-exact integer flow.

    Args:
        study: the network; weights have 14 bits.
        choice: quantizers by layer name.
        images: the first of the test images.
    """
    plan = study.plan("knq", 5)
    quantizers = [choice.quantizers.get(layer.name) for layer in study.graph.layers]
    layers = quantize_layers(
        study.graph, study.subject.input, plan.layers, quantizers, study.network.stored
    )
    loaded = study.subject.loaded
    network = Network(
        name=study.subject.spec.name, weights=loaded.origin, weights_sha256=loaded.sha256,
        qm=study.qm, input=study.subject.input, layers=tuple(layers),
        concats=dict(study.graph.concats),
    )  # fmt: skip
    pixels = study.test.pixels[:images]
    exact = Reference(network).logits(network.input.encode(pixels))
    float32 = study.network.logits(pixels, choice.quantizers)
    values = exact * 2.0 ** -layers[-1].out_frac
    gap = float(np.square(values - float32).sum())
    same = int((exact.argmax(axis=1) == float32.argmax(axis=1)).sum())
    return same, 10 * np.log10(np.square(values).sum() / gap) if gap else np.inf


def verdict(low: float, high: float, least: float = 0.0) -> str:
    """What an interval of a difference says of "is above `least`".

    >>> verdict(0.1, 0.4), verdict(-0.4, -0.1), verdict(-0.1, 0.1), verdict(-0.1, 0.1, -1.0)
    ('confirmed', 'refuted', 'not decided', 'confirmed')
    """
    return "confirmed" if low > least else "refuted" if high < least else "not decided"


def order(study: Study) -> Section:
    """Accuracy, NB, agreement and divergence of every scheme, and the claims with intervals."""
    rows = choices(study)
    bar = tqdm(rows.items(), desc="schemes", unit="network", disable=None, leave=False)
    scores = {key: study.score(choice) for key, choice in bar}
    table = [_row(study, "float", "", None, study.exact, 32 * study.values)]
    for (key, bits), choice in rows.items():
        name, bound = {**ROWS, **NAMES}[key]
        nb = study.nb(choice)
        width = float(bits) if bits else nb / study.values
        table.append(_row(study, name, bound, width, scores[key, bits], nb))
    claims: list[list[Any]] = [
        [bits, f"{_name(first, study)} less {_name(second, study)}", claim, gain.difference,
         gain.low, gain.high, gain.p_value,
         verdict(gain.low, gain.high, -_AS_GOOD if (first, second) in AS_GOOD else 0.0)]
        for bits in study.pick(_WIDTHS, (4,))
        for (first, second), claim in {**BETTER, **AS_GOOD}.items()
        if (second, bits) in rows or (second, None) in rows
        for gain in [study.paired(_score(scores, second, bits), _score(scores, first, bits))]
    ]  # fmt: skip
    ends = ["95% interval, from", "to"]
    tables = [
        *papers.quoted("comparison", "bound"),
        Table("The papers' schemes at equal widths; differences from float in points",
              ["scheme", "saturates at", "bits on average", "NB, kB", study.goodness, "difference",
               *ends, "agreement with float, %", "KL, nats", *ends, "output SQNR, dB"], table,
              digits=3,
              note="Differences are paired, image by image. KL is the mean divergence from float's "
              "probabilities. One F is the papers' 0 (bound 4095) for VGG-16, else that of the "
              "best uniform network; each width of uniform codes has an own best one, too. q_i are "
              "CLNQ's widths, the papers' row 9 for VGG-16, else the "
              "smallest found here; 'own q_i' gives ENQ their ranges, 'one qm' the network's."),
        Table(f"The papers' claims, points of {study.judge}",
              ["bits", "difference of", "claim", "points", *ends, "p (McNemar)", "verdict"], claims,
              digits=3, note=f"'As good' may lose {_AS_GOOD:g} point."),
        _integers(study, rows),
    ]  # fmt: skip
    return Section(_lead(study, scores, claims), tables, [_figure(study, rows, scores)])


def _score(scores: Mapping[Key, Any], key: str, bits: int) -> Mapping[str, Any]:
    found: Mapping[str, Any] = scores[(key, bits) if (key, bits) in scores else (key, None)]
    return found


def _name(key: str, study: Study) -> str:
    """With what tells rows of one scheme apart."""
    name, bound = {**ROWS, **NAMES}[key]
    own = ("knq_floor", "enq_one", "enq", "clnq", "uniform_one")
    return name if key in own else f"{name}, {bound}"


def _row(
    study: Study, name: str, bound: str, width: float | None, score: Mapping[str, Any], nb: int
) -> list[Any]:
    change, far = study.paired(study.exact, score), score["divergence"]
    return [name, bound, width, kilobytes(nb), score["good"], change.difference, change.low,
            change.high, score["agreement"], far["mean"], far["low"], far["high"],
            score["sqnr_db"]]  # fmt: skip


def _integers(study: Study, rows: Mapping[Key, Choice]) -> Table:
    """The same rows by the bit-exact integer flow, on a sample."""
    images = min(_PROVED, len(study.test))
    bits = study.pick(_WIDTHS, (4,))[0]
    keys: list[Key] = [("knq_floor", bits), ("knq", bits), ("enq", bits), ("clnq", None)]
    found = []
    for key in keys:
        run = partial(in_integers, study, rows[key], images)
        same, near = study.store.remember(f"integers {key}", run)
        found.append([{**ROWS, **NAMES}[key[0]][0], key[1], images, same, near])
    return Table(
        "The integer flow on some of the images, layer weights 14 bits",
        ["scheme", "bits", "images", "first answer as above", "SQNR against the figures' outputs, "
         "dB"], found, digits=1,
        note="The integer flow is bit-exact with the C-simulation. float32 sums round, so that a "
        "value on the edge of two codes may fall to either.",
    )  # fmt: skip


def _lead(
    study: Study, scores: Mapping[Key, Mapping[str, Any]],
    claims: list[list[Any]],
) -> str:  # fmt: skip
    bits = study.pick(_WIDTHS, (4,))[0]
    change = study.paired(study.exact, scores["knq", bits])
    said = {word: [row for row in claims if row[-1] == word]
            for word in ("confirmed", "refuted", "not decided")}  # fmt: skip
    text = (
        f"KNQ (nearest) at {bits} bits is {change.difference:+.2f} points from float "
        f"({change.low:+.2f} to {change.high:+.2f}). Of {len(claims)} comparisons "
        f"{len(said['confirmed'])} confirm the papers' order, {len(said['refuted'])} refute it, "
        f"{len(said['not decided'])} decide nothing on {len(study.test)} images."
    )
    worst = min(said["refuted"], key=lambda row: row[3], default=None)
    if worst:
        text += f" Most against it: {worst[1]} at {worst[0]} bits, {worst[3]:+.1f} points."
    return text


def _figure(
    study: Study, rows: Mapping[Key, Choice],
    scores: Mapping[Key, Mapping[str, Any]],
) -> Figure:  # fmt: skip
    """Difference from float over NB, with intervals."""
    series = []
    for key in [*ROWS, "clnq"]:
        points = []
        for (name, bits), choice in rows.items():
            if name == key:
                change = study.paired(study.exact, scores[name, bits])
                points.append((kilobytes(study.nb(choice)), change.difference, change.low,
                               change.high))  # fmt: skip
        nb, middle, low, high = np.array(points).T
        series.append(
            Series(key, nb, middle, ROWS[key][0] if key in ROWS else "", ends=(low, high))
        )
    panel = Panel(series, x_label="NB, kB an image", y_label=f"{study.judge}, points from float",
                  level=0.0, legend=1)  # fmt: skip
    caption = "Loss against float by memory for activations, with 95% intervals."
    return Figure(caption, [panel], (7.2, 3.8))
