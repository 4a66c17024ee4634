// SPDX-License-Identifier: Apache-2.0
// Probe: bursts written with up to four responses outstanding.
#include "probe.hpp"

void burst_behind(const word_t in[ITEMS], MemoryPort<Probe> memory) {
#pragma HLS INTERFACE m_axi port = memory bundle = gmem_memory offset = slave depth = \
    64 num_read_outstanding = 4 max_read_burst_length = 64 num_write_outstanding =    \
        4 max_write_burst_length = 64
  const int rows = 8, words = ITEMS / rows, behind = 4;
  ap_uint<3> open = 0;
  ap_uint<4> at = 0, row = 0;
write_word:
  for (int i = 0; i < ITEMS; i++) {
#pragma HLS PIPELINE II = 1  // a word a cycle
    if (at == 0) {
      if (open == behind) {
        memory.write_response();
        open--;
      }
      memory.write_request(int(row) * words, words);
      open++;
      row++;
    }
    memory.write(in[i]);
    at = at == words - 1 ? ap_uint<4>(0) : ap_uint<4>(at + 1);
  }
write_end:
  for (ap_uint<3> i = 0; i < open; i++) {
#pragma HLS LOOP_TRIPCOUNT min = 0 max = 4
    memory.write_response();
  }
}

#ifndef __SYNTHESIS__
int main() {
  word_t in[ITEMS], out[ITEMS];
  for (int i = 0; i < ITEMS; i++) in[i] = 5 * i + 3;
  burst_behind(in, out);
  for (int i = 0; i < ITEMS; i++) {
    if (out[i] != in[i]) return 1;
  }
  return 0;
}
#endif
