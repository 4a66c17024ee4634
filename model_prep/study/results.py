# SPDX-License-Identifier: Apache-2.0
"""What a study found: tables and plot data by section, and the store that survives interruptions.

The store is one JSON file: sections, and every evaluation and search by a key, so that a run that
was stopped goes on where it was.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from formats.build import write_atomic

PAPER, OURS, BOTH = "paper", "ours", "both"
Cell = str | int | float | None


@dataclass(frozen=True)
class Table:
    """One table of the report.

    Attributes:
        caption: what it shows, with units.
        columns: headings.
        rows: as many cells each as there are columns; None: not measured or not printed.
        origin: PAPER (quoted), OURS (measured), or BOTH (side by side).
        note: source or reading, below the table.
        digits: decimals of floats.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    origin: str = OURS
    note: str = ""
    digits: int = 2


@dataclass(frozen=True)
class Section:
    """One section of the report: what one sees, tables, and the numbers for its plots."""

    lead: str
    tables: Sequence[Table]
    data: dict[str, Any] = field(default_factory=dict)


def plain(value: Any) -> Any:
    """The value as JSON has it: no numpy, no tuples, None for numbers that are not finite."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(item) for item in value]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return value


class Store:
    """study.json: kept where it was made with the same settings, else begun anew.

    Attributes:
        about: what was measured on what, for the page.
        sections: by key: title, lead, tables, data, seconds.
        values: evaluations and searches by key.
    """

    def __init__(self, path: Path, settings: str, about: dict[str, Any]) -> None:
        """`settings` is a hash of all that results depend on."""
        self._path, self._settings = path, settings
        self.about = plain(about)
        self.sections: dict[str, Any] = {}
        self.values: dict[str, Any] = {}
        found = _read(path)
        if found.get("settings_sha256") == settings:
            self.sections, self.values = found["sections"], found["values"]

    def remember(self, key: str, make: Callable[[], Any]) -> Any:
        """The value of a key, made and written on the first call."""
        if key not in self.values:
            self.values[key] = plain(make())
            self.save()
        return self.values[key]

    def keep(self, key: str, title: str, section: Section, seconds: float) -> None:
        """Keep a finished section."""
        self.sections[key] = plain({"title": title, **asdict(section), "seconds": seconds})
        self.save()

    def save(self) -> None:
        """Write the file."""
        content = {
            "settings_sha256": self._settings, "about": self.about, "sections": self.sections,
            "values": self.values,
        }  # fmt: skip
        write_atomic(self._path, json.dumps(content, indent=1) + "\n")


def _read(path: Path) -> dict[str, Any]:
    """The file's content; empty where it is missing or not one of ours."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    whole = isinstance(content, dict) and {"sections", "values"} <= content.keys()
    return content if whole else {}
