# SPDX-License-Identifier: Apache-2.0
"""What a report opens with: accuracy, memory, speed and what bounds it, resources."""

import json
from collections.abc import Mapping
from math import sqrt
from pathlib import Path
from typing import Any

from nuq.codegen.emit.page import Tile, percent
from nuq.codegen.emit.report_model import Report
from nuq.formats.errors import UserError, call

ACCURACY = "accuracy.json"  # of `make accuracy`, beside the report
Z = 1.96  # of a 95% interval


def measured(build: Path, arrays_sha256: str) -> dict[str, Any] | None:
    """accuracy.json of a build; None where there is none, or of another network.

    Raises:
        UserError: it is no JSON object.
    """
    path = build / ACCURACY
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise UserError(f"{path} must be JSON; run {call('accuracy')} again") from None
    if not isinstance(found, dict) or found.get("arrays_sha256") != arrays_sha256:
        return None
    return found


def wilson(rate: float, images: int) -> tuple[float, float]:
    """The 95% interval of a rate in percent (Wilson 1927).

    >>> [round(end, 1) for end in wilson(80, 10)], [round(end, 1) for end in wilson(100, 360)]
    ([49.0, 94.3], [98.9, 100.0])
    """
    share, square = rate / 100, Z * Z / images
    middle = share + square / 2
    half = Z * sqrt(share * (1 - share) / images + square / (4 * images))
    return 100 * (middle - half) / (1 + square), 100 * (middle + half) / (1 + square)


def accuracy_texts(report: Report, found: Mapping[str, Any] | None) -> tuple[str, str]:
    """(top-1 of the integer network, its interval and what it is compared with), as texts.

    Args:
        report: whose own few images are taken where nothing else is known.
        found: of `measured`.
    """
    source = found or report.accuracy
    if not source or source.get("integer_top1") is None:
        return "–", f"no labelled images; {call('accuracy DATA=...')} measures it"
    images, top1 = source["images"], source["integer_top1"]
    low, high = wilson(top1, images)
    text = f"of {images:,} images (95% interval {low:.2f} to {high:.2f}), "
    text += f"float {source['float_top1']:.2f}%"
    paired = (found or {}).get("paired", {}).get("top1")
    if paired:
        text += (
            f": {paired['difference']:+.2f} points, image by image ({paired['low']:+.2f} to "
            f"{paired['high']:+.2f})"
        )
    if not found:
        text += f"; {call('accuracy')} measures it on all images"
    return f"{top1:.2f}%", text


def bound_text(report: Report) -> str:
    """What bounds the time, in words: its share in layers that the DRAM binds."""
    layers = report.layers
    total = sum(layer.seconds for layer in layers)
    bound = [layer for layer in layers if layer.dram_bound]
    share = sum(layer.seconds for layer in bound) / total
    busy = f"multipliers busy {percent(report.performance.efficiency)} of the engine's cycles"
    if not bound:
        return f"bound by the engine; {busy}"
    names = ", ".join(layer.name for layer in bound[:4]) + ", ..." * (len(bound) > 4)
    return f"DRAM binds {percent(share)} of the time ({names}), the engine the rest; {busy}"


def resource_shares(report: Report) -> dict[str, tuple[int, int]]:
    """(estimate, what the part has) by name, of what is used."""
    used, has = report.resources.estimate, report.resources.available
    pairs = zip(used, has, strict=True)
    return {name.upper(): (count, available) for (name, count), (_, available) in pairs if count}


def tiles(report: Report, found: Mapping[str, Any] | None) -> list[Tile]:
    """The summary of a report; `found` as of `measured`."""
    speed, memory = report.performance, report.memory
    value, text = accuracy_texts(report, found)
    bits = memory.nb_bits / memory.activations if memory.activations else 0.0
    shares = resource_shares(report)
    name, (most, available) = max(shares.items(), key=lambda item: item[1][0] / item[1][1])
    ms = 1e3 * speed.seconds / report.images
    return [
        Tile("Top-1, integer network", value, text),
        Tile(
            "Activations, one image", f"{memory.nb_bits / 8e3:,.1f} kB",
            f"NB {memory.nb_bits:,} bits, {percent(memory.ratio)} of 16 bits; {bits:.2f} bits a "
            "value on average",
        ),
        Tile(
            "Speed, by the cycle model", f"{speed.images_per_second:,.1f} frames/s",
            f"{ms:,.2f} ms an image at {speed.clock_mhz:g} MHz; {bound_text(report)}",
        ),
        Tile(
            f"Resources of {report.part}, estimated", f"{percent(most / available)} {name}", "",
            [(key, used / has, f"{used:,} of {has:,}") for key, (used, has) in shares.items()],
        ),
    ]  # fmt: skip
