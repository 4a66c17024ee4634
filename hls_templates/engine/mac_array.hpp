// SPDX-License-Identifier: Apache-2.0
// The multiplier array: PIXELS x PE x SIMD products a cycle, one adder tree per pixel and output
// channel. The pixels share the weights.
//   sum[q][p] = sum over s of weight[s][p] * value[q][s]
// tree_t holds SIMD full products exactly, and an aligned value.
#ifndef MAC_ARRAY_HPP
#define MAC_ARRAY_HPP

#include "layer.hpp"

template <class C>
void mac_array(const typename C::weight_t weight[C::SIMD][C::PE],
               const typename C::value_t value[C::PIXELS][C::SIMD],
               typename C::tree_t sum[C::PIXELS][C::PE]) {
#pragma HLS INLINE
  typedef typename C::tree_t tree_t;
  static_assert(uint64_t(C::SIMD) << (C::WEIGHT_BITS + C::VALUE_BITS - 2) <
                    uint64_t(1) << (8 * sizeof(tree_t) - 1),
                "tree_t must hold a sum of SIMD products of WEIGHT_BITS and VALUE_BITS");
array_q:
  for (int q = 0; q < C::PIXELS; q++) {
#pragma HLS UNROLL  // one array of PE x SIMD each
    tree_t tree[C::PE];
#pragma HLS ARRAY_PARTITION variable = tree complete  // wires
  clear_p:
    for (int p = 0; p < C::PE; p++) {
#pragma HLS UNROLL  // wires
      tree[p] = tree_t(0);
    }
  tree_s:
    for (int s = 0; s < C::SIMD; s++) {
#pragma HLS UNROLL  // an adder tree after expression balancing
    lanes_p:
      for (int p = 0; p < C::PE; p++) {
#pragma HLS UNROLL  // one multiplier (DSP48) each
        tree[p] += weight[s][p] * value[q][s];
      }
    }
  result_p:
    for (int p = 0; p < C::PE; p++) {
#pragma HLS UNROLL  // wires
      sum[q][p] = tree[p];
    }
  }
}

// The same interface for operations without weights: channel by channel, lane p of the tile gets
// the value of its own channel when that is in the current group of SIMD channels, else 0.
template <class C>
void spread(const typename C::value_t value[C::PIXELS][C::SIMD], int group, int align,
            int first_channel, int channels, typename C::tree_t sum[C::PIXELS][C::PE]) {
#pragma HLS INLINE
spread_q:
  for (int q = 0; q < C::PIXELS; q++) {
#pragma HLS UNROLL  // one row of multiplexers each
  spread_p:
    for (int p = 0; p < C::PE; p++) {
#pragma HLS UNROLL  // a multiplexer each
      const int channel = first_channel + p;
      const bool here = p / C::SIMD == group && channel >= 0 && channel < channels;
      sum[q][p] = here ? shift_left(typename C::tree_t(value[q][p % C::SIMD]), align)
                       : typename C::tree_t(0);
    }
  }
}

#endif  // MAC_ARRAY_HPP
