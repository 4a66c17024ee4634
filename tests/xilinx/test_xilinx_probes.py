# SPDX-License-Identifier: Apache-2.0
"""The probes: they compute what they should, their script runs them all, a failure is named."""

import re
import shutil
from pathlib import Path

import pytest
from tcl_check import WHY_NOT, interpreter, run_script

from nuq import dispatch
from nuq.codegen.emit.render import TEMPLATES, headers
from nuq.codegen.emit.xilinx.probes import (
    MARK,
    REPORT,
    Probe,
    load_probes,
    read_probes,
    write_probes,
)
from nuq.codegen.hls_check.check import check_design, check_files
from nuq.codegen.hls_check.recurrence import find_pipelines
from nuq.formats.build import find_compiler, find_headers
from nuq.formats.commands import main
from nuq.formats.hardware import find_part
from tests.checkout import execute, needs_clang, needs_compiler

DATA = Path(__file__).parent / "data"
PROBES = load_probes()
NAMES = [probe.name for probe in PROBES]
SAMPLE = re.sub(r"<(BRAM_18K|DSP)>\d+<", r"<\1>0<", (DATA / "csynth.xml").read_text())
for figure in ("Worst-caseLatency", "Interval-max"):
    SAMPLE = SAMPLE.replace(f"<{figure}>undef<", f"<{figure}>80<")


def good(name: str) -> str:
    """A report in which a probe shows what it should."""
    (dsp,) = (probe.dsp for probe in PROBES if probe.name == name)
    source = (TEMPLATES / "probes" / f"{name}.cpp").read_text()
    loops = "".join(
        f"<{loop.label}><Name>{loop.label}</Name><PipelineII>1</PipelineII></{loop.label}>"
        for loop in find_pipelines({f"{name}.cpp": source})
    )
    loops = f"<SummaryOfLoopLatency>{loops}</SummaryOfLoopLatency>"
    text = SAMPLE.replace("<DSP>0<", f"<DSP>{dsp}<", 1)
    return re.sub("<SummaryOfLoopLatency>.*?</SummaryOfLoopLatency>", loops, text, count=1,
                  flags=re.DOTALL)  # fmt: skip


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_probes(tmp_path_factory.mktemp("probes"), find_part("XC7Z020"))


def test_table_and_sources_agree() -> None:
    assert sorted(NAMES) == sorted(path.stem for path in TEMPLATES.glob("probes/*.cpp"))
    assert len(NAMES) == 28
    for probe in PROBES:
        text = (TEMPLATES / "probes" / f"{probe.name}.cpp").read_text()
        assert re.search(rf"^void {probe.name}\(", text, re.M) and "int main() {" in text


def test_probes_keep_to_the_hls_subset() -> None:
    assert check_files((TEMPLATES / "probes",)) == ([], [])


@needs_clang
@pytest.mark.parametrize("probe", PROBES, ids=NAMES)
def test_a_probe_compiles_as_the_engine_does(probe: Probe) -> None:
    """For synthesis, by clang, with its operators and recurrences weighed."""
    name = probe.name
    texts = {path.name: path.read_text() for path in TEMPLATES.glob("probes/*.hpp")}
    source = (TEMPLATES / "probes" / f"{name}.cpp").read_text()
    texts |= headers() | {f"{name}.cpp": source}
    found, times = check_design(texts, top=f"{name}.cpp")
    # the multipliers of an array are what some of them are about
    assert [str(item) for item in found if item.rule != "operators" or not probe.dsp] == []
    labels = {loop.label for loop in find_pipelines({f"{name}.cpp": source})}
    assert set() < {item.loop.label for item in times} <= labels  # less what became a copy


@needs_clang
def test_what_only_the_front_end_sees_in_a_probe() -> None:
    source = (TEMPLATES / "probes" / "copies.cpp").read_text()
    assert "variable = memory complete" in source
    texts = {path.name: path.read_text() for path in TEMPLATES.glob("probes/*.hpp")}
    wrong = source.replace("variable = memory complete", "variable = memories complete")
    found, _ = check_design({**headers(), **texts, "copies.cpp": wrong}, top="copies.cpp")
    assert "use of undeclared identifier 'memories'" in found[0].message


@needs_compiler
@pytest.mark.parametrize("name", NAMES)
def test_a_probe_computes_what_it_should(script: Path, tmp_path: Path, name: str) -> None:
    flags = ("-std=c++14", "-O0", "-Wall", "-Wno-unknown-pragmas", "-Wno-unused-label", "-Werror")
    source, program = script.parent / f"{name}.cpp", tmp_path / name
    inside = ("-I", str(script.parent), "-isystem", str(find_headers()))
    execute(find_compiler(), *flags, *inside, str(source), "-o", str(program), status=0)
    execute(str(program), status=0)


@pytest.mark.skipif(interpreter() is None, reason=WHY_NOT)
def test_the_script_runs_every_probe(script: Path, tmp_path: Path) -> None:
    run = run_script(script, "hls", tmp_path, {}, {})
    assert run.problems() == []
    assert [call.operands[0] for call in run.named("set_top")] == NAMES
    assert len(run.named("csynth_design")) == len(NAMES)
    assert re.findall(rf"^{MARK}(\w+)$", run.output, re.M) == NAMES


def finished(work: Path, **changed: str) -> str:
    """Reports of all probes in `work`, `changed` by name; returns the log."""
    for name in NAMES:
        path = work / name / REPORT
        path.parent.mkdir(parents=True)
        path.write_text(changed.get(name, good(name)))
    return "start\n" + "".join(f"{MARK}{name}\nINFO: [HLS 200-10] fine\n" for name in NAMES)


def test_probes_without_a_fault(tmp_path: Path) -> None:
    assert not any(read_probes(tmp_path, finished(tmp_path)).values())


@pytest.mark.parametrize(
    ("name", "old", "new", "meaning"),
    [
        # what a report does not say is not as expected
        ("region", "<Worst-caseLatency>80<", "<Worst-caseLatency>undef<", "no Worst-caseLatency"),
        ("region", "<Interval-max>80<", "<Interval-max>undef<", "no Interval-max"),
        ("mac_row", "<DSP>64</DSP>", "", "DSP must be 64: csynth.xml has no DSP"),
        ("copies", "<BRAM_18K>0</BRAM_18K>", "", "BRAM_18K must be .*: csynth.xml has no BRAM_18K"),
        ("digits", "<ClockUncertainty>2.70<", "<ClockUncertainty><", "the clock must be known"),
        ("digits", "Period>7.000<", "Period><", "csynth.xml has no EstimatedClockPeriod"),
        ("digits", ">10.00<", "><", "csynth.xml has no TargetClockPeriod"),
        ("tap_table", "<Name>take_step<", "<Name>other<", "loop take_step must be pipelined"),
        ("region", "<Interval-max>80<", "<Interval-max>925<",
         "Interval-max must be at most 100: csynth.xml has 925"),
        ("tap_table", "<BRAM_18K>0<", "<BRAM_18K>1<", "BRAM_18K must be at most 0: .* has 1"),
        ("mac_row", "<DSP>64<", "<DSP>65<", "DSP must be 64: csynth.xml has 65"),
        ("mac_row", "<DSP>64<", "<DSP>0<", "DSP must be 64: csynth.xml has 0"),
        ("region", "Worst-caseLatency>80<", "Worst-caseLatency>900<",
         "Worst-caseLatency must be at most 250: csynth.xml has 900"),
        ("digits", "<PipelineII>1<", "<PipelineII>2<", "must begin an iteration every cycle"),
        ("stage_slot", "<PipelineII>1</PipelineII>", "", "loop stage_step must be pipelined"),
        ("copies", "Period>7.000<", "Period>7.500<", "the clock must leave routing 2.7"),
    ],
)  # fmt: skip
def test_a_report_that_is_not_as_expected(
    tmp_path: Path, name: str, old: str, new: str, meaning: str
) -> None:
    assert old in good(name)
    log = finished(tmp_path, **{name: good(name).replace(old, new)})
    verdicts = read_probes(tmp_path, log)
    assert [probe for probe, found in verdicts.items() if found] == [name]
    assert re.search(meaning, " ".join(map(str, verdicts[name])))


def test_messages_and_missing_reports_belong_to_their_probe(tmp_path: Path) -> None:
    log = finished(tmp_path)
    line = "WARNING: [HLS 200-880] The II Violation in module 'optional_read'"
    log = log.replace(f"{MARK}wide_row\n", f"{line}\n{MARK}wide_row\n")
    log = log.replace(f"{MARK}digits\n", f"{MARK}digits\nERROR: probe digits: no such part\n")
    shutil.rmtree(tmp_path / "digits")
    verdicts = read_probes(tmp_path, log)
    assert [name for name, found in verdicts.items() if found] == ["optional_read", "digits"]
    assert verdicts["optional_read"][0].said == line
    assert str(verdicts["digits"][0]).endswith("ERROR: probe digits: no such part")


def test_a_probe_that_was_not_run_is_a_finding(tmp_path: Path) -> None:
    log = finished(tmp_path).replace(f"{MARK}copies\n", "")
    (found,) = read_probes(tmp_path, log)["copies"]
    assert str(found) == f"it must be run: the log has no line {MARK}copies"


def test_make_hls_runs_the_probes(tmp_path, monkeypatch, capsys) -> None:
    """Without a network; the exit status says whether an assumption failed."""
    tool = tmp_path / "bin" / "vitis_hls"
    tool.parent.mkdir()
    for name in NAMES:
        (tmp_path / f"{name}.xml").write_text(good(name))
    tool.write_text(
        "#!/bin/sh\n" + "".join(
            f"echo '{MARK}{name}'; mkdir -p {name}/{REPORT.parent}; "
            f"cp {tmp_path}/{name}.xml {name}/{REPORT}\n"
            for name in NAMES
        )
    )  # fmt: skip
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:/usr/bin:/bin")
    words = ["hls", "NET=probes", f"OUT={tmp_path / 'out'}"]
    assert main(words, dispatch.run) == 0
    text = capsys.readouterr().out
    assert f"{len(NAMES)} of {len(NAMES)} probes are as the engine needs them" in text
    assert not (tmp_path / "out" / "quantized").exists()
    (tmp_path / "digits.xml").write_text(good("digits").replace("<DSP>0<", "<DSP>9<"))
    assert main(words, dispatch.run) == 1
    text = capsys.readouterr().out
    assert re.search("FAILED digits +nested counters", text)
    assert f"{len(NAMES) - 1} of {len(NAMES)} probes" in text
