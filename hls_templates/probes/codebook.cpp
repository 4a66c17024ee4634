// SPDX-License-Identifier: Apache-2.0
// Probe: a codebook in single-ported LUT RAM, a copy a lane: all are written at once, then each is
// read at the place of its own lane's index, both in one pipelined loop.
#include "probe.hpp"

const int LANES = 24, ENTRIES = 16, INDEX_BITS = 4;

void codebook(const ap_int<14> entries[ENTRIES], const ap_uint<INDEX_BITS * LANES> in[ITEMS],
              ap_int<20> out[ITEMS]) {
  static ap_int<14> table[LANES][ENTRIES];
#pragma HLS ARRAY_PARTITION variable = table complete dim = 1          // a copy per lane
#pragma HLS BIND_STORAGE variable = table type = ram_1p impl = lutram  // small, and many copies
codebook_step:
  for (uint8_t i = 0; i < ENTRIES + ITEMS; i++) {
#pragma HLS PIPELINE II = 1  // an entry or a row a cycle
    if (i < ENTRIES) {
      const ap_int<14> entry = entries[i];
    copy_entry:
      for (int k = 0; k < LANES; k++) {
#pragma HLS UNROLL  // into all copies at once
        table[k][i] = entry;
      }
    } else {
      const ap_uint<INDEX_BITS * LANES> row = in[i - ENTRIES];
      ap_int<20> sum = 0;
    look_up:
      for (int k = 0; k < LANES; k++) {
#pragma HLS UNROLL  // a place of its own
        const ap_uint<INDEX_BITS> index =
            row.range(INDEX_BITS * k + INDEX_BITS - 1, INDEX_BITS * k);
        sum += table[k][index];
      }
      out[i - ENTRIES] = sum;
    }
  }
}

#ifndef __SYNTHESIS__
int main() {
  ap_int<14> entries[ENTRIES];
  ap_uint<INDEX_BITS * LANES> in[ITEMS];
  ap_int<20> out[ITEMS];
  for (int j = 0; j < ENTRIES; j++) entries[j] = 37 * j - 200;
  for (int i = 0; i < ITEMS; i++) {
    in[i] = 0;
    for (int k = 0; k < LANES; k++) {
      in[i].range(INDEX_BITS * k + INDEX_BITS - 1, INDEX_BITS * k) = (i + 3 * k) % ENTRIES;
    }
  }
  codebook(entries, in, out);
  for (int i = 0; i < ITEMS; i++) {
    int sum = 0;
    for (int k = 0; k < LANES; k++) sum += 37 * ((i + 3 * k) % ENTRIES) - 200;
    if (out[i] != sum) return 1;
  }
  return 0;
}
#endif
