# SPDX-License-Identifier: Apache-2.0
"""design.json: the generated design as the driver on the board needs it."""

from __future__ import annotations

from typing import Any

from codegen.design.network import Network
from formats.design import Design, Layer
from formats.packing import WORD_BYTES, Gather


def describe(report: dict[str, Any], network: Network, weight_checks: list[int]) -> Design:
    """The design behind a report.

    Args:
        report: of `report.build_report`.
        network: what was generated for.
        weight_checks: CRC-32 of each layer's weights, of `weights_file.write_weights`.
    """
    engine, source = report["engine"], report["input"]
    constants = engine["constants"]
    gather = {name: tuple(value) for name, value in source["gather"].items()}
    layers = tuple(
        _layer(layer, constants, crc)
        for layer, crc in zip(report["layers"], weight_checks, strict=True)
    )
    return Design(
        network=report["network"],
        part=report["part"],
        design_id=int(report["design_id"], 16),
        clock_mhz=report["performance"]["clock_mhz"],
        predicted_images=report["images"],
        batch=engine["batch"],
        arena_words=constants["ARENA_WORDS"],
        input_address=constants["INPUT_ADDR"],
        chip_words=(constants["CHIP_A_WORDS"], constants["CHIP_B_WORDS"]),
        input_words=constants["INPUT_WORDS"],
        input_shape=network.in_shape,
        input_bits=network.in_bits,
        gather=Gather(shape=network.in_shape, **gather),
        preprocessing=network.preprocessing,
        weight_words=constants["WEIGHT_WORDS"],
        weight_bits=max(layer.weight_bits for layer in layers),
        weight_ports=engine["weight_ports"],
        output_frac=report["output"]["frac"],
        output_divisor=report["output"]["count"],
        classes=tuple(network.classes or ()),
        layers=layers,
        accuracy=report["accuracy"],
    )


def _layer(layer: dict[str, Any], constants: dict[str, int], crc: int) -> Layer:
    weights = layer["weights"] or {"bits": 0, "table_entries": 0, "bytes": 0}
    head = layer["tiles"] * constants["BIAS_WORDS"] + weights["table_entries"]
    words = weights["bytes"] // WORD_BYTES
    same = ("name", "kind", "bits", "scheme", "qm", "macs", "cycles")
    return Layer(
        **{key: layer[key] for key in same},
        **{key: layer[key] for key in ("bytes_read", "bytes_written", "bytes_weights")},
        out_address=layer["address"]["output"],
        out_words=layer["packed_bytes"] // WORD_BYTES,
        out_shape=tuple(layer["out_shape"]),
        memory=layer["memory"]["output"],
        weight_address=layer["address"]["weights"],
        weight_words=words,
        bias_words=head * constants["WEIGHT_PORTS"] if words else 0,
        weight_bits=weights["bits"],
        weight_crc=crc,
    )
