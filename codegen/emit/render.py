# SPDX-License-Identifier: Apache-2.0
"""Renders the C++ and Tcl of a design from hls_templates/: Python computes, templates only print.

Equal designs give equal bytes.
"""

import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jinja2

from nuq.codegen import VERSION
from nuq.codegen.design.constants import constants, types
from nuq.codegen.design.design import Design
from nuq.codegen.design.engine import Engine
from nuq.codegen.design.ports import adapters
from nuq.codegen.design.resources import FEATURE_MAPS
from nuq.codegen.design.rows import C_TYPE, ENUMS, FIELDS, describe
from nuq.codegen.emit.templates import environment
from nuq.formats.build import digest
from nuq.formats.design import weight_pointers
from nuq.formats.errors import UserError

TEMPLATES = Path(__file__).parents[2] / "hls_templates"
FOLDERS = ("rendered", "sim", "vivado")  # of templates
HLS_SCRIPT = "vivado/run_hls.tcl.j2"
LINE_WIDTH = 96


def render(template: str, context: dict[str, Any], folder: Path = TEMPLATES) -> str:
    """Render one template; a missing or misspelt name in it is an error."""
    templates = environment([folder, *(folder / name for name in FOLDERS)])
    try:
        return templates.get_template(template).render(context)
    except jinja2.TemplateSyntaxError as error:
        raise UserError(
            f"{template}:{error.lineno} must be a Jinja2 template: {error.message}"
        ) from None
    except jinja2.UndefinedError as error:
        raise UserError(f"{template} must use names of the context only: {error.message}") from None
    except jinja2.TemplateNotFound:
        raise UserError(f"{folder / template} must exist; restore it from the repository") from None


def render_all(design: Design, folder: Path = TEMPLATES) -> dict[str, str]:
    """All files of build/NET/hls: the engine, the simulation around it, the tool's script."""
    _, files = render_engine(design.engine, folder)
    files.update(_texts(folder.glob("sim/*.hpp")))
    files.update(_texts([folder / "sim" / "testbench.cpp"]))
    files |= render_script(design.engine, design, folder)
    return dict(sorted(files.items()))


def render_script(
    engine: Engine, design: Design | None = None, folder: Path = TEMPLATES
) -> dict[str, str]:
    """The script of Vitis HLS by name; design: the network with which it simulates."""
    return {Path(HLS_SCRIPT).stem: render(HLS_SCRIPT, script_context(engine, design), folder)}


def render_engine(engine: Engine, folder: Path = TEMPLATES) -> tuple[str, dict[str, str]]:
    """The engine's ID, a digest of all that is synthesized, and these files by name."""
    files = _texts(folder.glob("engine/*.hpp"))
    for number in (0, None):  # the ID is a digest of the files with ID 0
        engine_id = number if number is not None else int(digest(sorted(files.items()))[:8], 16)
        values = engine_context(engine, engine_id)
        for path in folder.glob("rendered/*.j2"):
            files[path.stem] = render(path.name, values, folder)
    return f"{engine_id:08x}", files


def headers(folder: Path = TEMPLATES) -> dict[str, str]:
    """The headers that are the same in every design: of the engine and of the simulation."""
    texts = _texts([*folder.glob("engine/*.hpp"), *folder.glob("sim/*.hpp")])
    return {**texts, "layer_desc.hpp": render("layer_desc.hpp.j2", row_context(), folder)}


def _texts(paths: Iterable[Path]) -> dict[str, str]:
    """Files as they are, by name."""
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(paths)}


def row_context() -> dict[str, Any]:
    """What layer_desc.hpp shows of Row: its fields and their enums."""
    enums = [
        {
            "name": enum.__name__,
            "comment": textwrap.wrap(str(enum.__doc__), LINE_WIDTH),
            "members": ", ".join(f"{prefix}_{item.name} = {item.value}" for item in enum),
        }
        for prefix, enum in ENUMS.items()
    ]
    rows = [
        {"name": name, "type": C_TYPE, "comment": textwrap.wrap(describe(name), LINE_WIDTH - 4)}
        for name in FIELDS
    ]
    return {"row_enums": enums, "row_fields": rows}


def engine_context(engine: Engine, engine_id: int) -> dict[str, Any]:
    """What the templates of the engine see: nothing of a network."""
    sizes, memories = engine.sizes, engine.memories
    return {
        **row_context(),
        "generator": f"codegen {VERSION}",
        "types": types(sizes),
        "constants": constants(sizes, engine_id),
        "in_widths": sizes.in_widths,
        "out_widths": sizes.out_widths,
        "weight_widths": sizes.weight_widths,
        "weight_ports": weight_pointers(sizes.array.weight_ports),
        "adapters": adapters(sizes.array.weight_ports),
        "chip_words": sizes.chip_words,
        "chip_impl": [item.impl for item in memories if item.name.startswith(FEATURE_MAPS)],
    }


def script_context(engine: Engine, design: Design | None) -> dict[str, Any]:
    """What the script of Vitis HLS sees."""
    part, network = engine.part, design.network if design else None
    return {
        "net": {
            "name": network.name if network else "general",
            "generator": f"codegen {VERSION}",
            "sha256": network.manifest_sha256 if network else None,
            "device": part.device,
            "clock_mhz": part.clock_mhz,
            "images": design.images if design else None,
        },
        "on_chip": bool(design and design.chip.memory),
    }
