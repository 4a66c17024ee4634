# SPDX-License-Identifier: Apache-2.0
"""The papers' own tables (papers.json), to show beside what is measured here.

They are quoted with their number; how they are read is docs/papers.md.
"""

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from nuq.model_prep.study.results import BOTH, PAPER, Cell, Table


@cache
def figures() -> dict[str, Any]:
    """The content of papers.json."""
    path = Path(__file__).with_name("papers.json")
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def rows(name: str) -> list[list[Any]]:
    """The printed rows of a table."""
    printed: list[list[Any]] = figures()["tables"][name]["rows"]
    return printed


def quoted(*names: str) -> list[Table]:
    """Tables as printed."""
    return [_table(name, PAPER) for name in names]


def computed(name: str, compute: Callable[..., float]) -> Table:
    """A printed table and, as its last column, what `compute` makes of a row's cells."""
    again = [[*row, compute(*row)] for row in rows(name)]
    columns = [*figures()["tables"][name]["columns"], "computed"]
    return _table(name, BOTH, columns=columns, rows=again)


def _table(name: str, origin: str, **others: Sequence[str] | Sequence[Sequence[Cell]]) -> Table:
    entry = {"note": "", **figures()["tables"][name], **others}
    entry["note"] = entry["note"].format(download=figures()["download"])
    return Table(**entry, origin=origin)
