# SPDX-License-Identifier: Apache-2.0
"""How often each code of a layer occurs on the test images, as numbers and as a picture."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from nuq.codegen.emit.page import Figure, Table, percent
from nuq.codegen.emit.report_model import Codes
from nuq.formats.quantizer import Quantizer

MOST = 256  # bars: neighbouring codes of wider ones are counted together
COLUMNS = 16  # codes in a row of the table
WIDTH, HEIGHT = 340, 110  # of the picture, in pixels: a window of 400 has room for it
FOOT = 18  # below the bars, for the scale


def occurring(quantizer: Quantizer, codes: np.ndarray) -> Codes:
    """What the codes of a quantizer stand for, and how often they occur among `codes` (uint16)."""
    counts = np.bincount(codes.ravel(), minlength=1 << quantizer.bits)
    behind = quantizer.y_frac is not None
    order = np.argsort(quantizer.decode_table, kind="stable")
    if behind:
        order = np.arange(len(order))
    together = max(1, len(order) // MOST)
    unit = 2.0**-quantizer.frac
    encoded = quantizer.encode_table
    first = np.full(len(order), -1)  # the least y of each code
    change = np.flatnonzero(np.diff(encoded.astype(np.int64), prepend=-1))
    first[encoded[change]] = change
    starts = first[order][::together]
    return Codes(
        values=[float(v) for v in quantizer.decode_table[order][::together] * unit],
        thresholds=[
            None if start < 0 else float((start + quantizer.y_min) * 2.0**-quantizer.encoded_frac)
            for start in starts
        ],
        behind=behind,
        counts=[int(n) for n in counts[order].reshape(-1, together).sum(axis=1)],
        together=together,
    )


def picture(codes: Codes) -> Figure:
    """Bars from threshold to threshold, as high as values are frequent there; ticks: the values."""
    total = sum(codes.counts) or 1
    edges, shares = _edges(codes), [count / total for count in codes.counts]
    low, high = edges[0], edges[-1]
    scale, highest = WIDTH / (high - low), HEIGHT / max(shares)
    bars, ticks = [], []
    for left, right, value, share in zip(edges, edges[1:], codes.values, shares, strict=False):
        x, width = scale * (left - low), max(scale * (right - left) - 0.5, 0.5)
        tall = highest * share
        tip = f"<title>{value:.6g}: {percent(share)}</title>"
        bars.append(
            f'<rect x="{x:.1f}" y="{HEIGHT - tall:.1f}" width="{width:.1f}" height="{tall:.1f}">'
            f"{tip}</rect>"
        )
        if not codes.behind:
            ticks.append(f"M{scale * (value - low):.1f} {HEIGHT}v5")
    foot = HEIGHT + FOOT - 3
    svg = (
        f'<svg role="img" width="{WIDTH}" viewBox="0 0 {WIDTH} {HEIGHT + FOOT}" font-size="11">'
        f'<g fill="var(--first)">{"".join(bars)}</g>'
        f'<path d="M0 {HEIGHT}h{WIDTH}" stroke="var(--soft)"/>'
        f'<path d="{"".join(ticks)}" stroke="var(--ink)"/>'
        f'<text x="0" y="{foot}" fill="var(--ink)">{low:.4g}</text>'
        f'<text x="{WIDTH}" y="{foot}" fill="var(--ink)" text-anchor="end">{high:.4g}</text></svg>'
    )
    caption = (
        f"Share of each code on the test images; {percent(max(shares))} is the highest bar. A bar "
        "goes from its code's threshold to the next one's, "
        + ("both in front of the activation." if codes.behind else "a tick is the value that is "
           "computed with.")
    )  # fmt: skip
    if codes.together > 1:
        caption += f" {codes.together} neighbouring codes are counted together."
    return Figure(svg, caption)


def _edges(codes: Codes) -> list[float]:
    """Where bars begin and the last ends; the outer ones as far from their values as inside."""
    if codes.behind:
        used = [start for start in codes.thresholds if start is not None]
        inner = used[1:] or used
        step = (inner[-1] - inner[0]) / len(inner) or 1.0
        edges, after = [inner[0] - step], inner[-1] + step
        for start in codes.thresholds[1:]:  # a code that is not used has no width
            edges.append(edges[-1] if start is None else start)
        return [*edges, after]
    values = codes.values
    starts = [
        value if start is None else start
        for start, value in zip(codes.thresholds, values, strict=True)
    ]
    starts[0] = min(max(starts[0], 2 * values[0] - starts[1]), values[0])
    last = max(values[-1] - starts[-1], (values[-1] - values[0]) / (2 * len(values)))
    return [*starts, values[-1] + (last or 1.0)]


def table(codes: Codes) -> Table:
    """Values, thresholds and shares of codes, COLUMNS in a row."""
    total = sum(codes.counts) or 1
    rows: list[Sequence[Any]] = []
    columns = min(COLUMNS, len(codes.values))
    for at in range(0, len(codes.values), columns):
        part = slice(at, at + columns)
        rest = [""] * (columns - len(codes.values[part]))
        shares = [percent(count / total) for count in codes.counts[part]]
        starts = ["–" if one is None else f"{one:.6g}" for one in codes.thresholds[part]]
        rows += [
            ("value", *(f"{one:.6g}" for one in codes.values[part]), *rest),
            ("from", *starts, *rest),
            ("share", *shares, *rest),
        ]
    return Table(("code", *map(str, range(columns))), rows)
