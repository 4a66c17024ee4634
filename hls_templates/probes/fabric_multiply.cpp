// SPDX-License-Identifier: Apache-2.0
// Probe: a product that is bound to LUTs takes no DSP block.
#include "probe.hpp"

void fabric_multiply(const ap_int<13> in[ITEMS], ap_int<26> out[ITEMS]) {
square_item:
  for (int i = 0; i < ITEMS; i++) {
#pragma HLS PIPELINE II = 1  // an item a cycle
    const ap_int<13> value = in[i];
    const ap_int<26> square = value * value;
#pragma HLS BIND_OP variable = square op = mul impl = fabric  // DSP blocks are the array's
    out[i] = square;
  }
}

#ifndef __SYNTHESIS__
int main() {
  ap_int<13> in[ITEMS];
  ap_int<26> out[ITEMS];
  for (int i = 0; i < ITEMS; i++) in[i] = 100 * (i - 32);
  fabric_multiply(in, out);
  for (int i = 0; i < ITEMS; i++) {
    if (out[i] != 10000 * (i - 32) * (i - 32)) return 1;
  }
  return 0;
}
#endif
