# SPDX-License-Identifier: Apache-2.0
"""Activations: SQNR of the best 5-bit codes, of a network's output, and what the engine takes.

    .venv/bin/python -m tests.activations cifar10_train.npz

Six convolutions and a fully connected layer with seeded weights, two max pools; the first IMAGES of
the data calibrate.
"""

import contextlib
import io
import json
import re
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from nuq.formats.activation import Activation
from nuq.formats.commands import main
from nuq.model_prep.activations import nonnegative
from nuq.model_prep.quantize.behind import Part, fit_all
from nuq.model_prep.quantize.plan import LayerPlan
from nuq.model_prep.quantize.quantizers import fit
from nuq.model_prep.quantize.quantizers.histogram import signal_and_noise
from nuq.model_prep.quantize.score import sqnr_db

IMAGES = 132
CHANNELS = (32, 32, 64, 64, 128, 128)
POOLED = (1, 3)
QM, FRAC = 12, 9  # of a sum of deviation 1
FUNCTION = {
    "LeakyRelu": Activation("leaky_relu", {"alpha": 0.1}), "Elu": Activation("elu", {"alpha": 1.0}),
    "Tanh": Activation("tanh"), "HardSwish": Activation("hard_swish"), "Gelu": Activation("gelu"),
    "Swish": Activation("silu", {"alpha": 1.0}),
}  # fmt: skip
ACTIVATIONS: dict[str, dict[str, float]] = {
    "Relu": {}, "LeakyRelu": {"alpha": 0.1}, "Elu": {}, "Tanh": {}, "HardSwish": {}, "Gelu": {},
    "Swish": {},
}  # fmt: skip


def network(activation: str) -> onnx.ModelProto:
    """The network with one of ACTIVATIONS; Swish is SiLU, in parts."""
    nodes: list[NodeProto] = []
    weights: dict[str, np.ndarray] = {}
    source, inputs, random = "x", 3, np.random.default_rng(1)

    def add(kind: str, read: str, name: str, **attributes: object) -> str:
        nodes.append(helper.make_node(kind, read.split(), [name], name=name, **attributes))
        return name

    for index, channels in enumerate(CHANNELS):
        shape = (channels, inputs, 3, 3)
        weights[f"w{index}"] = random.standard_normal(shape).astype(np.float32)
        source = add("Conv", f"{source} w{index}", f"conv{index}", pads=[1, 1, 1, 1])
        if activation == "Swish":
            source = add("Mul", f"{source} {add('Sigmoid', source, f's{index}')}", f"a{index}")
        else:
            source = add(activation, source, f"a{index}", **ACTIVATIONS[activation])
        if index in POOLED:
            window = {"kernel_shape": [2, 2], "strides": [2, 2]}
            source = add("MaxPool", source, f"pool{index}", **window)
        inputs = channels
    weights["w"] = random.standard_normal((10, inputs)).astype(np.float32)
    add("Flatten", add("GlobalAveragePool", source, "mean"), "flat")
    add("Gemm", "flat w", "y", transB=1)
    graph = helper.make_graph(
        nodes, "six", [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 32, 32))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 10))],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def best(activation: str) -> float:
    """SQNR in dB of 5 bits for a normally distributed sum: what no table can exceed."""
    y = np.arange(-(1 << (QM - 1)), 1 << (QM - 1))
    counts = np.rint(1e7 * np.exp(-((y * 2.0**-FRAC) ** 2) / 2)).astype(np.int64)
    one = FUNCTION.get(activation)
    if one is None:
        sums = np.zeros(1 << QM, np.int64)
        sums[: len(y) // 2], sums[0] = counts[len(y) // 2 :], counts[: len(y) // 2 + 1].sum()
        return sqnr_db(*signal_and_noise(sums, 0, FRAC, fit("knq", sums, 5, QM, FRAC)))
    plan = LayerPlan("a", 8, 8, "knq", 5, {"rule": "nearest"}, one, not nonnegative(one))
    table = fit_all([plan], {"a": Part(one, FRAC, counts)}, QM)["a"]
    return sqnr_db(*signal_and_noise(counts, int(y[0]), FRAC, table, activation=one))


def measured(activation: str, data: Path, folder: Path) -> str:
    """A row of the table."""
    path, out = folder / f"{activation.lower()}.onnx", folder / activation
    path.write_bytes(network(activation).SerializeToString())
    options = [f"NET={path}", f"DATA={data}", "WEIGHTS=seeded", f"OUT={out}", "IMAGES=4"]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        main(["quantize", *options, "BITS=5"])
        main(["codegen", f"OUT={out}"])
    found = re.search(r"([\d.]+) dB of output SQNR with .*, ([\d.]+) with", printed.getvalue())
    assert found
    total = json.loads((out / "report.json").read_text())["resources"]["estimate"]
    return (
        f"| {activation} | {best(activation):.1f} | {found[1]} | {found[2]} | {total['dsp']} | "
        f"{total['bram36']} | {total['lut']:,} |"
    )


def subset(data: Path, folder: Path) -> Path:
    """The first IMAGES of an archive of JPEG files."""
    with np.load(data) as archive:
        start = archive["start"][: IMAGES + 1]
        kept = {
            "jpeg": archive["jpeg"][: start[-1]], "start": start,
            "label": archive["label"][:IMAGES], "classes": archive["classes"],
        }  # fmt: skip
    np.savez(folder / "images.npz", **kept)
    return folder / "images.npz"


def run(arguments: list[str]) -> int:
    """Print a table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = subset(Path(arguments[0]), folder)
        print("| activation | one layer | 12-bit uniform | KNQ 5 bits | DSP | BRAM36 | LUT |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        for activation in arguments[1:] or ACTIVATIONS:
            print(measured(activation, data, folder), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
