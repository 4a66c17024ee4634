# SPDX-License-Identifier: Apache-2.0
"""Two compute stages that go past one multiplication per DSP block a cycle, as a model.

Both need activations that are codes; docs/faster.md derives the formulas and says what the engine
would need. The model counts the MAC stage and the weights' traffic, for all three stages alike, so
that their ratios mean something.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from nuq.codegen.design.array import Array
from nuq.codegen.design.resources import multiplier_blocks
from nuq.codegen.design.rows import Row
from nuq.codegen.design.search import Bound, points
from nuq.formats.arithmetic import BLOCK_CODES, ceil_div
from nuq.formats.hardware import Part
from nuq.formats.network import Network

# One lane of accumulate-per-code: 24-bit sums, 14-bit weights; synthesized for 7-series with Yosys
# as 24 LUTs of adder and 6 RAM32M. A second set of sums (so that one is filled while the other is
# read out) fits the same memories up to 4 bits, and doubles them at 5.
LANE_ADDER_LUTS, LANE_RAM_LUTS, RAM_DEPTH = 24, 24, 32
LUT_SHARE = 0.5  # of the part's LUTs for such lanes

Candidate = tuple[int, str, list[float]]  # lanes, their shape, cycles of every layer


@dataclass(frozen=True)
class Speed:
    """What a compute stage reaches."""

    stage: str  # "multiply", "codes" or "sums"
    lanes: int  # multiply-accumulates a cycle where the layer allows it
    shape: str  # how the lanes are arranged
    conv_gops: float  # 10^9 operations a second of the convolutions alone
    images_per_second: float  # of the whole network, weights' traffic included


def compare(network: Network, part: Part, images: int) -> list[Speed]:
    """The fastest arrangement of each compute stage on a part, for a batch of images."""
    bound = Bound(network, part, images)
    space = points(part, bound.operands, {"stage": "single"})
    shapes = sorted({(point.simd, point.pe, point.pixels) for point in space})
    stages = {
        "multiply": _multiply(bound, shapes, paired=False),
        "codes": _multiply(bound, shapes, paired=True),
        "sums": _sums(bound, part),
    }
    speeds = []
    for stage, candidates in stages.items():
        best = min(candidates, key=lambda item: sum(item[2]), default=None)
        if best is not None:
            speeds.append(_speed(stage, best, bound))
    return speeds


def _speed(stage: str, candidate: Candidate, bound: Bound) -> Speed:
    """Cycles of every layer's MAC stage become rates; weights come from DRAM in the meantime."""
    lanes, shape, cycles = candidate
    conv_seconds = seconds = 0.0
    conv_macs = 0
    for layer, count in zip(bound.network.layers, cycles, strict=True):
        time = bound.part.seconds(count, layer.weight.size * layer.weight_bits / 8)
        seconds += time
        if layer.kind == "conv":
            conv_seconds += time
            conv_macs += layer.macs * bound.images
    gops = 2 * conv_macs / conv_seconds / 1e9 if conv_seconds else 0.0
    return Speed(stage, lanes, shape, gops, bound.images / seconds)


def code_bits(part: Part, weight_bits: int) -> int:
    """Widest code of which two share a DSP block: weight + 2 codes fit its larger input, unsigned.

    >>> from nuq.formats.hardware import find_part
    >>> code_bits(find_part("XC7Z020"), 14), code_bits(find_part("XCZU7EV"), 14)
    (5, 6)
    """
    return (part.multiplier[0] - 1 - weight_bits) // 2


def _multiply(
    bound: Bound, shapes: list[tuple[int, int, int]], paired: bool
) -> Iterator[Candidate]:
    """Arrays of multipliers, with or without pairs."""
    most = code_bits(bound.part, bound.operands.weight_bits) if paired else 0
    factor = 2 if paired else 1
    for simd, pe, pixels in shapes:
        cycles = []
        for row in bound.rows(Array(simd, pe)):
            fits = not row.in_signed and row.in_bits <= most
            cycles.append(_steps(row, simd, pixels * (factor if fits else 1), bound.images))
        yield simd * pe * pixels * factor, f"{simd}x{pe}x{pixels * factor}", cycles


def _steps(row: Row, simd: int, pixels: int, images: int) -> float:
    """Cycles of a layer's MAC stage."""
    if not row.is_conv:
        return 0.0
    steps = row.steps(row.blocks, Array(simd)) * row.tiles
    if row.conv_width == row.conv_height == 1:  # a batch's images are the pixels
        return steps * ceil_div(images, pixels)
    return steps * row.conv_height * ceil_div(row.conv_width, pixels) * images


def _sums(bound: Bound, part: Part) -> Iterator[Candidate]:
    """Accumulate-per-code lanes: output channels x output pixels; one input a cycle.

    Layers whose input is not made of codes of at most 5 bits (the image) run on the DSP blocks, one
    product each a cycle.
    """
    dsp = part.room("dsp") // multiplier_blocks(
        bound.operands.weight_bits, bound.operands.value_bits, part
    )
    rows = bound.rows(Array(BLOCK_CODES, BLOCK_CODES))
    depths = [1 << row.in_bits for row in rows if _is_coded(row)]
    if not depths:
        return
    rams = ceil_div(2 * max(depths), RAM_DEPTH)  # two sets of sums
    lane_luts = LANE_ADDER_LUTS + rams * LANE_RAM_LUTS
    most = int(part.lut * LUT_SHARE) // lane_luts
    for channels in (8, 16, 32, 64, 128):
        pixels = min(most // channels, 64)
        if pixels < 1:
            continue
        cycles = [
            _sum_steps(row, channels, pixels, dsp, bound.images)
            if _is_coded(row)
            else _steps(row, BLOCK_CODES, 1, bound.images) * BLOCK_CODES**2 / dsp
            for row in rows
        ]
        yield channels * pixels, f"{channels}x{pixels}, {lane_luts} LUT each", cycles


def _is_coded(row: Row) -> bool:
    return row.is_conv and not row.in_signed and 1 << row.in_bits <= RAM_DEPTH


def _sum_steps(row: Row, channels: int, pixels: int, dsp: int, images: int) -> float:
    """Cycles of one layer: inputs of a lane, or the multiplications of its sums, which overlap."""
    inputs = row.kernel_taps * row.blocks * BLOCK_CODES
    products = channels * pixels * ((1 << row.in_bits) - 1) / dsp
    outputs = row.out_channels * row.places if row.apart else row.out_channels // row.conv_groups
    maps = row.conv_groups * ceil_div(outputs, channels)
    places = row.conv_height * row.conv_width
    # a batch's images are the pixels of a fully connected layer
    groups = ceil_div(images, pixels) if places == 1 else ceil_div(places, pixels) * images
    return maps * groups * max(inputs, products)


def table(network: Network, parts: list[Part], images: int) -> str:
    """The comparison on several parts, for a terminal."""
    lines = [
        f"{network.name}, batch of {images}: MAC stage and weights' traffic only",
        f"{'part':8s} {'stage':9s} {'lanes':>6s} {'conv GOP/s':>10s} {'frames/s':>9s}  arrangement",
    ]
    for part in parts:
        for speed in compare(network, part, images):
            lines.append(
                f"{part.name:8s} {speed.stage:9s} {speed.lanes:6d} {speed.conv_gops:10.1f} "
                f"{speed.images_per_second:9.1f}  {speed.shape}"
            )
    return "\n".join(lines)
