# SPDX-License-Identifier: Apache-2.0
"""report.html of a Report."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nuq.codegen.emit import codes, summary
from nuq.codegen.emit.page import Bad, Bar, Figure, Page, Section, Table, percent, render
from nuq.codegen.emit.report_model import Footprint, Layer, Report, Vendor
from nuq.formats.basis import calibration_text
from nuq.formats.build import write_atomic
from nuq.formats.images import Preprocessing


def render_html(report: Report, measured: Mapping[str, Any] | None = None) -> str:
    """The report as one self-contained page; all text is escaped.

    Args:
        report: what is shown.
        measured: accuracy.json of the network, where there is one.
    """
    engine = report.engine
    sections = [
        Section("Layers", (_layers(report),)),
        Section("Activation memory, one image", _memory(report)),
        Section("Speed and resources (estimates)", _speed(report)),
        Section("Accuracy", (_accuracy(measured or report.accuracy), _measured_on(report))),
        Section("C-simulation", (_csim(report),)),
    ]
    if report.vendor:
        sections.append(Section("Model against Vitis", _vendor(report.vendor)))
    seeded = report.weights == "seeded"
    return render(
        Page(
            f"{report.network} on {report.part}",
            f"{engine.simd} × {engine.pe} × {engine.pixels} products a cycle, scheme "
            f"{report.scheme}, {engine.weight_bits}-bit weights, {report.images} image(s), design "
            f"{report.engine_id}, {report.generator}",
            sections,
            "The weights come from a random seed: accuracy figures mean nothing." * seeded,
            summary=summary.tiles(report, measured),
        )
    )


def _layers(report: Report) -> Table:
    longest = max(layer.cycles for layer in report.layers)
    most = max(layer.packed_bytes for layer in report.layers)
    return Table(
        (
            *("layer", "kind", "convolution", "stored", "bits", "scheme", "SQNR dB", "MAC"),
            *("packed bytes", "input in", "output in", "DDR bytes read", "DDR bytes written"),
            *("weight bytes", "cycles", "bound by", "multipliers busy"),
        ),
        [
            (
                layer.name,
                layer.kind,
                "×".join(map(str, layer.conv_shape)),
                "×".join(map(str, layer.out_shape)),
                layer.bits,
                layer.scheme,
                layer.sqnr_db,
                layer.macs,
                Bar(layer.packed_bytes, layer.packed_bytes / most, "second"),
                "; ".join(layer.memory.inputs),
                layer.memory.output,
                layer.bytes_read,
                layer.bytes_written,
                layer.bytes_weights,
                Bar(layer.cycles, layer.cycles / longest),
                "DRAM" if layer.dram_bound else "engine",
                percent(layer.utilisation),
            )
            for layer in report.layers
        ],
        note=f"A click on a layer's name opens its codes. MAC, packed bytes: one image. Traffic "
        f"and cycles: all {report.images} image(s), as the cycle model predicts them; the "
        "C-simulation counts the same. A, B: the memories of feature maps on chip; ddr: outside.",
        digits=1,
        details=[_details(layer) for layer in report.layers],
    )


def _details(layer: Layer) -> tuple[str | Figure | Table, ...]:
    """What a layer's row opens to: how its weights are stored; its codes."""
    text = f"{layer.name}: "
    if layer.weights is None:
        text += "no weights"
    else:
        stored, entries = layer.weights, layer.weights.table_entries
        text += f"{stored.bits}-bit weights"
        text += f", indices into a codebook of {entries}" if entries else ""
        text += ", a step for each output channel" if stored.scaled else ""
    if layer.codes is None:
        return (f"{text}; its outputs are not quantized.",)
    text += f"; outputs as {layer.bits}-bit codes ({layer.scheme})."
    return (text, codes.picture(layer.codes), codes.table(layer.codes))


def _memory(report: Report) -> tuple[Table, str]:
    memory, ddr = report.memory, report.memory.ddr

    def row(name: str, part: Footprint) -> tuple[str, int, int, int, str]:
        half = part.half_precision_bits
        return name, part.activations, part.nb_bits, half, percent(part.ratio)

    table = Table(
        ("", "activations", "NB bits", "half precision bits", "ratio"),
        [
            row("stored (after pooling)", memory),
            row(
                "convolutional layers, before pooling (the papers' count)", memory.conv_before_pool
            ),
        ],
        note=f"Packed: {memory.packed_bytes:,} bytes; live at once: {memory.peak_live_bytes:,} "
        f"bytes ({memory.peak_live_bytes_without_input:,} without the input), in an arena of "
        f"{memory.arena_bytes:,} bytes; weights: {memory.weight_bytes:,} bytes. On-chip memories "
        f"A and B of feature maps: {memory.chip_bytes:,} bytes.",
    )
    traffic = (
        f"Activation DDR traffic, {report.images} image(s): input {ddr.input_bytes:,} bytes + "
        f"logits {ddr.output_bytes:,} bytes + other feature maps {ddr.other_bytes:,} bytes."
    )
    return table, traffic


def _speed(report: Report) -> tuple[Table, ...]:
    speed, used, has = report.performance, report.resources.estimate, report.resources.available
    return (
        Table(
            ("cycles", "of which ideal", "clock MHz", "seconds", "images a second"),
            [
                (
                    f"{speed.cycles:,}",
                    percent(speed.efficiency),
                    f"{speed.clock_mhz:g}",
                    f"{speed.seconds:.4f}",
                    speed.images_per_second,
                )
            ],
        ),
        Table(
            ("resource", "estimate", f"{report.part} has", "share"),
            [
                (name.upper(), count, available, percent(count / available) if count else None)
                for (name, count), (_, available) in zip(used, has, strict=True)
            ],
        ),
        Table(
            ("memory", "banks", "depth", "width", "BRAM36", "URAM"),
            [
                (item.name, item.banks, item.depth, item.width, item.bram36, item.uram)
                for item in report.resources.memories
            ],
            digits=1,
        ),
    )


def _measured_on(report: Report) -> str:
    """How images become the network's input, and what the tables were measured on."""
    recipe = Preprocessing(**report.preprocessing.model_dump())
    return f"Input: {recipe.text}. {calibration_text(report.calibration)}."


def _accuracy(found: Mapping[str, Any] | None) -> Table | str:
    if not found:
        return "Not measured: the data has no labels."
    if "outputs" in found:  # of a network that does not answer by classes
        rows = [(one["name"], one["sqnr_db"], one["agreement"]) for one in found["outputs"]]
        return Table(("output", "SQNR dB", "agreement %"), rows, digits=2)
    plain = {name: value for name, value in found.items() if isinstance(value, (int, float))}
    return Table([_measure(name) for name in plain], [tuple(plain.values())])


def _measure(name: str) -> str:
    """A measure's name in accuracy.json for reading.

    >>> _measure("float_top1"), _measure("images"), _measure("agreement")
    ('float top-1 %', 'images', 'agreement %')
    """
    text = name.replace("_", " ").replace("top1", "top-1 %").replace("top5", "top-5 %")
    return f"{text} %" if name == "agreement" else text


def _csim(report: Report) -> Table | str:
    run = report.csim
    if run is None:
        return "Not run yet."
    wrong = Bad(run.mismatches) if run.mismatches else 0
    return Table(
        ("types", "images", "layers", "seconds", "MMAC/s", "mismatches"),
        [(run.types, run.images, len(run.layers), run.seconds, f"{run.mmacs_per_s:,.0f}", wrong)],
    )


def _vendor(vendor: Vendor) -> tuple[Table, str]:
    text = (
        "Vitis HLS: estimates after C synthesis; its latencies are bounds of one call over all "
        "layers. Vivado: the whole placed and routed system."
    )
    if vendor.vivado:
        slack = vendor.vivado.slack_ns
        text += f" Worst slack: setup {slack.setup} ns, hold {slack.hold} ns."
    if vendor.cosim:
        text += f" RTL simulation: {vendor.cosim.status}."
    rows = [
        (row.quantity, *(figure(value) for value in (row.model, row.hls, row.vivado)))
        for row in vendor.comparison
    ]
    return Table(("quantity", "model", "Vitis HLS", "Vivado"), rows), text


def figure(value: float | None, absent: str = "–") -> str:
    """A figure of the comparison, without decimals that say nothing.

    >>> figure(44123.0), figure(45.5), figure(None)
    ('44,123', '45.5', '–')
    """
    return absent if value is None else f"{value:,.10g}"


def write_report(build: Path, report: Report) -> None:
    """Write report.html, then report.json."""
    page = render_html(report, summary.measured(build, report.arrays_sha256))
    write_atomic(build / "report.html", page)
    write_atomic(build / "report.json", report.model_dump_json(indent=1) + "\n")
