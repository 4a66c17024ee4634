// SPDX-License-Identifier: Apache-2.0
// Probe: a stream that is read only where it has something, in a pipelined loop.
#include "probe.hpp"

static void send(const word_t in[ITEMS], Fifo<word_t>& data, Fifo<word_t>& extra) {
send_item:
  for (int i = 0; i < ITEMS; i++) {
#pragma HLS PIPELINE II = 1  // an item a cycle
    data.write(in[i]);
    if (i % 8 == 0) extra.write(in[i]);
  }
}

static void merge(Fifo<word_t>& data, Fifo<word_t>& extra, word_t out[2]) {
  word_t sum = 0, other = 0;
  ap_uint<8> items = 0, extras = 0;
merge_item:
  for (bool end = false; !end;) {
#pragma HLS PIPELINE II = 1  // whatever there is, a cycle
#pragma HLS LOOP_TRIPCOUNT min = 64 max = 128
    if (extras != ITEMS / 8 && !extra.empty()) {
      other += extra.read();
      extras++;
    }
    if (items != ITEMS) {
      sum += data.read();
      items++;
    }
    end = items == ITEMS && extras == ITEMS / 8;
  }
  out[0] = sum;
  out[1] = other;
}

void optional_read(const word_t in[ITEMS], word_t out[2]) {
#pragma HLS DATAFLOW  // the processes run at the same time
  Stream<word_t, 2> data("data");
  Stream<word_t, 2> extra("extra");
  PROCESS(send, in, data, extra);
  PROCESS(merge, data, extra, out);
}

#ifndef __SYNTHESIS__
int main() {
  word_t in[ITEMS], out[2];
  for (int i = 0; i < ITEMS; i++) in[i] = i + 1;
  optional_read(in, out);
  return out[0] == 2080 && out[1] == 232 ? 0 : 1;
}
#endif
