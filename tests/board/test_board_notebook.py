# SPDX-License-Identifier: Apache-2.0
"""The notebook, unchanged, on the emulated board; its pictures show something."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from nuq.board.emulate import prepare, run_notebook
from tests.checkout import ROOT

NOTEBOOK = ROOT / "board" / "demo.ipynb"


def outputs(notebook):
    """Text printed, and pictures as arrays."""
    text, pictures = "", []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            text += output.get("text", "")
            if "image/png" in output.get("data", {}):
                data = base64.b64decode(output["data"]["image/png"])
                pictures.append(np.asarray(Image.open(io.BytesIO(data)).convert("L")))
    return text, pictures


def check(notebook):
    text, pictures = outputs(notebook)
    assert len(pictures) == 3
    for picture in pictures:
        assert min(picture.shape) > 250
        assert picture.min() < 60 and 0.02 < (picture < 250).mean() < 0.95
    return text


def test_committed_without_outputs():
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        assert not cell.get("outputs") and cell.get("execution_count") is None


def test_digits(bundle):
    text = check(run_notebook(bundle))
    assert "of 360 images" in text and "by the cycle model" in text
    assert "codes take 25.00% of 16-bit activations" in text


@pytest.mark.slow
def test_alexnet(alexnet_build):
    text = check(run_notebook(prepare(alexnet_build)))
    assert "codes take 18.75% of 16-bit activations" in text
