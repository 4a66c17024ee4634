# SPDX-License-Identifier: Apache-2.0
"""Probes: tiny kernels, each one shape of code that the engine relies on, and what each must show.

`make hls NET=probes` synthesizes them all, minutes instead of the engine's hour, and
says which assumption failed. Kernels: hls_templates/probes; verdicts: probes.toml.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path

from nuq.codegen.emit.render import TEMPLATES, headers, render
from nuq.codegen.emit.report_model import Hls
from nuq.codegen.emit.xilinx.flow import find_hls
from nuq.codegen.emit.xilinx.reports import read_csynth
from nuq.codegen.emit.xilinx.verdict import (
    Finding,
    Limit,
    check_clock,
    check_limits,
    check_loops,
    read_messages,
)
from nuq.codegen.hls_check.recurrence import find_pipelines
from nuq.formats.build import atomic_dir
from nuq.formats.hardware import Part

NET = "probes"  # as NET of make hls
SOURCES = TEMPLATES / "probes"
TABLE = Path(__file__).with_suffix(".toml")
SCRIPT = "run_probes.tcl"
REPORT = Path("solution1") / "syn" / "report" / "csynth.xml"
MARK = "PROBE "


@dataclass(frozen=True)
class Probe:
    """What a kernel must show."""

    name: str
    assumption: str  # of the engine
    bram18: int  # at most
    dsp: int  # exactly
    latency: int | None = None  # cycles of a call at most; None where they depend on the data
    interval: int | None = None  # cycles between calls at most; of a region what only processes
    # that run at the same time meet

    @property
    def source(self) -> Path:
        """The kernel."""
        return SOURCES / f"{self.name}.cpp"

    def check(self, hls: Hls) -> list[Finding]:
        """What csynth.xml says otherwise, or does not say."""
        text = {self.source.name: self.source.read_text(encoding="utf-8")}
        found = check_loops(hls, (loop.label for loop in find_pipelines(text))) + check_clock(hls)
        limits: dict[str, Limit] = {
            "BRAM_18K": (hls.resources.bram18, self.bram18, "{}"),
            "DSP": (hls.resources.dsp, self.dsp, "{}"),
        }
        if self.latency is not None:
            limits["Worst-caseLatency"] = (hls.latency_max, self.latency, "{}")
        if self.interval is not None:
            limits["Interval-max"] = (hls.interval_max, self.interval, "{}")
        return found + check_limits(limits)


def load_probes() -> tuple[Probe, ...]:
    """All of probes.toml, in its order."""
    table = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    return tuple(Probe(name=name, **entry) for name, entry in table.items())


def write_probes(build: Path, part: Part) -> Path:
    """Sources and script in build/probes/hls; return the script."""
    texts = headers()
    texts |= {path.name: path.read_text(encoding="utf-8") for path in SOURCES.glob("*.[ch]pp")}
    names = [probe.name for probe in load_probes()]
    settings = {"device": part.device, "clock_mhz": part.clock_mhz, "probes": names}
    texts[SCRIPT] = render(f"{SCRIPT}.j2", settings)
    build.mkdir(parents=True, exist_ok=True)
    with atomic_dir(build / "hls") as folder:
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
    return build / "hls" / SCRIPT


def run_probes(build: Path, part: Part) -> int:
    """Run them all and say what each showed; 1 where an assumption failed."""
    tool, script = find_hls(), write_probes(build, part)
    work = build / "hls_work"
    log = tool.run(script, work)
    verdicts = read_probes(work, log.read_text(encoding="utf-8", errors="replace"))
    for probe in load_probes():
        found = verdicts[probe.name]
        print(f"{'FAILED' if found else 'ok':7s}{probe.name:18s} {probe.assumption}")
        for finding in found:
            print(f"        {finding}")
    failed = sum(bool(found) for found in verdicts.values())
    print(f"{len(verdicts) - failed} of {len(verdicts)} probes are as the engine needs them")
    return 1 if failed else 0


def read_probes(work: Path, log: str) -> dict[str, list[Finding]]:
    """What was found of every probe: in its part of the log, and in its report."""
    parts = {part.splitlines()[0].strip(): part for part in f"\n{log}".split(f"\n{MARK}")[1:]}
    verdicts = {}
    for probe in load_probes():
        text = parts.get(probe.name, "")
        found, report = read_messages(text), work / probe.name / REPORT
        if not text:
            found.append(Finding("it must be run", f"the log has no line {MARK}{probe.name}"))
        if report.is_file():
            found += probe.check(read_csynth(report))
        else:
            errors = [line.strip() for line in text.splitlines() if line.startswith("ERROR")]
            said = errors[0] if errors else f"{report} is missing"
            found.append(Finding("it must be synthesized", said))
        verdicts[probe.name] = found
    return verdicts
