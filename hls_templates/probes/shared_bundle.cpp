// SPDX-License-Identifier: Apache-2.0
// Probe: two processes of a region that read one bundle, each through a port of its own: one a few
// words that steer the other.
#include "probe.hpp"

const int ROWS = 8;

static void read_plan(MemoryPort<Probe> plan, Fifo<ap_uint<8>>& rows) {
  plan.read_request(0, ROWS);
plan_word:
  for (int i = 0; i < ROWS; i++) {
#pragma HLS PIPELINE II = 1  // a word a cycle
    rows.write(ap_uint<8>(plan.read()));
  }
}

static void read_rows(MemoryPort<Probe> data, Fifo<ap_uint<8>>& rows, word_t out[ITEMS]) {
  ap_uint<3> at = 0;
row_word:
  for (int i = 0; i < ITEMS; i++) {
#pragma HLS PIPELINE II = 1  // a word a cycle
    if (at == 0) data.read_request(ROWS * int(rows.read()), ROWS);
    out[i] = data.read();
    at++;
  }
}

void shared_bundle(MemoryPort<Probe> plan, MemoryPort<Probe> data, word_t out[ITEMS]) {
#pragma HLS INTERFACE m_axi port = plan bundle = gmem_in offset = slave depth =    \
    64 num_read_outstanding = 4 max_read_burst_length = 64 num_write_outstanding = \
        1 max_write_burst_length = 2
#pragma HLS INTERFACE m_axi port = data bundle = gmem_in offset = slave depth =    \
    64 num_read_outstanding = 4 max_read_burst_length = 64 num_write_outstanding = \
        1 max_write_burst_length = 2
#pragma HLS DATAFLOW  // the processes run at the same time
  Stream<ap_uint<8>, 2> rows("rows");
  PROCESS(read_plan, plan, rows);
  PROCESS(read_rows, data, rows, out);
}

#ifndef __SYNTHESIS__
int main() {
  word_t plan[ROWS], data[ITEMS], out[ITEMS];
  for (int i = 0; i < ROWS; i++) plan[i] = (3 * i) % ROWS;
  for (int i = 0; i < ITEMS; i++) data[i] = 7 * i;
  shared_bundle(plan, data, out);
  for (int i = 0; i < ITEMS; i++) {
    if (out[i] != word_t(7 * (ROWS * ((3 * (i / ROWS)) % ROWS) + i % ROWS))) return 1;
  }
  return 0;
}
#endif
