// SPDX-License-Identifier: Apache-2.0
// Probe: two memories with exchanged roles at the two calls of one instance.
#include "probe.hpp"

const int SMALL = 256, LARGE = 1024;
static word_t memory_a[SMALL];
static word_t memory_b[LARGE];

static void move(const word_t* from, word_t* to, int words) {
#pragma HLS INLINE off  // one instance for both calls
move_word:
  for (uint16_t i = 0; i < words; i++) {
#pragma HLS PIPELINE II = 1  // a word a cycle
#pragma HLS LOOP_TRIPCOUNT min = 1 max = SMALL
    to[i] = from[i] + 1;
  }
}

void swapped_arrays(bool swap, int words, word_t first, word_t* last) {
#pragma HLS BIND_STORAGE variable = memory_a type = ram_s2p impl = bram  // one port each way
#pragma HLS BIND_STORAGE variable = memory_b type = ram_s2p impl = bram  // one port each way
#pragma HLS ALLOCATION function instances = move limit = 1               // both calls, one instance
  if (swap) {
    memory_b[0] = first;
    move(memory_b, memory_a, words);
    *last = memory_a[0];
  } else {
    memory_a[0] = first;
    move(memory_a, memory_b, words);
    *last = memory_b[0];
  }
}

#ifndef __SYNTHESIS__
int main() {
  word_t last = 0;
  swapped_arrays(false, 100, 5, &last);
  if (last != 6) return 1;
  swapped_arrays(true, 100, 8, &last);
  return last == 9 && memory_b[0] == 8 ? 0 : 1;
}
#endif
