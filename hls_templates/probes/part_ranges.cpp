// SPDX-License-Identifier: Apache-2.0
// Probe: constant parts of wide integers after unrolling: wiring.
#include "probe.hpp"

const int LANES = 24, LANE_BITS = 14;
typedef ap_uint<LANES * LANE_BITS> lanes_t;

void part_ranges(const lanes_t in[ITEMS], lanes_t out[ITEMS]) {
turn_row:
  for (int i = 0; i < ITEMS; i++) {
#pragma HLS PIPELINE II = 1  // a row a cycle
    lanes_t row = in[i], turned = 0;
  turn_lane:
    for (int k = 0; k < LANES; k++) {
#pragma HLS UNROLL  // wiring
      const int low = k * LANE_BITS, other = (LANES - 1 - k) * LANE_BITS;
      turned.range(low + LANE_BITS - 1, low) = row.range(other + LANE_BITS - 1, other);
    }
    out[i] = turned;
  }
}

#ifndef __SYNTHESIS__
int main() {
  lanes_t in[ITEMS], once[ITEMS], twice[ITEMS];
  for (int i = 0; i < ITEMS; i++) in[i] = (lanes_t(i) << 200) | lanes_t(3 * i + 1);
  part_ranges(in, once);
  part_ranges(once, twice);
  for (int i = 0; i < ITEMS; i++) {
    if (twice[i] != in[i] || once[i] == in[i]) return 1;
  }
  return 0;
}
#endif
