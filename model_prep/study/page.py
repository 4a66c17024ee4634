# SPDX-License-Identifier: Apache-2.0
"""report.html: one file with inline SVG and CSS that needs no network.

Everything that is not SVG made here is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from model_prep.study.plots import Figure
from model_prep.study.results import BOTH, PAPER

_CSS = """
:root { --ink: #1f2933; --soft: #5b6774; --line: #dfe4ea; --paper: #faf6ee; --teal: #0f6e84; }
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: #fff; font: 15px/1.55 system-ui, -apple-system,
  "Segoe UI", "DejaVu Sans", sans-serif; }
main { max-width: 1060px; margin: 0 auto; padding: 2.5rem 1.25rem 5rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.25rem; margin: 3.2rem 0 .4rem; padding-top: 1rem;
  border-top: 1px solid var(--line); }
p { margin: .4rem 0 1rem; max-width: 46rem; }
.soft { color: var(--soft); }
nav ol { columns: 2; padding-left: 1.4rem; margin: 1.2rem 0 0; }
nav li { padding: .1rem 0; break-inside: avoid; }
a { color: var(--teal); text-decoration: none; } a:hover { text-decoration: underline; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.2rem; margin: 1.4rem 0; }
dt { color: var(--soft); } dd { margin: 0; }
figure { margin: 1.6rem 0; } figure svg { max-width: 100%; height: auto; display: block; }
figcaption, caption, .note { color: var(--soft); font-size: .88rem; text-align: left; }
figcaption { margin-top: .5rem; max-width: 46rem; }
.scroll { overflow-x: auto; margin: 1.4rem 0; border: 1px solid var(--line); border-radius: 6px;
  padding: .7rem .9rem; }
.scroll.paper { background: var(--paper); }
table { border-collapse: collapse; font-size: .86rem; font-variant-numeric: tabular-nums; }
caption { padding-bottom: .5rem; white-space: normal; }
caption b { color: var(--ink); font-weight: 600; }
th, td { padding: .2rem .65rem; text-align: right; white-space: nowrap; }
th { font-weight: 600; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
tbody tr + tr td { border-top: 1px solid #eef1f4; }
.note { margin: .5rem 0 0; }
"""
_ORIGIN = {PAPER: "Paper", BOTH: "Paper and here"}


def cell(value: Any, digits: int = 2) -> str:
    """A cell's text, escaped.

    >>> cell(1234567), cell(1.5, 1), cell(None), cell("<b>")
    ('1,234,567', '1.5', '–', '&lt;b&gt;')
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.{digits}f}"
    return escape(str(value))


def _table(table: Mapping[str, Any], where: str) -> str:
    """One table with its caption, origin and note."""
    origin = table["origin"]
    kept = [
        number for number in range(len(table["columns"]))
        if any(row[number] is not None for row in table["rows"])
    ]  # fmt: skip
    first = _ORIGIN.get(origin, "Here")
    caption = f"<b>{first}.</b> {escape(table['caption'])}"
    if origin != PAPER:
        caption += f" <span>[{escape(where)}]</span>"
    head = "".join(
        f"<th>{escape(name)}</th>" for name in (table["columns"][number] for number in kept)
    )
    rows = "".join(
        "<tr>" + "".join(f"<td>{cell(row[n], table['digits'])}</td>" for n in kept) + "</tr>"
        for row in table["rows"]
    )
    note = f'<p class="note">{escape(table["note"])}</p>' if table["note"] else ""
    return (
        f'<div class="scroll {escape(origin)}"><table><caption>{caption}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{note}</div>"
    )


def _figure(figure: Figure) -> str:
    return f"<figure>{figure.svg}<figcaption>{escape(figure.caption)}</figcaption></figure>"


def _section(key: str, entry: Mapping[str, Any], figures: Sequence[Figure], where: str) -> str:
    shown = "".join(map(_figure, figures)) + "".join(_table(t, where) for t in entry["tables"])
    return (
        f'<section id="{escape(key)}"><h2>{escape(entry["title"])}</h2>'
        f"<p>{escape(entry['lead'])}</p>{shown}</section>"
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
    title, where = escape(about["title"]), about["where"]
    facts = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>"
        for name, value in about["facts"].items()
    )
    links = "".join(
        f'<li><a href="#{escape(key)}">{escape(entry["title"])}</a></li>'
        for key, entry in sections.items()
    )
    body = "".join(
        _section(key, entry, figures.get(key, ()), where) for key, entry in sections.items()
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_CSS}</style></head><body><main><h1>{title}</h1>"
        f'<p class="soft">{escape(about["lead"])}</p><dl>{facts}</dl>'
        f"<nav><ol>{links}</ol></nav>{body}</main></body></html>\n"
    )
