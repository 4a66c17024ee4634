# SPDX-License-Identifier: Apache-2.0
"""SqueezeNet as onnxruntime quantizes it, and how well its answers are determined by that file.

    .venv/bin/python -m tests.quantized_file FOLDER squeezenet_v1.0.onnx imagenet500.npz

writes FOLDER/qdq.onnx (QDQ, uint8 codes, int8 weights by channel) and prints how often onnxruntime
has the same first answer where the file, or the way it is run, is changed a little.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto, numpy_helper
from onnxruntime import GraphOptimizationLevel, quantization

from nuq.formats.commands import parse
from nuq.model_prep.accuracy import EXACT_SUMS
from nuq.model_prep.commands import subject_of
from nuq.model_prep.stages import Subject
from nuq.model_prep.stats import rate_interval

RECIPE = ["MEAN=123,117,104", "STD=1", "SCALE=1", "RESIZE=256"]
METHODS = ("MinMax", "Entropy", "Percentile")  # of calibration
IMAGES = 200  # to test


def subject(net: Path, images: Path) -> Subject:
    """A network of SqueezeNet's input with the images that calibrate and test it."""
    return subject_of(parse("accuracy", [f"NET={net}", f"DATA={images}", *RECIPE]), IMAGES)


def write(net: Path, images: Path, path: Path, method: str = "MinMax") -> None:
    """The network as `quantize_static` writes it, calibrated on the images that the flow takes.

    `method` says how ranges of activations are found: a name of quantization.CalibrationMethod.
    """
    one = subject(net, images)
    inputs = iter(one.to_float(one.images.calibration.pixels).numpy())
    (source,) = onnxruntime.InferenceSession(net, providers=["CPUExecutionProvider"]).get_inputs()

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]  # of an untyped package
        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(inputs, None)
            return None if image is None else {source.name: image[None]}

    quantization.quantize_static(
        net, path, Reader(), quant_format=quantization.QuantFormat.QDQ, per_channel=True,
        activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8,
        calibrate_method=quantization.CalibrationMethod[method],
    )  # fmt: skip


def answers(model: ModelProto, x: np.ndarray, optimized: bool = True) -> np.ndarray:
    """onnxruntime's outputs [N, classes] with sums that do not saturate."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry(EXACT_SUMS, "1")
    if not optimized:  # as the operators are defined: dequantized, in float32, quantized again
        options.graph_optimization_level = GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    found = [session.run(None, {name: image[None]})[0].ravel() for image in x]
    return np.stack(found)


def changed(model: ModelProto, change: Callable[[str, np.ndarray], np.ndarray]) -> ModelProto:
    """A copy whose initialisers are what `change` makes of their names and values."""
    made = ModelProto()
    made.CopyFrom(model)
    for tensor in made.graph.initializer:
        value = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(change(tensor.name, value), tensor.name))
    return made


def nudged(model: ModelProto, by: float) -> ModelProto:
    """The weights' steps times 1 - `by` to 1 + `by`, at random."""
    random = np.random.default_rng(1)

    def change(name: str, value: np.ndarray) -> np.ndarray:
        if not name.endswith("weight_scale"):
            return value
        return (value * (1 + by * random.uniform(-1, 1, value.shape))).astype(value.dtype)

    return changed(model, change)


def unrounded_parts(model: ModelProto) -> ModelProto:
    """Parts of concats without codes of their own: only the concat rounds."""
    made = changed(model, lambda name, value: value)
    makers = {node.output[0]: node for node in made.graph.node}
    for node in made.graph.node:
        if node.op_type == "Concat":
            parts = [makers[makers[name].input[0]].input[0] for name in node.input]
            del node.input[:]
            node.input.extend(parts)
    return made


def rows(model: ModelProto, x: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """(what is changed, the outputs)."""
    yield "run without fusing, in float32", answers(model, x, optimized=False)
    for digits in (20, 16, 12):
        yield f"weights' steps within 2^-{digits}", answers(nudged(model, 2.0**-digits), x)
    yield "parts of concats not rounded", answers(unrounded_parts(model), x)


def run() -> None:
    """Write the file and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("folder", "net", "images"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--method", default="MinMax", choices=METHODS)
    given = parser.parse_args()
    path = given.folder / "qdq.onnx"
    write(given.net, given.images, path, given.method)
    tested = subject(path, given.images)
    model, x = onnx.load(path), tested.to_float(tested.images.test.pixels).numpy()
    reference = answers(model, x)
    print("| onnxruntime's answers against its own | same first answer | RMS of the difference |")
    print("| --- | --- | --- |")
    for name, found in rows(model, x):
        same = int((found.argmax(1) == reference.argmax(1)).sum())
        low, high = rate_interval(same, len(x))
        rms = np.sqrt(np.square(found - reference).mean())
        print(
            f"| {name} | {100 * same / len(x):.1f}% ({low:.1f} to {high:.1f}) | {rms:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    run()
