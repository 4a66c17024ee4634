# SPDX-License-Identifier: Apache-2.0
"""NB of papers 000/001: which reading gives which cell of their tables VII (docs/papers.md)."""

import math
from collections.abc import Sequence
from typing import Any

import pytest

from nuq.model_prep.footprint import VGG16_CONV, saved_percent, table_vii
from tests.checkout import paper_tables

CONVOLUTIONS = (
    "conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_2", "conv3_3",
    "conv4_1", "conv4_2", "conv4_3", "conv5_1", "conv5_2", "conv5_3",
)  # fmt: skip
UNITS = {"MB": 10**6, "MiB": 2**20}
Shapes = tuple[tuple[int, int], ...]  # of square maps, (channels, side)
VGG16_POOLS = ((64, 112), (128, 56), (256, 28), (512, 14), (512, 7))
FC = 4096 + 4096 + 1000
# outputs of convolutions, of pools and of normalisations, and the input, of two AlexNets
ALEXNETS: dict[str, tuple[Shapes, Shapes, Shapes, Shapes]] = {
    "two groups, 227 pixels": (
        ((96, 55), (256, 27), (384, 13), (384, 13), (256, 13)),
        ((96, 27), (256, 13), (256, 6)), ((96, 55), (256, 27)), ((3, 227),),
    ),
    "one tower, 224 pixels": (
        ((64, 55), (192, 27), (384, 13), (256, 13), (256, 13)),
        ((64, 27), (192, 13), (256, 6)), (), ((3, 224),),
    ),
}  # fmt: skip
pytestmark = pytest.mark.data


def sizes(shapes: Shapes) -> list[int]:
    return [channels * side * side for channels, side in shapes]


def readings(net: str) -> dict[str, int]:
    """How many values are stored, for every way to say which maps count."""
    conv, *others = (sum(sizes(shapes)) for shapes in ALEXNETS[net])
    found = {"conv": conv, "conv, each twice": 2 * conv}
    for name, size in zip(("pools", "norms", "image", "fc"), [*others, FC], strict=True):
        if size:
            found.update({f"{old} + {name}": n + size for old, n in list(found.items())})
    return found


def megabytes(values: Sequence[int], bits: Sequence[int], unit: str = "MB") -> float:
    """Values times their bits."""
    return sum(n * width for n, width in zip(values, bits, strict=True)) / 8 / UNITS[unit]


@pytest.fixture(scope="module")
def tables() -> dict[str, Any]:
    return paper_tables()


def widths(bits: dict[str, int]) -> list[int]:
    return [bits[name] for name in CONVOLUTIONS]


def enq(tables: dict[str, Any], row: int) -> list[int]:
    """A row, from 1, of 000's tables II and III."""
    return widths(tables["ilnq"]["enq_vgg16"][row - 1]["bits"])


def clnq(tables: dict[str, Any], row: int) -> list[int]:
    """A row, from 1, of 001's tables II and III."""
    return widths(tables["memory_efficient"]["nonuniform_vgg16"][row - 1]["bits"])


def test_vgg16_has_13_55_million_values() -> None:
    assert sum(VGG16_CONV) == 13_547_520


def test_half_precision_and_knq_are_the_convolutions_outputs(tables: dict[str, Any]) -> None:
    """27 and 8.4 MB: 10^6 bytes, outputs of the convolutions only, 8.47 cut off."""
    paper = tables["ilnq"]["comparison"]["vgg16"]
    for name, bits in (("half", 16), ("knq", 5)):
        exact = megabytes(VGG16_CONV, [bits] * 13)
        digits = 0 if name == "half" else 1
        assert math.floor(exact * 10**digits) / 10**digits == paper[name]["nb_mb"]


def test_every_vgg16_cell_is_54_mb_times_a_rounded_percentage(tables: dict[str, Any]) -> None:
    rows = tables["memory_efficient"]["comparison_vgg16"]
    saved = {
        "half": 50.0, "enq": rows["discrete"]["memory_saved_pct"],
        "knq": rows["kmeans"]["memory_saved_pct"], "clnq": rows["nonuniform"]["memory_saved_pct"],
    }  # fmt: skip
    found = table_vii(VGG16_CONV, saved)
    paper = tables["ilnq"]["comparison"]["vgg16"]
    for name, cells in paper.items():
        assert round(found[name], 1) == cells["nb_mb"], name
        ratio = found[name] / found["clnq"]
        assert round(ratio, 2) == pytest.approx(cells["nnb"], abs=0.0051), name
    assert round(found["clnq"], 2) == tables["memory_efficient"]["memory_mb_vgg16"]["uniform"]
    assert round(found["knq"], 2) == tables["memory_efficient"]["memory_mb_vgg16"]["kmeans"]


def test_the_percentages_are_plain_means_of_the_widths(tables: dict[str, Any]) -> None:
    """65.6, 84.4, 68.8 by one width or the mean over layers; ENQ's 82.4 is row 5's, cut off."""
    rows = tables["memory_efficient"]["comparison_vgg16"]
    assert round(saved_percent(11), 1) == rows["uniform"]["memory_saved_pct"]
    assert round(saved_percent(5), 1) == rows["kmeans"]["memory_saved_pct"]
    means = {row: saved_percent(sum(clnq(tables, row)) / 13) for row in range(1, 10)}
    matching = [row for row, value in means.items() if round(value, 1) == 68.8]
    assert rows["nonuniform"]["memory_saved_pct"] == 68.8 and matching == [3, 6, 7, 8]
    means = {row: saved_percent(sum(enq(tables, row)) / 13) for row in range(1, 7)}
    matching = [row for row, value in means.items() if math.floor(value * 10) / 10 == 82.4]
    assert rows["discrete"]["memory_saved_pct"] == 82.4 and matching == [5]


def direct_readings(row: list[int], fc6: int) -> dict[str, float]:
    """NB in both units, for outputs and pools, at a layer's own or at its reader's width."""
    pools = dict(zip((1, 3, 6, 9, 12), sizes(VGG16_POOLS), strict=True))
    pooled = [pools.get(index, size) for index, size in enumerate(VGG16_CONV)]
    both = [size + pools.get(index, 0) for index, size in enumerate(VGG16_CONV)]
    inputs = [3 * 224 * 224, *pooled[:-1]]
    reader = [*row[1:], fc6]
    found = {}
    for unit in UNITS:
        for name, values, bits in (
            ("outputs", VGG16_CONV, row), ("pooled", pooled, row), ("both", both, row),
            ("inputs", inputs, row), ("outputs, reader's width", VGG16_CONV, reader),
            ("both, reader's width", both, reader),
        ):  # fmt: skip
            found[f"{name}, {unit}"] = megabytes(values, bits, unit)
    return found


def test_no_direct_reading_gives_enq_and_one_gives_clnq(tables: dict[str, Any]) -> None:
    found = direct_readings(enq(tables, 6), 6)
    assert found["outputs, MB"] == pytest.approx(9.897, abs=0.001)
    assert found["outputs, MiB"] == pytest.approx(9.439, abs=0.001)
    assert [name for name, value in found.items() if round(value, 1) == 9.5] == []
    found = direct_readings(clnq(tables, 9), 7)
    assert found["outputs, MB"] == pytest.approx(15.893, abs=0.001)
    near = [name for name, value in found.items() if round(value, 1) == 16.8]
    assert near == ["outputs, reader's width, MB"]


def test_alexnet_cells_agree_with_each_other_and_with_no_alexnet(tables: dict[str, Any]) -> None:
    paper = tables["ilnq"]["comparison"]["alexnet"]
    half = paper["half"]["nb_mb"]
    assert round(half * 3 / 16, 2) == paper["knq"]["nb_mb"] == paper["enq"]["nb_mb"]
    for name in paper:
        assert round(paper[name]["nb_mb"] / paper["clnq"]["nb_mb"], 2) == paper[name]["nnb"]
    assert round(saved_percent(3), 1) == tables["memory_efficient"]["alexnet_memory_saved_pct"]
    found = {
        (net, reading, unit, bits): megabytes([values], [bits], unit)
        for net in ALEXNETS
        for reading, values in readings(net).items()
        for unit in UNITS
        for bits in (16, 32)
    }
    assert [key for key, value in found.items() if round(value, 2) == half] == []
    twice = ("two groups, 227 pixels", "conv, each twice", "MB", 16)
    assert found[twice] == pytest.approx(2.600, abs=0.001)  # 1.2% above the paper's
