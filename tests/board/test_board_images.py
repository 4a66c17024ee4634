# SPDX-License-Identifier: Apache-2.0
"""The same pictures give the same pixels on the PC and through the unpacked bundle."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nuq.board.bundle import make_bundle, unpack
from tests.checkout import python
from tests.model_prep.onnx.onnx_models import build, node, random, save

READ = """
import sys
from pathlib import Path
import numpy as np
import nuq
from nuq.formats.design import read_design
assert Path(nuq.__file__).is_relative_to(Path.cwd())
np.save(sys.argv[2], read_design(Path("parameters")).reader.load(sys.argv[1]).pixels)
"""


def photograph(folder: Path) -> None:
    """300x451 pixels, so that the recipe resizes and crops."""
    noise = np.random.default_rng(5).integers(0, 256, (15, 23, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((451, 300)).save(folder / "a.jpg", quality=92)


def exact(folder: Path) -> None:
    """The network's own size, which stays, beside a picture that is resized and cropped."""
    photograph(folder)
    noise = np.random.default_rng(6).integers(0, 256, (40, 36, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "b.png")


def digit(folder: Path) -> None:
    """A digit of 28x28 grey pixels up to 255, where the network's own go up to 16."""
    rows, columns = np.mgrid[0:28, 0:28]
    ring = np.abs(np.hypot(rows - 13, columns - 14) - 8) < 2
    Image.fromarray((255 * ring).astype(np.uint8)).save(folder / "a.png")


def photo_net(folder: Path) -> str:
    """One convolution on 40x36 colour pictures."""
    weights = {"w": random(1, 5, 3, 40, 36) * np.float32(0.01)}
    return str(save(build([node("Conv", "x w", "y")], weights, (1, 3, 40, 36)), folder / "p.onnx"))


@pytest.mark.parametrize(
    ("picture", "largest", "words"),
    [(photograph, 255, []), (exact, 255, []), (exact, 255, ["RESIZE=46"]), (digit, 16, [])],
)
def test_the_bundle_sees_the_pixels_that_were_quantized(
    picture, largest, words, tmp_path, run_stage
):
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    picture(data)
    net = "digits" if picture is digit else photo_net(tmp_path)
    images = sum(1 for _ in data.iterdir())
    options = (f"NET={net}", f"DATA={data}", f"IMAGES={images}", f"OUT={out}")
    run_stage("model_prep", "quantize", *options, *words)
    run_stage("codegen", "codegen", f"OUT={out}")
    with np.load(out / "quantized" / "vectors.npz") as vectors:
        quantized = vectors["images"]
    assert largest // 2 < quantized.max() <= largest
    if picture is exact:
        whole = np.asarray(Image.open(data / "b.png")).transpose(2, 0, 1)
        assert np.array_equal(quantized[1], whole) == (not words)
    folder = unpack(make_bundle(out), tmp_path / "bundle")
    python("-c", READ, data, tmp_path / "pixels.npy", folder=folder)
    np.testing.assert_array_equal(np.load(tmp_path / "pixels.npy"), quantized)
