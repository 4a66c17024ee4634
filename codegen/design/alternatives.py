# SPDX-License-Identifier: Apache-2.0
"""Two compute stages that go past one multiplication per DSP block a cycle, as a model.

Both need activations that are codes; docs/faster.md derives the formulas and says what the engine
would need. The model counts the MAC stage and the weights' traffic, for all three stages alike, so
that their ratios mean something.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from codegen.design.array import Array
from codegen.design.resources import multiplier_blocks
from codegen.design.rows import Row
from codegen.design.search import limited
from codegen.design.space import Bound, points
from formats.arithmetic import BLOCK_CODES, ceil_div
from formats.hardware import Part
from formats.network import Network

# One lane of accumulate-per-code: 24-bit sums, 14-bit weights; synthesized for 7-series with Yosys
# as 24 LUTs of adder and 6 RAM32M. A second set of sums (so that one is filled while the other is
# read out) fits the same memories up to 4 bits, and doubles them at 5.
LANE_ADDER_LUTS, LANE_RAM_LUTS, RAM_DEPTH = 24, 24, 32
LUT_SHARE = 0.5  # of the part's LUTs for such lanes


@dataclass(frozen=True)
class Speed:
    """What a compute stage reaches.

    Attributes:
        stage: "multiply", "pairs" or "sums".
        lanes: multiply-accumulates a cycle where the layer allows it.
        shape: how the lanes are arranged.
        conv_gops: 10^9 operations a second of the convolutions alone.
        images_per_second: of the whole network, weights' traffic included.
    """

    stage: str
    lanes: int
    shape: str
    conv_gops: float
    images_per_second: float


def compare(network: Network, part: Part, images: int, limit: float = 0.9) -> list[Speed]:
    """The fastest arrangement of each compute stage on a part, for a batch of images.

    Args:
        network: widths of its activations decide which layers an alternative can speed up.
        part: the FPGA.
        images: of a batch, which shares the weights of fully connected layers.
        limit: fraction of the part that may be used.
    """
    bound = Bound(network, part, images)
    space = list(points(limited(part, limit), bound.weight_bits, bound.value_bits, {}))
    found = []
    for stage, candidates in (
        ("multiply", _multiply(bound, space, paired=False)),
        ("pairs", _multiply(bound, space, paired=True)),
        ("sums", _sums(bound, part, limit)),
    ):
        best = min(candidates, key=lambda item: sum(item[2]), default=None)
        if best is not None:
            lanes, shape, cycles = best
            found.append(_speed(stage, lanes, shape, bound, cycles))
    return found


def _speed(stage: str, lanes: int, shape: str, bound: Bound, cycles: list[float]) -> Speed:
    """Cycles of every layer's MAC stage become rates; weights come from DRAM in the meantime."""
    clock, part = bound.part.clock_mhz * 1e6, bound.part
    conv_seconds = seconds = 0.0
    conv_macs = 0
    for layer, count in zip(bound.network.layers, cycles, strict=True):
        traffic = layer.weight.size * layer.weight_bits / 8 / (part.ddr_gbs * 1e9)
        time = max(count / clock, traffic)
        seconds += time
        if layer.kind == "conv":
            conv_seconds += time
            conv_macs += layer.macs * bound.images
    gops = 2 * conv_macs / conv_seconds / 1e9 if conv_seconds else 0.0
    return Speed(stage, lanes, shape, gops, bound.images / seconds)


def pair_bits(part: Part, weight_bits: int) -> int:
    """Widest code of which two share a DSP block: weight + 2 codes fit its larger input, unsigned.

    >>> from formats.hardware import find_part
    >>> pair_bits(find_part("XC7Z020"), 14), pair_bits(find_part("XCZU7EV"), 14)
    (5, 6)
    """
    return (part.multiplier[0] - 1 - weight_bits) // 2


def _multiply(
    bound: Bound, space: list[Array], paired: bool
) -> Iterator[tuple[int, str, list[float]]]:
    """(lanes, shape, cycles of every layer) of arrays of multipliers, with or without pairs."""
    most = pair_bits(bound.part, bound.weight_bits) if paired else 0
    shapes = sorted({(point.simd, point.pe, point.pixels) for point in space})
    for simd, pe, pixels in shapes:
        cycles = []
        for row in bound.rows(simd, pe):
            fits = not row.in_signed and row.in_bits <= most
            cycles.append(_steps(row, simd, pixels * (2 if fits else 1), bound.images))
        factor = 2 if paired else 1
        yield simd * pe * pixels * factor, f"{simd}x{pe}x{pixels * factor}", cycles


def _steps(row: Row, simd: int, pixels: int, images: int) -> float:
    """Cycles of a layer's MAC stage."""
    if not row.is_conv:
        return 0.0
    steps = ceil_div(row.kernel_taps * row.blocks, simd // BLOCK_CODES) * row.tiles
    if row.conv_width == 1 and row.conv_height == 1:  # a batch's images are the pixels
        return steps * ceil_div(images, pixels)
    return steps * row.conv_height * ceil_div(row.conv_width, pixels) * images


def _sums(bound: Bound, part: Part, limit: float) -> Iterator[tuple[int, str, list[float]]]:
    """(lanes, shape, cycles of every layer) of accumulate-per-code lanes.

    Lanes are output channels x output pixels; one input a cycle. Layers whose input is not made of
    codes of at most 5 bits (the image) run on the DSP blocks, one product each a cycle.
    """
    dsp = int(part.dsp * limit) // multiplier_blocks(bound.weight_bits, bound.value_bits, part)
    rows = bound.rows(BLOCK_CODES, BLOCK_CODES)
    coded = [row for row in rows if _is_coded(row)]
    if not coded:
        return
    depth = max(1 << row.in_bits for row in coded)
    rams = ceil_div(2 * depth, RAM_DEPTH)  # two sets of sums
    lane_luts = LANE_ADDER_LUTS + rams * LANE_RAM_LUTS
    most = int(part.lut * LUT_SHARE) // lane_luts
    for channels in (8, 16, 32, 64, 128):
        pixels = min(most // channels, 64)
        if pixels < 1:
            continue
        cycles = []
        for row in rows:
            if not row.is_conv:
                cycles.append(0.0)
            elif _is_coded(row):
                cycles.append(_sum_steps(row, channels, pixels, dsp, bound.images))
            else:
                cycles.append(_steps(row, BLOCK_CODES, 1, bound.images) * BLOCK_CODES**2 / dsp)
        yield channels * pixels, f"{channels}x{pixels}, {lane_luts} LUT each", cycles


def _is_coded(row: Row) -> bool:
    return row.is_conv and not row.in_signed and 1 << row.in_bits <= RAM_DEPTH


def _sum_steps(row: Row, channels: int, pixels: int, dsp: int, images: int) -> float:
    """Cycles of one layer: inputs of a lane, or the multiplications of its sums, which overlap."""
    inputs = row.kernel_taps * row.blocks * BLOCK_CODES
    products = channels * pixels * ((1 << row.in_bits) - 1) / dsp
    per_group = ceil_div(row.out_channels // row.conv_groups, channels)
    maps = row.conv_groups * per_group
    if row.conv_width == 1 and row.conv_height == 1:
        return maps * ceil_div(images, pixels) * max(inputs, products)
    places = ceil_div(row.conv_height * row.conv_width, pixels)
    return maps * places * images * max(inputs, products)


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
