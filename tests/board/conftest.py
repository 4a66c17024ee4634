# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the board's tests: digits built once per session, its bundle, an emulated board."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from nuq.board.bundle import IMAGES, read_arrays
from nuq.board.emulate import prepare
from nuq.board.emulator import EmulatedDevice, install
from tests.checkout import python


def stage(*arguments: str) -> None:
    """One stage of the flow in a process of its own: torch and pynq do not share one."""
    python("-m", f"nuq.{arguments[0]}", *arguments[1:])


@pytest.fixture(name="run_stage", scope="session")
def _run_stage() -> Callable[..., None]:
    """Runs one stage of the flow."""
    return stage


# A design whose batch and memory the tests know; what the exploration picks is for other tests.
DESIGN = ("SIMD=8", "PE=24", "PIXELS=1", "WEIGHT_PORTS=1", "BATCH=256")


@pytest.fixture(scope="session")
def compiler() -> None:
    """Skips where there is no C++ compiler."""
    if shutil.which(os.environ.get("CXX") or "g++") is None:
        pytest.skip("g++ is not installed: the emulated board needs a C++ compiler")


@pytest.fixture(scope="session")
def digits_build(compiler: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """build/digits with all 360 test images, generated but not simulated."""
    build = tmp_path_factory.mktemp("board") / "digits"
    stage("model_prep", "quantize", "NET=digits", "IMAGES=360", f"OUT={build}")
    stage("codegen", "codegen", f"OUT={build}", *DESIGN)
    return build


@pytest.fixture(scope="session")
def other_build(digits_build: Path) -> Path:
    """The same network as another design: fewer multipliers."""
    build = digits_build.with_name("other")
    shutil.copytree(digits_build / "quantized", build / "quantized")
    stage("codegen", "codegen", f"OUT={build}", "SIMD=8", "PE=16", *DESIGN[2:])
    return build


@pytest.fixture(scope="session")
def bundle(digits_build: Path) -> Path:
    """The unpacked bundle of digits for the emulated board; tests do not change it."""
    return prepare(digits_build)


@pytest.fixture(scope="session")
def other_bundle(other_build: Path) -> Path:
    """The unpacked bundle of the other design."""
    return prepare(other_build)


@pytest.fixture(scope="session")
def ports_bundle(compiler: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """digits with 4-bit codebooks in its fully connected layers, a scale for each channel, weights
    through three ports.
    """
    build = tmp_path_factory.mktemp("ports") / "digits"
    options = ["FC_WEIGHT_SCHEME=kmeans", "FC_WEIGHT_BITS=4", "WEIGHT_SCALE=channel", "IMAGES=20"]
    stage("model_prep", "quantize", "NET=digits", *options, f"OUT={build}")
    stage("codegen", "codegen", f"OUT={build}", "WEIGHT_PORTS=3", "BATCH=20")
    return prepare(build)


@pytest.fixture
def bundle_copy(bundle: Path, tmp_path: Path) -> Path:
    """A copy of the bundle that a test may change."""
    return Path(shutil.copytree(bundle, tmp_path / "bundle"))


@pytest.fixture(scope="session")
def golden(bundle: Path) -> dict[str, np.ndarray]:
    """Images, labels and logits of the bundle."""
    arrays = read_arrays(bundle / IMAGES)
    return {**arrays, "logits": arrays["logits/output"]}


@pytest.fixture
def device() -> Iterator[EmulatedDevice]:
    """A new emulated board, the one that pynq uses; nothing may be left allocated."""
    board = install(EmulatedDevice())
    yield board
    assert board.live_buffers == 0
    board.close_fabric()


@pytest.fixture(scope="session")
def alexnet_build(compiler: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """build/alexnet at 3 bits with 8 photographs; minutes and a gigabyte."""
    build = tmp_path_factory.mktemp("board") / "alexnet"
    settings = ["NET=alexnet", "BITS=3", "IMAGES=8", f"OUT={build}"]
    stage("model_prep", "quantize", *settings)
    stage("codegen", "codegen", f"OUT={build}", "BATCH=8")
    return build
