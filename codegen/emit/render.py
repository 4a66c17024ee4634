# SPDX-License-Identifier: Apache-2.0
"""Renders the C++ and Tcl of a design from hls_templates/: Python computes, templates only print.

Equal designs give equal bytes.
"""

import json
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jinja2

from codegen import VERSION
from codegen.design.constants import constants, types
from codegen.design.design import Design
from codegen.design.lowering import knq_tables, lrn_layers
from codegen.design.ports import adapters
from codegen.design.resources import FEATURE_MAPS
from codegen.design.rows import C_TYPE, ENUMS, FIELDS, describe
from codegen.emit.golden import golden_name
from codegen.emit.templates import environment
from formats.arithmetic import MAX_COUNT, reciprocal
from formats.design import weight_pointers
from formats.errors import UserError
from formats.quantizer import Quantizer

TEMPLATES = Path(__file__).parents[2] / "hls_templates"
FOLDERS = ("rendered", "sim", "vivado")  # of templates
HLS_SCRIPT = "vivado/run_hls.tcl.j2"
LINE_WIDTH = 96


def render(template: str, context: dict[str, Any], folder: Path = TEMPLATES) -> str:
    """Render one template; a missing or misspelt name in it is an error."""
    templates = environment([folder, *(folder / name for name in FOLDERS)])
    templates.filters["align"] = align
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
    """All files of build/NET/hls: rendered templates, and the static headers as they are."""
    values, files = context(design), headers(folder)
    for path in [*folder.glob("rendered/*.j2"), *folder.glob("sim/*.j2"), folder / HLS_SCRIPT]:
        if path.stem not in files:
            files[path.stem] = render(path.name, values, folder)
    return dict(sorted(files.items()))


def headers(folder: Path = TEMPLATES) -> dict[str, str]:
    """The headers that are the same in every design: of the engine and of the simulation."""
    paths = sorted([*folder.glob("engine/*.hpp"), *folder.glob("sim/*.hpp")])
    texts = {path.name: path.read_text(encoding="utf-8") for path in paths}
    return {**texts, "layer_desc.hpp": render("layer_desc.hpp.j2", row_context(), folder)}


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


def align(rows: Sequence[Sequence[object]]) -> list[str]:
    """Rows of a table as text, columns right-aligned and separated by commas.

    >>> align([[1, -20], [300, 4]])
    ['  1, -20', '300,   4']
    """
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*cells, strict=True)]
    return [
        ", ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in cells
    ]


def wrapped(items: Iterable[object]) -> list[str]:
    """A list, separated by commas, as lines."""
    return textwrap.wrap(", ".join(map(str, items)), LINE_WIDTH)


def braced(lines: Iterable[str], names: Iterable[str]) -> list[str]:
    """Table rows as C++ initialisers, each with its name as a comment."""
    return [f"{{{line}}},  // {name}" for line, name in zip(lines, names, strict=True)]


def context(design: Design) -> dict[str, Any]:
    """What all templates see."""
    network, part = design.network, design.part
    members, layers = constants(design), network.layers
    names = [layer.name for layer in layers]
    centroid, threshold = knq_rows(knq_tables(network), design.sizes.knq_levels)
    quantized = [(layer.name, layer.quantizer) for layer in layers]
    owners = [name for name, item in quantized if item and item.scheme == "knq"] or ["unused"]
    golden = [golden_name(index, name, len(names)) for index, name in enumerate(names)]
    info = [
        [json.dumps(layer.name), json.dumps(file), layer.out_shape[0], layer.macs]
        for layer, file in zip(layers, golden, strict=True)
    ]
    return {
        "net": {
            "name": network.name,
            "generator": f"codegen {VERSION}",
            "sha256": network.manifest_sha256,
            "part": part.name,
            "device": part.device,
            "clock_mhz": part.clock_mhz,
            "images": design.images,
        },
        "types": types(design),
        "constants": members,
        "const": {item.name: item.value for item in members},
        "in_widths": design.sizes.in_widths,
        "out_widths": design.sizes.out_widths,
        "weight_widths": design.sizes.weight_widths,
        "weight_ports": weight_pointers(design.array.weight_ports),
        "adapters": adapters(design.array.weight_ports),
        "depth": {
            "weights": design.weight_words // design.array.weight_ports,
            "feature_maps": design.arena.words * design.batch,
        },
        "chip_impl": [m.impl for m in design.memories if m.name.startswith(FEATURE_MAPS)],
        "on_chip": bool(design.chip.memory),
        "field_comment": wrapped(FIELDS),
        "layers": layers,
        "table_rows": braced(align([row.values for row in design.rows]), names),
        "info_rows": [f"{{{line}}}," for line in align(info)],
        "knq_rows": len(centroid),
        "knq_levels": design.sizes.knq_levels,
        "centroid_rows": braced(align(centroid), owners),
        "threshold_rows": braced(align(threshold), owners),
        "lrn_table_rows": _lrn(design) or ["{0},"],
        # of windows of n = 1..64 elements, docs/formats.md 2.7
        "reciprocal_rows": wrapped([0, *map(reciprocal, range(1, MAX_COUNT + 1))]),
    }


def _lrn(design: Design) -> list[str]:
    """LRN_TABLE, a row of LRN_ENTRIES factors per normalisation."""
    rows = []
    for layer in lrn_layers(design.network):
        if layer.lrn is None:
            raise ValueError("a normalisation has factors")
        text = "\n     ".join(wrapped(layer.lrn.table.tolist()))
        rows.append(f"{{{text}}},  // {layer.name}")
    return rows


def knq_rows(
    quantizers: Sequence[Quantizer], levels: int
) -> tuple[list[list[int]], list[list[int]]]:
    """CENTROID and THRESHOLD, a row per table, filled up to `levels` entries.

    Unused centroids repeat the last; unused thresholds are y_max + 1, which no value reaches.
    """
    centroids, thresholds = [], []
    for quantizer in quantizers:
        if quantizer.centroid is None or quantizer.threshold is None:
            raise ValueError("a KNQ quantizer has both tables")
        missing = levels - (1 << quantizer.bits)
        centroids.append(quantizer.centroid.tolist() + [int(quantizer.centroid[-1])] * missing)
        thresholds.append(quantizer.threshold.tolist() + [quantizer.y_max + 1] * missing)
    return centroids or [[0] * levels], thresholds or [[0] * levels]
