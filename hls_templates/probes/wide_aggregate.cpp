// SPDX-License-Identifier: Apache-2.0
// Probe: a flat structure of 24 sums of 35 bits as one word of block RAM, packed to the bit. A word
// is read, and written some cycles later; nobody needs it in between.
#include "probe.hpp"

const int LANES = 24, WORDS = 512;

struct SumWord {
  ap_int<35> lane[LANES];
};

void wide_aggregate(const ap_int<32> in[WORDS], ap_int<35> out[WORDS]) {
  static SumWord sums[WORDS];
#pragma HLS AGGREGATE variable = sums compact = bit                  // one word, without padding
#pragma HLS BIND_STORAGE variable = sums type = ram_s2p impl = bram  // one port each way
add_word:
  for (uint16_t i = 0; i < WORDS; i++) {
#pragma HLS PIPELINE II = 1                         // a word in and out a cycle
#pragma HLS DEPENDENCE variable = sums inter false  // each word is read, later written, once
    const SumWord old = sums[i];
    const ap_int<32> value = in[i];
    SumWord next;
  add_lane:
    for (int k = 0; k < LANES; k++) {
#pragma HLS UNROLL  // an adder each
      next.lane[k] = old.lane[k] + value + k;
    }
    sums[i] = next;
    out[i] = next.lane[LANES - 1];
  }
}

#ifndef __SYNTHESIS__
int main() {
  ap_int<32> in[WORDS];
  ap_int<35> out[WORDS];
  for (int i = 0; i < WORDS; i++) in[i] = 5 * i - 900;
  wide_aggregate(in, out);
  wide_aggregate(in, out);
  for (int i = 0; i < WORDS; i++) {
    if (out[i] != 2 * (5 * i - 900 + LANES - 1)) return 1;
  }
  return 0;
}
#endif
