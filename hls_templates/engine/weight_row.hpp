// SPDX-License-Identifier: Apache-2.0
// The weights that one cycle consumes: for each of SIMD input channels the larger operands of
// PE/SHARED multipliers. One memory word, written whole. An ap_uint a channel, because one has 1024
// bits at most (UG1399).
//
// Two output channels k and k + PE/2 may share a multiplier (C::SHARED is 2, a layer is "paired"):
//   (w[k] + w[k + PE/2] * 2^PAIR_SHIFT) * y  =  w[k] * y  +  (w[k + PE/2] * y) * 2^PAIR_SHIFT
// The larger operand is wiring where what is stored is w[k] and w[k + PE/2] - (w[k] < 0), both of
// PAIR_BITS bits: w[k] with its sign repeated below bit PAIR_SHIFT, the other one above. No weight
// may be -2^(PAIR_BITS - 1).
#ifndef WEIGHT_ROW_HPP
#define WEIGHT_ROW_HPP

#include "layer.hpp"

#ifdef CSIM_FAST
// A fast simulation multiplies weight by weight and keeps them as they are.
template <class C>
class WeightRow {
 public:
  static const int MULTIPLIERS = C::PE / C::SHARED;  // of an input channel
  static_assert(MULTIPLIERS * C::PACKED_BITS <= 1024,
                "PE weights of an input channel must have 1024 bits at most");
  typedef typename C::weight_t weight_t;
  weight_t get(int s, int p) const { return weight_[s * C::PE + p]; }
  void set(int s, int k, weight_t lower, weight_t upper, bool paired) {
    weight_[s * C::PE + k] = lower;
    if (C::SHARED == 2) weight_[s * C::PE + k + C::PE / 2] = paired ? upper : weight_t(0);
  }

 private:
  weight_t weight_[C::SIMD * C::PE];
};
#else
template <class C>
class WeightRow {
 public:
  static const int MULTIPLIERS = C::PE / C::SHARED;  // of an input channel
  static_assert(MULTIPLIERS * C::PACKED_BITS <= 1024,
                "PE weights of an input channel must have 1024 bits at most");
  typedef typename C::weight_t weight_t;
  typedef ap_int<C::PACKED_BITS> stored_t;

  // The weight of output channel p, where each has a multiplier of its own.
  weight_t get(int s, int p) const {
#pragma HLS INLINE
    return weight_t(stored(s, p));
  }

  // Of the multiplier that output channels k and k + PE/2 share.
  typename C::operand_t operand(int s, int k, bool paired) const {
#pragma HLS INLINE
    const stored_t both = stored(s, k);
    ap_int<C::PAIR_BITS> lower, upper;
    lower.range(C::PAIR_BITS - 1, 0) = both.range(C::PAIR_BITS - 1, 0);
    upper.range(C::PAIR_BITS - 1, 0) = both.range(2 * C::PAIR_BITS - 1, C::PAIR_BITS);
    const ap_int<C::PAIR_SHIFT> below = lower;  // repeats the sign
    typename C::operand_t joined;
    joined.range(C::PAIR_SHIFT - 1, 0) = below.range(C::PAIR_SHIFT - 1, 0);
    joined.range(C::PAIR_SHIFT + C::PAIR_BITS - 1, C::PAIR_SHIFT) =
        upper.range(C::PAIR_BITS - 1, 0);
    return paired ? joined : typename C::operand_t(both);
  }

  // The weights of output channels k and, where they share a multiplier, k + PE/2.
  void set(int s, int k, weight_t lower, weight_t upper, bool paired) {
#pragma HLS INLINE
    const int low = k * C::PACKED_BITS;
    stored_t both = lower;
    if (C::SHARED == 2 && paired) {
      const ap_int<C::PACKED_BITS / C::SHARED> above = upper - weight_t(lower < 0 ? 1 : 0);
      both.range(C::PACKED_BITS - 1, C::PAIR_BITS) =
          ap_int<C::PACKED_BITS - C::PAIR_BITS>(above).range(C::PACKED_BITS - C::PAIR_BITS - 1, 0);
    }
    part_[s].range(low + C::PACKED_BITS - 1, low) = both.range(C::PACKED_BITS - 1, 0);
  }

 private:
  stored_t stored(int s, int k) const {
#pragma HLS INLINE
    const int low = k * C::PACKED_BITS;
    stored_t both;
    both.range(C::PACKED_BITS - 1, 0) = part_[s].range(low + C::PACKED_BITS - 1, low);
    return both;
  }

  ap_uint<MULTIPLIERS * C::PACKED_BITS> part_[C::SIMD];
};
#endif

#endif  // WEIGHT_ROW_HPP
