# SPDX-License-Identifier: Apache-2.0
"""design.json: the generated design as the driver on the board needs it."""

from math import prod

from nuq.codegen.design.design import Design
from nuq.formats import design as board
from nuq.formats.ending import Output
from nuq.formats.network import Network
from nuq.formats.program import Program


def describe(design: Design, program: Program, weight_checks: list[int]) -> board.Design:
    """The driver's view of a design with its program; its layers' weights have these CRC-32."""
    network = design.network
    layers = tuple(_layer(design, index, crc) for index, crc in enumerate(weight_checks))
    return board.Design(
        network=network.name,
        part=design.part.name,
        engine_id=f"{program.header('engine_id'):08x}",
        network_id=f"{program.header('network_id'):08x}",
        clock_mhz=design.part.clock_mhz,
        dram_gbs=design.part.sustained_gbs,
        predicted_images=design.images,
        batch=design.batch,
        arena_words=design.arena.words,
        input_address=design.arena.address["input"],
        chip_words=design.chip_strides,
        input_words=design.input_words,
        input_shape=network.input.shape,
        input_bits=network.input.bits,
        gather=design.gather,
        preprocessing=network.input.preprocessing,
        program_words=program.words.size,
        weight_words=design.weight_words,
        weight_bits=max(layer.weight_bits for layer in layers),
        weight_ports=design.array.weight_ports,
        outputs=tuple(_output(output, network) for output in network.outputs),
        classes=tuple(network.classes or ()),
        layers=layers,
        accuracy=dict(network.accuracy) if network.accuracy else None,
    )


def _output(output: Output, network: Network) -> board.Output:
    """An output with what its integers stand for."""
    head = next(layer for layer in network.ends if layer.name == output.layer)
    return board.Output(
        **vars(output), shape=head.out_shape, frac=head.out_frac,
        divisor=prod(head.kernel) if head.kind == "avgpool" else 1,
        factors=() if head.weight_scale is None else tuple(head.weight_scale.tolist()),
    )  # fmt: skip


def _layer(design: Design, index: int, crc: int) -> board.Layer:
    layer, row, cost = design.network.layers[index], design.rows[index], design.costs[index]
    ports = design.array.weight_ports
    stored = design.layers[index].stored if layer.has_weights else None
    head = row.tiles * row.head_words(design.array) + row.weight_table
    quantizer = layer.quantizer
    return board.Layer(
        name=layer.name,
        kind=layer.kind,
        out_address=row.out_addr,
        out_words=row.output_words,
        out_shape=layer.out_shape,
        memory=row.output_place,
        bits=quantizer.bits if quantizer else 64,
        scheme=quantizer.scheme if quantizer else "raw",
        qm=quantizer.qm if quantizer else None,
        weight_address=row.weight_addr,
        weight_words=ports * row.weight_words(design.array),
        bias_words=ports * head if stored else 0,
        weight_bits=row.weight_bits if stored else 0,
        weight_crc=crc,
        macs=layer.macs,
        **cost.totals,
    )
