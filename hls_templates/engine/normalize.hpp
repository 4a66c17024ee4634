// SPDX-License-Identifier: Apache-2.0
// Local response normalisation and average pool, as the finish process needs them. Both multiply
// the accumulator by a fixed-point factor before it is requantized (docs/formats.md, 2.7 and 2.8).
#ifndef NORMALIZE_HPP
#define NORMALIZE_HPP

#include "fifo.hpp"
#include "program.hpp"

// round(2^24 / n): averages over n elements of a window.
const int32_t RECIPROCAL[MAX_COUNT + 1] = {
    0,       16777216, 8388608, 5592405, 4194304, 3355443, 2796203, 2396745, 2097152, 1864135,
    1677722, 1525201,  1398101, 1290555, 1198373, 1118481, 1048576, 986895,  932068,  883011,
    838861,  798915,   762601,  729444,  699051,  671089,  645278,  621378,  599186,  578525,
    559241,  541201,   524288,  508400,  493448,  479349,  466034,  453438,  441506,  430185,
    419430,  409200,   399458,  390168,  381300,  372827,  364722,  356962,  349525,  342392,
    335544,  328965,   322639,  316551,  310689,  305040,  299593,  294337,  289262,  284360,
    279620,  275036,   270600,  266305,  262144};

// The points of a normalisation, even and odd ones apart: two neighbours are read in one cycle.
template <class C>
struct LrnFactors {
  static const int WORDS = C::HAS_LRN ? LRN_WORDS : 1;
  int32_t even[WORDS], odd[WORDS];
};

// Each requantizer with a factor has its own; all hold the same, so that a simulation needs but
// one.
template <class C>
struct LrnCopies {
#ifdef __SYNTHESIS__
  static const int COUNT = C::FACTOR_UNITS;
#else
  static const int COUNT = 1;
#endif
};

template <class C>
void load_factors(Fifo<typename C::bus_t>& tables, LrnFactors<C> factors[LrnCopies<C>::COUNT]) {
#pragma HLS INLINE
load_point:
  for (Count<LrnFactors<C>::WORDS> i = 0; i < LrnFactors<C>::WORDS; i++) {
#pragma HLS PIPELINE II = 1  // two points a cycle
    const uint64_t word = uint64_t(tables.read());
  copy_point:
    for (int k = 0; k < LrnCopies<C>::COUNT; k++) {
#pragma HLS UNROLL  // into all copies at once
      factors[k].even[i] = low_half(word);
      factors[k].odd[i] = high_half(word);
    }
  }
}

// Factor for a sum of squares q: table points 32 per octave, linear in between.
//   e = max(0, floor(log2 q) - 5), i = 32 e + (q >> e), factor = t[i] - (((t[i] - t[i+1]) * r) >>
//   e)
template <class C>
int32_t lrn_factor(uint64_t q, const LrnFactors<C>& factors) {
#pragma HLS INLINE
  int e = 0;
lrn_octave:
  for (int k = 1; k < LRN_ENTRIES / LRN_POINTS - 1; k++) {
#pragma HLS UNROLL  // a priority encoder
    if (q >> (k + LRN_POINTS_LOG2)) e = k;
  }
  const int32_t point = int32_t(q >> e);
  const int64_t rest = int64_t(q - (uint64_t(point) << e));
  const int32_t at = LRN_POINTS * e + point;
  const int32_t even = factors.even[(at + 1) / 2], odd = factors.odd[at / 2];
  const int32_t left = at % 2 ? odd : even, right = at % 2 ? even : odd;
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
inline Count<MAX_COUNT> inside_count(int32_t first, int32_t kernel, int32_t size) {
#pragma HLS INLINE
  return Count<MAX_COUNT>(min_of(first + kernel, size) - max_of(first, 0));
}

// 2^24 over the elements of a window of so many rows and columns, MAX_COUNT of them at most.
inline int32_t reciprocal_of(Count<MAX_COUNT> rows, Count<MAX_COUNT> columns) {
#pragma HLS INLINE
#pragma HLS BIND_STORAGE variable = RECIPROCAL type = rom_1p impl = lutram  // 65 words
  const Count<(1 << 14) - 1> elements = rows * columns;
#pragma HLS BIND_OP variable = elements op = mul impl = fabric  // the array takes the DSP blocks
  return RECIPROCAL[int(elements)];
}

#endif  // NORMALIZE_HPP
