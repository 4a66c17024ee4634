# SPDX-License-Identifier: Apache-2.0
"""From build/NET/quantized to build/NET/{hls,params,golden} and the reports, all or nothing.

Does nothing where inputs, settings, templates and this package are unchanged since the last run.
"""

import json
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from nuq.codegen.design.design import Design
from nuq.codegen.design.engine import ENGINE, Engine, read_engine
from nuq.codegen.design.planner import plan_for
from nuq.codegen.design.search import Axes, choose
from nuq.codegen.emit import (
    board_design,
    golden,
    program_file,
    render,
    report,
    report_page,
    weights_file,
)
from nuq.formats import network
from nuq.formats.build import atomic_dir, digest, is_current, program_files, write_atomic
from nuq.formats.design import DESIGN
from nuq.formats.errors import UserError, call, existing
from nuq.formats.hardware import DEFAULT_PART, clocked, find_part
from nuq.formats.options import Options
from nuq.formats.program import PROGRAM, Program
from nuq.formats.schema import to_json

OUTPUTS = ("hls", "params", "golden")


def array_axes(options: Options) -> Axes:
    """What the options set of an engine's array."""
    names = ("simd", "pe", "pixels", "weight_ports", "stage")
    values = {name: getattr(options, name) for name in names}
    return {name: value for name, value in values.items() if value not in (None, "auto")}


def axes(options: Options) -> Axes:
    """What the options set of the array and of the maps; the exploration chooses the rest."""
    place = {"fm": options.fm} if options.fm != "auto" else {}
    return {**array_axes(options), **place}


def write_engine(engine: Engine, folder: Path) -> str:
    """Write folder/hls of an engine without a network, and the tool's script; its ID."""
    engine_id, files = render.render_engine(engine)
    files |= render.render_script(engine)
    with atomic_dir(folder / "hls") as hls:
        for name, text in {**files, ENGINE: engine.text}.items():
            (hls / name).write_text(text, encoding="utf-8")
    return engine_id


def existing_engine(options: Options) -> Engine | None:
    """The engine of ENGINE; UserError where what it has is set, or the C++ is not this one's."""
    if options.engine is None:
        return None
    engine, given = read_engine(options.engine), [*array_axes(options)]
    given += ["clock"] * (options.clock is not None)
    given += ["part"] * (find_part(options.part).name not in (DEFAULT_PART, engine.part.name))
    if given:
        raise UserError(f"{', '.join(given).upper()} must be left out with ENGINE, which has it")
    _, files = render.render_engine(engine)
    there = existing(options.engine / "hls" / "network.hpp", f"run {call('engine')} there")
    if there.read_text(encoding="utf-8") != files["network.hpp"]:
        raise UserError(
            f"{options.engine}/hls must be rendered by this version of the program; make the "
            "engine again, or use the version that its bitstream is of"
        )
    return engine


def generate(options: Options) -> Design | None:
    """Generate everything; None where it was up to date."""
    quantized = quantized_folder(options.folder)
    part, engine = clocked(find_part(options.part), options.clock), existing_engine(options)
    settings_sha256 = settings_digest(options, quantized)
    outputs = [options.folder / name for name in (*OUTPUTS, DESIGN)]
    if is_current(options.folder / "report.json", settings_sha256, outputs):
        return None
    loaded = network.load(quantized)
    available = golden.count_images(quantized)
    images = options.images or available
    if images > available:
        raise UserError(f"IMAGES must be at most the {available} that were quantized, not {images}")
    batch = options.batch or 1
    if engine is None:
        plan = choose(loaded, part, batch, axes(options))
    else:
        plan = plan_for(loaded, engine, batch, options.fm)
    plan = replace(plan, images=images)  # the hardware is the same, whatever it is tested on
    files = render.render_all(plan)
    engine_id, _ = render.render_engine(plan.engine)
    with ExitStack() as stack:
        hls, params, vectors = (
            stack.enter_context(atomic_dir(options.folder / name)) for name in OUTPUTS
        )
        for name, text in {**files, ENGINE: plan.engine.text}.items():
            (hls / name).write_text(text, encoding="utf-8")
        program, checks = write_parameters(plan, engine_id, params, vectors)
    driver = board_design.describe(plan, program, checks)
    write_atomic(options.folder / DESIGN, json.dumps(to_json(driver), indent=1) + "\n")
    report_page.write_report(options.folder, report.build_report(plan, driver, settings_sha256))
    return plan


def write_parameters(
    plan: Design, engine_id: str, params: Path, vectors: Path
) -> tuple[Program, list[int]]:
    """Write weights.bin and program.bin, and the golden vectors, into existing folders.

    Returns:
        The program, and the CRC-32 of each layer's weights.
    """
    checks = weights_file.write_weights(plan, params / "weights.bin")
    program = program_file.make_program(plan, engine_id, checks)
    program.words.tofile(params / PROGRAM)
    golden.write_golden(plan, vectors, checks)
    return program, checks


def quantized_folder(build: Path) -> Path:
    """build/NET/quantized; UserError where it does not exist."""
    return existing(build / "quantized", f"run {call('quantize')} first")


def settings_digest(options: Options, quantized: Path) -> str:
    """SHA-256 over everything that the outputs depend on."""
    # the part's text, as a file of the user's own may change
    part = repr(find_part(options.part))
    engine = read_engine(options.engine).text if options.engine else None
    settings = [part, options.clock, options.images, options.batch, dict(axes(options)), engine]
    files = [*program_files("codegen", "hls_templates"), *sorted(quantized.glob("*"))]
    return digest(settings, files)
