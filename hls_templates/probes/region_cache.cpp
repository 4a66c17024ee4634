// SPDX-License-Identifier: Apache-2.0
// Probe: a process of a region that reads a memory on chip and fills it, both in one pipelined
// loop: what it takes from DRAM in one call, it finds on chip in the next.
#include "probe.hpp"

static word_t cache[ITEMS];

static void read_words(bool fetch, MemoryPort<Probe> memory, word_t* chip, Fifo<word_t>& out) {
  if (fetch) memory.read_request(0, ITEMS);
cache_word:
  for (uint8_t i = 0; i < ITEMS; i++) {
#pragma HLS PIPELINE II = 1  // a word a cycle
    word_t word;
    if (fetch) {
      word = memory.read();
      chip[i] = word;
    } else {
      word = chip[i];
    }
    out.write(word);
  }
}

static void use_words(Fifo<word_t>& in, word_t out[ITEMS]) {
use_word:
  for (int i = 0; i < ITEMS; i++) {
#pragma HLS PIPELINE II = 1  // a word a cycle
    out[i] = in.read();
  }
}

static void cache_region(bool fetch, MemoryPort<Probe> memory, word_t* chip, word_t out[ITEMS]) {
#pragma HLS INLINE off
#pragma HLS DATAFLOW  // the processes run at the same time
  Stream<word_t, 2> words("words");
  PROCESS(read_words, fetch, memory, chip, words);
  PROCESS(use_words, words, out);
}

void region_cache(bool fetch, MemoryPort<Probe> memory, word_t out[ITEMS]) {
#pragma HLS INTERFACE m_axi port = memory bundle = gmem_memory offset = slave depth = \
    64 num_read_outstanding = 4 max_read_burst_length = 64 num_write_outstanding =    \
        1 max_write_burst_length = 2
#pragma HLS BIND_STORAGE variable = cache type = ram_s2p impl = bram  // one port each way
#pragma HLS RESET variable = cache off                                // as in the engine
  cache_region(fetch, memory, cache, out);
}

#ifndef __SYNTHESIS__
int main() {
  word_t in[ITEMS], out[ITEMS];
  for (int i = 0; i < ITEMS; i++) in[i] = 11 * i + 2;
  region_cache(true, in, out);
  for (int i = 0; i < ITEMS; i++) in[i] = 0;
  for (int i = 0; i < ITEMS; i++) out[i] = 0;
  region_cache(false, in, out);
  for (int i = 0; i < ITEMS; i++) {
    if (out[i] != word_t(11 * i + 2)) return 1;
  }
  return 0;
}
#endif
