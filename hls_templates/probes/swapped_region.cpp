// SPDX-License-Identifier: Apache-2.0
// Probe: two calls of one dataflow region with memory ports (hls::burst_maxi) and two memories on
// chip, whose roles the second call exchanges.
#include "probe.hpp"

const int SMALL = 256, LARGE = 1024;
static word_t chip_small[SMALL];
static word_t chip_large[LARGE];

// Words of the memory on chip, with those from DRAM added.
static void take_words(MemoryPort<Probe> from, const word_t* chip, Fifo<word_t>& out) {
  from.read_request(0, SMALL);
take_word:
  for (uint16_t i = 0; i < SMALL; i++) {
#pragma HLS PIPELINE II = 1  // a word a cycle
    out.write(chip[i] + from.read());
  }
}

static void pass_words(Fifo<word_t>& in, Fifo<word_t>& out) {
pass_word:
  for (uint16_t i = 0; i < SMALL; i++) {
#pragma HLS PIPELINE II = 1  // a word a cycle
    out.write(in.read() + 1);
  }
}

static void give_words(Fifo<word_t>& in, word_t* chip, MemoryPort<Probe> to) {
  to.write_request(0, SMALL);
give_word:
  for (uint16_t i = 0; i < SMALL; i++) {
#pragma HLS PIPELINE II = 1  // a word a cycle
    const word_t word = in.read();
    chip[i] = word;
    to.write(word);
  }
  to.write_response();
}

static void run_region(MemoryPort<Probe> from, MemoryPort<Probe> to, const word_t* chip_in,
                       word_t* chip_out) {
#pragma HLS INLINE off  // one region for both calls
#pragma HLS DATAFLOW    // the processes run at the same time
  Stream<word_t, 2> taken("taken"), passed("passed");
  PROCESS(take_words, from, chip_in, taken);
  PROCESS(pass_words, taken, passed);
  PROCESS(give_words, passed, chip_out, to);
}

void swapped_region(bool swap, MemoryPort<Probe> from, MemoryPort<Probe> to) {
#pragma HLS INTERFACE m_axi port = from bundle = gmem_from offset = slave depth =   \
    256 num_read_outstanding = 4 max_read_burst_length = 64 num_write_outstanding = \
        1 max_write_burst_length = 2
#pragma HLS INTERFACE m_axi port = to bundle = gmem_to offset = slave depth =      \
    256 num_read_outstanding = 1 max_read_burst_length = 2 num_write_outstanding = \
        4 max_write_burst_length = 64
#pragma HLS BIND_STORAGE variable = chip_small type = ram_s2p impl = bram  // one port each way
#pragma HLS BIND_STORAGE variable = chip_large type = ram_s2p impl = bram  // one port each way
#pragma HLS RESET variable = chip_small off  // what was not written is never read
#pragma HLS RESET variable = chip_large off  // what was not written is never read
#pragma HLS ALLOCATION function instances = run_region limit = 1  // both calls, one region
  if (swap) {
    run_region(from, to, chip_large, chip_small);
  } else {
    run_region(from, to, chip_small, chip_large);
  }
}

#ifndef __SYNTHESIS__
int main() {
  word_t in[SMALL], out[SMALL];
  for (int i = 0; i < SMALL; i++) in[i] = 3 * i;
  for (int call = 1; call < 4; call++) {
    swapped_region(call % 2 == 0, in, out);
    for (int i = 0; i < SMALL; i++) {
      if (out[i] != word_t(call * (3 * i + 1))) return 1;
    }
  }
  return 0;
}
#endif
