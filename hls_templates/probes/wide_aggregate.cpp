// SPDX-License-Identifier: Apache-2.0
// Probe: a flat structure of 24 sums of 35 bits as one word of block RAM, packed to the bit. A word
// is read, written some cycles later, and read again DISTANCE steps after it was read before.
#include "probe.hpp"

const int LANES = 24, WORDS = 512, DISTANCE = 16;

struct SumWord {
  ap_int<35> lane[LANES];
};

void wide_aggregate(const ap_int<32> in[WORDS], ap_int<35> out[WORDS]) {
  static SumWord sums[WORDS];
#pragma HLS AGGREGATE variable = sums compact = bit                  // one word, without padding
#pragma HLS BIND_STORAGE variable = sums type = ram_s2p impl = bram  // one port each way
add_word:
  for (uint16_t i = 0; i < WORDS; i++) {
#pragma HLS PIPELINE II = 1  // a word in and out a cycle, each again DISTANCE steps later
#pragma HLS DEPENDENCE variable = sums inter RAW distance = DISTANCE true
    const SumWord old = sums[i % DISTANCE];
    const ap_int<32> value = in[i];
    SumWord next;
  add_lane:
    for (int k = 0; k < LANES; k++) {
#pragma HLS UNROLL  // an adder each
      next.lane[k] = old.lane[k] + value + k;
    }
    sums[i % DISTANCE] = next;
    out[i] = next.lane[LANES - 1];
  }
}

#ifndef __SYNTHESIS__
int main() {
  ap_int<32> in[WORDS];
  ap_int<35> out[WORDS];
  for (int i = 0; i < WORDS; i++) in[i] = 5 * i - 900;
  wide_aggregate(in, out);
  for (int i = 0; i < WORDS; i++) {
    const ap_int<35> before = i < DISTANCE ? ap_int<35>(0) : out[i - DISTANCE];
    if (out[i] != before + 5 * i - 900 + LANES - 1) return 1;
  }
  return 0;
}
#endif
