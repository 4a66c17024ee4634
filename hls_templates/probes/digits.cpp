// SPDX-License-Identifier: Apache-2.0
// Probe: nested counters as one flat loop: each step is one comparison beside one addition.
#include "probe.hpp"

void digits(ap_uint<10> width, ap_uint<10> height, ap_uint<10> planes, ap_uint<30>* steps,
            ap_uint<30>* rows) {
  Digit<ap_uint<10>> x, y, plane;
  x.start(width);
  y.start(height);
  plane.start(planes);
  ap_uint<30> counted = 0, ended = 0;
count_step:
  for (bool end = false; !end;) {
#pragma HLS PIPELINE II = 1  // a step a cycle
#pragma HLS LOOP_TRIPCOUNT min = 1 max = 1024
    counted++;
    const bool row_end = x.step();
    if (row_end) ended++;
    end = plane.step(y.step(row_end));
  }
  *steps = counted;
  *rows = ended;
}

#ifndef __SYNTHESIS__
int main() {
  ap_uint<30> steps, rows;
  digits(7, 5, 3, &steps, &rows);
  return steps == 105 && rows == 15 ? 0 : 1;
}
#endif
