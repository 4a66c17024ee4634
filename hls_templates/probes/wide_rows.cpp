// SPDX-License-Identifier: Apache-2.0
// Probe: rows of 3,072 bits, flat structures, in both halves of one memory: one is written whole
// while the other one is read, eight steps each.
#include "probe.hpp"

const int PARTS = 8, PART_BITS = 384, STEPS = 8;

struct WideRow {
  ap_uint<PART_BITS> part[PARTS];
};

void wide_rows(const word_t in[ITEMS], word_t out[ITEMS]) {
  static WideRow rows[2 * STEPS];
#pragma HLS AGGREGATE variable = rows compact = bit                  // one word, written whole
#pragma HLS BIND_STORAGE variable = rows type = ram_s2p impl = bram  // one port each way
  ap_uint<1> half = 0;
  ap_uint<3> at = 0;
  static_assert(STEPS == 1 << 3, "at must count the steps");
move_row:
  for (int i = 0; i < ITEMS; i++) {
#pragma HLS PIPELINE II = 1  // a row in and one out a cycle
    WideRow next;
  split_row:
    for (int s = 0; s < PARTS; s++) {
#pragma HLS UNROLL  // wiring
      next.part[s] = ap_uint<PART_BITS>(in[i]) << (40 * s);
    }
    rows[int(1 - half) * STEPS + int(at)] = next;
    const WideRow found = rows[int(half) * STEPS + int(at)];
    word_t joined = 0;
  join_row:
    for (int s = 0; s < PARTS; s++) {
#pragma HLS UNROLL  // every part is needed
      joined ^= word_t(found.part[s] >> (40 * s)) << s;
    }
    out[i] = joined;
    at++;
    if (at == 0) half = 1 - half;
  }
}

#ifndef __SYNTHESIS__
int main() {
  word_t in[ITEMS], out[ITEMS];
  for (int i = 0; i < ITEMS; i++) in[i] = 77 * i + 5;
  wide_rows(in, out);
  for (int i = STEPS; i < ITEMS; i++) {
    word_t joined = 0;
    for (int s = 0; s < PARTS; s++) joined ^= in[i - STEPS] << s;
    if (out[i] != joined) return 1;
  }
  return 0;
}
#endif
