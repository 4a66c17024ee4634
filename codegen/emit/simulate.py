# SPDX-License-Identifier: Apache-2.0
"""The csim command: run the C-simulation, judge it, compare accuracies, extend report.json.

The test bench compares codes; here its counters are compared with the cycle model and its logits
with the reference, image by image.
"""

import numpy as np

from codegen.emit.csim import compile_bench, read_result, run_bench
from codegen.emit.report_model import Agreement, Csim, Report, read_report
from codegen.emit.report_page import write_report
from formats.options import Options


def simulate(options: Options) -> int:
    """Compile, run, report; 0 where everything is equal, else 1 or the test bench's own status."""
    report = read_report(options.folder)
    program = compile_bench(options)
    status = run_bench(options, program, report.images)
    result = read_result(options)
    if result is None:
        return status or 1
    problems = counter_problems(report, result)
    result.accuracy = accuracy(options, report)
    if result.accuracy and result.accuracy.same_logits != report.images:
        problems.append(
            "the C-simulation's outputs must equal the Python reference's, image by image"
        )
    for problem in problems:
        print(f"FAILED: {problem}")
    report.csim = result
    write_report(options.folder, report)
    return status or (1 if problems else 0)


def counter_problems(report: Report, result: Csim) -> list[str]:
    """One sentence for the first layer whose counted iterations are not the predicted ones."""
    for layer, counted in zip(report.layers, result.layers, strict=False):
        same = ("cycles", "bytes_read", "bytes_written", "bytes_weights")
        predicted = {**dict(layer.counts), **{name: getattr(layer, name) for name in same}}
        for name, value in predicted.items():
            count = getattr(counted, name)
            if count != value:
                return [f"layer {layer.name}: {name} must be the predicted {value}, not {count}"]
    return []


def accuracy(options: Options, report: Report) -> Agreement | None:
    """Compare logits of float, Python-integer and C-simulation; None where only some layers ran.

    Prints one line where the images have labels.
    """
    path = options.folder / "csim" / "logits.bin"
    if not path.is_file():
        return None
    images = report.images
    last = report.layers[-1]
    channels, height, width = last.out_shape
    logits = np.fromfile(path, dtype="<i8")
    if logits.size != images * channels * height * width:
        return None
    simulated = logits.reshape(images, height * width, channels).transpose(0, 2, 1)
    with np.load(options.folder / "quantized" / "vectors.npz", allow_pickle=False) as vectors:
        integer = vectors[last.name][:images].reshape(images, channels, -1)
        floating = vectors["float_logits"][:images].reshape(images, -1)
        labels = vectors["labels"][:images]
    same = (simulated == integer).all(axis=(1, 2))
    top = {
        "float": floating.argmax(axis=1),
        "integer": integer.reshape(images, -1).argmax(axis=1),
        "csim": simulated.reshape(images, -1).argmax(axis=1),
    }
    known = labels >= 0
    shares: dict[str, float | None] = {}
    for name, guess in top.items():
        hits = guess[known] == labels[known]
        shares[f"{name}_top1"] = round(100 * float(hits.mean()), 3) if known.any() else None
    if known.any():
        print(
            f"top-1 accuracy on {known.sum()} images: float {shares['float_top1']:.2f}%, "
            f"integer (Python) {shares['integer_top1']:.2f}%, "
            f"C-simulation {shares['csim_top1']:.2f}%; "
            f"the last two agree on {same.sum()} of {images} images"
        )
    return Agreement(images=int(known.sum()), same_logits=int(same.sum()), **shares)
