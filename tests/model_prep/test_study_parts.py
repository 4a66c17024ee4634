# SPDX-License-Identifier: Apache-2.0
"""Parts of the study alone: interpolation, escaping, figures, the store, quoted figures."""

import math
import xml.etree.ElementTree as ElementTree
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_prep.allocate.budget import undominated
from model_prep.study import papers, plots
from model_prep.study.commands import render
from model_prep.study.context import fixed
from model_prep.study.results import PAPER, Section, Store, Table, plain
from model_prep.study.weights import savings, size_at
from tests.checkout import paper_tables


def test_size_at_equal_error() -> None:
    curve = [(4.0, 10.0), (2.0, 30.0), (3.0, 35.0), (1.0, 50.0)]
    assert size_at(curve, 40.0) == 1.5
    assert size_at(curve, 20.0) == 3.0  # the bump at size 3 is passed over
    assert size_at(curve, 60.0) is None and size_at(curve, 5.0) is None


def test_savings_leave_out_levels_that_are_not_crossed() -> None:
    equal = [(1.0, 30.0), (2.0, 20.0), (4.0, 10.0)]
    half = [(size / 2, error) for size, error in equal]
    rows = savings(equal, {"half": half}, 9.0)
    assert [row[0] for row in rows] == [10.0, 11.0, 12.0, 14.0, 19.0, 29.0]
    assert all(row[3] == pytest.approx(50.0) for row in rows)
    assert savings(equal, {"none": [(1.0, 5.0)]}, 9.0) == []


def test_the_front_keeps_what_nothing_beats() -> None:
    points = np.random.default_rng(1).integers(0, 40, (60, 2))
    kept = undominated(*points.T).tolist()
    assert np.all(np.diff(points[kept], axis=0) * (1, -1) > 0)
    for index, point in enumerate(points):
        beaten = bool(((points <= point).all(axis=1) & (points != point).any(axis=1)).any())
        again = any((points[other] == point).all() for other in kept if other != index)
        assert (index in kept) == (not beaten and not again)


def test_fixed_weights_are_on_a_grid_of_the_width() -> None:
    weight = np.random.default_rng(2).normal(size=(8, 4, 3, 3)).astype(np.float32)
    for bits in (2, 4, 8):
        values = fixed(weight, bits)
        assert values.dtype == np.float32
        assert len(np.unique(values)) <= 2**bits - 1
        assert np.square(values - weight).mean() < 1.2 * 0.3 ** (bits - 1)


def entry(table: Table, caption: str = "c") -> dict[str, Any]:
    panel = plots.Panel([plots.Series("knq", [1, 2], [3, 4])], caption, level=3.5, legend=1)
    figure = plots.Figure(caption, [panel], (4.0, 3.0))
    content: dict[str, Any] = plain(
        {"title": caption, **asdict(Section(caption, [table], [figure]))}
    )
    return content


def test_text_is_escaped() -> None:
    evil = '<img src="http://x" onerror=alert(1)>&'
    about = {"title": evil, "where": evil, "lead": evil, "facts": {evil: evil}}
    text = render(about, {"uniform": entry(Table(evil, [evil], [[evil]], note=evil), evil)})
    assert "<img" not in text and text.count("&lt;img") >= 10


def test_empty_columns_are_left_out() -> None:
    table = Table("c", ["a", "b"], [[1, None], [2, None]], PAPER)
    about = {"title": "t", "where": "w", "lead": "l", "facts": {}}
    text = render(about, {"uniform": entry(table)})
    assert "<th>a</th>" in text and "<th>b</th>" not in text


def test_svg_is_well_formed_with_text_and_own_ids() -> None:
    ids: list[str] = []
    for name in ("one", "two"):
        svg = plots.draw(name, entry(Table("c", [], []), "a <title>")["figures"][0]).svg
        root = ElementTree.fromstring(svg)
        ids += [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
        words = " ".join(element.text or "" for element in root.iter())
        assert "KNQ" in words and "float" in words and "a <title>" in words
        assert "metadata" not in svg
    assert len(ids) == len(set(ids))


def test_store_keeps_values_for_the_same_settings_only(tmp_path: Path) -> None:
    path, calls = tmp_path / "study.json", list[int]()

    def make() -> dict[str, Any]:
        calls.append(1)
        return {"infinite": math.inf, "array": np.arange(2), "tuple": (1, 2.5)}

    store = Store(path, "a")
    first = store.remember("key", make)
    assert first == {"infinite": None, "array": [0, 1], "tuple": [1, 2.5]}
    store.keep("part", "Title", Section("lead", [Table("c", ["x"], [[1]])]), 0.5)
    again = Store(path, "a")
    assert again.remember("key", make) == first and calls == [1]
    assert again.sections["part"]["tables"][0]["rows"] == [[1]]
    assert Store(path, "b").sections == {}


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"sections": {}}', "\x00"])
def test_a_broken_store_is_begun_anew(tmp_path: Path, text: str) -> None:
    path = tmp_path / "study.json"
    path.write_text(text)
    assert Store(path, "a").values == {}


@pytest.mark.data
def test_quoted_figures_are_the_digested_ones() -> None:
    digested = paper_tables()
    paper = digested["ilnq"]
    assert papers.rows("uniform") == [["top-5, %", *paper["uniform_vgg16_top5"].values()]]
    columns = papers.figures()["tables"]["uniform"]["columns"]
    assert columns[1:] == list(paper["uniform_vgg16_top5"])
    centroids = paper["knq_vgg16_centroids_5bit"]
    assert {layer: row for layer, *row in papers.rows("centroids")} == centroids
    assert papers.rows("comparison") == [
        [net, scheme, row["top5"], row["nb_mb"], row["nnb"]]
        for net, by_scheme in paper["comparison"].items() for scheme, row in by_scheme.items()
    ]  # fmt: skip
    assert papers.rows("bound") == [
        [net, int(bits), row["plain"], row["clipped"], round(row["clipped"] - row["plain"], 2)]
        for net, by_bits in paper["knq_top5"].items() for bits, row in by_bits.items()
    ]  # fmt: skip
    sqnr = digested["fixed_point"]["sqnr_db"]
    printed = [sqnr[name][kind] for name in ("example1", "example2")
               for kind in ("predicted", "measured")]  # fmt: skip
    assert [*zip(*papers.rows("sqnr"), strict=True)] == [*map(tuple, (sqnr["layer"], *printed))]
    layers = papers.figures()["tables"]["enq"]["columns"][2:]
    for row, (_, *quoted) in zip(paper["enq_vgg16"], papers.rows("enq"), strict=True):
        assert quoted == [row["top5"], *[row["bits"][name] for name in layers]]
    for technique, row in zip(digested["quenn"]["alexnet"], papers.rows("alexnet"), strict=True):
        keys = ("technique", "weight_saving_pct", "activation_saving_pct", "l2")
        assert row[:4] == [technique[key] for key in keys]
