// SPDX-License-Identifier: Apache-2.0
// Probe: bursts asked for by hand, four ahead, in the loop that reads their words.
#include "probe.hpp"

void burst_ahead(MemoryPort<Probe> memory, word_t out[ITEMS]) {
#pragma HLS INTERFACE m_axi port = memory bundle = gmem_memory offset = slave depth = \
    64 num_read_outstanding = 4 max_read_burst_length = 64 num_write_outstanding =    \
        4 max_write_burst_length = 64
  const int rows = 8, words = ITEMS / rows, ahead = 4;
  ap_uint<4> asked = 0;
  ap_uint<4> at = 0, read = 0;
read_word:
  for (int i = 0; i < ITEMS; i++) {
#pragma HLS PIPELINE II = 1  // a word a cycle
    if (asked != rows && asked < read + ahead) {
      memory.read_request(int(asked) * words, words);
      asked++;
    }
    out[i] = memory.read();
    const bool end = at == words - 1;
    at = end ? ap_uint<4>(0) : ap_uint<4>(at + 1);
    if (end) read++;
  }
}

#ifndef __SYNTHESIS__
int main() {
  word_t in[ITEMS], out[ITEMS];
  for (int i = 0; i < ITEMS; i++) in[i] = 7 * i + 1;
  burst_ahead(in, out);
  for (int i = 0; i < ITEMS; i++) {
    if (out[i] != in[i]) return 1;
  }
  return 0;
}
#endif
