# SPDX-License-Identifier: Apache-2.0
"""What a study found: tables and figures by section, and the store that survives interruptions.

The store is one JSON file: sections, and every evaluation and search by a key, so that a run that
was stopped goes on where it was.
"""

import io
import json
import math
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from nuq.formats.build import write_atomic
from nuq.model_prep.study.plots import Figure

PAPER, OURS, BOTH = "paper", "ours", "both"  # quoted, measured, side by side
Cell = str | int | float | None
Item = TypeVar("Item")


@dataclass(frozen=True)
class Table:
    """One table of the report."""

    caption: str  # what it shows, with units
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]  # None: not measured or not printed
    origin: str = OURS
    note: str = ""  # source or reading, below the table
    digits: int = 2  # decimals of floats


@dataclass(frozen=True)
class Section:
    """One section of the report; the lead says what one sees."""

    lead: str
    tables: Sequence[Table]
    figures: Sequence[Figure] = ()


def plain(value: Any) -> Any:
    """The value as JSON has it: no numpy, no tuples, None for numbers that are not finite."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, range, np.ndarray)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def kept(path: Path, settings: str, make: Callable[[], np.ndarray]) -> np.ndarray:
    """The array in a file that was made with the same settings, else made and written there.

    Args:
        path: an .npz file.
        settings: a hash of all that the array depends on; empty: it is not kept.
        make: gives the array.
    """
    try:
        with np.load(path) as content:
            if settings and str(content["settings_sha256"]) == settings:
                found: np.ndarray = content["array"]
                return found
    except (OSError, ValueError, LookupError, zipfile.BadZipFile):
        pass  # missing, or not one of ours
    array = make()
    if settings:
        written = io.BytesIO()
        np.savez(written, settings_sha256=settings, array=array)
        write_atomic(path, written.getvalue())
    return array


class Store:
    """study.json: kept where it was made with the same settings, else begun anew."""

    def __init__(self, path: Path, settings: str) -> None:
        """`settings` is a hash of all that results depend on."""
        self._path, self._settings = path, settings
        self.about: dict[str, Any] = {}  # what was measured on what, for the page
        self.sections: dict[str, Any] = {}  # by key: title, lead, tables, figures, seconds
        self.values: dict[str, Any] = {}  # evaluations and searches
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["settings_sha256"] == settings:
                self.sections, self.values = content["sections"], content["values"]
        except (OSError, ValueError, LookupError, TypeError):
            pass  # missing, or not one of ours

    def remember(self, key: str, make: Callable[[], Item]) -> Item:
        """The value of a key as JSON has it, made and written on the first call."""
        if key not in self.values:
            self.values[key] = plain(make())
            self.save()
        value: Item = self.values[key]
        return value

    def array(self, name: str, make: Callable[[], np.ndarray]) -> np.ndarray:
        """An array too large for JSON, in a file NAME.npz beside this one; see `kept`."""
        return kept(self._path.with_name(f"{name}.npz"), self._settings, make)

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
