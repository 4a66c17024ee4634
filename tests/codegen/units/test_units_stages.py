# SPDX-License-Identifier: Apache-2.0
"""The compute stages as Verilog: exact, one DSP block a multiplier, LUTs as the planner counts."""

from pathlib import Path

import pytest

from nuq.codegen.units.stage_checks import check_stage
from nuq.codegen.units.stages import FAMILIES, Stage, estimated_luts, full_pairs, verilog
from nuq.codegen.units.synthesis import synthesize
from nuq.formats.hardware import find_part
from tests.checkout import needs_yosys

pytestmark = needs_yosys


@pytest.mark.parametrize(
    "stage", [full_pairs(8, 8, 10, 25), full_pairs(5, 5, 16, 27), Stage(6, 14, 13)]
)
def test_stage_is_exact(stage: Stage) -> None:
    """Extreme and random operands, also with an odd number of multipliers."""
    edges, mismatch = check_stage(stage)
    assert edges > 400 and mismatch == ""


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("above <= high + negative", "above <= high"),
        ("held[16]", "held[15]"),  # another sign bit
        ("own <= low_held + joined", "own <= low_held"),
        ("apart <= paired ? above : 19'sd0", "apart <= above"),
    ],
)
def test_a_wrong_stage_is_found(right: str, wrong: str) -> None:
    stage = full_pairs(2, 8, 10, 25)
    text = verilog(stage)
    assert right in text
    _, mismatch = check_stage(stage, text=text.replace(right, wrong))
    assert mismatch.startswith("pairs_17_2x8x10, ")


@pytest.mark.slow
@pytest.mark.parametrize("target", FAMILIES)
def test_one_dsp_block_a_multiplier(target: str, tmp_path: Path) -> None:
    """At the limits of the block; one bit more of a weight or of a value takes a second one.

    A wider value moves the upper weight up a bit.
    """
    port = find_part(FAMILIES[target][1]).multiplier[0]
    value = port - 15
    # Yosys leaves the adders of a DSP48E2 unused, so a single stage's LUTs show nothing there
    fits = [full_pairs(8, 8, value, port), *[Stage(8, 8, value)] * (target == "xc7")]
    wide = [Stage(2, 8, value + 1, 8, port - 7), Stage(2, 9, value, 9, port - 8)]
    modules = {stage.name: verilog(stage) for stage in [*fits, *wide]}
    costs = synthesize(modules, target, tmp_path / "cache.json", dsp=True)
    for stage in fits:
        cost = costs[stage.name]
        assert cost.dsp == stage.simd
        assert estimated_luts(stage) == pytest.approx(cost.lut, rel=0.15)
    assert [costs[stage.name].dsp for stage in wide] == [4, 4]
