# SPDX-License-Identifier: Apache-2.0
"""The command `accuracy`: float, integer and C-simulation accuracy on labelled images.

Of several outputs, or of a map, there is none: then it is how near the integers are, by output.
Float is onnxruntime's for an ONNX file with its own weights, else torch's. SQNR as in paper 002,
here of the integer network.
"""

import itertools
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from nuq.formats.arithmetic import Shape
from nuq.formats.basis import SEEDED
from nuq.formats.build import atomic_file, write_atomic
from nuq.formats.ending import class_values, ending_of
from nuq.formats.errors import UserError, call, existing
from nuq.formats.images import ImageSet, best_classes, tops
from nuq.formats.network import Layer, Network
from nuq.formats.packing import unpack_raw
from nuq.model_prep import run, stats
from nuq.model_prep.parallel import ordered
from nuq.model_prep.quantize.calibrate import batches
from nuq.model_prep.quantize.reference import Reference
from nuq.model_prep.quantize.score import sqnr_db
from nuq.model_prep.stages import Subject, finite, scores

OUTPUTS = "accuracy.npz"  # in OUT, for AGAINST
EXTERNAL_DATA = "session.model_external_initializers_file_folder_path"  # of onnxruntime
# Without it onnxruntime multiplies 8-bit codes by 8-bit weights in 16-bit sums that saturate, on
# x86-64 processors without VNNI: other answers than the file has elsewhere.
EXACT_SUMS = "session.x64quantprecision"
_NOISE_IMAGES = 64  # at most, that the SQNR of layers is measured on
Logits = Callable[[torch.Tensor], np.ndarray]


def float_runner(subject: Subject) -> tuple[str, Logits | None]:
    """(name, function from inputs float32 [N, C, H, W] to the heads' values [N, outputs]).

    The function is None for torch, whose outputs are those of `run_float`.
    """
    source = subject.source
    if source.path is None or source.imported is None or subject.loaded.origin == "seeded":
        return "torch", None
    import onnx
    import onnxruntime

    imported = source.imported
    model = onnx.load(source.path, load_external_data=False)
    del model.graph.output[:]  # what the host does at the end is not the network's
    names = [imported.tensors[head] for head in imported.graph.heads]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # batches run side by side
    options.log_severity_level = 3
    options.add_session_config_entry(EXTERNAL_DATA, str(source.path.resolve().parent))
    options.add_session_config_entry(EXACT_SUMS, "1")
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    name = imported.input_name

    def infer(x: torch.Tensor) -> np.ndarray:
        # one by one, as files may fix the batch axis
        images = (imported.file_input(image[None].numpy()) for image in x)
        found = [session.run(None, {name: image}) for image in images]
        rows = [[one.reshape(1, -1) for one in outputs] for outputs in found]
        return np.block(rows).astype(np.float32)

    return "onnxruntime", infer


def decoded(layer: Layer, codes: np.ndarray) -> np.ndarray:
    """What stored codes or raw accumulators stand for, float64."""
    if layer.quantizer is not None:
        found: np.ndarray = (layer.quantizer.decode_table * 2.0**-layer.out_frac)[codes]
        if layer.scale is not None:
            found /= layer.scale[:, None, None]
        return found
    values = layer.outputs(codes) * 2.0**-layer.out_frac
    return values / layer.averaging.divisors(*layer.in_shape[1:]) if layer.averaging else values


@dataclass(frozen=True)
class Outputs:
    """The outputs of float and integers, float64 [N, classes], and the labels int64 [N]."""

    exact: np.ndarray
    integer: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class _Runs:
    """What is run on a batch of images, both networks side by side."""

    subject: Subject
    network: Network
    run_float: Logits | None  # None: torch
    reference: Reference

    def batch(
        self, part: tuple[np.ndarray, bool]
    ) -> tuple[np.ndarray, np.ndarray, list[tuple[str, float, float]]]:
        """Outputs [N, outputs] of float and of the integers for uint8 images.

        With them, where that is asked for, (layer, energy of the float network's values, of the
        integers' distance from them).
        """
        images, layers = part
        x = self.subject.to_float(images)
        found = self.reference.run(self.network.input.encode(images))
        sums: list[tuple[str, float, float]] = []
        exact: list[torch.Tensor] = []
        integer: list[np.ndarray] = []
        whole = layers or self.run_float is None
        float_maps = (
            run.run_float(self.subject.loaded.graph, x) if whole else itertools.repeat(None)
        )
        for layer, (_, codes), one in zip(self.network.layers, found, float_maps, strict=False):
            head = layer.quantizer is None
            values = decoded(layer, codes) if head or layers else np.empty(0)
            if head:
                integer.append(values.reshape(len(images), -1))
                exact += [one[1].flatten(1)] if one else []
            if layers and one:
                wide = one[1].double()
                gap = wide - torch.from_numpy(values)
                sums.append((layer.name, float(wide.square().sum()), float(gap.square_().sum())))
        answers = self.run_float(x) if self.run_float else run.join(exact).numpy()
        return answers, np.concatenate(integer, axis=1), sums


def measure(subject: Subject, network: Network, test: ImageSet) -> tuple[dict[str, Any], Outputs]:
    """Run float and integers once on all test images; what comes out, and the outputs.

    The SQNR of layers is that of the first images, which say as much of so many values.
    Of a network that does not answer by classes there is an entry an output instead of top-1.

    Args:
        subject: the float network, and what tables were fitted on.
        network: the same in integers.
        test: images, labelled where the network answers by classes.
    """
    calibrated = len(subject.images.calibration)
    print(
        f"split of {test.source}: {calibrated} images for calibration, {len(test)} others "
        "for the test, none in both"
    )
    runtime, run_float = float_runner(subject)
    runs = _Runs(subject, network, run_float, Reference(network))
    exact, integer = [], []
    energies = {layer.name: [0.0, 0.0] for layer in network.layers}
    quiet = not sys.stderr.isatty()
    with tqdm(total=len(test), desc="accuracy", unit="image", disable=quiet) as bar:
        parts = list(batches(test.pixels, split=min(_NOISE_IMAGES, len(test))))
        starts = itertools.accumulate(map(len, parts), initial=0)
        work = [(part, start < _NOISE_IMAGES) for part, start in zip(parts, starts, strict=False)]
        for one, other, sums in ordered(runs.batch, work):
            exact.append(one)
            integer.append(other)
            for name, signal, noise in sums:
                energies[name][0] += signal
                energies[name][1] += noise
            bar.update(len(one))
    ending = ending_of(network.outputs)
    answers = [class_values(ending, np.concatenate(one)) for one in (exact, integer)]
    outputs = Outputs(answers[0], answers[1], test.labels)
    return {
        "network": network.name, "arrays_sha256": network.arrays_sha256,
        "weights": network.weights, "data": test.source,
        "calibration_images": calibrated, "float_runtime": runtime,
        "refine": network.calibration.get("refine", []), **_judged(network, outputs),
        "layers": [
            {"name": name, "sqnr_db": finite(sqnr_db(*pair))} for name, pair in energies.items()
        ],
        "layer_images": min(len(test), _NOISE_IMAGES),
    }, outputs  # fmt: skip


def _judged(network: Network, outputs: Outputs) -> dict[str, Any]:
    """How good the integers are: by classes, or by output."""
    pair = outputs.exact, outputs.integer
    if network.classifies:
        return {
            **scores(*pair, outputs.labels), "paired": stats.compare(*pair, outputs.labels),
            "divergence": stats.mean_interval(stats.divergences(*pair)),
        }  # fmt: skip
    ends = np.cumsum([prod(head.out_shape) for head in network.ends])[:-1]
    exact, integer = (np.split(one, ends, axis=1) for one in pair)
    near = {
        head.name: _near(one, other, head.out_shape)
        for head, one, other in zip(network.ends, exact, integer, strict=True)
    }
    return {"images": len(outputs.labels), "outputs": [
        {"name": one.name, "layer": one.layer, **near[one.layer]} for one in network.outputs
    ]}  # fmt: skip


def _near(exact: np.ndarray, integer: np.ndarray, shape: Shape) -> dict[str, float | None]:
    """SQNR of an output [N, values], and the percentage of its pixels with the same best channel.

    >>> near = _near(np.array([[1.0, 3.0]]), np.array([[0.0, 3.0]]), (2, 1, 1))
    >>> near["sqnr_db"], near["agreement"]
    (10.0, 100.0)
    """
    noise = float(np.square(integer - exact).sum())
    best = [one.reshape(len(exact), shape[0], -1).argmax(axis=1) for one in (exact, integer)]
    same = 100 * float((best[0] == best[1]).mean()) if shape[0] > 1 else None
    return {
        "sqnr_db": finite(sqnr_db(float(np.square(exact).sum()), noise)), "agreement": same
    }  # fmt: skip


def read_outputs(folder: Path) -> Outputs:
    """The outputs that `write` has left in a folder; UserError where there are none."""
    path = existing(folder / OUTPUTS, f"run {call('accuracy')} with that OUT first")
    with np.load(path, allow_pickle=False) as arrays:
        return Outputs(**{item.name: arrays[item.name] for item in fields(Outputs)})


def against(outputs: Outputs, other: Outputs, folder: Path) -> dict[str, Any]:
    """Another measurement on the same images, image by image; differences are this less that one.

    UserError where `other`, of `folder`, is of other images.
    """
    alike = other.exact.shape == outputs.exact.shape
    if not alike or not np.allclose(other.exact, outputs.exact, rtol=1e-3, atol=1e-3):
        raise UserError(
            f"AGAINST must be a measurement of this network on these images, not {folder}; "
            f"run {call('accuracy')} there again"
        )
    found: dict[str, Any] = {"folder": str(folder)}
    for top in tops(outputs.exact.shape[1]):
        before, after = (
            (best_classes(one.integer, top) == one.labels[:, None]).any(axis=1)
            for one in (other, outputs)
        )
        found[f"top{top}"] = asdict(stats.paired(before, after))
    change = stats.divergences(outputs.exact, outputs.integer)
    change -= stats.divergences(other.exact, other.integer)
    return {**found, "divergence": stats.mean_interval(change)}


def read_csim(folder: Path, network: Network, outputs: Outputs) -> dict[str, Any]:
    """Accuracy of the C-simulation's logits in `folder`, on the same images in the same order.

    Of a network that does not answer by classes, how many images have the reference's outputs.

    Raises:
        UserError: there was no simulation, or of another number of images.
    """
    path, heads, labels = folder / "csim" / "logits.bin", network.ends, outputs.labels
    if not path.is_file():
        raise UserError(f"{path} must exist; run {call('csim')} with the same IMAGES first")
    raw = np.fromfile(path, "<i8")
    if raw.size != len(labels) * sum(prod(head.out_shape) for head in heads):
        raise UserError(
            f"{path} must hold the outputs of {len(labels)} images, not {raw.size} numbers; run "
            f"{call('csim')} with the same IMAGES again"
        )
    parts = unpack_raw(raw.reshape(len(labels), -1), [head.out_shape for head in heads])
    if not network.classifies:
        values = [
            decoded(head, part).reshape(len(labels), -1)
            for head, part in zip(heads, parts, strict=True)
        ]
        same = (np.concatenate(values, axis=1) == outputs.integer).all(axis=1)
        return {"images": len(labels), "equal": int(same.sum())}
    logits = heads[0].outputs(parts[0]).reshape(len(labels), -1)
    logits = class_values(ending_of(network.outputs), logits)
    found = scores(logits, logits, labels)
    return {"images": len(labels), "top1": found["integer_top1"], "top5": found["integer_top5"]}


def interval_text(found: Mapping[str, float]) -> str:
    """A mean with its interval."""
    return f"{found['mean']:.4f}, 95% interval {found['low']:.4f}..{found['high']:.4f}"


def print_paired(rows: Mapping[str, Mapping[str, Any]], other: str) -> None:
    """Rates as `stats.compare` gives them, against another network's."""
    for name, found in rows.items():
        if name == "agreement1":
            text = f"predictions that agree with {other}: {found['percent']:.2f}%"
        elif "percent" in found:
            text = f"float's first answer among the first {name[9:]}: {found['percent']:.2f}%"
        else:
            text = (
                f"{name} against {other}, image by image: {found['difference']:+.2f} points (lost "
                f"{found['lost']}, gained {found['gained']}, p = {found['p_value']:.2g})"
            )
        print(f"{text}, 95% interval {found['low']:.2f}..{found['high']:.2f}")


def write(result: dict[str, Any], outputs: Outputs, folder: Path) -> None:
    """Print the figures and write folder/accuracy.json, and the outputs beside it."""
    if result["weights"] == "seeded":
        print(SEEDED)
    print(f"{'layer':<40}{'SQNR dB':>9}  (of {result['layer_images']} images)")
    for layer in result["layers"]:
        value = layer["sqnr_db"]
        print(f"{layer['name']:<40}{'-' if value is None else format(value, '.1f'):>9}")
    (_print_outputs if "outputs" in result else _print_answers)(result)
    with atomic_file(folder / OUTPUTS) as temporary, temporary.open("wb") as file:
        np.savez(file, **asdict(outputs))
    path = folder / "accuracy.json"
    write_atomic(path, json.dumps(result, indent=2) + "\n")
    print(f"written: {path}")


def _print_outputs(result: Mapping[str, Any]) -> None:
    """How near the integers are, an output a line."""
    print(f"{result['images']} test images, against float ({result['float_runtime']})")
    print(f"{'output':<32}{'SQNR dB':>9}{'agreement %':>13}")
    for one in result["outputs"]:
        found = [one["sqnr_db"], one["agreement"]]
        ratio, same = ("-" if value is None else format(value, ".2f") for value in found)
        print(f"{one['name']:<32}{ratio:>9}{same:>13}")
    if "csim" in result:
        found = result["csim"]
        print(f"C-simulation: {found['equal']} of {found['images']} images equal the reference")


def _print_answers(result: Mapping[str, Any]) -> None:
    """Rates of correct answers, and their distance from float's."""
    rows = [
        (f"float ({result['float_runtime']})", result["float_top1"], result["float_top5"]),
        ("integer reference", result["integer_top1"], result["integer_top5"]),
    ]
    if "csim" in result:
        rows.append(("C-simulation", result["csim"]["top1"], result["csim"]["top5"]))
    heads = ("top-1 %", "top-5 %")[: 1 if result["float_top5"] is None else 2]
    print(f"{result['images']} test images".ljust(32) + "".join(f"{head:>9}" for head in heads))
    for name, *rates in rows:
        print(f"{name:<32}" + "".join(f"{rate:>9.2f}" for rate in rates if rate is not None))
    print_paired(result["paired"], "float")
    print(f"divergence from float: {interval_text(result['divergence'])} nats")
    if "against" in result:
        folder_name = result["against"]["folder"]
        print_paired(
            {name: one for name, one in result["against"].items() if name.startswith("top")},
            folder_name,
        )
        change = interval_text(result["against"]["divergence"])
        print(f"divergence less that of {folder_name}: {change}")
