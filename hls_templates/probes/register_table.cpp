// SPDX-License-Identifier: Apache-2.0
// Probe: a table in registers, read at 24 places a cycle.
#include "probe.hpp"

const int READS = 24, ENTRIES = 8;

void register_table(const ap_uint<12> table[ENTRIES], const ap_uint<3 * READS> codes[ITEMS],
                    ap_uint<20> out[ITEMS]) {
  ap_uint<12> entry[ENTRIES];
#pragma HLS ARRAY_PARTITION variable = entry complete  // registers
load_entry:
  for (int j = 0; j < ENTRIES; j++) {
#pragma HLS PIPELINE II = 1  // once a call
    entry[j] = table[j];
  }
decode_row:
  for (int i = 0; i < ITEMS; i++) {
#pragma HLS PIPELINE II = 1  // all codes of a row a cycle
    const ap_uint<3 * READS> row = codes[i];
    ap_uint<20> sum = 0;
  decode_lane:
    for (int k = 0; k < READS; k++) {
#pragma HLS UNROLL  // a multiplexer each
      const ap_uint<3> code = row.range(3 * k + 2, 3 * k);
      sum += entry[code];
    }
    out[i] = sum;
  }
}

#ifndef __SYNTHESIS__
int main() {
  ap_uint<12> table[ENTRIES];
  ap_uint<3 * READS> codes[ITEMS];
  ap_uint<20> out[ITEMS];
  for (int j = 0; j < ENTRIES; j++) table[j] = 500 * j + 7;
  for (int i = 0; i < ITEMS; i++) {
    codes[i] = 0;
    for (int k = 0; k < READS; k++) codes[i].range(3 * k + 2, 3 * k) = (i + k) % ENTRIES;
  }
  register_table(table, codes, out);
  for (int i = 0; i < ITEMS; i++) {
    if (out[i] != 3 * (500 * 28 + 7 * ENTRIES)) return 1;
  }
  return 0;
}
#endif
