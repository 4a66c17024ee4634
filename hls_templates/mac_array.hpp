// SPDX-License-Identifier: Apache-2.0
// The multiplier array: PE x SIMD products a cycle, one adder tree per output channel.
//   sum[p] = sum over s of weight[s][p] * value[s]
// tree_t holds SIMD full products exactly, and an aligned value.
#ifndef MAC_ARRAY_HPP
#define MAC_ARRAY_HPP

#include "layer.hpp"

template <class C>
void mac_array(const typename C::weight_t weight[C::SIMD][C::PE],
               const typename C::value_t value[C::SIMD], typename C::tree_t sum[C::PE]) {
#pragma HLS INLINE
  typedef typename C::tree_t tree_t;
clear_p:
  for (int p = 0; p < C::PE; p++) {
#pragma HLS UNROLL  // registers
    sum[p] = tree_t(0);
  }
tree_s:
  for (int s = 0; s < C::SIMD; s++) {
#pragma HLS UNROLL  // an adder tree after expression balancing
  lanes_p:
    for (int p = 0; p < C::PE; p++) {
#pragma HLS UNROLL  // one multiplier (DSP48) each
      sum[p] += weight[s][p] * value[s];
    }
  }
}

// The same interface for operations without weights: channel by channel, lane p of the tile gets
// the value of its own channel when that is in the current group, else 0.
template <class C>
void spread(const typename C::value_t value[C::SIMD], int group, int align, int first_channel,
            int channels, typename C::tree_t sum[C::PE]) {
#pragma HLS INLINE
spread_p:
  for (int p = 0; p < C::PE; p++) {
#pragma HLS UNROLL  // a multiplexer each
    const int channel = first_channel + p;
    const bool here = p / C::SIMD == group && channel >= 0 && channel < channels;
    sum[p] =
        here ? shift_left(typename C::tree_t(value[p % C::SIMD]), align) : typename C::tree_t(0);
  }
}

#endif  // MAC_ARRAY_HPP
