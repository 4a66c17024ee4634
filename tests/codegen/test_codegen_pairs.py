# SPDX-License-Identifier: Apache-2.0
"""Two products in one multiplier, as docs/faster.md packs them: every case of its widths.

First the arithmetic in integers, then the engine's own C++ in exact types: its packed weights and
its compute stage.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nuq.codegen.design.array import Array
from nuq.codegen.design.design import Design
from nuq.codegen.design.search import choose, pair_bits
from nuq.codegen.emit import csim
from nuq.formats.errors import UserError
from nuq.formats.hardware import clocked, find_part
from nuq.formats.network import Layer, Network, Storage, load
from tests.checkout import execute, needs_compiler
from tests.hls.compiler import compile_text
from tests.networks import full_size
from tests.toys import Toy, ToyLayer, write_toy

PORTS = {find_part(name).multiplier[0] for name in ("XC7Z020", "XCZU7EV")}  # DSP48E1, DSP48E2
# port, W, V: the widest signed value V that pairs with a weight of W bits
LIMITS = [(port, bits, port - 2 * bits + 1) for port in sorted(PORTS) for bits in range(4, 12)]


def split(packed: np.ndarray, shift: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lower product, upper one as it comes, and upper one repaired by the lower one's sign."""
    lower = packed & ((1 << shift) - 1)
    lower -= (lower >> (shift - 1)) << shift
    upper = packed >> shift
    return lower, upper, upper + (lower < 0)


def test_two_codes_share_a_weight() -> None:
    """W = 14, E = 5, s = 19: 16,777,216 cases."""
    first, second = (grid.ravel() for grid in np.meshgrid(np.arange(32), np.arange(32)))
    wrong = unrepaired = cases = 0
    for weight in range(-(1 << 13), 1 << 13):
        lower, raw, upper = split(weight * (first + (second << 19)), 19)
        wrong += int(((lower != weight * first) | (upper != weight * second)).sum())
        unrepaired += int((raw != weight * second).sum())
        cases += first.size
    assert (cases, wrong) == (16_777_216, 0)
    assert unrepaired / cases == pytest.approx(0.484, abs=0.001)


@pytest.mark.parametrize(
    ("port", "bits", "value"), [(25, 8, 10), (25, 9, 8), (27, 8, 12), (27, 9, 10)]
)
def test_two_weights_share_a_value(port: int, bits: int, value: int) -> None:
    """Every case at the limits of a DSP48E1 and a DSP48E2: 66,585,600 with 8 and 10 bits."""
    top, shift = (1 << (bits - 1)) - 1, port - bits
    weights = np.arange(-top, top + 1)
    first, second = (grid.ravel() for grid in np.meshgrid(weights, weights))
    packed = first + (second << shift)
    # what is stored: wiring makes the packed factor of it
    assert (packed == ((second - (first < 0)) << shift) + (first & ((1 << shift) - 1))).all()
    cases = 0
    for number in range(-(1 << (value - 1)), 1 << (value - 1)):
        lower, _, upper = split(packed * number, shift)
        assert (lower == first * number).all() and (upper == second * number).all()
        cases += first.size
    assert cases == (2 * top + 1) ** 2 << value
    assert int(np.abs(packed).max()).bit_length() + 1 <= port  # a DSP block's larger input


@pytest.mark.parametrize(
    ("port", "code_bits", "most"), [(24, 3, 18), (24, 4, 4), (24, 5, 1), (26, 5, 4)]
)
def test_packed_products_may_be_summed_before_they_are_split(
    port: int, code_bits: int, most: int
) -> None:
    """The lower sum must stay within its s bits, whose sign is the top one."""
    largest = (1 << 13) * ((1 << code_bits) - 1)
    assert (1 << (port - code_bits - 1)) // largest == most


@pytest.mark.parametrize(("port", "bits", "value"), LIMITS)
def test_the_rule_is_exact_and_tight(port: int, bits: int, value: int) -> None:
    """Every two weights at the extremes of a value of V bits, and a few between."""
    array = Array(pe=16, pair_bits=bits, pair_shift=port - bits)
    assert array.can_pair(bits, value) and not array.can_pair(bits, value + 1)
    top = (1 << (bits - 1)) - 1
    weights = np.arange(-top, top + 1)
    first, second = (grid.ravel() for grid in np.meshgrid(weights, weights))
    packed = first + (second << array.pair_shift)
    assert int(np.abs(packed).max()).bit_length() + 1 <= port
    half = 1 << (value - 1)
    for number in {-half, 1 - half, -1, 0, 1, half // 3, half - 1}:
        lower, _, upper = split(packed * number, array.pair_shift)
        assert (lower == first * number).all() and (upper == second * number).all()
    lower, _, _ = split(np.array([top * 2 * -half]), array.pair_shift)
    assert lower[0] != top * 2 * -half  # one bit more does not fit


# Every two weights of W bits; values of V bits at both ends and between, or all of them.
PROGRAM = """
#include <cstdint>
#include <cstdio>
#include "ap_int.h"
struct Network {{
  static const int32_t SIMD = 8, PE = 16, PIXELS = 1, G = 1, SHARED = 2, WEIGHT_BITS = {bits};
  static const int32_t PAIR_BITS = {bits}, PAIR_SHIFT = {shift}, PACKED_BITS = 2 * {bits};
  static const int32_t VALUE_BITS = {value}, WINDOW = 1, KERNEL_ROWS = 0;
  typedef ap_int<{bits}> weight_t;
  typedef ap_int<{bits} + {shift}> operand_t;
  typedef ap_int<{value}> value_t;
  typedef ap_int<{bits} + {value} + 4> tree_t;
  typedef ap_int<40> acc_t;
  typedef ap_uint<8> code_t;
  typedef ap_uint<64> bus_t;
  typedef ap_int<16> y_t;
  typedef ap_int<16> x_t;
  typedef ap_int<16> entry_t;
  typedef ap_int<16> block_t;
  typedef ap_int<16> plane_t;
  typedef ap_int<16> channel_t;
}};
#include "pair_array.hpp"
int main() {{
  const int top = (1 << ({bits} - 1)) - 1, half = 1 << ({value} - 1), S = Network::PAIR_SHIFT;
  long cases = 0, wrong = 0;
  int values[8] = {{-half, 1 - half, -1, 0, 1, half / 3, half - 2, half - 1}};
  // lane s of a step has the s-th value alone, so that no error can hide behind another one
  for (int from = -half; from < half; from += 8) {{
    for (int s = 0; s < 8 && {all}; s++) values[s] = from + s;
    for (int a = -top; a <= top; a++) {{
      for (int b = -top; b <= top; b += 8) {{
        WeightRow<Network> rows[8];
        for (int s = 0; s < 8; s++) {{
          for (int i = 0; i < 8; i++) {{
            for (int k = 0; k < 8; k++) {{
              const int w = i == s && b + k <= top ? 1 : 0;
              rows[s].set(i, k, a * w, (b + k) * w, true);
              const int64_t packed = rows[s].operand(i, k, true);
              if (packed != a * w + int64_t((b + k) * w) * (1 << S)) wrong++;
            }}
          }}
          Network::value_t value[1][8];
          for (int i = 0; i < 8; i++) value[0][i] = values[i];
          PairStage<Network> stage;
          Network::acc_t added[1][16];
          const BiasTile<Network> bias = {{}};
          const SumGroup<Network> before = {{}};
          stage.step(rows[s], value, true, false, added);
          stage.next(false, false, true, bias, before, added);
          const SumGroup<Network> sums = stage.result();
          for (int k = 0; k < 8 && b + k <= top; k++) {{
            cases++;
            if (sums.sum[k] != a * values[s]) wrong++;
            if (sums.sum[k + 8] != (b + k) * values[s]) wrong++;
          }}
        }}
      }}
    }}
    if (!{all}) break;
  }}
  std::printf("%ld %ld\\n", cases, wrong);
}}
"""


@needs_compiler
@pytest.mark.parametrize(
    ("port", "bits", "every"),
    [(25, 8, False), (27, 8, False), (25, 5, False), (25, 4, True),
     pytest.param(25, 9, False, marks=pytest.mark.slow),
     pytest.param(27, 9, False, marks=pytest.mark.slow)],
)  # fmt: skip
def test_the_stage_itself(port: int, bits: int, every: bool, tmp_path: Path) -> None:
    value = min(port - 2 * bits + 1, 16)
    if every:
        value = 8
    text = PROGRAM.format(bits=bits, shift=port - bits, value=value, all=int(every))
    assert compile_text(tmp_path, text, "-O2", *csim.AP_TYPES["exact"]) == ""
    cases, wrong = map(int, execute(tmp_path / "a.out", folder=tmp_path).stdout.split())
    weights = (1 << bits) - 1
    assert (cases, wrong) == (weights**2 * (1 << value if every else 8), 0)


def narrow(name: str) -> Network:
    """A network at its full size with 8-bit weights and 9-bit values."""
    network = full_size(name)

    def changed(layer: Layer) -> Layer:
        values = layer.quantizer
        if values is not None and values.centroid is not None:
            centroid = values.centroid >> 3
            values = replace(values, qm=9, centroid=centroid, threshold=centroid)
        return replace(layer, weight_bits=8, quantizer=values)

    return replace(network, qm=9, layers=tuple(changed(layer) for layer in network.layers))


def convolutions(design: Design) -> float:
    """Seconds of all layers but the fully connected ones."""
    return sum(
        design.part.seconds(cost.cycles, cost.bytes_moved)
        for layer, cost in zip(design.layers, design.costs, strict=True)
        if layer.kind == "conv"
    )


# The published 48.5 GOP/s of 16 bits and 84.3 of 8 bits on a XC7Z020 are of VGG-16's convolutions.
@pytest.mark.parametrize(
    ("name", "part", "clock", "gops"),
    [
        ("vgg16", "XC7Z020", 142.86, 100),
        ("alexnet", "XC7Z020", 142.86, 100),
        pytest.param("vgg16", "XCZU7EV", 250, 1200, marks=pytest.mark.slow),
    ],
)
def test_pairs_are_chosen_and_take_half_the_time(
    name: str, part: str, clock: float, gops: float
) -> None:
    network, usable = narrow(name), clocked(find_part(part), clock)
    found = {
        stage: choose(network, usable, 1, {} if stage == "auto" else {"stage": stage})
        for stage in ("auto", "pairs", "single")
    }
    assert found["auto"].array == found["pairs"].array and found["pairs"].array.shared == 2
    assert found["single"].array.shared == 1
    faster = convolutions(found["single"]) / convolutions(found["pairs"])
    assert faster > (1.9 if part == "XC7Z020" else 1.8)  # the larger part is bound by its DRAM
    macs = sum(layer.macs for layer in network.layers if layer.kind == "conv")
    assert 2e-9 * macs / convolutions(found["pairs"]) > gops
    assert all(share <= 0.9 for share in found["pairs"].use.values())


# 22.4 images a second: what a public INT8 design measured on a KV260, 512 DSP blocks at 185 MHz.
@pytest.mark.parametrize(
    ("part", "clock", "images", "codebooks", "rate"),
    [
        ("XC7Z020", 142.86, 1, False, 19),
        ("XC7Z020", 142.86, 1, True, 28),
        ("XC7Z020", 142.86, 8, False, 50),
        pytest.param("XCK26", 250, 8, False, 10 * 22.4, marks=pytest.mark.slow),
    ],
)
def test_alexnet_s_images_a_second(
    part: str, clock: float, images: int, codebooks: bool, rate: float
) -> None:
    """With its fully connected layers, two of them in codebooks of 4 bits or as they are."""
    network = narrow("alexnet")
    if codebooks:
        table = Storage("kmeans", 4, np.arange(-8, 8, dtype=np.int32) * 15)
        layers = (replace(layer, weight_storage=table) if layer.name in ("fc6", "fc7") else layer
                  for layer in network.layers)  # fmt: skip
        network = replace(network, layers=tuple(layers))
    design = choose(network, clocked(find_part(part), clock), images, {})
    assert design.array.shared == 2
    assert images / design.seconds > rate
    assert all(share <= 0.9 for share in design.use.values())


def test_a_stage_of_pairs_is_refused_where_nothing_pairs(tmp_path: Path) -> None:
    write_toy(tmp_path, Toy((3, 8, 8), [ToyLayer(16), ToyLayer(10, (6, 6), kind="fc")]))
    network, part = load(tmp_path), find_part("XC7Z020")
    assert pair_bits(network, part) == 0
    sentence = (
        "toy with STAGE=pairs: a layer must have weights and values of which two products fit the "
        "25 bits of a multiplier of XC7Z020; quantize it with WEIGHT_BITS=8 QM=9, or use "
        "STAGE=single"
    )
    with pytest.raises(UserError) as refusal:
        choose(network, part, 1, {"stage": "pairs"})
    assert str(refusal.value) == sentence
    with pytest.raises(UserError, match="PE must be a multiple of 16 with STAGE=pairs, not 24"):
        Array(8, 24, pair_bits=8, pair_shift=17)


def test_the_most_negative_weight_is_refused(tmp_path: Path) -> None:
    layers = [ToyLayer(16, weight_bits=3), ToyLayer(10, (6, 6), kind="fc", weight_bits=3)]
    write_toy(tmp_path, Toy((3, 8, 8), layers, in_bits=8))
    network, part = load(tmp_path), find_part("XC7Z020")
    assert pair_bits(network, part) == 3
    with pytest.raises(UserError, match="a weight must be above -4 to share a multiplier"):
        choose(network, part, 1, {"stage": "pairs"})
