# SPDX-License-Identifier: Apache-2.0
"""What in a run of Vitis HLS means that the engine is not what was planned, though it went on.

Three sources: messages of the log (UG1448 explains most), loops and clock of csynth.xml, and the
resources beside the plan. Every finding has the tool's own words and what they mean here.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from nuq.codegen.design.resources import REGISTERS_BRAM18
from nuq.codegen.emit.report_model import Blocks, Hls
from nuq.codegen.emit.xilinx.flow import LINE_LIMIT

# Numbers of messages, by the part that they begin with, and what each means for this engine.
_SERIAL = "the processes run one after the other; keep the region to local streams and calls"
MESSAGES = {
    "200-880": "a value goes round a loop in more than a cycle: its initiation interval is above 1",
    "200-885": "a memory has too few ports for a loop: its initiation interval is above 1",
    "200-887": "a loop is slower than its pragma says: its initiation interval is above 1",
    "200-871": "a path is longer than the clock allows; plan a lower CLOCK",
    "200-976": "a process reads and writes the same argument of a dataflow region",
    "200-977": "an argument of a dataflow region has more than one process",
    "200-994": "a dataflow region reads a value of the call or iteration before",
    "200-471": _SERIAL,
    "200-779": "a channel of a dataflow region has more than one reader or writer",
    "214-11": _SERIAL,
}
MESSAGE = re.compile(r"^\s*(?:CRITICAL WARNING|WARNING|ERROR)\s*:\s*\[\S+ (\d+-\d+)\]")
PIPELINED = re.compile(
    r"Target II\s*=\s*(\d+), Final II\s*=\s*(\d+)(?:, Depth\s*=\s*\d+)?(?:, (?:loop|function) "
    r"'([^']*)')?"
)
# Figures that must be as planned: fewer, too, mean that something is built in another way.
EXACT = ("DSP",)
# A figure, the most that it may be, and a text with {} for that.
Limit = tuple[float | None, float, str]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong."""

    meaning: str
    said: str  # the tool's line, or its figure

    def __str__(self) -> str:
        return f"{self.meaning}: {self.said}"


def read_messages(log: str) -> list[Finding]:
    """Findings of a log, each line once.

    >>> text = "WARNING: [HLS 200-880] The II Violation in module 'a': Unable to enforce ..."
    >>> [finding.said == text for finding in read_messages(text)]
    [True]
    >>> read_messages("INFO: [HLS 200-1470] Pipelining result : Target II = 1, Final II = 1")
    []
    """
    found: dict[str, Finding] = {}
    for line in log.splitlines():
        text = line.strip()[:LINE_LIMIT]
        message, pipelined = MESSAGE.match(line), PIPELINED.search(line)
        if message:
            for number, meaning in MESSAGES.items():
                exact = "-" in number and len(number.split("-")[1]) == 3
                if message[1] == number or (not exact and message[1].startswith(number)):
                    found.setdefault(text, Finding(meaning, text))
        elif pipelined and int(pipelined[2]) > int(pipelined[1]):
            meaning = (
                f"loop {pipelined[3] or '?'} must begin an iteration every {pipelined[1]} cycle"
            )
            found.setdefault(text, Finding(meaning, text))
    return list(found.values())


def check_loops(hls: Hls, labels: Iterable[str] = ()) -> list[Finding]:
    """Pipelined loops that are slower than the engine's, which are all planned for 1.

    labels: loops of the sources with PIPELINE; what the report does not have is a finding, too.
    """
    known = [loop for loop in hls.loops if loop.ii is not None]
    found = [
        Finding(
            f"loop {loop.name} of {loop.module} must begin an iteration every cycle",
            f"csynth.xml has PipelineII {loop.ii:g}",
        )
        for loop in known
        if loop.ii is not None and loop.ii > 1
    ]
    for label in sorted(set(labels)):
        named = re.compile(rf"(?:.*_)?{label}(?:_.*)?")  # flattened loops join their labels
        if not any(named.fullmatch(loop.name) for loop in known):
            found.append(_missing(f"loop {label} must be pipelined", f"PipelineII of {label}"))
    return found


def _missing(meaning: str, figure: str) -> Finding:
    """A figure that the report lacks: nobody knows whether the engine is as planned."""
    return Finding(meaning, f"csynth.xml has no {figure}")


def check_clock(hls: Hls) -> list[Finding]:
    """An estimated period above the target less its uncertainty, which routing is left."""
    figures = {
        "TargetClockPeriod": hls.target_ns,
        "ClockUncertainty": hls.uncertainty_ns,
        "EstimatedClockPeriod": hls.estimated_ns,
    }
    missing = [name for name, value in figures.items() if value is None]
    if hls.target_ns is None or hls.uncertainty_ns is None or hls.estimated_ns is None:
        return [_missing("the clock must be known", name) for name in missing]
    if hls.estimated_ns <= hls.target_ns - hls.uncertainty_ns + 1e-6:
        return []
    return [
        Finding(
            f"the clock must leave routing {hls.uncertainty_ns:g} of {hls.target_ns:g} ns; "
            "plan a lower CLOCK, or mend the module with the longest path",
            f"csynth.xml has EstimatedClockPeriod {hls.estimated_ns:g}",
        )
    ]


def check_limits(limits: Mapping[str, Limit]) -> list[Finding]:
    """Figures above what they may be at most, or not as they must be, or not in the report.

    limits: by the report's name of the figure: its value, the most that it may be, what this is.
    """
    found = []
    for name, (used, most, what) in limits.items():
        exact = name in EXACT
        meaning = f"{name} must be {'' if exact else 'at most '}{what.format(f'{most:g}')}"
        if used is None:
            found.append(_missing(meaning, name))
        elif used > most or (exact and used != most):
            found.append(Finding(meaning, f"csynth.xml has {used:g}"))
    return found


def check_resources(hls: Hls, plan: Blocks, room: Blocks) -> list[Finding]:
    """DSP other than planned, memory blocks above the plan, LUTs and flip-flops above `room`.

    Vitis HLS overrates the last two.
    """
    used, smaller = hls.resources, "use a smaller PE or SIMD"
    blocks = 2 * plan.bram36 + REGISTERS_BRAM18
    limits: dict[str, Limit] = {
        "DSP": (used.dsp, plan.dsp, "the {} planned: the reports of the modules say where"),
        "BRAM_18K": (used.bram18, blocks, f"the {{}} planned, the registers' included; {smaller}"),
        "URAM": (used.uram, plan.uram, f"the {{}} planned; {smaller}"),
        "LUT": (used.lut, room.lut, f"the {{}} usable; {smaller}"),
        "FF": (used.ff, room.ff, f"the {{}} usable; {smaller}"),
    }
    return check_limits(limits)
