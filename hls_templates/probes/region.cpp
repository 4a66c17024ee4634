// SPDX-License-Identifier: Apache-2.0
// Probe: a dataflow region of fourteen processes, joined by streams alone.
#include "probe.hpp"

static void source(const word_t in[ITEMS], Fifo<word_t>& out) {
source_item:
  for (int i = 0; i < ITEMS; i++) {
#pragma HLS PIPELINE II = 1  // an item a cycle
    out.write(in[i]);
  }
}

template <int STEP>
static void relay(Fifo<word_t>& in, Fifo<word_t>& out) {
relay_item:
  for (int i = 0; i < ITEMS; i++) {
#pragma HLS PIPELINE II = 1  // an item a cycle
    out.write(in.read() + STEP);
  }
}

static void sink(Fifo<word_t>& in, word_t out[ITEMS]) {
sink_item:
  for (int i = 0; i < ITEMS; i++) {
#pragma HLS PIPELINE II = 1  // an item a cycle
    out[i] = in.read();
  }
}

void region(const word_t in[ITEMS], word_t out[ITEMS]) {
#pragma HLS DATAFLOW  // the processes run at the same time
  Stream<word_t, 2> s0("s0");
  Stream<word_t, 2> s1("s1");
  Stream<word_t, 2> s2("s2");
  Stream<word_t, 2> s3("s3");
  Stream<word_t, 2> s4("s4");
  Stream<word_t, 2> s5("s5");
  Stream<word_t, 2> s6("s6");
  Stream<word_t, 2> s7("s7");
  Stream<word_t, 2> s8("s8");
  Stream<word_t, 2> s9("s9");
  Stream<word_t, 2> s10("s10");
  Stream<word_t, 2> s11("s11");
  Stream<word_t, 2> s12("s12");

  PROCESS(source, in, s0);
  PROCESS(relay<1>, s0, s1);
  PROCESS(relay<2>, s1, s2);
  PROCESS(relay<3>, s2, s3);
  PROCESS(relay<4>, s3, s4);
  PROCESS(relay<5>, s4, s5);
  PROCESS(relay<6>, s5, s6);
  PROCESS(relay<7>, s6, s7);
  PROCESS(relay<8>, s7, s8);
  PROCESS(relay<9>, s8, s9);
  PROCESS(relay<10>, s9, s10);
  PROCESS(relay<11>, s10, s11);
  PROCESS(relay<12>, s11, s12);
  PROCESS(sink, s12, out);
}

#ifndef __SYNTHESIS__
int main() {
  word_t in[ITEMS], out[ITEMS];
  for (int i = 0; i < ITEMS; i++) in[i] = i;
  region(in, out);
  for (int i = 0; i < ITEMS; i++) {
    if (out[i] != in[i] + 78) return 1;
  }
  return 0;
}
#endif
