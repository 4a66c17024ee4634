// SPDX-License-Identifier: Apache-2.0
// Probe: copies of a memory, all written at once, each read at a place of its own.
#include "probe.hpp"

const int COPIES = 3, DEPTH = 1024;

void copies(const word_t in[ITEMS], const ap_uint<10> where[ITEMS], word_t out[ITEMS]) {
  static word_t memory[COPIES][DEPTH];
#pragma HLS ARRAY_PARTITION variable = memory complete dim = 1         // a memory each
#pragma HLS BIND_STORAGE variable = memory type = ram_s2p impl = bram  // one port each way
write_item:
  for (int i = 0; i < ITEMS; i++) {
#pragma HLS PIPELINE II = 1  // an item a cycle
  write_copy:
    for (int k = 0; k < COPIES; k++) {
#pragma HLS UNROLL  // every copy
      memory[k][i] = in[i];
    }
  }
read_item:
  for (int i = 0; i < ITEMS; i++) {
#pragma HLS PIPELINE II = 1  // three places a cycle
    word_t joined = 0;
  read_copy:
    for (int k = 0; k < COPIES; k++) {
#pragma HLS UNROLL  // a read port each
      joined ^= memory[k][(int(where[i]) + 5 * k) % ITEMS];
    }
    out[i] = joined;
  }
}

#ifndef __SYNTHESIS__
int main() {
  word_t in[ITEMS], out[ITEMS];
  ap_uint<10> where[ITEMS];
  for (int i = 0; i < ITEMS; i++) {
    in[i] = 1000 * i + 1;
    where[i] = (11 * i) % ITEMS;
  }
  copies(in, where, out);
  for (int i = 0; i < ITEMS; i++) {
    const int at = (11 * i) % ITEMS;
    if (out[i] != (in[at] ^ in[(at + 5) % ITEMS] ^ in[(at + 10) % ITEMS])) return 1;
  }
  return 0;
}
#endif
