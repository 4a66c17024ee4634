# SPDX-License-Identifier: Apache-2.0
"""Rendering: equal plans give equal bytes, and a golden copy shows what a change changes."""

import os
import re
import shutil
from pathlib import Path

import pytest

from nuq.codegen.design.array import Array
from nuq.codegen.design.constants import constants
from nuq.codegen.design.rows import FIELDS, describe
from nuq.codegen.emit.program_file import centroids, thresholds
from nuq.codegen.emit.render import TEMPLATES, headers, render, render_all, render_engine
from nuq.formats.arithmetic import MAX_COUNT, reciprocal
from nuq.formats.errors import UserError
from tests.checkout import ROOT
from tests.networks import planned

COPIES = Path(__file__).parent / "golden"


def test_golden_copy_of_alexnet() -> None:
    text = re.sub("(?<=DESIGN_ID = )[^;]*", "0", render_all(planned("alexnet"))["network.hpp"])
    path = COPIES / "alexnet_network.hpp"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text(), "if the change is meant, run pytest with UPDATE_GOLDEN=1"


def test_equal_plans_give_equal_files() -> None:
    assert render_all(planned("alexnet")) == render_all(planned("alexnet"))


def test_engine_id_is_a_digest_of_what_is_rendered(tmp_path: Path) -> None:
    engines = [planned("alexnet", Array(8, pe), part="XC7Z045").engine for pe in (8, 16, 24)]
    ids = [render_engine(engine)[0] for engine in engines]
    assert len(set(ids)) == 3 and render_engine(engines[0])[0] == ids[0]
    assert f"DESIGN_ID = 0x{ids[0]}u" in render_engine(engines[0])[1]["network.hpp"]
    folder = shutil.copytree(TEMPLATES, tmp_path / "templates")
    path = folder / "engine" / "fifo.hpp"
    path.write_text(path.read_text() + "// another engine\n")
    assert render_engine(engines[0], folder)[0] != ids[0]


def test_nothing_of_a_network_is_rendered() -> None:
    """Only the tool's script names it; C++ of the engine and of the test bench does not."""
    plan = planned("alexnet")
    for name, text in render_all(plan).items():
        if not name.endswith(".tcl"):
            assert plan.network.manifest_sha256 not in text, name
            assert "alexnet" not in text.lower() and "conv1" not in text, name


def test_missing_name_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.hpp.j2").write_text("{{ nothing }}")
    with pytest.raises(UserError, match=r"^a\.hpp\.j2 must use names of the context only: "):
        render("a.hpp.j2", {}, tmp_path)
    (tmp_path / "b.hpp.j2").write_text("{% if %}")
    with pytest.raises(UserError, match=r"^b\.hpp\.j2:1 must be a Jinja2 template: "):
        render("b.hpp.j2", {}, tmp_path)
    with pytest.raises(UserError, match=r"c\.hpp\.j2 must exist; restore it"):
        render("c.hpp.j2", {}, tmp_path)


def test_struct_has_the_fields_of_a_row_in_their_order() -> None:
    text = headers()["layer_desc.hpp"]
    assert re.findall(r"^  int32_t (\w+);$", text, re.MULTILINE) == list(FIELDS)
    assert "enum Place { PLACE_DDR = 0, PLACE_CHIP = 1, PLACE_CACHE = 2 };" in text
    assert max(map(len, text.splitlines())) <= 100


def test_documentation_has_the_fields_of_a_row() -> None:
    page = ROOT / "docs/formats.md"
    text = page.read_text()
    table = "".join(f"| `{name}` | {describe(name)} |\n" for name in FIELDS)
    if os.environ.get("UPDATE_GOLDEN"):
        text = re.sub(r"(\| column \|.*\n\| --- \| --- \|\n)(?:\|.*\n)+", rf"\g<1>{table}", text)
        page.write_text(text)
    assert table in text, "if the change is meant, run pytest with UPDATE_GOLDEN=1"


def test_unused_thresholds_are_out_of_reach() -> None:
    plan = planned("alexnet")
    quantizer = plan.layers[0].quantizer
    assert quantizer is not None and plan.sizes.knq_levels == 8
    assert thresholds(quantizer, 16).tolist()[8:] == [quantizer.y_max + 1] * 8
    assert centroids(quantizer, 16).tolist()[7:] == [int(centroids(quantizer, 8)[-1])] * 9


def test_constants_have_names_of_their_own() -> None:
    names = [item.name for item in constants(planned("alexnet").sizes, 0)]
    assert len(names) == len(set(names))


def test_reciprocals_are_those_of_the_contract() -> None:
    text = headers()["normalize.hpp"]
    numbers = text[text.index("RECIPROCAL[MAX_COUNT + 1] = {") :].split("{")[1].split("}")[0]
    expected = [0, *map(reciprocal, range(1, MAX_COUNT + 1))]
    assert [int(number) for number in numbers.split(",")] == expected
