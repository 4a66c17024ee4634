# SPDX-License-Identifier: Apache-2.0
"""Report readers on files made by hand in the documented form, and the table they end up in."""

import json
import shutil
from pathlib import Path

import pytest

from nuq.codegen.emit.report_model import read_report
from nuq.codegen.emit.xilinx.reports import (
    comparison,
    read_cosim,
    read_csynth,
    read_timing,
    read_utilization,
    summary,
    update_report,
)
from nuq.formats.design import write_stamp
from nuq.formats.errors import UserError

DATA = Path(__file__).parent / "data"


def test_csynth():
    read = read_csynth(DATA / "csynth.xml")
    assert (read.version, read.part) == ("2022.2", "xc7z020-clg400-1")
    assert (read.target_ns, read.estimated_ns) == (10, 7)
    assert (read.latency_min, read.latency_max) == (1200, None)
    assert dict(read.resources) == {"dsp": 192, "bram18": 79, "uram": 0, "lut": 41000, "ff": 30000}
    assert read.interval_max is None  # undef
    module = read.modules[0]
    assert (module.name, module.latency_max) == ("compute", 5000)
    assert module.resources.dsp == 180 and module.resources.uram is None


def test_csynth_of_older_releases_calls_the_multiplier_block_dsp48e(tmp_path):
    path = tmp_path / "csynth.xml"
    path.write_text((DATA / "csynth.xml").read_text().replace("DSP>", "DSP48E>"))
    assert read_csynth(path).resources.dsp == 192


def test_cosim():
    read = read_cosim(DATA / "accelerator_cosim.rpt")
    latency = {"latency_min": 2100, "latency_average": 3300, "latency_max": 4500}
    assert dict(read) == {"status": "Pass", **latency}


def test_utilization():
    expected = {"dsp": 203, "bram36": 47.5, "uram": None, "lut": 44123, "ff": 35456}
    assert dict(read_utilization(DATA / "utilization.rpt")) == expected
    expected = {"dsp": 810, "bram36": 64, "uram": 8, "lut": 51000, "ff": 42000}
    assert dict(read_utilization(DATA / "utilization_ultrascale.rpt")) == expected


def test_timing(tmp_path):
    assert dict(read_timing(DATA / "timing.rpt")) == {"setup": 0.125, "hold": 0.012}
    path = tmp_path / "timing.rpt"
    path.write_text((DATA / "timing.rpt").read_text().replace(" 0.125", "-1.500"))
    assert dict(read_timing(path)) == {"setup": -1.5, "hold": 0.012}


@pytest.mark.parametrize(
    ("read", "content", "message"),
    [
        (read_csynth, "no XML", "must be XML"),
        (read_csynth, "<profile/>", "must have AreaEstimates/Resources"),
        (read_cosim, "| VHDL | NA |", "must have a row for Verilog"),
        (read_utilization, "nothing", "must be a utilization report"),
        (read_timing, "WNS(ns)  TNS(ns)  TNS\n", "must have a Design Timing Summary"),
    ],
)
def test_other_files_are_refused(tmp_path, read, content, message):
    path = tmp_path / "report"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        read(path)


@pytest.fixture
def with_reports(copied):
    """A generated build with the hand-made reports where the tools leave theirs."""
    folder = copied()
    for name, files in (
        ("hls_report", ["csynth.xml", "accelerator_cosim.rpt"]),
        ("bitstream", ["utilization.rpt", "timing.rpt"]),
    ):
        (folder / name).mkdir()
        for file in files:
            shutil.copy(DATA / file, folder / name)
        write_stamp(folder / name, folder)
    (folder / "bitstream" / "clock.txt").write_text("100.000000\n")
    return folder


def test_model_against_vitis(with_reports):
    report = update_report(with_reports)
    assert read_report(with_reports) == report
    rows = {row.quantity: row for row in report.vendor.comparison}
    dsp = report.resources.estimate.dsp
    assert (rows["dsp"].model, rows["dsp"].hls, rows["dsp"].vivado) == (dsp, 192, 203)
    assert (rows["bram36"].hls, rows["bram36"].vivado) == (39.5, 47.5)
    assert (rows["clock_mhz"].model, rows["clock_mhz"].hls) == (100, 142.9)
    assert rows["latency_min"].model == report.performance.cycles
    page = (with_reports / "report.html").read_text()
    assert "Model against Vitis" in page and "44,123" in page and "setup 0.125 ns" in page
    text = summary(report)
    assert "41,000" in text and "slack: setup 0.125 ns, hold 0.012 ns" in text
    assert "cosim: Pass" in text


def test_synthesis_alone_leaves_vivado_open(with_reports):
    shutil.rmtree(with_reports / "bitstream")
    (with_reports / "hls_report" / "accelerator_cosim.rpt").unlink()
    vendor = update_report(with_reports).vendor
    assert vendor.vivado is None and vendor.cosim is None
    assert all(row.vivado is None for row in vendor.comparison)
    assert "–" in (with_reports / "report.html").read_text()


def test_reports_of_another_design_are_refused(with_reports):
    stamp = with_reports / "hls_report" / "design.json"
    stamp.write_text(json.dumps({**json.loads(stamp.read_text()), "engine_id": "00000000"}))
    with pytest.raises(UserError, match="is of engine 00000000, not .*run `nuq hls` again"):
        update_report(with_reports)
    stamp.write_text("{")
    with pytest.raises(UserError, match="must be JSON"):
        update_report(with_reports)


def test_no_reports_are_one_sentence(copied):
    with pytest.raises(UserError, match="must hold the tool's reports; run `nuq hls` first"):
        update_report(copied())


def test_report_without_tools_has_no_table(copied):
    folder = copied()
    report = read_report(folder)
    assert report.vendor is None
    assert "Model against Vitis" not in (folder / "report.html").read_text()
    assert all(row.hls is None for row in comparison(report, None, None))
