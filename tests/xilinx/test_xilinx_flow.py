# SPDX-License-Identifier: Apache-2.0
"""The vendor flow with stand-ins for the tools: small programs that leave files where the tools do.

They show what the flow does with a tool's files, failures and absence; not that the tools accept
the scripts.
"""

import json
import os
import stat
import zipfile
from pathlib import Path

import pytest

from nuq import dispatch
from nuq.board.bundle import make_bundle
from nuq.codegen.emit.xilinx import flow
from nuq.codegen.emit.xilinx.block_design import parse_interfaces, write_block_design
from nuq.formats.commands import main
from nuq.formats.errors import UserError
from tests.checkout import error_line, make

DATA = Path(__file__).parent / "data"
HLS = f"""#!/bin/sh
echo "INFO: steps $HLS_STEPS"
solution=accelerator_prj/solution1
mkdir -p $solution/syn/report $solution/impl/ip $solution/sim/report
case "$HLS_STEPS" in *csynth*) cp {DATA}/csynth.xml $solution/syn/report/;; esac
case "$HLS_STEPS" in *cosim*) cp {DATA}/accelerator_cosim.rpt $solution/sim/report/;; esac
case "$HLS_STEPS" in *export*) echo "<x/>" > $solution/impl/ip/component.xml;; esac
echo run >> runs.txt
"""
THREE = ("gmem_w0", "gmem_in", "gmem_out")
HANDOFF = """<EDKSYSTEM><MODULES><MODULE VLNV="xilinx.com:hls:accelerator:1.0"><BUSINTERFACES>
<BUSINTERFACE NAME="s_axi_control" BUSNAME="a"/>
<BUSINTERFACE NAME="m_axi_gmem_w0" BUSNAME="b"/>
<BUSINTERFACE NAME="m_axi_gmem_in" BUSNAME="c"/><BUSINTERFACE NAME="m_axi_gmem_out" BUSNAME="d"/>
</BUSINTERFACES></MODULE></MODULES></EDKSYSTEM>"""
VIVADO = f"""#!/bin/sh
mkdir -p out
echo bits > out/accelerator.bit
cp {DATA}/utilization.rpt {DATA}/timing.rpt out/
cat > out/accelerator.hwh <<'EOF'
{HANDOFF}
EOF
echo 100.0 > out/clock.txt
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Factory: install(name, text, release) puts a program on the PATH, which is else empty."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")

    def put(name, text="#!/bin/sh\n", release="tools"):
        folder = tmp_path / release / "bin"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / name
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        return path

    return put


def test_missing_programs_are_one_sentence_each(install, capfd):
    install("nothing")
    words = {"vitis_hls": ["hls"], "vivado": ["bitstream", "BOARD=pynq-z2"]}
    for name, command in words.items():
        with pytest.raises(UserError) as caught:
            main(command, dispatch.run)
        text = str(caught.value)
        assert name in text and "settings64.sh" in text and "\n" not in text


@pytest.mark.parametrize(
    ("installed", "expected"),
    [
        ([("vitis_hls", "2022.2")], ("vitis_hls", "-f")),
        ([("vitis-run", "2024.2")], ("vitis-run", "--tcl")),
        ([("vitis_hls", "2023.2"), ("vitis-run", "2023.2")], ("vitis_hls", "-f")),
        ([("vitis_hls", "2024.1"), ("vitis-run", "2024.1")], ("vitis-run", "--tcl")),
        ([("vitis-run", "tools")], ("vitis-run", "--tcl")),
    ],
)
def test_program_follows_the_release(install, installed, expected):
    for name, release in installed:
        install(name, release=release)
    tool = flow.find_hls()
    assert (tool.name, tool.arguments[-1]) == expected
    assert "--mode hls" in " ".join(tool.arguments) or tool.name == "vitis_hls"


def test_hls_run_leaves_its_reports(copied, install, capsys):
    install("vitis_hls", HLS)
    folder = copied()
    assert main(["hls", f"OUT={folder}"]) == 0
    made = sorted(path.name for path in (folder / "hls_report").iterdir())
    assert made == ["csynth.xml", "design.json", "vitis_hls.log"]
    assert "steps csim csynth export" in (folder / "hls_report" / "vitis_hls.log").read_text()
    assert "model against Vitis" in capsys.readouterr().out
    report = json.loads((folder / "report.json").read_text())
    assert report["vendor"]["hls"]["resources"]["dsp"] == 192


def test_a_synthesis_that_is_not_as_planned_fails(copied, install, capsys):
    line = "WARNING: [HLS 200-880] The II Violation in module 'compute'"
    install("vitis_hls", f'{HLS}echo "{line}"\n')
    install("vivado", VIVADO)
    folder = copied(bundles=THREE)
    assert main(["hls", f"OUT={folder}"]) == 1
    assert f"initiation interval is above 1: {line}" in capsys.readouterr().out
    with pytest.raises(UserError, match="must be as planned before Vivado runs: a value goes"):
        main(["bitstream", f"OUT={folder}", "BOARD=pynq-z2"], dispatch.run)
    assert not (folder / "bitstream").exists()


def test_csim_alone_needs_no_synthesis_report(copied, install):
    install("vitis_hls", HLS)
    folder = copied()
    assert main(["hls", f"OUT={folder}", "HLS_STEPS=csim"]) == 0
    report = json.loads((folder / "report.json").read_text())
    assert report["vendor"]["hls"] is None


def test_cosim_is_for_small_networks(copied, install, monkeypatch):
    install("vitis_hls", HLS)
    folder = copied()
    assert main(["hls", f"OUT={folder}", "HLS_STEPS=csynth,cosim"]) == 0
    assert json.loads((folder / "report.json").read_text())["vendor"]["cosim"]["status"] == "Pass"
    monkeypatch.setattr(flow, "COSIM_MACS", 10)
    with pytest.raises(UserError, match="cosim must have a network of at most 10 multiply-acc"):
        flow.run_hls(folder, ("cosim",))


def test_failed_run_names_its_first_error_and_the_log(copied, install):
    install("vitis_hls", "#!/bin/sh\necho fine\necho 'ERROR: [HLS 200-70] no such file'\nexit 3\n")
    folder = copied()
    with pytest.raises(UserError) as caught:
        flow.run_hls(folder)
    text = str(caught.value)
    assert text.startswith(
        "vitis_hls failed with status 3: ERROR: [HLS 200-70] no such file; log: "
    )
    assert Path(text.rpartition("log: ")[2]).is_file()
    assert not (folder / "hls_report").exists()


def test_run_without_its_output_is_a_failure(copied, install):
    install("vitis_hls")
    folder = copied()
    with pytest.raises(UserError, match="vitis_hls must have made .*csynth.xml"):
        flow.run_hls(folder)
    assert not (folder / "hls_report").exists()


def test_bitstream_runs_synthesis_once(copied, install):
    install("vitis_hls", HLS)
    install("vivado", VIVADO)
    folder = copied(bundles=THREE)
    for _ in range(2):
        assert main(["bitstream", f"OUT={folder}", "BOARD=pynq-z2"]) == 0
    assert (folder / "hls_work" / "runs.txt").read_text() == "run\n"
    made = {path.name for path in (folder / "bitstream").iterdir()}
    assert {"accelerator.bit", "accelerator.hwh", "timing.rpt", "design.json"} <= made
    report = json.loads((folder / "report.json").read_text())
    assert report["vendor"]["vivado"]["slack_ns"]["setup"] == 0.125
    (folder / "hls" / "engine.hpp").write_text("// other\n")
    assert not flow.has_ip(folder)


def test_bundle_takes_the_bitstream(copied, install):
    install("vitis_hls", HLS)
    install("vivado", VIVADO)
    folder = copied(bundles=THREE)
    flow.run_bitstream(folder, "pynq-z2")
    listing = " ".join(zipfile.ZipFile(make_bundle(folder)).namelist())
    assert "accelerator.bit" in listing and "accelerator.hwh" in listing


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('BUSNAME="c"', 'BUSNAME="__NOC__"', "m_axi_gmem_in of the accelerator must be connected"),
        ("m_axi_gmem_out", "m_axi_gmem", "m_axi_gmem_out of the accelerator must be connected"),
        (":hls:accelerator:", ":hls:other:", "must have one IP of type accelerator, not 0"),
        ("<EDKSYSTEM>", "<EDK>", "must be XML"),
    ],
)
def test_handoff_of_another_design_is_refused(copied, install, old, new, message):
    install("vitis_hls", HLS)
    install("vivado", VIVADO.replace(old, new))
    folder = copied(bundles=THREE)
    with pytest.raises(UserError, match=message):
        flow.run_bitstream(folder, "pynq-z2")
    assert not (folder / "bitstream").exists()


def test_board_and_part_must_agree(copied):
    with pytest.raises(UserError, match="run again with PART=xczu7ev"):
        write_block_design(copied(), "zcu104")


def test_interfaces_without_bundles_are_refused():
    with pytest.raises(UserError, match="must name its bundle"):
        parse_interfaces("#pragma HLS INTERFACE m_axi port = a\n")
    with pytest.raises(UserError, match="must have m_axi ports and one s_axilite bundle, not 0"):
        parse_interfaces("")


def test_render_needs_no_tools(copied, install, capsys):
    install("nothing")
    folder = copied()
    assert main(["vivado-script", f"OUT={folder}", "BOARD=pynq-z2"]) == 0
    script = Path(capsys.readouterr().out.strip())
    assert "create_bd_design accelerator_system" in script.read_text()


@pytest.mark.parametrize("target", ["hls", "bitstream BOARD=pynq-z2"])
def test_make_says_which_programs_are_missing(target, tmp_path):
    if flow.shutil.which("vivado") or flow.shutil.which("vitis_hls"):
        pytest.skip("the vendor's tools are installed")
    line = error_line(make(*target.split(), "NET=digits", f"OUT={tmp_path}"))
    assert "settings64.sh" in line
    assert not (tmp_path / "quantized").exists()
