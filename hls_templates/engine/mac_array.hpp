// SPDX-License-Identifier: Apache-2.0
// The compute stage of one product a multiplier: PIXELS x PE x SIMD products a cycle, one adder
// tree per pixel and output channel, and the accumulators behind them. The pixels share the
// weights.
//   acc[q][p] += sum over s of weight[s][p] * value[q][s]
// What a stage must have, whatever its arithmetic is inside: begin, step, spread, result.
#ifndef MAC_ARRAY_HPP
#define MAC_ARRAY_HPP

#include "weight_row.hpp"
#include "work.hpp"

template <class C>
class MacStage {
  typedef typename C::tree_t tree_t;
  typedef typename C::acc_t acc_t;
  static_assert(uint64_t(C::SIMD) << (C::WEIGHT_BITS + C::VALUE_BITS - 2) <
                    uint64_t(1) << (8 * sizeof(tree_t) - 1),
                "tree_t must hold a sum of SIMD products of WEIGHT_BITS and VALUE_BITS");

 public:
  MacStage() {
#pragma HLS ARRAY_PARTITION variable = acc_ complete dim = 0  // registers
  clear_q:
    for (int q = 0; q < C::PIXELS; q++) {
#pragma HLS UNROLL  // registers
    clear_lane:
      for (int p = 0; p < C::PE; p++) {
#pragma HLS UNROLL  // registers
        acc_[q][p] = 0;
      }
    }
  }

  // A group of pixels begins: at the biases, or where the chunk of channels before left off.
  void begin(bool first_chunk, const BiasTile<C>& bias, const SumGroup<C>& before) {
#pragma HLS INLINE
  begin_q:
    for (int q = 0; q < C::PIXELS; q++) {
#pragma HLS UNROLL  // registers
    begin_p:
      for (int p = 0; p < C::PE; p++) {
#pragma HLS UNROLL  // a multiplexer each
        acc_[q][p] = first_chunk ? bias.start[p] : before.sum[q * C::PE + p];
      }
    }
  }

  // Adds the products of a cycle.
  void step(const WeightRow<C>& weight, const typename C::value_t value[C::PIXELS][C::SIMD], bool) {
#pragma HLS INLINE
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
          tree[p] += weight.get(s, p) * value[q][s];
        }
      }
    result_p:
      for (int p = 0; p < C::PE; p++) {
#pragma HLS UNROLL  // one accumulator each
        acc_[q][p] += tree[p];
      }
    }
  }

  // For operations without weights: channel by channel, lane p of the tile gets the value of its
  // own channel when that is in the current group of SIMD channels.
  void spread(const typename C::value_t value[C::PIXELS][C::SIMD], typename C::block_t group,
              Count<31> align, typename C::channel_t first_channel,
              typename C::channel_t channels) {
#pragma HLS INLINE
  spread_q:
    for (int q = 0; q < C::PIXELS; q++) {
#pragma HLS UNROLL  // one row of multiplexers each
    spread_p:
      for (int p = 0; p < C::PE; p++) {
#pragma HLS UNROLL  // a multiplexer each
        const typename C::channel_t channel = first_channel + p;
        const bool here = p / C::SIMD == group && channel >= 0 && channel < channels;
        acc_[q][p] += here ? shift_left(tree_t(value[q][p % C::SIMD]), int(align)) : tree_t(0);
      }
    }
  }

  // The sums of the group.
  SumGroup<C> result() const {
#pragma HLS INLINE
    SumGroup<C> group;
  result_q:
    for (int q = 0; q < C::PIXELS; q++) {
#pragma HLS UNROLL  // wires
    result_lane:
      for (int p = 0; p < C::PE; p++) {
#pragma HLS UNROLL  // wires
        group.sum[q * C::PE + p] = acc_[q][p];
      }
    }
    return group;
  }

 protected:
  acc_t acc_[C::PIXELS][C::PE];
};

#endif  // MAC_ARRAY_HPP
