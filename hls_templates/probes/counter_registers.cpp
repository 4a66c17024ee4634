// SPDX-License-Identifier: Apache-2.0
// Probe: an array of counters that the processor reads through the register port.
#include "probe.hpp"

void counter_registers(const word_t in[ITEMS], uint64_t counters[4], uint32_t* id) {
#pragma HLS INTERFACE s_axilite port = counters
#pragma HLS INTERFACE s_axilite port = id
#pragma HLS INTERFACE s_axilite port = return
  word_t total = 0;
count_item:
  for (int i = 0; i < ITEMS; i++) {
#pragma HLS PIPELINE II = 1  // an item a cycle
    total += in[i];
  }
store_counter:
  for (int i = 0; i < 4; i++) {
#pragma HLS PIPELINE off  // once per call
    counters[i] = uint64_t(total) + i;
  }
  *id = 0x1234;
}

#ifndef __SYNTHESIS__
int main() {
  word_t in[ITEMS];
  uint64_t counters[4];
  uint32_t id = 0;
  for (int i = 0; i < ITEMS; i++) in[i] = i;
  counter_registers(in, counters, &id);
  return counters[3] == 2019 && id == 0x1234 ? 0 : 1;
}
#endif
