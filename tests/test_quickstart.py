# SPDX-License-Identifier: Apache-2.0
"""notebooks/quickstart.ipynb runs on a PC from the first cell to the last, with its pictures."""

import os
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.checkout import ROOT, needs_compiler

NOTEBOOK = ROOT / "notebooks" / "quickstart.ipynb"


def execute(folder: Path) -> Any:
    """The notebook with its outputs, run in a folder of its own."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    client = NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(folder)}})
    client.execute(env=environment)
    return notebook


def outputs(notebook: Any, kind: str) -> list[Any]:
    """What the cells show, of a MIME type."""
    return [
        output["data"][kind]
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if kind in output.get("data", {})
    ]


def test_nothing_that_was_run_is_kept():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code and not any(cell.outputs or cell.execution_count for cell in code)


@needs_compiler
@pytest.mark.slow
def test_every_cell_runs_and_draws(tmp_path):
    notebook = execute(tmp_path)
    pages = outputs(notebook, "text/html")
    assert len(pages) == 4 and "5 layers bit-exact" in pages[1]
    assert "data:image/png;base64" in pages[1]
    assert len(outputs(notebook, "image/png")) == 4  # each figure once
    assert (tmp_path / "quickstart.zip").is_file()
    if folder := os.environ.get("KEEP_NOTEBOOK"):  # to be looked at
        nbformat.write(notebook, Path(folder) / "quickstart.ipynb")
