# SPDX-License-Identifier: Apache-2.0
"""Measurements: accuracy, latency and DDR traffic per layer, activation memory (papers' table V).

On the emulated board, time is the engine's cycle model at the design's clock, and every result
says so; memory, traffic and accuracy are the same on both.
"""

import sys
from typing import Any

import numpy as np

from nuq.board.driver import Accelerator, Call
from nuq.formats.design import TRAFFIC, Layer
from nuq.formats.errors import UserError
from nuq.formats.images import percent_correct, tops
from nuq.formats.packing import WORD_BYTES

DEFAULT_REPEATS = 20
# CLNQ: uniform codes, a width per convolution, in order (IEEE papers 000/001, section IV).
CLNQ_BITS = {"vgg16": (8, 8, 10, 11, 11, 11, 11, 11, 11, 10, 10, 9, 8)}


def show_progress(done: int, total: int, what: str) -> None:
    """One line on a terminal; nothing where output is piped."""
    if sys.stderr.isatty():
        end = "\n" if done >= total else ""
        print(f"\r{what}: {done}/{total}", end=end, file=sys.stderr, flush=True)


def top_k(logits: np.ndarray, labels: np.ndarray, k: int) -> float | None:
    """Percent of images whose label is among the k best; ties go to the lower class.

    >>> top_k(np.array([[3, 3, 1], [0, 1, 2]]), np.array([1, 2]), 1)
    50.0
    """
    known = labels >= 0
    if not known.any() or k >= logits.shape[1]:
        return None
    return percent_correct(logits[known], labels[known], k)


def predict_all(board: Accelerator, images: np.ndarray, what: str) -> dict[str, np.ndarray]:
    """Integers [N, ...] of all images by output, with progress."""
    parts = []
    for start in range(0, len(images), board.batch):
        part = images[start : start + board.batch]
        parts.append(board.integers(part))
        show_progress(start + len(part), len(images), what)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def accuracy(board: Accelerator, images: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Top-1 and top-5 of all images, in percent.

    None without labels, with too few classes, or where the network does not answer by classes.
    """
    if not board.design.classifies:
        return {"images": len(images), "top1": None, "top5": None}
    integers = next(iter(predict_all(board, images, "accuracy").values()))
    logits = board.design.answers(integers)
    found = {f"top{k}": top_k(logits, labels, k) for k in tops(logits.shape[1])}
    return {"images": len(images), "top5": None, **found}


def call_seconds(board: Accelerator, call: Call) -> float:
    """Time of a call: the processor's clock on a board, the model on the emulated one.

    The model is the report's, for a call of one layer: cycles or DRAM, whichever takes longer.
    """
    if board.emulated:
        return board.design.seconds(call.counters["cycles"], moved(call.counters))
    return call.seconds


def moved(counters: dict[str, int]) -> int:
    """Bytes from and to DRAM."""
    return sum(counters[name] for name in TRAFFIC)


def statistics(samples: list[float]) -> dict[str, float]:
    """Mean, p50 and p99 in milliseconds of times in seconds."""
    milliseconds = 1e3 * np.array(samples)
    p50, p99 = np.percentile(milliseconds, (50, 99))
    return {"mean_ms": float(milliseconds.mean()), "p50_ms": float(p50), "p99_ms": float(p99)}


def latency(
    board: Accelerator, images: np.ndarray, repeats: int = DEFAULT_REPEATS
) -> dict[str, Any]:
    """Time of one batch, layer by layer and in one call.

    Args:
        board: where to run.
        images: the batch, uint8 [N, C, H, W], no more than `board.batch`.
        repeats: runs of each kind.
    """
    if not 1 <= len(images) <= board.batch or repeats < 1:
        raise UserError(
            f"a batch must have 1..{board.batch} images and be run at least once, not "
            f"{len(images)} images {repeats} times"
        )
    layers = board.design.layers
    single: list[list[float]] = [[] for _ in layers]
    whole: list[float] = []
    traffic: list[dict[str, int]] = [{} for _ in layers]
    for repeat in range(repeats):
        board.predict(images, by_layer=True)
        for call in board.calls:
            single[call.first].append(call_seconds(board, call))
            traffic[call.first] = {key: call.counters[key] for key in (*TRAFFIC, "cycles")}
        board.predict(images)
        if board.emulated:  # whose time is a sum over layers
            whole.append(sum(times[repeat] for times in single))
        else:
            whole.append(sum(call_seconds(board, call) for call in board.calls))
        show_progress(repeat + 1, repeats, f"latency, batch {len(images)}")
    first_fc = next((i for i, layer in enumerate(layers) if layer.kind == "fc"), len(layers))
    convolutions = [sum(times) for times in zip(*single[:first_fc], strict=True)]
    parts = {"network": statistics(whole)}
    if convolutions:
        parts["convolutions"] = statistics(convolutions)
    for part in parts.values():
        part["images_per_s"] = 1e3 * len(images) / part["mean_ms"]
    return {
        "batch": len(images),
        "repeats": repeats,
        "time": "model" if board.emulated else "measured",
        **parts,
        # `dram_bound` is the model's word
        "layers": [
            {
                "name": layer.name,
                "kind": layer.kind,
                **statistics(times),
                **counted,
                "dram_bound": board.design.is_dram_bound(counted["cycles"], moved(counted)),
            }
            for layer, times, counted in zip(layers, single, traffic, strict=True)
        ],
    }


def memory(board: Accelerator, clnq: tuple[int, ...] | None = None) -> dict[str, Any]:
    """Activation memory: what is allocated, what is stored, and what other widths would store.

    Args:
        board: an open accelerator.
        clnq: a width per convolution, to compare with; None: the papers', where they have one.
    """
    design, widths = board.design, clnq or CLNQ_BITS.get(board.design.network)
    stored = [layer for layer in design.layers if layer.scheme != "raw"]
    convolutions = [layer for layer in stored if layer.kind == "conv"]
    if widths is not None and len(widths) != len(convolutions):
        raise UserError(
            f"CLNQ widths must be one per convolution, {len(convolutions)}, not {len(widths)}"
        )
    clnq_bytes = None
    if widths is not None:
        pairs = zip(convolutions, widths, strict=True)
        clnq_bytes = sum(layer.codes * bits for layer, bits in pairs) / 8
    return {
        "batch": board.batch,
        "allocated_bytes": board.buffers.feature_map_bytes,
        "allocated_bytes_per_image": board.buffers.feature_map_bytes // board.batch,
        "input_bytes_per_image": design.input_words * WORD_BYTES,
        "stored_bytes": sum(layer.out_words * WORD_BYTES for layer in stored),
        **_code_bytes(stored),
        "convolutions": {**_code_bytes(convolutions), "clnq_bytes": clnq_bytes},
        "layers": [
            {"name": layer.name, "bits": layer.bits, "bytes": layer.out_words * WORD_BYTES}
            for layer in stored
        ],
    }


def _code_bytes(layers: list[Layer]) -> dict[str, float]:
    """What the layers' activations take as codes, and at 16 bits."""
    return {
        "code_bytes": sum(layer.codes * layer.bits for layer in layers) / 8,
        "half_precision_bytes": sum(layer.codes * 2 for layer in layers),
    }


def measure(
    board: Accelerator,
    images: np.ndarray,
    labels: np.ndarray,
    repeats: int = DEFAULT_REPEATS,
    clnq: tuple[int, ...] | None = None,
) -> dict[str, Any]:
    """Everything, as one JSON value; batches of 1 and of as many as are allocated."""
    design = board.design
    sizes = sorted({1, min(board.batch, len(images))})
    return {
        "network": design.network,
        "engine_id": design.engine_id,
        "network_id": design.network_id,
        "part": design.part,
        "clock_mhz": design.clock_mhz,
        "device": "emulated" if board.emulated else getattr(board.device, "name", "board"),
        "time": "model" if board.emulated else "measured",
        "accuracy": accuracy(board, images, labels),
        "memory": memory(board, clnq),
        "latency": [latency(board, images[:size], repeats) for size in sizes],
    }


def table(results: dict[str, Any]) -> str:
    """The results as text, for a terminal."""
    found, stored = results["accuracy"], results["memory"]
    lines = [f"{results['network']} on {results['device']}, {results['part']}"]
    marks = [f"top-{k} {found[f'top{k}']:.2f}%" for k in (1, 5) if found[f"top{k}"] is not None]
    lines.append(f"{found['images']} images" + "".join(f", {mark}" for mark in marks))
    codes, half = stored["code_bytes"], stored["half_precision_bytes"]
    convolutions = stored["convolutions"]
    lines.append(
        f"activations of an image: {codes / 1e3:,.1f} kB in codes "
        f"({stored['stored_bytes']:,} bytes with padding), {half / 1e3:,.1f} kB at 16 bits: "
        f"{100 * codes / half:.2f}%"
    )
    if convolutions["clnq_bytes"]:
        share = 100 * convolutions["code_bytes"] / convolutions["clnq_bytes"]
        lines.append(
            f"of the convolutions, CLNQ: {convolutions['clnq_bytes'] / 1e3:,.1f} kB: {share:.2f}%"
        )
    lines.append(
        f"allocated: {stored['allocated_bytes']:,} bytes for {stored['batch']} image(s), "
        f"{stored['allocated_bytes_per_image']:,} each, "
        f"input ({stored['input_bytes_per_image']:,}) included"
    )
    for part in results["latency"]:
        title = "model of the engine" if part["time"] == "model" else "measured"
        lines.append(f"batch {part['batch']} ({title}):")
        lines += [
            f"  {name:14s} {part[name]['mean_ms']:9.3f} ms (p50 {part[name]['p50_ms']:.3f}, "
            f"p99 {part[name]['p99_ms']:.3f}), {part[name]['images_per_s']:,.1f} images/s"
            for name in ("convolutions", "network")
            if name in part
        ]
        lines += [
            f"  {layer['name']:14s} {layer['mean_ms']:9.3f} ms, read {layer['bytes_read']:,}, "
            f"written {layer['bytes_written']:,}, weights {layer['bytes_weights']:,} bytes"
            + ("; DRAM binds" if layer["dram_bound"] else "")
            for layer in part["layers"]
        ]
    return "\n".join(lines)
