# SPDX-License-Identifier: Apache-2.0
"""What in a run of Vitis HLS means that the engine is not what was planned, though it went on.

Three sources: messages of the log (UG1448 explains most), loops and clock of csynth.xml, and the
resources beside the plan. Every finding has the tool's own words and what they mean here.
"""

import re
from dataclasses import dataclass

from codegen.emit.report_model import Blocks, Hls
from codegen.emit.xilinx.flow import LINE_LIMIT

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


def check_loops(hls: Hls) -> list[Finding]:
    """Pipelined loops that are slower than the engine's, which are all planned for 1."""
    return [
        Finding(
            f"loop {loop.name} of {loop.module} must begin an iteration every cycle",
            f"csynth.xml has PipelineII {loop.ii:g}",
        )
        for loop in hls.loops
        if loop.ii is not None and loop.ii > 1
    ]


def check_clock(hls: Hls) -> list[Finding]:
    """An estimated period above the target less its uncertainty, which routing is left."""
    if hls.target_ns is None or hls.estimated_ns is None:
        return []
    left = hls.target_ns - (hls.uncertainty_ns or 0)
    if hls.estimated_ns <= left + 1e-6:
        return []
    return [
        Finding(
            f"the clock must leave routing {hls.uncertainty_ns or 0:g} of {hls.target_ns:g} ns; "
            "plan a lower CLOCK, or mend the module with the longest path",
            f"csynth.xml has EstimatedClockPeriod {hls.estimated_ns:g}",
        )
    ]


def check_resources(hls: Hls, plan: Blocks, room: Blocks) -> list[Finding]:
    """Blocks above the plan; LUTs and flip-flops, which Vitis HLS overrates, above `room`."""
    used = dict(hls.resources)
    bram18 = used.get("bram18")
    used["bram36"] = None if bram18 is None else bram18 / 2
    limits = {name: (getattr(plan, name), "planned") for name in ("dsp", "bram36", "uram")}
    limits |= {name: (getattr(room, name), "usable") for name in ("lut", "ff")}
    return [
        Finding(
            f"{name.upper()} must be at most the {limit} {word}; use a smaller PE or SIMD",
            f"csynth.xml has {used[name]:g}",
        )
        for name, (limit, word) in limits.items()
        if used[name] is not None and used[name] > limit
    ]
