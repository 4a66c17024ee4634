// SPDX-License-Identifier: Apache-2.0
// Probe: a class with begin, step and result in a pipelined loop, its state in registers.
#include "probe.hpp"

class SumStage {
 public:
  SumStage() : sum_(0) {}
  void begin(ap_int<36> start) {
#pragma HLS INLINE
    sum_ = start;
  }
  void step(ap_int<14> weight, ap_int<13> value) {
#pragma HLS INLINE
    sum_ += weight * value;
  }
  ap_int<36> result() const {
#pragma HLS INLINE
    return sum_;
  }

 private:
  ap_int<36> sum_;
};

template <class Stage>
static void use_stage(const ap_int<14> weight[ITEMS], const ap_int<13> value[ITEMS],
                      ap_int<36> out[ITEMS / 8]) {
  Stage stage;
  ap_uint<3> at = 0;
  ap_uint<4> group = 0;
stage_step:
  for (int i = 0; i < ITEMS; i++) {
#pragma HLS PIPELINE II = 1  // a product a cycle
    if (at == 0) stage.begin(100);
    stage.step(weight[i], value[i]);
    at++;
    if (at == 0) {
      out[group] = stage.result();
      group++;
    }
  }
}

void stage_slot(const ap_int<14> weight[ITEMS], const ap_int<13> value[ITEMS],
                ap_int<36> out[ITEMS / 8]) {
  use_stage<SumStage>(weight, value, out);
}

#ifndef __SYNTHESIS__
int main() {
  ap_int<14> weight[ITEMS];
  ap_int<13> value[ITEMS];
  ap_int<36> out[ITEMS / 8];
  for (int i = 0; i < ITEMS; i++) {
    weight[i] = i - 32;
    value[i] = 2 * i - 64;
  }
  stage_slot(weight, value, out);
  for (int g = 0; g < ITEMS / 8; g++) {
    int sum = 100;
    for (int i = 8 * g; i < 8 * g + 8; i++) sum += (i - 32) * (2 * i - 64);
    if (out[g] != sum) return 1;
  }
  return 0;
}
#endif
