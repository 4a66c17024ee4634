# SPDX-License-Identifier: Apache-2.0
"""From build/NET/quantized to build/NET/{hls,params,golden} and the reports, all or nothing.

Does nothing where inputs, settings, templates and this package are unchanged since the last run.
"""

import json
from contextlib import ExitStack
from pathlib import Path

from codegen.design.design import Design
from codegen.design.search import Axes, choose
from codegen.emit import board_design, golden, render, report, report_page, weights_file
from formats import network
from formats.build import atomic_dir, digest, is_current, program_files, write_atomic
from formats.design import DESIGN
from formats.errors import UserError, existing
from formats.hardware import clocked, find_part
from formats.options import Options
from formats.schema import to_json

OUTPUTS = ("hls", "params", "golden")


def axes(options: Options) -> Axes:
    """What the options set of the array; the exploration chooses the rest."""
    names = ("simd", "pe", "pixels", "weight_ports", "fm")
    values = {name: getattr(options, name) for name in names}
    return {name: value for name, value in values.items() if value not in (None, "auto")}


def generate(options: Options) -> Design | None:
    """Generate everything; None where it was up to date."""
    quantized = quantized_folder(options.folder)
    part = clocked(find_part(options.part), options.clock)
    settings_sha256 = settings_digest(options, quantized)
    outputs = [options.folder / name for name in (*OUTPUTS, DESIGN)]
    if is_current(options.folder / "report.json", settings_sha256, outputs):
        return None
    loaded = network.load(quantized)
    available = golden.count_images(quantized)
    images = options.images or available
    if images > available:
        raise UserError(f"IMAGES must be at most the {available} that were quantized, not {images}")
    plan = choose(loaded, part, images, axes(options))
    files = render.render_all(plan)
    with ExitStack() as stack:
        hls, params, vectors = (
            stack.enter_context(atomic_dir(options.folder / name)) for name in OUTPUTS
        )
        for name, text in files.items():
            (hls / name).write_text(text, encoding="utf-8")
        checks = weights_file.write_weights(plan, params / "weights.bin")
        golden.write_golden(plan, vectors, checks)
    driver = board_design.describe(plan, checks)
    write_atomic(options.folder / DESIGN, json.dumps(to_json(driver), indent=1) + "\n")
    report_page.write_report(options.folder, report.build_report(plan, driver, settings_sha256))
    return plan


def quantized_folder(build: Path) -> Path:
    """build/NET/quantized; UserError where it does not exist."""
    return existing(build / "quantized", "run `nuq quantize` first")


def settings_digest(options: Options, quantized: Path) -> str:
    """SHA-256 over everything that the outputs depend on."""
    # the part's text, as a file of the user's own may change
    part = repr(find_part(options.part))
    settings = [part, options.clock, options.images, dict(axes(options))]
    files = [*program_files("codegen", "hls_templates"), *sorted(quantized.glob("*"))]
    return digest(settings, files)
