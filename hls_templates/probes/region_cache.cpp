// SPDX-License-Identifier: Apache-2.0
// Probe: a process of a region that reads a memory on chip and fills it, both in one pipelined
// loop: a step may find on chip what the step before it took from DRAM, or what a call before took.
#include "probe.hpp"

static word_t cache[ITEMS];

// words: of those steps that fetch. place: of a step's word on chip.
static void read_words(uint32_t words, const bool fetch[ITEMS], const ap_uint<6> place[ITEMS],
                       MemoryPort<Probe> memory, word_t* chip, Fifo<word_t>& out) {
  if (words != 0) memory.read_request(0, words);
cache_word:
  for (uint8_t i = 0; i < ITEMS; i++) {
#pragma HLS PIPELINE II = 1  // a word a cycle
    const ap_uint<6> at = place[i];
    word_t word;
    if (fetch[i]) {
      word = memory.read();
      chip[int(at)] = word;
    } else {
      word = chip[int(at)];
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

static void cache_region(uint32_t words, const bool fetch[ITEMS], const ap_uint<6> place[ITEMS],
                         MemoryPort<Probe> memory, word_t* chip, word_t out[ITEMS]) {
#pragma HLS INLINE off
#pragma HLS DATAFLOW  // the processes run at the same time
  Stream<word_t, 2> pipe("pipe");
  PROCESS(read_words, words, fetch, place, memory, chip, pipe);
  PROCESS(use_words, pipe, out);
}

void region_cache(uint32_t words, const bool fetch[ITEMS], const ap_uint<6> place[ITEMS],
                  MemoryPort<Probe> memory, word_t out[ITEMS]) {
#pragma HLS INTERFACE m_axi port = memory bundle = gmem_memory offset = slave depth = \
    64 num_read_outstanding = 4 max_read_burst_length = 64 num_write_outstanding =    \
        1 max_write_burst_length = 2
#pragma HLS BIND_STORAGE variable = cache type = ram_s2p impl = bram  // one port each way
#pragma HLS RESET variable = cache off                                // as in the engine
  cache_region(words, fetch, place, memory, cache, out);
}

#ifndef __SYNTHESIS__
int main() {
  word_t in[ITEMS], out[ITEMS];
  bool fetch[ITEMS];
  ap_uint<6> place[ITEMS];
  for (int i = 0; i < ITEMS; i++) {
    in[i] = 11 * i + 2;
    fetch[i] = i % 2 == 0;  // the step behind each reads what it has stored
    place[i] = i / 2;
  }
  for (int call = 0; call < 2; call++) {
    region_cache(call == 0 ? ITEMS / 2 : 0, fetch, place, in, out);
    for (int i = 0; i < ITEMS; i++) {
      if (out[i] != word_t(11 * (i / 2) + 2)) return 1;
      in[i] = 0;
      fetch[i] = false;
      out[i] = 0;
    }
  }
  return 0;
}
#endif
