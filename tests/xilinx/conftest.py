# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the vendor flow's tests: generated builds, and the scripts' runs on stubs."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tcl_check import WHY_NOT, Run, interpreter, run_script
from wiring import dram_segments, interface_pins, read_bundles

from nuq.codegen.emit.generate import generate
from nuq.codegen.emit.xilinx.block_design import write_block_design
from nuq.formats.design import read_design
from nuq.formats.hardware import find_board, find_part
from nuq.formats.options import Options
from tests.toys import Toy, ToyLayer, write_toy


@pytest.fixture(scope="session")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Factory: a generated build for a part; made once each."""
    made: dict[str, Path] = {}

    def get(part: str) -> Path:
        if part not in made:
            folder = tmp_path_factory.mktemp(part) / "build"
            write_toy(
                folder / "quantized", Toy(in_shape=(3, 8, 8), layers=[ToyLayer(8), ToyLayer(10)])
            )
            generate(Options(out=folder, part=part, fm="ddr"))  # what co-simulation needs
            made[part] = folder
        return made[part]

    return get


@pytest.fixture
def copied(generated: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """Factory: a copy of such a build, to change; bundles: its memory ports instead of its own."""

    def get(part: str = "XC7Z020", bundles: tuple[str, ...] | None = None) -> Path:
        folder = shutil.copytree(generated(part), tmp_path / "copy", dirs_exist_ok=True)
        if bundles:
            lines = [f"#pragma HLS INTERFACE m_axi port = p bundle = {name}" for name in bundles]
            lines.append("#pragma HLS INTERFACE s_axilite port = return")
            (folder / "hls" / "accelerator.cpp").write_text("\n".join(lines) + "\n")
        return folder

    return get


@pytest.fixture
def run_vivado(tmp_path: Path) -> Callable[..., Run]:
    """Factory: run a build's block design on the stubs; change: text -> text of the script."""
    if interpreter() is None:
        pytest.skip(WHY_NOT)

    def run(
        build: Path,
        board_name: str,
        change: Callable[[str], str] = str,
        **answers: str,
    ) -> Run:
        board = find_board(board_name)
        part, script = find_part(board.part), write_block_design(build, board_name)
        clock = read_design(build).clock_mhz
        script.write_text(change(script.read_text()))
        kind = "processing_system7" if "7Z" in board.part else "zynq_ultra_ps_e"
        known = {
            "BOARD_PARTS": board.board_part.replace("*", "1.0"),
            "PART": part.device,
            "PROGRESS": "100%",
            "STATUS": "write_bitstream Complete!",
            "SLACK": "0.125",
            "CONFIG.PCW_ACT_FPGA0_PERIPHERAL_FREQMHZ": f"{clock:.6f}",
            "CONFIG.PSU__CRL_APB__PL0_REF_CTRL__ACT_FREQMHZ": f"{clock:.6f}",
        }
        settings = {
            "pins": interface_pins(read_bundles(build / "hls" / "accelerator.cpp")),
            "answers": {**known, **answers},
            "segments": dram_segments(kind),
        }
        return run_script(script, "vivado", tmp_path, settings, {})

    return run
