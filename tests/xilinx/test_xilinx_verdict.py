# SPDX-License-Identifier: Apache-2.0
"""The verdict on a run of Vitis HLS: a sample without a fault, and one for every rule."""

from pathlib import Path

import pytest

from nuq.codegen.emit.render import headers
from nuq.codegen.emit.report_model import Blocks
from nuq.codegen.emit.xilinx.reports import findings, read_csynth
from nuq.codegen.emit.xilinx.verdict import (
    MESSAGES,
    check_clock,
    check_loops,
    check_resources,
    read_messages,
)
from nuq.codegen.hls_check.dataflow import loops_of_processes

DATA = Path(__file__).parent / "data"
LOG = (DATA / "vitis_hls.log").read_text()
CSYNTH = (DATA / "csynth.xml").read_text()
ROOM = Blocks(dsp=220, bram36=140, uram=0, lut=53200, ff=106400)

LINES = [  # a line of the log, and what is said of it
    ("WARNING: [HLS 200-880] The II Violation in module 'compute' (loop 'compute_step'): Unable to "
     "enforce a carried dependence constraint (II = 1, distance = 1, offset = 1) between a and b.",
     "initiation interval is above 1"),
    ("WARNING: [HLS 200-885] The II Violation in module 'a': Unable to schedule 'load' operation "
     "due to limited memory ports (II = 1).", "too few ports"),
    ("WARNING: [HLS 200-887] Cannot meet target clock period in module 'a'.", "slower"),
    ("WARNING: [HLS 200-871] Estimated clock period (8.9ns) exceeds the target (10ns, 2.7ns).",
     "plan a lower CLOCK"),
    ("ERROR: [HLS 200-976] Argument 'acc' failed dataflow checking: Cannot read as well as write "
     "over function parameter.", "reads and writes the same argument"),
    ("ERROR: [HLS 200-977] Argument 'x' has more than one process.", "more than one process"),
    ("ERROR: [HLS 200-994] Cannot read value of 'v' from previous iterations in dataflow.",
     "of the call or iteration before"),
    ("WARNING: [HLS 200-471] Dataflow form checks found 2 issue(s) in file engine.hpp:63",
     "one after the other"),
    ("WARNING: [HLS 200-779] Channel 'd' must have a single reader.", "more than one reader"),
    ("WARNING: [HLS 214-113] Either use an argument of the function or declare the variable inside "
     "the dataflow loop body", "one after the other"),
    ("INFO: [HLS 200-1470] Pipelining result : Target II = 1, Final II = 3, Depth = 9, loop "
     "'pack_step'", "loop pack_step must begin an iteration every 1 cycle"),
]  # fmt: skip


def test_a_run_without_a_fault_has_no_finding() -> None:
    hls = read_csynth(DATA / "csynth.xml")
    assert read_messages(LOG) == [] and check_loops(hls) == [] and check_clock(hls) == []
    assert check_resources(hls, ROOM.model_copy(update={"dsp": 192}), ROOM) == []
    loop = hls.loops[0]
    assert (loop.name, loop.module, loop.ii, loop.depth) == ("compute_step", "compute", 1, 12)
    loops = loops_of_processes(headers())
    assert sorted(item.name for item in hls.loops) == sorted(loops) and len(loops) > 8


def test_every_message_has_a_sample() -> None:
    assert all(any(f" {number}" in line for line, _ in LINES) for number in MESSAGES)


@pytest.mark.parametrize(("line", "meaning"), LINES)
def test_a_line_of_the_log_is_a_finding(line: str, meaning: str) -> None:
    (found,) = read_messages(f"{LOG}{line}\n{line}\n")
    assert found.said == line and meaning in found.meaning


@pytest.mark.parametrize(
    ("old", "new", "meaning", "said"),
    [
        ("<PipelineII>1<", "<PipelineII>2<", "loop compute_step of compute must begin an",
         "PipelineII 2"),
        ("Period>7.000<", "Period>7.500<", "the clock must leave routing 2.7 of 10 ns",
         "EstimatedClockPeriod 7.5"),
        ("<DSP>192<", "<DSP>237<", "DSP must be the 192 planned", "has 237"),
        ("<DSP>192<", "<DSP>190<", "DSP must be the 192 planned", "has 190"),
        ("<BRAM_18K>79<", "<BRAM_18K>288<", "BRAM_18K must be at most", "has 288"),
        ("<BRAM_18K>79<", "<BRAM_18K>89<", "BRAM_18K must be at most the 88 planned", "has 89"),
        ("<URAM>0<", "<URAM>1<", "URAM must be at most", "has 1"),
        ("<LUT>41000<", "<LUT>49000<", "LUT must be at most the 47880 usable", "has 49000"),
        ("<FF>30000<", "<FF>99000<", "FF must be at most the 95760 usable", "has 99000"),
        # what a report does not say is not as planned
        ("<PipelineII>1</PipelineII>\n", "\n", "loop compute_step must be pipelined",
         "no PipelineII of compute_step"),
        (">pack_step<", ">pack_stop<", "loop pack_step must be pipelined",
         "no PipelineII of pack_step"),
        ("<TargetClockPeriod>10.00<", "<TargetClockPeriod><", "the clock must be known",
         "no TargetClockPeriod"),
        ("<ClockUncertainty>2.70</ClockUncertainty>", "", "the clock must be known",
         "no ClockUncertainty"),
        ("EstimatedClockPeriod>7.000<", "EstimatedClockPeriod>undef<", "the clock must be known",
         "no EstimatedClockPeriod"),
        ("<DSP>192</DSP>", "", "DSP must be the 192 planned", "no DSP"),
        ("<BRAM_18K>79</BRAM_18K>", "", "BRAM_18K must be at most", "no BRAM_18K"),
        ("<URAM>0</URAM>", "", "URAM must be at most", "no URAM"),
        ("<LUT>41000</LUT>", "", "LUT must be at most", "no LUT"),
        ("<FF>30000</FF>", "", "FF must be at most", "no FF"),
    ],
)  # fmt: skip
def test_a_report_beside_the_plan(copied, old: str, new: str, meaning: str, said: str) -> None:
    folder = copied()
    made = folder / "hls_report"
    made.mkdir()
    (made / "vitis_hls.log").write_text(LOG)
    assert old in CSYNTH
    for text, count in ((CSYNTH, 0), (CSYNTH.replace(old, new, 1), 1)):
        (made / "csynth.xml").write_text(text)
        found = findings(folder)
        assert len(found) == count
    assert found[0].meaning.startswith(meaning) and found[0].said.endswith(said)


@pytest.mark.parametrize("log", ["", None])
def test_a_run_without_a_log_is_a_finding(copied, log: str | None) -> None:
    folder = copied()
    made = folder / "hls_report"
    made.mkdir()
    (made / "csynth.xml").write_text(CSYNTH)
    if log is not None:
        (made / "vitis_hls.log").write_text(log)
    (found,) = findings(folder)
    assert str(found) == f"the log must say what was synthesized: {made} has no log"
