# SPDX-License-Identifier: Apache-2.0
"""The open-source C-simulation: compile the generated C++ with g++, run its test bench, judge it.

The test bench compares codes; here its counters are compared with the cycle model and its logits
with the reference, image by image. report.json is extended by the result.
"""

import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nuq.codegen.design.ports import WEIGHT_ADAPTER
from nuq.codegen.emit.report_model import Agreement, Csim, Report, read_report
from nuq.codegen.emit.report_page import write_report
from nuq.formats.build import compile_cpp
from nuq.formats.design import TRAFFIC, read_design
from nuq.formats.errors import UserError, call
from nuq.formats.options import Options
from nuq.formats.packing import WORD_BYTES, unpack_raw

FLAGS = (
    "-std=c++14", "-O3", "-march=native", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas",
    "-Wno-unused-label",
)  # fmt: skip
# ap_private's constructors clear spare bits before any bit is set, which g++ reports in whoever
# uses them. Fast mode keeps ap_uint only for gearboxes of more than 128 bits.
AP_TYPES = {
    "fast": ("-DCSIM_FAST", "-Wno-uninitialized", "-Wno-maybe-uninitialized"),
    "exact": ("-Wno-uninitialized", "-Wno-maybe-uninitialized"),
}
AP_TYPES["timed"] = (*AP_TYPES["fast"], "-DCSIM_TIMED")
# Lines for the sanitizers' messages; places of variables (-g) take longer than all else.
SANITIZE = ("-g1", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
# ap_private sign-extends by shifting negative numbers left, which g++ defines as C++20 does.
SANITIZE_TYPES = {"fast": (), "timed": (), "exact": ("-fno-sanitize=shift-base",)}


def simulate(options: Options) -> int:
    """Compile, run, report; 0 where everything is equal, else 1 or the test bench's own status."""
    report = read_report(options.folder)
    flags = timing(report) if options.csim_types == "timed" else []
    status = run_bench(options, compile_bench(options, flags), report.images)
    path = options.folder / "csim" / "csim.json"
    if not path.is_file():  # it stopped before writing it
        return status or 1
    result = Csim.model_validate_json(path.read_text())
    problems = counter_problems(report, result)
    result.accuracy = accuracy(options, report)
    if result.types == "timed":
        print(timed(report, result))
    if result.accuracy and result.accuracy.same_logits != report.images:
        problems.append(
            "the C-simulation's outputs must equal the Python reference's, image by image"
        )
    for problem in problems:
        print(f"FAILED: {problem}")
    report.csim = result
    write_report(options.folder, report)
    return status or (1 if problems else 0)


def compile_bench(options: Options, more: Sequence[str] = ()) -> Path:
    """Compile hls/*.cpp; return the program. Does nothing where sources and flags are unchanged."""
    build, types = options.engine or options.folder, options.csim_types
    folder = options.folder / "hls"
    sources = sorted(folder.glob("*.cpp"))
    if not sources:
        raise UserError(f"{folder} must hold generated sources; run {call('codegen')} first")
    flags = [*FLAGS, *AP_TYPES[types], *more]
    if options.sanitize:
        flags += [*SANITIZE, *SANITIZE_TYPES[types]]
    name = f"csim_{types}{'_sanitize' if options.sanitize else ''}"
    program = build / "csim" / name  # one of all networks of an engine
    return compile_cpp(flags, sources, sorted(folder.glob("*.hpp")), program)


def timing(report: Report) -> list[str]:
    """Flags of a timed simulation: words that the DRAM moves in a cycle and an adapter holds."""
    performance, port = report.performance, WEIGHT_ADAPTER
    words = performance.dram_gbs * 1e3 / performance.clock_mhz / WORD_BYTES
    held = port.reads * port.read_burst
    return [f"-DDRAM_WORDS_PER_CYCLE={words}", f"-DADAPTER_WORDS={held}"]


def run_bench(options: Options, program: Path, images: int) -> int:
    """Run the test bench, its output going straight through; return its exit status."""
    (options.folder / "csim").mkdir(parents=True, exist_ok=True)
    for name in ("csim.json", "logits.bin"):
        (options.folder / "csim" / name).unlink(missing_ok=True)
    folders = [str(options.folder / name) for name in ("params", "golden", "csim")]
    command = [str(program), *folders, str(images)]
    print(f"C-simulation of {images} image(s); codes and bytes are of all of them:", flush=True)
    if options.first_layers:
        command.append(str(options.first_layers))
    return subprocess.run(command, check=False).returncode


def timed(report: Report, result: Csim) -> str:
    """One line: cycles of a timed simulation beside those of the cycle model."""
    clock = report.performance.clock_mhz * 1e6
    cycles = sum(layer.cycles for layer in result.layers)
    modelled = sum(layer.seconds for layer in report.layers[: len(result.layers)]) * clock
    return (
        f"timed: {cycles:,} cycles, {cycles / clock:.4g} s at {clock / 1e6:g} MHz; "
        f"the cycle model says {modelled:,.0f} ({cycles / modelled - 1:+.1%})"
    )


def counter_problems(report: Report, result: Csim) -> list[str]:
    """One sentence for the first layer whose counted iterations are not the predicted ones."""
    for layer, counted in zip(report.layers, result.layers, strict=False):
        counts = dict(layer.counts)
        same = {name: getattr(layer, name) for name in TRAFFIC}
        predicted = {**counts, **same}
        if result.types != "timed":  # which counts waiting, too
            predicted["cycles"] = max(counts.values())
        for name, value in predicted.items():
            count = getattr(counted, name)
            if count != value:
                return [f"layer {layer.name}: {name} must be the predicted {value}, not {count}"]
    return []


def accuracy(options: Options, report: Report) -> Agreement | None:
    """Compare outputs of float, Python-integer and C-simulation; None where only some layers ran.

    Prints one line where the network answers by classes and the images have labels.
    """
    path = options.folder / "csim" / "logits.bin"
    if not path.is_file():
        return None
    images, design = report.images, read_design(options.folder)
    words = np.fromfile(path, dtype="<i8")
    if words.size != images * sum(head.codes for head in design.heads):
        return None
    parts = unpack_raw(words.reshape(images, -1), [head.out_shape for head in design.heads])
    names = [head.name for head in design.heads]
    simulated = design.by_output(dict(zip(names, parts, strict=True)))
    with np.load(options.folder / "quantized" / "vectors.npz", allow_pickle=False) as vectors:
        integer = design.by_output({name: vectors[name][:images] for name in names})
        floating = vectors["float_logits"][:images].reshape(images, -1)
        labels = vectors["labels"][:images]
    equal = [
        (simulated[name] == one).reshape(images, -1).all(axis=1) for name, one in integer.items()
    ]
    same = int(np.all(equal, axis=0).sum())
    known = (labels >= 0) & design.classifies
    first = design.outputs[0].name
    outputs = {"float": floating, "integer": integer[first], "csim": simulated[first]}
    shares: dict[str, float | None] = dict.fromkeys(f"{name}_top1" for name in outputs)
    for name, values in outputs.items() if known.any() else ():
        hits = design.answers(values).argmax(axis=1)[known] == labels[known]
        shares[f"{name}_top1"] = round(100 * float(hits.mean()), 3)
    if known.any():
        print(
            f"top-1 accuracy on {known.sum()} images: float {shares['float_top1']:.2f}%, "
            f"integer (Python) {shares['integer_top1']:.2f}%, "
            f"C-simulation {shares['csim_top1']:.2f}%; "
            f"the last two agree on {same} of {images} images"
        )
    return Agreement(images=int(known.sum()), same_logits=same, **shares)
