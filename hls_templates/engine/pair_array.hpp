// SPDX-License-Identifier: Apache-2.0
// The compute stage of two products a multiplier: output channels k and k + PE/2 share one
// (weight_row.hpp). The low PAIR_SHIFT bits of a double product are the lower product; where that
// is negative the bits above are the upper product less 1. So both halves are summed as they are,
// and the negative ones counted: no product has an adder of its own.
// A layer whose weights or values are too wide has one weight a multiplier and PE/2 output channels
// a tile. The same trees sum the halves of its products, which are joined behind them.
#ifndef PAIR_ARRAY_HPP
#define PAIR_ARRAY_HPP

#include "mac_array.hpp"

template <class C>
class PairStage : public MacStage<C> {
  static_assert(C::PE % (2 * BLOCK_CODES) == 0,
                "PE must be a multiple of 16: half a tile is planes");
  static_assert(C::PACKED_BITS >= 2 * C::PAIR_BITS && C::PACKED_BITS >= C::WEIGHT_BITS,
                "PACKED_BITS must hold two weights of PAIR_BITS, or one of WEIGHT_BITS");
  static_assert(C::PAIR_SHIFT + C::PAIR_BITS >= C::PACKED_BITS,
                "a multiplier's larger operand must hold what is stored of it");

 public:
#ifndef CSIM_FAST  // a fast simulation multiplies weight by weight: those that do not exist are 0
  // Sums of a cycle's products.
  void step(const WeightRow<C>& weight,
            const typename C::value_t value[C::PIXELS][C::WINDOW * BLOCK_CODES], bool paired,
            bool depthwise, typename C::acc_t added[C::PIXELS][C::PE]) const {
#pragma HLS INLINE
    const int DOUBLE = C::PAIR_SHIFT + C::PAIR_BITS + C::VALUE_BITS;
    const int HALF = C::PE / 2;
    // Both are exact, and end before the accumulators: an adder there is all that goes round.
    typedef ap_int<DOUBLE - C::PAIR_SHIFT + Bits<C::SIMD>::COUNT> upper_t;
    typedef ap_int<DOUBLE + Bits<C::SIMD>::COUNT> sum_t;
  pair_q:
    for (int q = 0; q < C::PIXELS; q++) {
#pragma HLS UNROLL  // one array each
    pair_k:
      for (int k = 0; k < HALF; k++) {
#pragma HLS UNROLL  // two output channels each
        ap_int<C::PAIR_SHIFT + Bits<C::SIMD>::COUNT> low = 0;
        upper_t high = 0;
        Count<C::SIMD> negative = 0;
      pair_s:
        for (int s = 0; s < C::SIMD; s++) {
#pragma HLS UNROLL  // two adder trees, and one that counts, after expression balancing
          const typename C::value_t own_value = this->operand(value[q], q, s, k, depthwise);
          const ap_int<DOUBLE> product = weight.operand(s, k, paired) * own_value;
#pragma HLS BIND_OP variable = product op = mul impl = dsp  // both operands fit one DSP block
          ap_int<C::PAIR_SHIFT> lower;
          ap_int<DOUBLE - C::PAIR_SHIFT> upper;
          lower.range(C::PAIR_SHIFT - 1, 0) = product.range(C::PAIR_SHIFT - 1, 0);
          upper.range(DOUBLE - C::PAIR_SHIFT - 1, 0) = product.range(DOUBLE - 1, C::PAIR_SHIFT);
          low += lower;
          high += upper;
          negative += lower < 0 ? 1 : 0;
        }
        const upper_t above = high + negative;
        const sum_t joined = sum_t(above) << C::PAIR_SHIFT;
        const sum_t own = low + (paired ? sum_t(0) : joined);
        added[q][k] = own;
        added[q][k + HALF] = paired ? above : upper_t(0);
      }
    }
  }
#endif
};

// The stage of an engine, by how many output channels share a multiplier.
template <class C, int SHARED>
struct StageOf {
  typedef MacStage<C> type;
};
template <class C>
struct StageOf<C, 2> {
  typedef PairStage<C> type;
};

#endif  // PAIR_ARRAY_HPP
