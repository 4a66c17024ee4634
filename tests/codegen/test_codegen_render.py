# SPDX-License-Identifier: Apache-2.0
"""Rendering: equal plans give equal bytes, and a golden copy shows what a change changes."""

import os
import re
from pathlib import Path

import pytest

from codegen.design.array import Array
from codegen.design.constants import design_id
from codegen.design.rows import FIELDS, describe
from codegen.emit.render import context, headers, render, render_all
from formats.errors import UserError
from tests.checkout import ROOT
from tests.networks import planned

COPIES = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", ["network.hpp", "tables.hpp"])
def test_golden_copy_of_alexnet(name: str) -> None:
    text = render_all(planned("alexnet"))[name]
    path = COPIES / f"alexnet_{name}"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text(), "if the change is meant, run pytest with UPDATE_GOLDEN=1"


def test_equal_plans_give_equal_files() -> None:
    assert render_all(planned("alexnet")) == render_all(planned("alexnet"))


def test_design_id_changes_with_the_plan() -> None:
    ids = {design_id(planned("alexnet", Array(8, pe), part="XC7Z045")) for pe in (8, 16, 24)}
    assert len(ids) == 3


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
    made = context(planned("alexnet"))
    assert made["knq_rows"] == 7 and made["knq_levels"] == 8
    names = [item.name for item in made["constants"]]
    assert len(names) == len(set(names))
