# SPDX-License-Identifier: Apache-2.0
"""The probes: they compute what they should, their script runs them all, a failure is named."""

import re
import shutil
from pathlib import Path

import pytest
from tcl_check import WHY_NOT, interpreter, run_script

import nuq
from codegen.emit.render import TEMPLATES
from codegen.emit.xilinx.probes import MARK, REPORT, load_probes, read_probes, write_probes
from codegen.hls_check.check import check_files
from formats.build import find_compiler, find_headers
from formats.commands import main
from formats.hardware import find_part
from tests.checkout import execute, needs_compiler

DATA = Path(__file__).parent / "data"
PROBES = load_probes()
NAMES = [probe.name for probe in PROBES]
GOOD = re.sub(r"<(BRAM_18K|DSP)>\d+<", r"<\1>0<", (DATA / "csynth.xml").read_text()).replace(
    "<Worst-caseLatency>undef<", "<Worst-caseLatency>80<"
)


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_probes(tmp_path_factory.mktemp("probes"), find_part("XC7Z020"))


def test_table_and_sources_agree() -> None:
    assert sorted(NAMES) == sorted(path.stem for path in TEMPLATES.glob("probes/*.cpp"))
    assert len(NAMES) == 21
    for probe in PROBES:
        text = (TEMPLATES / "probes" / f"{probe.name}.cpp").read_text()
        assert re.search(rf"^void {probe.name}\(", text, re.M) and "int main() {" in text


def test_probes_keep_to_the_hls_subset() -> None:
    assert check_files((TEMPLATES / "probes",)) == ([], [])


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
        path.write_text(changed.get(name, GOOD))
    return "start\n" + "".join(f"{MARK}{name}\nINFO: [HLS 200-10] fine\n" for name in NAMES)


def test_probes_without_a_fault(tmp_path: Path) -> None:
    assert not any(read_probes(tmp_path, finished(tmp_path)).values())


@pytest.mark.parametrize(
    ("name", "old", "new", "meaning"),
    [
        ("tap_table", "<BRAM_18K>0<", "<BRAM_18K>1<", "BRAM_18K must be at most 0: .* has 1"),
        ("mac_row", "<DSP>0<", "<DSP>65<", "DSP must be at most 64: csynth.xml has 65"),
        ("region", "Worst-caseLatency>80<", "Worst-caseLatency>900<",
         "latency must be at most 250: csynth.xml has 900"),
        ("digits", "<PipelineII>1<", "<PipelineII>2<", "must begin an iteration every cycle"),
        ("stage_slot", "<PipelineII>1</PipelineII>", "", "a loop must have the interval 1"),
        ("copies", "Period>7.000<", "Period>7.500<", "the clock must leave routing 2.7"),
    ],
)  # fmt: skip
def test_a_report_that_is_not_as_expected(
    tmp_path: Path, name: str, old: str, new: str, meaning: str
) -> None:
    assert old in GOOD
    log = finished(tmp_path, **{name: GOOD.replace(old, new)})
    verdicts = read_probes(tmp_path, log)
    assert [probe for probe, found in verdicts.items() if found] == [name]
    assert re.search(meaning, " ".join(map(str, verdicts[name])))


def test_messages_and_missing_reports_belong_to_their_probe(tmp_path: Path) -> None:
    log = finished(tmp_path)
    line = "WARNING: [HLS 200-880] The II Violation in module 'optional_read'"
    log = log.replace(f"{MARK}wide_row", f"{line}\n{MARK}wide_row")
    log = log.replace(f"{MARK}digits\n", f"{MARK}digits\nERROR: probe digits: no such part\n")
    shutil.rmtree(tmp_path / "digits")
    verdicts = read_probes(tmp_path, log)
    assert [name for name, found in verdicts.items() if found] == ["optional_read", "digits"]
    assert verdicts["optional_read"][0].said == line
    assert str(verdicts["digits"][0]).endswith("ERROR: probe digits: no such part")


def test_make_hls_runs_the_probes(tmp_path, monkeypatch, capsys) -> None:
    """Without a network; the exit status says whether an assumption failed."""
    tool = tmp_path / "bin" / "vitis_hls"
    tool.parent.mkdir()
    (tmp_path / "good.xml").write_text(GOOD)
    tool.write_text(
        "#!/bin/sh\n" + "".join(
            f"echo '{MARK}{name}'; mkdir -p {name}/{REPORT.parent}; "
            f"cp {tmp_path}/good.xml {name}/{REPORT}\n"
            for name in NAMES
        )
    )  # fmt: skip
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:/usr/bin:/bin")
    words = ["hls", "NET=probes", f"OUT={tmp_path / 'out'}"]
    assert main(words, nuq.run) == 0
    text = capsys.readouterr().out
    assert "21 of 21 probes are as the engine needs them" in text
    assert not (tmp_path / "out" / "quantized").exists()
    (tmp_path / "good.xml").write_text(GOOD.replace("<DSP>0<", "<DSP>9<"))
    assert main(words, nuq.run) == 1
    text = capsys.readouterr().out
    assert re.search("FAILED digits +nested counters", text) and "2 of 21 probes" in text
