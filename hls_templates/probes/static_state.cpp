// SPDX-License-Identifier: Apache-2.0
// Probe: a static array that keeps its contents from call to call.
#include "probe.hpp"

void static_state(bool store, const word_t in[ITEMS], word_t out[ITEMS]) {
  static word_t memory[ITEMS];
#pragma HLS BIND_STORAGE variable = memory type = ram_s2p impl = lutram  // one port each way
#pragma HLS RESET variable = memory off  // what was not written is never read
state_item:
  for (int i = 0; i < ITEMS; i++) {
#pragma HLS PIPELINE II = 1  // an item a cycle
    out[i] = memory[i];
    if (store) memory[i] = in[i];
  }
}

#ifndef __SYNTHESIS__
int main() {
  word_t in[ITEMS], out[ITEMS];
  for (int i = 0; i < ITEMS; i++) in[i] = 9 * i;
  static_state(true, in, out);
  static_state(false, in, out);
  for (int i = 0; i < ITEMS; i++) {
    if (out[i] != in[i]) return 1;
  }
  return 0;
}
#endif
