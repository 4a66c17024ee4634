// SPDX-License-Identifier: Apache-2.0
// Probe: both halves of one memory, one written while the other is read; the tool cannot know that
// and must put the read one stage behind the write.
#include "probe.hpp"

void half_memory(const word_t in[4 * ITEMS], word_t out[4 * ITEMS]) {
  static word_t memory[2 * ITEMS];
#pragma HLS BIND_STORAGE variable = memory type = ram_s2p impl = lutram  // one port each way
  ap_uint<1> half = 0;
  ap_uint<6> at = 0;
move_item:
  for (int i = 0; i < 4 * ITEMS; i++) {
#pragma HLS PIPELINE II = 1  // an item in and one out a cycle
    memory[int(1 - half) * ITEMS + int(at)] = in[i];
    out[i] = memory[int(half) * ITEMS + int(at)];
    at++;
    if (at == 0) half = 1 - half;
  }
}

#ifndef __SYNTHESIS__
int main() {
  word_t in[4 * ITEMS], out[4 * ITEMS];
  for (int i = 0; i < 4 * ITEMS; i++) in[i] = i * i;
  half_memory(in, out);
  for (int i = ITEMS; i < 4 * ITEMS; i++) {
    if (out[i] != in[i - ITEMS]) return 1;
  }
  return 0;
}
#endif
