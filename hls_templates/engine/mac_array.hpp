// SPDX-License-Identifier: Apache-2.0
// The compute stage of one product a multiplier: PIXELS x PE x SIMD products a cycle, one adder
// tree per pixel and output channel, and the accumulators behind them. The pixels share the
// weights.
//   acc[q][p] += sum over s of weight[s][p] * value[q][s]
// In a depthwise layer lanes are channels, and only the first pixel's array works: s are rows of
// the kernel, of which a block of 8 channels each is there, and lanes 8 g .. 8 g + 7 sum up these
// channels of the output pixel that g more columns of the input complete. With every such step the
// sums move 8 lanes down, to where their next column's weights are:
//   acc[0][p] = acc[0][p + 8] + sum over s of weight[s][p] * value[0][8 s + p % 8]
// What a stage must have, whatever its arithmetic is inside: step, spread, next, result.
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

  // Sums of a cycle's products.
  void step(const WeightRow<C>& weight,
            const typename C::value_t value[C::PIXELS][C::WINDOW * BLOCK_CODES], bool,
            bool depthwise, acc_t added[C::PIXELS][C::PE]) const {
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
          tree[p] += weight.get(s, p) * operand(value[q], q, s, p, depthwise);
        }
      }
    result_p:
      for (int p = 0; p < C::PE; p++) {
#pragma HLS UNROLL  // wires
        added[q][p] = tree[p];
      }
    }
  }

  // For operations without weights: channel by channel, lane p of the tile gets the value of its
  // own channel when that is in the current group of SIMD channels.
  void spread(const typename C::value_t value[C::PIXELS][C::WINDOW * BLOCK_CODES],
              typename C::block_t group, Count<31> align, typename C::channel_t first_channel,
              typename C::channel_t channels, acc_t added[C::PIXELS][C::PE]) const {
#pragma HLS INLINE
  spread_q:
    for (int q = 0; q < C::PIXELS; q++) {
#pragma HLS UNROLL  // one row of multiplexers each
    spread_p:
      for (int p = 0; p < C::PE; p++) {
#pragma HLS UNROLL  // a multiplexer each
        const typename C::channel_t channel = first_channel + p;
        const bool here = p / C::SIMD == group && channel >= 0 && channel < channels;
        added[q][p] = here ? shift_left(tree_t(value[q][p % C::SIMD]), int(align)) : tree_t(0);
      }
    }
  }

  // Adds what a cycle has. Where a group of pixels begins, to the biases or to where the chunk of
  // channels before left off; where a column of a depthwise layer does, to sums that move. All that
  // goes round from cycle to cycle is here.
  void next(bool begins, bool moves, bool first_chunk, const BiasTile<C>& bias,
            const SumGroup<C>& before, const acc_t added[C::PIXELS][C::PE]) {
#pragma HLS INLINE
  next_q:
    for (int q = 0; q < C::PIXELS; q++) {
#pragma HLS UNROLL  // registers
    next_p:
      for (int p = 0; p < C::PE; p++) {
#pragma HLS UNROLL  // an accumulator each; upwards, so that a sum moves before its place is taken
        const bool from_above = begins && moves && q == 0 && p + BLOCK_CODES < C::PE;
        const acc_t first = first_chunk ? bias.start[p] : before.sum[q * C::PE + p];
        const acc_t beside = acc_[q][(p + BLOCK_CODES) % C::PE];
        acc_[q][p] = (from_above ? beside : begins ? first : acc_[q][p]) + added[q][p];
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
  // What multiplier (s, p) of pixel q multiplies. Weights of kernel rows that do not exist are 0.
  static typename C::value_t operand(const typename C::value_t value[C::WINDOW * BLOCK_CODES],
                                     int q, int s, int p, bool depthwise) {
#pragma HLS INLINE
    static_assert(
        C::KERNEL_ROWS <= C::SIMD && C::KERNEL_ROWS <= C::WINDOW,
        "KERNEL_ROWS must be SIMD and WINDOW at most: each row has multipliers and blocks");
    const bool channel = depthwise && q == 0 && s < C::KERNEL_ROWS;
    return channel ? value[s * BLOCK_CODES % (C::WINDOW * BLOCK_CODES) + p % BLOCK_CODES]
                   : value[s];
  }

  acc_t acc_[C::PIXELS][C::PE];
};

#endif  // MAC_ARRAY_HPP
