# SPDX-License-Identifier: Apache-2.0
"""Parts of the study alone: interpolation, intervals, escaping, figures, the
store, quoted figures.
"""

import math
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model_prep.study import page, papers, plots
from model_prep.study.front import pareto
from model_prep.study.results import PAPER, Section, Store, Table, plain
from model_prep.study.weights import fixed, savings, size_at
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


def test_pareto_keeps_what_nothing_beats() -> None:
    rng = np.random.default_rng(1)
    points = [(float(a), float(b)) for a, b in rng.random((60, 2))]
    kept = pareto(points)
    for index, (cost, gain) in enumerate(points):
        beaten = any(c <= cost and g >= gain and (c, g) != (cost, gain) for c, g in points)
        assert (index in kept) == (not beaten)


def test_fixed_weights_are_on_a_grid_of_the_width() -> None:
    weight = np.random.default_rng(2).normal(size=(8, 4, 3, 3)).astype(np.float32)
    for bits in (2, 4, 8):
        values = fixed(weight, bits)
        assert values.dtype == torch.float32
        assert len(torch.unique(values)) <= 2**bits - 1
        assert float((values - torch.from_numpy(weight)).square().mean()) < 1.2 * 0.3 ** (bits - 1)


def test_text_is_escaped() -> None:
    evil = '<img src="http://x" onerror=alert(1)>&'
    table = Table(evil, [evil], [[evil]], note=evil)
    entry = plain({"title": evil, "lead": evil, "tables": [vars(table)], "data": {}})
    about = {"title": evil, "where": evil, "lead": evil, "facts": {evil: evil}}
    text = page.render(about, {"one": entry}, {"one": [plots.Figure("<svg></svg>", evil)]})
    assert "<img" not in text and text.count("&lt;img") >= 10


def test_empty_columns_are_left_out() -> None:
    table = Table("c", ["a", "b"], [[1, None], [2, None]], PAPER)
    entry = plain({"title": "t", "lead": "l", "tables": [vars(table)], "data": {}})
    about = {"title": "t", "where": "w", "lead": "l", "facts": {}}
    text = page.render(about, {"one": entry}, {})
    assert "<th>a</th>" in text and "<th>b</th>" not in text


def test_svg_is_well_formed_with_text_and_own_ids() -> None:
    done_all = []
    for name in ("one", "two"):
        with plots.drawing(name) as (axes, done):
            plots.line(axes[0, 0], "knq", [1, 2], [3, 4])
            plots.level(axes[0, 0], 3.5, "float <level>")
            axes[0, 0].legend()
        done_all += done
    ids: list[str] = []
    for svg in done_all:
        root = ElementTree.fromstring(svg)
        ids += [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
        words = " ".join(element.text or "" for element in root.iter())
        assert "KNQ" in words and "float <level>" in words
        assert "metadata" not in svg
    assert len(ids) == len(set(ids))


def test_store_keeps_values_for_the_same_settings_only(tmp_path: Path) -> None:
    path, calls = tmp_path / "study.json", list[int]()

    def make() -> dict[str, Any]:
        calls.append(1)
        return {"infinite": math.inf, "array": np.arange(2), "tuple": (1, 2.5)}

    store = Store(path, "a", {})
    first = store.remember("key", make)
    assert first == {"infinite": None, "array": [0, 1], "tuple": [1, 2.5]}
    store.keep("part", "Title", Section("lead", [Table("c", ["x"], [[1]])]), 0.5)
    again = Store(path, "a", {})
    assert again.remember("key", make) == first and calls == [1]
    assert again.sections["part"]["tables"][0]["rows"] == [[1]]
    assert Store(path, "b", {}).sections == {}


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"sections": {}}', "\x00"])
def test_a_broken_store_is_begun_anew(tmp_path: Path, text: str) -> None:
    path = tmp_path / "study.json"
    path.write_text(text)
    assert Store(path, "a", {}).values == {}


@pytest.mark.data
def test_quoted_figures_are_the_digested_ones() -> None:
    known = paper_tables()
    ours = papers.figures()
    assert ours["uniform_vgg16_top5"] == known["ilnq"]["uniform_vgg16_top5"]
    assert ours["knq_vgg16_centroids"] == known["ilnq"]["knq_vgg16_centroids_5bit"]
    assert ours["comparison"] == known["ilnq"]["comparison"]
    assert ours["knq_top5"] == known["ilnq"]["knq_top5"]
    assert ours["sqnr_db"] == known["fixed_point"]["sqnr_db"]
    for row, quoted in zip(known["ilnq"]["enq_vgg16"], ours["enq_vgg16"], strict=True):
        assert quoted == [row["top5"], *[row["bits"][name] for name in ours["vgg16_layers"]]]
    for technique, row in zip(known["quenn"]["alexnet"], ours["techniques_alexnet"], strict=True):
        keys = ("technique", "weight_saving_pct", "activation_saving_pct", "l2")
        assert row[:4] == [technique[key] for key in keys]
