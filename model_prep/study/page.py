# SPDX-License-Identifier: Apache-2.0
"""report.html of a study, from what study.json keeps."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from codegen.emit import page
from codegen.emit.page import Figure, Page, Section, Table
from model_prep.study.results import BOTH, PAPER

_ORIGIN = {PAPER: "Paper", BOTH: "Paper and here"}


def _table(table: Mapping[str, Any], where: str) -> Table:
    """One table with its origin; columns without a figure are left out."""
    origin, rows = table["origin"], table["rows"]
    kept = [n for n in range(len(table["columns"])) if any(row[n] is not None for row in rows)]
    caption = Markup("<b>{}.</b> {}").format(_ORIGIN.get(origin, "Here"), table["caption"])
    if origin != PAPER:
        caption += Markup(" [{}]").format(where)
    return Table(
        [table["columns"][n] for n in kept],
        [[row[n] for n in kept] for row in rows],
        caption,
        table["note"],
        table["digits"],
        origin,
    )


def render(
    about: Mapping[str, Any], sections: Mapping[str, Mapping[str, Any]],
    figures: Mapping[str, Sequence[Figure]],
) -> str:  # fmt: skip
    """The page.

    Args:
        about: title, where (network, weights, images) and facts, name to text.
        sections: by key, as in study.json, in the order of the page.
        figures: by section key.
    """
    parts = [
        Section(
            entry["title"],
            (
                entry["lead"],
                *figures.get(key, ()),
                *(_table(table, about["where"]) for table in entry["tables"]),
            ),
        )
        for key, entry in sections.items()
    ]
    return page.render(
        Page(about["title"], about["lead"], parts, facts=about["facts"], contents=True)
    )
