// SPDX-License-Identifier: Apache-2.0
// Probe: a table of structs in LUT RAM, whose entries steer the loop that reads it.
#include "probe.hpp"

struct Step {
  ap_uint<10> place;
  bool last;
};

void tap_table(const ap_uint<10> places[ITEMS], const word_t in[1024], word_t out[ITEMS]) {
  static Step table[ITEMS];
#pragma HLS AGGREGATE variable = table compact = bit                    // one word an entry
#pragma HLS BIND_STORAGE variable = table type = ram_s2p impl = lutram  // shallow
fill_step:
  for (int i = 0; i < ITEMS; i++) {
#pragma HLS PIPELINE II = 1  // an entry a cycle
    const Step step = {places[i], i == ITEMS - 1};
    table[i] = step;
  }
  ap_uint<7> at = 0;
take_step:
  for (bool end = false; !end;) {
#pragma HLS PIPELINE II = 1  // an entry a cycle
#pragma HLS LOOP_TRIPCOUNT min = 64 max = 64
    const Step step = table[at];
    out[at] = in[step.place];
    end = step.last;
    at++;
  }
}

#ifndef __SYNTHESIS__
int main() {
  ap_uint<10> places[ITEMS];
  word_t in[1024], out[ITEMS];
  for (int i = 0; i < 1024; i++) in[i] = 2 * i;
  for (int i = 0; i < ITEMS; i++) places[i] = (37 * i) % 1024;
  tap_table(places, in, out);
  for (int i = 0; i < ITEMS; i++) {
    if (out[i] != in[places[i]]) return 1;
  }
  return 0;
}
#endif
