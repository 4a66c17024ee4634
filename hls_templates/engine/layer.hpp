// SPDX-License-Identifier: Apache-2.0
// What all processes share: constants of the formats, the counters, and Digit, of which their flat
// loops are made. LayerDesc, a row of the layer table, is in layer_desc.hpp; what each process gets
// of it is in work.hpp.
#ifndef LAYER_HPP
#define LAYER_HPP

#include <cstdint>

#include "ap_int.h"
#include "layer_desc.hpp"

// Bits of a 64-bit bus word; addresses count words.
const int WORD_BITS = 64;
const int WORD_BYTES = 8;
// Channels of a pixel block: 8 codes of T bits are exactly T bytes.
const int BLOCK_CODES = 8;
static_assert(WORD_BITS == 8 * WORD_BYTES, "a word must have 8 bits in each of its bytes");

// Entries of a normalisation table: 32 per octave of a sum of squares below 2^36 (docs/formats.md).
const int LRN_POINTS = 32;
const int LRN_POINTS_LOG2 = 5;
const int LRN_ENTRIES = 1025;
static_assert(LRN_POINTS == 1 << LRN_POINTS_LOG2, "LRN_POINTS must be 2^LRN_POINTS_LOG2");
static_assert(LRN_ENTRIES == LRN_POINTS * (36 - LRN_POINTS_LOG2 + 1) + 1,
              "LRN_ENTRIES must reach 2^36 and have one more point");
// Places, down and across, that a pixel may be stored at.
const int MAX_UPSCALE = 16;
// Windows whose average leaves padding out may have up to so many elements.
const int MAX_COUNT = 64;
// Words that co-simulation hands over at each memory port, the test bench's buffers at least.
const int COSIM_WORDS = 1 << 20;

// What the engine counts, in the order of the AXI-Lite registers; iterations of each process's
// loop in which it has something to do, one clock cycle each at initiation interval 1.
enum Counter {
  COUNT_BYTES_READ,
  COUNT_BYTES_WRITTEN,
  COUNT_BYTES_WEIGHTS,
  COUNT_CYCLES,  // of the busiest process
  COUNT_LOAD,
  COUNT_READ,
  COUNT_UNPACK,
  COUNT_COMPUTE,
  COUNT_FINISH,
  COUNT_POOL,
  COUNT_PACK,
  COUNT_WRITE,
  COUNTERS
};

// Bits of the numbers 0 .. LAST.
template <uint32_t LAST>
struct Bits {
  static const int COUNT = 1 + Bits<LAST / 2>::COUNT;
};
template <>
struct Bits<0> {
  static const int COUNT = 1;
};
template <>
struct Bits<1> {
  static const int COUNT = 1;
};

// A number 0 .. LAST, as wide as that: what runs round in a loop, or steers one. A fast simulation
// takes native integers.
#ifdef CSIM_FAST
template <uint32_t LAST>
using Count = int32_t;
#else
template <uint32_t LAST>
using Count = ap_uint<Bits<LAST>::COUNT>;
#endif

// A word's address: DRAM ports reach 4 GiB at most. What lies before a buffer wraps round.
#ifdef CSIM_FAST
typedef uint32_t addr_t;
#else
typedef ap_uint<29> addr_t;
#endif

// Counts 0, 1, .. limit - 1 and again from 0. That it stands at its last value is found out one
// step before, so that a step is one comparison beside one addition and never one behind the other.
template <class T>
class Digit {
 public:
  // limit: 1 or more.
  void start(T limit) {
#pragma HLS INLINE
    value = 0;
    single_ = limit == 1;
    last = single_;
    before_last_ = T(limit - 2);
  }

  // One step on where `enable`; whether it went back to 0.
  bool step(bool enable = true) {
#pragma HLS INLINE
    const bool carry = enable && last;
    if (enable) {
      const T next = last ? T(0) : T(value + 1);
      last = last ? single_ : value == before_last_;
      value = next;
    }
    return carry;
  }

  T value;
  bool last;

 private:
  T before_last_;
  bool single_;
};

// How the codes of one feature map are made and read.
struct CodeSettings {
  Count<2> scheme;  // enum Scheme
  Count<15> shift;
  Count<1 << 15> half;  // half a step
  Count<16> bits;
  bool is_signed;
};

// v * 2^s. Plain << is undefined for negative native integers before C++20; ap_int defines it.
inline int32_t shift_left(int32_t v, int s) {
  return int32_t(uint32_t(v) << s);
}
inline int64_t shift_left(int64_t v, int s) {
  return int64_t(uint64_t(v) << s);
}
template <class T>
T shift_left(T v, int s) {
#pragma HLS INLINE
  return v << s;
}

template <class T>
T min_of(T a, T b) {
#pragma HLS INLINE
  return a < b ? a : b;
}
template <class T>
T max_of(T a, T b) {
#pragma HLS INLINE
  return a > b ? a : b;
}

#endif  // LAYER_HPP
