// SPDX-License-Identifier: Apache-2.0
// Probe: a struct of an array as one element of a stream between two processes.
#include "probe.hpp"

struct Lanes {
  ap_int<36> lane[8];
};

static void make_lanes(const ap_int<32> in[ITEMS], Fifo<Lanes>& out) {
make_group:
  for (int i = 0; i < ITEMS; i++) {
#pragma HLS PIPELINE II = 1  // a group a cycle
    const ap_int<32> value = in[i];
    Lanes group;
  make_lane:
    for (int k = 0; k < 8; k++) {
#pragma HLS UNROLL  // registers
      group.lane[k] = value + k;
    }
    out.write(group);
  }
}

static void add_lanes(Fifo<Lanes>& in, ap_int<40> out[ITEMS]) {
add_group:
  for (int i = 0; i < ITEMS; i++) {
#pragma HLS PIPELINE II = 1  // a group a cycle
    const Lanes group = in.read();
    ap_int<40> sum = 0;
  add_lane:
    for (int k = 0; k < 8; k++) {
#pragma HLS UNROLL  // an adder tree
      sum += group.lane[k];
    }
    out[i] = sum;
  }
}

void struct_stream(const ap_int<32> in[ITEMS], ap_int<40> out[ITEMS]) {
#pragma HLS DATAFLOW  // the processes run at the same time
  Stream<Lanes, 2> groups("groups");
  PROCESS(make_lanes, in, groups);
  PROCESS(add_lanes, groups, out);
}

#ifndef __SYNTHESIS__
int main() {
  ap_int<32> in[ITEMS];
  ap_int<40> out[ITEMS];
  for (int i = 0; i < ITEMS; i++) in[i] = 1000 - 31 * i;
  struct_stream(in, out);
  for (int i = 0; i < ITEMS; i++) {
    if (out[i] != 8 * (1000 - 31 * i) + 28) return 1;
  }
  return 0;
}
#endif
