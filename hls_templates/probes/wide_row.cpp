// SPDX-License-Identifier: Apache-2.0
// Probe: a memory of wide rows, each written whole: no write enables within a row.
#include "probe.hpp"

const int ROWS = 512, ROW_BITS = 672;
typedef ap_uint<ROW_BITS> row_t;

void wide_row(const ap_uint<9> where[ITEMS], const word_t in[ITEMS], word_t out[ITEMS]) {
  static row_t memory[ROWS];
#pragma HLS BIND_STORAGE variable = memory type = ram_s2p impl = bram  // one port each way
  row_t row = 0;
write_row:
  for (int i = 0; i < ITEMS; i++) {
#pragma HLS PIPELINE II = 1  // a row a cycle
    row = (row << 64) | row_t(in[i]);
    memory[where[i]] = row;
  }
read_row:
  for (int i = 0; i < ITEMS; i++) {
#pragma HLS PIPELINE II = 1  // a row a cycle
    const row_t found = memory[where[i]];
    out[i] = word_t(found) ^ word_t(found >> 64);
  }
}

#ifndef __SYNTHESIS__
int main() {
  word_t in[ITEMS], out[ITEMS];
  ap_uint<9> where[ITEMS];
  for (int i = 0; i < ITEMS; i++) {
    in[i] = 3 * i + 1;
    where[i] = 8 * i;
  }
  wide_row(where, in, out);
  for (int i = 1; i < ITEMS; i++) {
    if (out[i] != (in[i] ^ in[i - 1])) return 1;
  }
  return 0;
}
#endif
