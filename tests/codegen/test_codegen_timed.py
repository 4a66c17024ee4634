# SPDX-License-Identifier: Apache-2.0
"""The timed C-simulation: the same codes and counts, and cycles that include waiting."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nuq import dispatch
from nuq.codegen.emit import csim
from nuq.formats.commands import main
from tests.checkout import needs_compiler, shared
from tests.toys import read_json

pytestmark = needs_compiler
WITHIN = 0.03  # of the cycle model, on networks of full size


def timed(build: Path, *options: str) -> dict[str, Any]:
    """report.json after a timed simulation, which ends well."""
    assert main(["csim", f"OUT={build}", "CSIM_TYPES=timed", *options]) == 0
    report = read_json(build)
    assert report["csim"]["types"] == "timed" and report["csim"]["mismatches"] == 0
    return report


def cycles(report: dict[str, Any]) -> list[int]:
    """Of every layer, as simulated."""
    return [layer["cycles"] for layer in report["csim"]["layers"]]


def test_waiting_counts_and_nothing_else_changes(
    generated: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    build = generated()
    report = timed(build)
    busiest = [max(layer["counts"].values()) for layer in report["layers"]]
    assert all(now > least for now, least in zip(cycles(report), busiest, strict=True))
    assert f"timed: {sum(cycles(report)):,} cycles, " in capsys.readouterr().out
    assert cycles(timed(build)) == cycles(report)

    def slow(_: Any) -> list[str]:
        return ["-DDRAM_WORDS_PER_CYCLE=0.125", "-DADAPTER_WORDS=16"]

    monkeypatch.setattr(csim, "timing", slow)
    assert sum(cycles(timed(build))) > 1.5 * sum(cycles(report))


@pytest.mark.slow
@pytest.mark.parametrize("net", ["alexnet", "vgg16", "squeezenet"])
def test_the_cycle_model_comes_close(net: str, tmp_path: Path) -> None:
    options = [f"NET={net}"]
    if net == "squeezenet":
        model, images = shared("data/squeezenet_v1.0.onnx"), shared("data/imagenet500.npz")
        options = [f"NET={model}", f"DATA={images}"]
    assert main(["codegen", f"OUT={tmp_path}", "IMAGES=1", *options], dispatch.run) == 0
    report = timed(tmp_path)
    clock = report["performance"]["clock_mhz"] * 1e6
    model_cycles = report["performance"]["seconds"] * clock
    assert abs(sum(cycles(report)) / model_cycles - 1) < WITHIN
