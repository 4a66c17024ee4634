// SPDX-License-Identifier: Apache-2.0
// Probe: 64 pairs of products a cycle: two weights of 8 bits and a value of 10 share a DSP block,
// whose product is split by wiring; the halves are summed as they are and the borrows counted.
#include "probe.hpp"

const int SIMD = 8, PAIRS = 8, SHIFT = 17;

void weight_pairs(const ap_uint<SIMD * PAIRS * 16> weights[ITEMS],
                  const ap_uint<SIMD * 10> values[ITEMS], ap_int<36> lower[PAIRS],
                  ap_int<36> upper[PAIRS]) {
#pragma HLS ARRAY_PARTITION variable = lower complete  // a port each
#pragma HLS ARRAY_PARTITION variable = upper complete  // likewise
  ap_int<36> below[PAIRS], above[PAIRS];
#pragma HLS ARRAY_PARTITION variable = below complete  // registers
#pragma HLS ARRAY_PARTITION variable = above complete  // registers
clear_p:
  for (int p = 0; p < PAIRS; p++) {
#pragma HLS UNROLL  // registers
    below[p] = 0;
    above[p] = 0;
  }
pair_step:
  for (int i = 0; i < ITEMS; i++) {
#pragma HLS PIPELINE II = 1  // all products of a row a cycle
    const ap_uint<SIMD * PAIRS * 16> row = weights[i];
    const ap_uint<SIMD * 10> line = values[i];
  pair_p:
    for (int p = 0; p < PAIRS; p++) {
#pragma HLS UNROLL  // two adder trees each
      ap_int<21> low = 0;
      ap_int<22> high = 0;
      ap_uint<4> borrows = 0;
    pair_s:
      for (int s = 0; s < SIMD; s++) {
#pragma HLS UNROLL  // a multiplier each
        const int at = (s * PAIRS + p) * 16;
        const ap_int<8> first = row.range(at + 7, at);
        const ap_int<SHIFT> repeated = first;
        ap_int<25> both;
        both.range(SHIFT - 1, 0) = repeated.range(SHIFT - 1, 0);
        both.range(24, SHIFT) = row.range(at + 15, at + 8);
        const ap_int<10> value = line.range(10 * s + 9, 10 * s);
        const ap_int<35> product = both * value;
#pragma HLS BIND_OP variable = product op = mul impl = dsp  // 25 by 10 bits: one block
        ap_int<SHIFT> part;
        ap_int<18> rest;
        part.range(SHIFT - 1, 0) = product.range(SHIFT - 1, 0);
        rest.range(17, 0) = product.range(34, SHIFT);
        low += part;
        high += rest;
        borrows += part < 0 ? 1 : 0;
      }
      below[p] += low;
      above[p] += high + borrows;
    }
  }
store_p:
  for (int p = 0; p < PAIRS; p++) {
#pragma HLS UNROLL  // registers
    lower[p] = below[p];
    upper[p] = above[p];
  }
}

#ifndef __SYNTHESIS__
int main() {
  ap_uint<SIMD * PAIRS * 16> weights[ITEMS];
  ap_uint<SIMD * 10> values[ITEMS];
  ap_int<36> lower[PAIRS], upper[PAIRS];
  int first[PAIRS] = {0}, second[PAIRS] = {0};
  for (int i = 0; i < ITEMS; i++) {
    weights[i] = 0;
    values[i] = 0;
    for (int s = 0; s < SIMD; s++) {
      const int value = (i * 37 + s * 11) % 1024 - 512;
      values[i].range(10 * s + 9, 10 * s) = value & 1023;
      for (int p = 0; p < PAIRS; p++) {
        const int at = (s * PAIRS + p) * 16;
        const int a = (i * 5 + s * 3 + p) % 255 - 127, b = (i * 7 + s + p * 29) % 255 - 127;
        weights[i].range(at + 7, at) = a & 255;
        weights[i].range(at + 15, at + 8) = (b - (a < 0 ? 1 : 0)) & 255;
        first[p] += a * value;
        second[p] += b * value;
      }
    }
  }
  weight_pairs(weights, values, lower, upper);
  for (int p = 0; p < PAIRS; p++) {
    if (lower[p] != first[p] || upper[p] != second[p]) return 1;
  }
  return 0;
}
#endif
