// SPDX-License-Identifier: Apache-2.0
// Probe: 64 products and 8 adder trees a cycle: one DSP block each.
#include "probe.hpp"

const int SIMD = 8, PE = 8;

void mac_row(const ap_uint<SIMD * PE * 14> weights[ITEMS], const ap_uint<SIMD * 13> values[ITEMS],
             ap_int<36> out[PE]) {
#pragma HLS ARRAY_PARTITION variable = out complete  // a port each
  ap_int<36> acc[PE];
#pragma HLS ARRAY_PARTITION variable = acc complete  // registers
clear_p:
  for (int p = 0; p < PE; p++) {
#pragma HLS UNROLL  // registers
    acc[p] = 0;
  }
mac_step:
  for (int i = 0; i < ITEMS; i++) {
#pragma HLS PIPELINE II = 1  // all products of a row a cycle
    const ap_uint<SIMD * PE * 14> row = weights[i];
    const ap_uint<SIMD * 13> line = values[i];
  mac_p:
    for (int p = 0; p < PE; p++) {
#pragma HLS UNROLL  // an adder tree each
      ap_int<30> tree = 0;
    mac_s:
      for (int s = 0; s < SIMD; s++) {
#pragma HLS UNROLL  // a multiplier each
        const int low = (s * PE + p) * 14;
        const ap_int<14> weight = row.range(low + 13, low);
        const ap_int<13> value = line.range(13 * s + 12, 13 * s);
        tree += weight * value;
      }
      acc[p] += tree;
    }
  }
store_p:
  for (int p = 0; p < PE; p++) {
#pragma HLS UNROLL  // registers
    out[p] = acc[p];
  }
}

#ifndef __SYNTHESIS__
int main() {
  ap_uint<SIMD * PE * 14> weights[ITEMS];
  ap_uint<SIMD * 13> values[ITEMS];
  ap_int<36> out[PE];
  for (int i = 0; i < ITEMS; i++) {
    weights[i] = 0;
    values[i] = 0;
    for (int k = 0; k < SIMD * PE; k++) weights[i].range(14 * k + 13, 14 * k) = (k + i) & 0xff;
    for (int s = 0; s < SIMD; s++) values[i].range(13 * s + 12, 13 * s) = s + 1;
  }
  mac_row(weights, values, out);
  for (int p = 0; p < PE; p++) {
    int sum = 0;
    for (int i = 0; i < ITEMS; i++) {
      for (int s = 0; s < SIMD; s++) sum += ((s * PE + p + i) & 0xff) * (s + 1);
    }
    if (out[p] != sum) return 1;
  }
  return 0;
}
#endif
