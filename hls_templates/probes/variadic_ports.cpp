// SPDX-License-Identifier: Apache-2.0
// Probe: as many memory ports as a template's parameter pack has, in a process of a region; each
// is asked for a burst of its own, and a word of every one is read in a cycle.
#include "probe.hpp"

static bool ask_burst(MemoryPort<Probe>& port, int words) {
#pragma HLS INLINE
  port.read_request(0, words);
  return true;
}

template <class... Ports>
static void read_ports(Fifo<word_t>& out, Ports... ports) {
  const bool asked[sizeof...(Ports)] = {ask_burst(ports, ITEMS)...};
  (void)asked;
read_all:
  for (int i = 0; i < ITEMS; i++) {
#pragma HLS PIPELINE II = 1  // a word of every port a cycle
    const word_t word[sizeof...(Ports)] = {ports.read()...};
    word_t joined = 0;
  join_port:
    for (int q = 0; q < int(sizeof...(Ports)); q++) {
#pragma HLS UNROLL  // a gate each
      joined ^= word[q];
    }
    out.write(joined);
  }
}

static void keep_words(Fifo<word_t>& in, word_t out[ITEMS]) {
keep_word:
  for (int i = 0; i < ITEMS; i++) {
#pragma HLS PIPELINE II = 1  // a word a cycle
    out[i] = in.read();
  }
}

template <class... Ports>
static void region_of_ports(word_t out[ITEMS], Ports... ports) {
#pragma HLS DATAFLOW  // the processes run at the same time
  Stream<word_t, 2> words("words");
  PROCESS(read_ports, words, ports...);
  PROCESS(keep_words, words, out);
}

void variadic_ports(MemoryPort<Probe> w0, MemoryPort<Probe> w1, MemoryPort<Probe> w2,
                    word_t out[ITEMS]) {
#pragma HLS INTERFACE m_axi port = w0 bundle = gmem_w0 offset = slave depth =      \
    64 num_read_outstanding = 4 max_read_burst_length = 64 num_write_outstanding = \
        4 max_write_burst_length = 64
#pragma HLS INTERFACE m_axi port = w1 bundle = gmem_w1 offset = slave depth =      \
    64 num_read_outstanding = 4 max_read_burst_length = 64 num_write_outstanding = \
        4 max_write_burst_length = 64
#pragma HLS INTERFACE m_axi port = w2 bundle = gmem_w2 offset = slave depth =      \
    64 num_read_outstanding = 4 max_read_burst_length = 64 num_write_outstanding = \
        4 max_write_burst_length = 64
  region_of_ports(out, w0, w1, w2);
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
