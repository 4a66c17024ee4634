// SPDX-License-Identifier: Apache-2.0
// Probe: as many memory ports as a template's parameter pack has, each its own burst.
#include "probe.hpp"

template <class... Ports>
static void read_ports(word_t out[ITEMS], Ports... ports) {
#pragma HLS INLINE off  // a process of its own in the engine
read_all:
  for (int i = 0; i < ITEMS; i++) {
#pragma HLS PIPELINE II = 1  // a word of every port a cycle
    const word_t word[sizeof...(Ports)] = {ports[i]...};
    word_t joined = 0;
  join_port:
    for (int q = 0; q < int(sizeof...(Ports)); q++) {
#pragma HLS UNROLL  // a gate each
      joined ^= word[q];
    }
    out[i] = joined;
  }
}

void variadic_ports(const word_t* w0, const word_t* w1, const word_t* w2, word_t out[ITEMS]) {
#pragma HLS INTERFACE m_axi port = w0 bundle = gmem_w0 offset = slave depth =      \
    64 num_read_outstanding = 4 max_read_burst_length = 64 num_write_outstanding = \
        4 max_write_burst_length = 64
#pragma HLS INTERFACE m_axi port = w1 bundle = gmem_w1 offset = slave depth =      \
    64 num_read_outstanding = 4 max_read_burst_length = 64 num_write_outstanding = \
        4 max_write_burst_length = 64
#pragma HLS INTERFACE m_axi port = w2 bundle = gmem_w2 offset = slave depth =      \
    64 num_read_outstanding = 4 max_read_burst_length = 64 num_write_outstanding = \
        4 max_write_burst_length = 64
  read_ports(out, w0, w1, w2);
}

#ifndef __SYNTHESIS__
int main() {
  word_t in[3][ITEMS], out[ITEMS];
  for (int i = 0; i < ITEMS; i++) {
    in[0][i] = i;
    in[1][i] = 64 * i;
    in[2][i] = 4096 * i;
  }
  variadic_ports(in[0], in[1], in[2], out);
  for (int i = 0; i < ITEMS; i++) {
    if (out[i] != word_t(i ^ (64 * i) ^ (4096 * i))) return 1;
  }
  return 0;
}
#endif
