# SPDX-License-Identifier: Apache-2.0
"""The rendered scripts, run on stubs: every command as documented, every connection made.

Seeded errors show that the check finds what it is for.
"""

import re
from pathlib import Path

import pytest
from tcl_check import WHY_NOT, interpreter, missing_settings, run_script
from wiring import build, check, port_of, read_bundles

from nuq.codegen.design.general import general_engine
from nuq.codegen.emit.generate import generate, write_engine
from nuq.codegen.emit.xilinx.block_design import write_block_design
from nuq.codegen.emit.xilinx.probes import write_probes
from nuq.formats.design import read_design
from nuq.formats.errors import UserError
from nuq.formats.hardware import clocked, find_part, load_boards
from nuq.formats.options import Options

BOARDS = sorted(load_boards())
MANY = (*(f"gmem_w{n}" for n in range(4)), "gmem_in", "gmem_out")
THREE = ("gmem_w0", "gmem_in", "gmem_out")

needs_tcl = pytest.mark.skipif(interpreter() is None, reason=WHY_NOT)


def _check(run, build_folder, board_name):
    masters = read_bundles(build_folder / "hls" / "accelerator.cpp")
    board = load_boards()[board_name]
    return check(run, masters, clocked(find_part(board.part), None).clock_mhz, set(board.plls))


@pytest.mark.parametrize("board_name", BOARDS)
def test_block_design_is_as_documented_and_complete(copied, run_vivado, board_name):
    folder = copied(load_boards()[board_name].part)
    run = run_vivado(folder, board_name)
    assert _check(run, folder, board_name) == []
    assert len(run.calls) > 50
    made = sorted(path.name for path in (folder / "vivado" / "out").iterdir())
    assert made == ["accelerator.bit", "accelerator.hwh", "clock.txt"]


@pytest.mark.parametrize(("board_name", "part"), [("pynq-z2", "XC7Z020"), ("zcu104", "XCZU7EV")])
def test_more_masters_than_ports_share_them_evenly(copied, run_vivado, board_name, part):
    folder = copied(part, MANY)
    run = run_vivado(folder, board_name)
    assert _check(run, folder, board_name) == []
    system = next(ip for ip in build(run).cells.values() if ip.startswith(("processing", "zynq")))
    ports = [port_of(build(run), system, name) for name in MANY]
    assert sorted(ports.count(n) for n in range(4)) == [1, 1, 2, 2]


def _without(pattern):
    """A change that removes the only line that matches."""

    def change(text):
        lines = text.splitlines(keepends=True)
        rest = [line for line in lines if not re.search(pattern, line)]
        assert len(rest) == len(lines) - 1, f"{pattern} must be one line"
        return "".join(rest)

    return change


def _instead(old, new):
    """A change that replaces a text that is there."""

    def change(text):
        assert old in text
        return text.replace(old, new)

    return change


REPLACED = [  # what is misspelt or wrong, by what, and what the check says
    ("-to_step", "-tostep", "launch_runs: has no option -tostep"),
    ("assign_bd_address -target_address_space", "assign_bd_address -target_space",
     "assign_bd_address: has no option -target_space"),
    ("validate_bd_design", "validate_bd", 'invalid command name "va'),
    ("write_bitstream -jobs", "write_bits -jobs", "launch_runs: -to_step must be one of"),
    ("-jobs $jobs", "-jobs many", "launch_runs: -jobs must be integer, not 'many'"),
    ("-range 64K", "-range 64KB", "-range must be range"),
    ("open_run impl_1", "open_run impl_1 now", "open_run: has 2"),
    ("generate_target all $source", "generate_target $source", "generate_target: has 1"),
    ("CONFIG.TRANSLATION_MODE 2]", "CONFIG.TRANSLATION_MODE]", "set_property: -dict must be pairs"),
    ("CONFIG.TRANSLATION_MODE 2]", "CONFIG.TRANSLATION_MODE 0]", "memory_0 must split bursts"),
    ("MI_PROTOCOL AXI3", "MI_PROTOCOL AXI4", "memory_0 must make AXI3 of AXI4"),
    ("strategy Performance_Explore", "strategi Performance_Explore", "impl_1 must have a strategy"),
    ("ap_rst_n", "ap_rst", "pin accelerator_0/ap_rst must be one object"),
    ("s_axi_control]", "s_axi_AXILiteS]",
     "interface accelerator_0/s_axi_AXILiteS must be one object"),
    ("/S_AXI_HP2]", "/S_AXI_HP0]", "m_axi_gmem_in must"),
    ("memory_0/S_AXI", "memory_0/M_AXI", "m_axi_gmem_w0 must reach one DRAM port"),
    ("CONFIG.PCW_USE_S_AXI_HP1 1", "CONFIG.PCW_USE_S_AXI_HP3 1", "DRAM port 1 must be enabled"),
    ("PCW_FPGA0_PERIPHERAL_FREQMHZ 100", "PCW_FPGA0_PERIPHERAL_FREQMHZ 50",
     "the clock must be 100"),
    ("CLKSRC {IO PLL}", "CLKSRC {USB PLL}", "the clock must come from one of"),
    ("accelerator_0/Data_m_axi_gmem_in]", "accelerator_0/Data_m_axi_gmem_out]",
     "m_axi_gmem_in must see"),
    ("-offset 0x43C00000", "-offset 0xA0000000", "M_AXI_GP0 must cover"),  # outside the window
    ("-offset 0x43C00000", "-offset 0x43C08000", "M_AXI_GP0 must cover"),  # off the multiple
]  # fmt: skip
LEFT_OUT = [  # a line, and what the check says
    (r"accelerator_0/ap_clk", "accelerator_0/ap_clk must be driven by"),
    (r"S_AXI_HP2_ACLK", "S_AXI_HP2_ACLK must be driven by"),
    (r"memory_1/aclk\b", "memory_1/aclk must be driven by"),
    (r"accelerator_0/ap_rst_n", "accelerator_0/ap_rst_n must be driven by"),
    (r"FCLK_RESET0_N", "ext_reset_in must be driven by"),
    (r"interface accelerator_0/m_axi_gmem_out", "m_axi_gmem_out must"),
]


def _validated_late(text):
    """A change that moves the validation behind the implementation."""
    late = "    open_run impl_1\n    validate_bd_design"
    return _without(r"^    validate_bd_design")(text).replace("    open_run impl_1", late)


SEEDED = [
    *((_instead(old, new), expected) for old, new, expected in REPLACED),
    *((_without(pattern), expected) for pattern, expected in LEFT_OUT),
    (_validated_late, "commands must come in the order"),
]


@pytest.mark.parametrize(("change", "expected"), SEEDED)
def test_seeded_error_is_found(copied, run_vivado, change, expected):
    folder = copied(bundles=THREE)
    run = run_vivado(folder, "pynq-z2", change)
    problems = _check(run, folder, "pynq-z2")
    assert any(expected in problem for problem in problems), problems


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"SLACK": "-0.05"}, "timing is not met at 100 MHz: setup slack -0.05 ns"),
        ({"PROGRESS": "60%", "STATUS": "route_design ERROR"}, "status is: route_design ERROR"),
        ({"BOARD_PARTS": ""}, "install the PYNQ-Z2 board files from TUL, or set BOARD_FILES"),
        ({"PART": "xc7z010clg400-1"}, "must have the part xc7z020clg400-1, not xc7z010clg400-1"),
        (
            {"CONFIG.PCW_ACT_FPGA0_PERIPHERAL_FREQMHZ": "125.0"},
            "must be 100 MHz, made of the IO PLL, not 125.0",
        ),
    ],
)
def test_script_refuses_what_the_tool_reports(copied, run_vivado, answers, message):
    folder = copied()
    run = run_vivado(folder, "pynq-z2", **answers)
    assert run.status == 1
    assert f"ERROR: {message}" in run.output or message in run.output
    assert not (folder / "vivado" / "out" / "accelerator.bit").exists()


@pytest.mark.parametrize(
    ("wanted", "source", "made"),
    [("150", "DDR PLL", 150.0), ("143", "IO PLL", 142.857143), ("120", "ARM PLL", 118.181818)],
)
def test_the_clock_is_one_that_the_board_makes(copied, run_vivado, wanted, source, made):
    folder = copied()
    generate(Options(out=folder, clock=float(wanted), fm="ddr"))
    assert read_design(folder).clock_mhz == made
    run = run_vivado(folder, "pynq-z2")
    assert run.problems() == []
    (settings,) = [
        item for item in build(run).settings.values() if any("CLKSRC" in k for k in item)
    ]
    assert settings["CONFIG.PCW_FCLK0_PERIPHERAL_CLKSRC"] == source
    assert float(settings["CONFIG.PCW_FPGA0_PERIPHERAL_FREQMHZ"]) == pytest.approx(made, abs=1e-3)


def test_a_clock_that_the_board_cannot_make_is_refused(copied):
    folder = copied()
    path = folder / "design.json"
    path.write_text(path.read_text().replace('"clock_mhz": 100', '"clock_mhz": 149'))
    with pytest.raises(
        UserError, match=r"^pynq-z2 must make the clock .* 149 MHz, but makes 144\.444"
    ):
        write_block_design(folder, "pynq-z2")


def _run_hls(folder, tmp_path, environment, change=str):
    script = folder / "hls" / "run_hls.tcl"
    script.write_text(change(script.read_text()))
    return run_script(script, "hls", tmp_path, {}, environment)


@needs_tcl
@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (None, ["csim_design", "csynth_design", "export_design"]),
        ("csynth cosim", ["csynth_design", "cosim_design"]),
        ("csim", ["csim_design"]),
    ],
)
def test_hls_script_is_as_documented(copied, tmp_path, steps, expected):
    folder = copied()
    run = _run_hls(folder, tmp_path, {"HLS_STEPS": steps} if steps else {})
    assert run.problems() == []
    assert [call.name for call in run.calls if call.name.endswith("_design")] == expected
    assert run.named("set_top")[0].operands == ("accelerator",)
    assert run.named("set_part")[0].operands == ("xc7z020clg400-1",)
    assert run.named("create_clock")[0].options["-period"] == "10.000"
    added = [call.operands[0] for call in run.named("add_files")]
    assert all(Path(name).is_file() for name in added)
    for call in run.named("csim_design"):
        params, golden, tables, images = call.options["-argv"].split()
        assert Path(params, "weights.bin").is_file() and Path(golden, "input.bin").is_file()
        assert Path(tables, "network.hpp").is_file() and images == "2"
    for call in run.named("cosim_design"):
        assert call.options["-argv"].split()[-1] == "1"


@needs_tcl
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_instead("vivado solution1", "vivad solution1"), "open_solution: -flow_target must be"),
        (_instead("csim_design -argv", "csim_design -args"), "csim_design: has no option -args"),
        (_instead("-period 10.000", "-period ten"), "create_clock: -period must be number"),
        (_instead("set_top accelerator", "set_top"), "set_top: has 0 arguments"),
        (_instead("csynth_design", "synth_design"), 'invalid command name "synth_design"'),
    ],
)
def test_seeded_error_of_the_hls_script_is_found(copied, tmp_path, change, expected):
    run = _run_hls(copied(), tmp_path, {}, change)
    assert any(expected in problem for problem in run.problems()), run.problems()


WEAKER = [  # what a script must set, as another value or not at all, and what is missing then
    ("set_clock_uncertainty 27%", "set_clock_uncertainty 5%", "set_clock_uncertainty must be 27%"),
    ("    set_clock_uncertainty 27%\n", "", "set_clock_uncertainty must be 27%"),
    ("-strict_mode error", "-strict_mode warning", "config_dataflow must be ('-strict_mode', 'err"),
    ("    config_dataflow -strict_mode error\n", "", "config_dataflow must be"),
    ("-pipeline_style flp", "-pipeline_style stp", "config_compile must be ('-pipeline_style', 'f"),
    ("    config_compile -pipeline_style flp\n", "", "config_compile must be"),
    ("fifo -impl srl", "fifo -impl auto", "config_storage must be fifo ('-impl', 'srl')"),
    ("    config_storage fifo -impl srl\n", "", "config_storage must be"),
]


@needs_tcl
@pytest.mark.parametrize(("old", "new", "expected"), WEAKER)
def test_scripts_set_what_the_engine_relies_on(copied, tmp_path, old, new, expected):
    """Those of a network, of a general engine and of the probes; each seeded violation is found."""
    part, folder = find_part("XC7Z020"), tmp_path / "engine"
    write_engine(general_engine(part, {"simd": 8, "pe": 8}), folder)
    scripts = [
        copied() / "hls" / "run_hls.tcl",
        folder / "hls" / "run_hls.tcl",
        write_probes(tmp_path / "probes", part),
    ]
    for script in scripts:
        assert missing_settings(run_script(script, "hls", tmp_path, {}, {})) == []
        script.write_text(_instead(old, new)(script.read_text()))
        run = run_script(script, "hls", tmp_path, {}, {})
        missing = missing_settings(run)
        assert len(missing) == len(run.named("csynth_design")) >= 1
        assert all(text.startswith(expected) for text in missing), missing


@needs_tcl
def test_script_of_a_general_engine(tmp_path):
    """It needs neither a network nor a test bench."""
    write_engine(general_engine(find_part("XCZU7EV"), {"simd": 8, "pe": 8, "pixels": 1}), tmp_path)
    script = tmp_path / "hls" / "run_hls.tcl"
    run = run_script(script, "hls", tmp_path, {}, {})
    assert run.problems() == []
    made = [call.name for call in run.calls if call.name.endswith("_design")]
    assert made == ["csynth_design", "export_design"]
    assert run.named("set_part")[0].operands == ("xczu7ev-ffvc1156-2-e",)
    assert [call.options for call in run.named("add_files")] == [
        {"-cflags": f"-std=c++14 -I{tmp_path / 'hls'}"}
    ]
    run = run_script(script, "hls", tmp_path, {}, {"HLS_STEPS": "csim"})
    assert run.status == 1
    assert "HLS_STEPS must name csynth or export, not csim: an engine has no test" in run.output


@needs_tcl
def test_hls_script_refuses_unknown_steps(copied, tmp_path):
    run = _run_hls(copied(), tmp_path, {"HLS_STEPS": "csim synth"})
    assert run.status == 1
    assert "ERROR: HLS_STEPS must name csim, csynth, cosim or export, not synth" in run.output


@needs_tcl
def test_cosim_needs_every_map_in_memory(copied, tmp_path):
    folder = copied()
    generate(Options(out=folder, fm="chip"))
    run = _run_hls(folder, tmp_path, {"HLS_STEPS": "cosim"})
    assert any("generate with FM=ddr" in problem for problem in run.problems())
