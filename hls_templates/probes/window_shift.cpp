// SPDX-License-Identifier: Apache-2.0
// Probe: a window of words, shifted by bytes: only the place goes round the loop.
#include "probe.hpp"

void window_shift(ap_uint<4> step, const word_t in[ITEMS], word_t out[ITEMS]) {
  word_t low = 0, high = in[0];
  ap_uint<5> skip = 8;
  ap_uint<7> next = 1;
shift_step:
  for (int i = 0; i < ITEMS; i++) {
#pragma HLS PIPELINE II = 1  // at most a word in, and a block out, a cycle
    if (skip >= 8) {
      low = high;
      high = next < ITEMS ? in[next] : word_t(0);
      next++;
      skip -= 8;
    }
    const ap_uint<128> both = (ap_uint<128>(high) << 64) | low;
    out[i] = word_t(both >> (8 * int(skip)));
    skip += step;
  }
}

#ifndef __SYNTHESIS__
int main() {
  word_t in[ITEMS], out[ITEMS];
  unsigned char bytes[8 * ITEMS + 64] = {0};
  for (int i = 0; i < 8 * ITEMS; i++) bytes[i] = 17 * i + 5;
  for (int i = 0; i < ITEMS; i++) {
    in[i] = 0;
    for (int k = 0; k < 8; k++) in[i] |= word_t(bytes[8 * i + k]) << (8 * k);
  }
  window_shift(3, in, out);
  for (int i = 0; i < ITEMS; i++) {
    for (int k = 0; k < 8; k++) {
      if (((out[i] >> (8 * k)) & 0xff) != bytes[3 * i + k]) return 1;
    }
  }
  return 0;
}
#endif
