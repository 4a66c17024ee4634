// SPDX-License-Identifier: Apache-2.0
// Local response normalisation and average pool, as the finish process needs them. Both multiply
// the accumulator by a fixed-point factor before it is requantized (docs/formats.md, 2.7 and 2.8).
#ifndef NORMALIZE_HPP
#define NORMALIZE_HPP

#include "layer.hpp"

// Factor for a sum of squares q: table points 32 per octave, linear in between.
//   e = max(0, floor(log2 q) - 5), i = 32 e + (q >> e), factor = t[i] - (((t[i] - t[i+1]) * r) >>
//   e)
template <class C>
int32_t lrn_factor(uint64_t q, int table) {
#pragma HLS INLINE
  int e = 0;
lrn_octave:
  for (int k = 1; k < LRN_ENTRIES / LRN_POINTS - 1; k++) {
#pragma HLS UNROLL  // a priority encoder
    if (q >> (k + LRN_POINTS_LOG2)) e = k;
  }
  const int32_t point = int32_t(q >> e);
  const int64_t rest = int64_t(q - (uint64_t(point) << e));
  const int32_t left = C::lrn(table, LRN_POINTS * e + point);
  const int32_t right = C::lrn(table, LRN_POINTS * e + point + 1);
  const int64_t part = int64_t(left - right) * rest;
#pragma HLS BIND_OP variable = part op = mul impl = fabric  // the array takes the DSP blocks
  return left - int32_t(part >> e);
}

// Sum of the squares of the `size` channels around lane `at`.
template <class C>
uint64_t sum_of_squares(const typename C::acc_t lane[C::PE], int at, int size) {
#pragma HLS INLINE
  static_assert(C::LRN_REACH <= BLOCK_CODES, "LRN_REACH must be 8 at most, a plane of neighbours");
  uint64_t sum = 0;
  const int before = (size - 1) / 2;
lrn_window:
  for (int k = -C::LRN_REACH; k <= C::LRN_REACH; k++) {
#pragma HLS UNROLL  // a multiplier each; LRN_REACH is half the largest window, a plane at most
    // An accumulator holds one decoded value.
    const typename C::value_t value =
        at + k >= 0 && at + k < C::PE ? typename C::value_t(lane[at + k]) : typename C::value_t(0);
    const int64_t square = int64_t(value) * int64_t(value);
#pragma HLS BIND_OP variable = square op = mul impl = fabric  // the array takes the DSP blocks
    if (k >= -before && k <= size - 1 - before) sum += uint64_t(square);
  }
  return sum;
}

// Elements of an average window of `kernel` from `first` on that lie inside 0 .. size-1.
inline int32_t inside_count(int32_t first, int32_t kernel, int32_t size) {
  return min_of(first + kernel, size) - max_of(first, 0);
}

#endif  // NORMALIZE_HPP
