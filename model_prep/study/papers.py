# SPDX-License-Identifier: Apache-2.0
"""The papers' own figures (papers.json), as tables to show beside what is measured here.

Facts and figures are quoted with their table; how they are read is docs/papers.md.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

from model_prep import footprint
from model_prep.study.results import BOTH, PAPER, Table

_UNAVAILABLE = (
    "The published setting, VGG-16 and AlexNet with their ImageNet weights, needs a download; "
    "what is measured here is another network, so levels differ and only trends compare."
)


@cache
def figures() -> dict[str, Any]:
    """The content of papers.json."""
    found: dict[str, Any] = json.loads(
        Path(__file__).with_name("papers.json").read_text(encoding="utf-8")
    )
    return found


def uniform_widths() -> Table:
    """000, table I."""
    known = figures()["uniform_vgg16_top5"]
    return Table(
        "Paper 000, table I: VGG-16, uniform codes, top-5 %",
        ["bits", *known], [["top-5, %", *known.values()]], PAPER, _UNAVAILABLE, 1,
    )  # fmt: skip


def widths_by_layer() -> list[Table]:
    """000, tables II and III; 001's widths of uniform codes."""
    layers = figures()["vgg16_layers"]
    enq = Table(
        "Paper 000, tables II and III: VGG-16, ENQ, bits by layer",
        ["row", "top-5, %", *layers],
        [[index, *row] for index, row in enumerate(figures()["enq_vgg16"], 1)], PAPER,
        "Row 5 is printed as 86.19% in table II and as 83.46% in table III. " + _UNAVAILABLE,
    )  # fmt: skip
    clnq = Table(
        "Paper 001, tables II and III: VGG-16, uniform codes with a width per layer (CLNQ), bits",
        ["row", "top-5, %", *layers],
        [[index, *row] for index, row in enumerate(figures()["clnq_vgg16"], 1)], PAPER,
    )  # fmt: skip
    return [enq, clnq]


def centroids() -> Table:
    """000, table IV."""
    known = figures()["knq_vgg16_centroids"]
    return Table(
        "Paper 000, table IV: VGG-16, KNQ, 5 bits, centroids as 12-bit integers",
        ["layer", *[f"d{number}" for number in range(32)]],
        [[layer, *row] for layer, row in known.items()], PAPER,
        "conv1_2 begins with thirteen zeros as printed.",
    )  # fmt: skip


def clipped() -> Table:
    """000, table VI."""
    rows = [
        [net, int(bits), found["plain"], found["clipped"], found["clipped"] - found["plain"]]
        for net, by_bits in figures()["knq_top5"].items()
        for bits, found in by_bits.items()
    ]
    return Table(
        "Paper 000, table VI: KNQ with and without the bound M, top-5 %",
        ["network", "bits", "without", "with", "gain, points"], rows, PAPER, _UNAVAILABLE,
    )  # fmt: skip


def comparison() -> list[Table]:
    """000, table VII, and the arithmetic that gives its NB."""
    known = figures()["comparison"]
    quoted = Table(
        "Paper 000, table VII: top-5 %, NB in MB, NNB relative to CLNQ",
        ["network", "scheme", "top-5, %", "NB, MB", "NNB"],
        [[net, scheme, row["top5"], row["nb_mb"], row["nnb"]]
         for net, by_scheme in known.items() for scheme, row in by_scheme.items()],
        PAPER, _UNAVAILABLE,
    )  # fmt: skip
    saved = figures()["saved_vgg16_pct"]
    named = {"enq": saved["discrete"], "knq": saved["kmeans"], "clnq": saved["nonuniform"]}
    ours = footprint.table_vii(footprint.VGG16_CONV, {"half": 50.0, **named})
    again = Table(
        "NB of VGG-16 computed again: 54 MB of floats times what 001's table VII does not save",
        ["scheme", "saved, %", "computed, MB", "printed, MB", "computed NNB", "printed NNB"],
        [[scheme, {"half": 50.0, **named}[scheme], value, known["vgg16"][scheme]["nb_mb"],
          value / ours["clnq"], known["vgg16"][scheme]["nnb"]] for scheme, value in ours.items()],
        BOTH, "How the tables come to their NB is in docs/papers.md.", 3,
    )  # fmt: skip
    return [quoted, again]


def sqnr() -> Table:
    """002, table 6, as printed."""
    known = figures()["sqnr_db"]
    rows = [
        [layer, *[known[name][kind][index] for name in ("example1", "example2")
                  for kind in ("predicted", "measured")]]
        for index, layer in enumerate(known["layer"])
    ]  # fmt: skip
    columns = ["1: predicted", "1: measured", "2: predicted", "2: measured"]
    return Table(
        "Paper 002, table 6: SQNR of layers of its CIFAR-10 network, dB, two examples",
        ["layer", *columns], rows, PAPER,
    )  # fmt: skip


def techniques() -> list[Table]:
    """004, tables 3 to 5."""
    known = figures()["fc6_alexnet_l2"]
    single = Table(
        "Paper 004, table 3: AlexNet, weights of fc6 alone, L2 distance of the output",
        ["technique", *[f"{bits} bits" for bits in known["bits"]]],
        [[name.replace("_", " "), *known[name]]
         for name in ("dynamic", "kmeans_linear", "kmeans_gaussian")],
        PAPER,
    )  # fmt: skip
    columns = ["technique", "weights saved, %", "activations saved, %", "L2",
               "top-1 loss, %", "top-5 loss, %"]  # fmt: skip
    whole = [
        Table(f"Paper 004, table {number}: {net}, best results", columns,
              figures()[f"techniques_{net.lower().replace('-', '')}"], PAPER, note)
        for number, net, note in ((4, "AlexNet", ""), (5, "VGG-16", _UNAVAILABLE))
    ]  # fmt: skip
    return [single, *whole]
