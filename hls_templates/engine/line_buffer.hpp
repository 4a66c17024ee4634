// SPDX-License-Identifier: Apache-2.0
// Line buffer: a ring of input rows as packed codes, written one pixel block a cycle, read at
// PIXELS*G places at once (G = SIMD/8), both in the same cycle. Rows follow each other in the order
// in which they are read, image by image; within a row the order is [column][block], chunk_blocks
// entries a column.
//
// The G blocks of a cycle may belong to different taps and so lie anywhere: each has a copy of the
// whole buffer of its own, with one write and one read port, which is what a block RAM has.
#ifndef LINE_BUFFER_HPP
#define LINE_BUFFER_HPP

#include "work.hpp"

// All copies hold the same, so that a simulation needs but one.
template <class C>
struct LineCopies {
#ifdef __SYNTHESIS__
  static const int COUNT = C::WINDOW + (C::PIXELS - 1) * C::G;  // blocks that are read at once
#else
  static const int COUNT = 1;
#endif
};

// The low bits of eight codes are in every entry; the other bits of wide codes, as the network's
// input has them, in a memory that is only as deep as the layers with such codes need.
template <class C>
struct LowBlock {
  typename C::low_t code[BLOCK_CODES];
};
template <class C>
struct HighBlock {
  typename C::high_t code[BLOCK_CODES];
};

// Stores a block in all copies.
template <class C>
void store_block(const CodeBlock<C>& block, typename C::entry_t at, bool wide,
                 LowBlock<C> low[LineCopies<C>::COUNT][C::LINE_BLOCKS],
                 HighBlock<C> high[LineCopies<C>::COUNT][C::LINE_HIGH_BLOCKS]) {
#pragma HLS INLINE
  static_assert(C::LINE_LOW_BITS >= 1 && C::LINE_LOW_BITS <= C::CODE_BITS,
                "LINE_LOW_BITS must be from 1 to CODE_BITS");
  static_assert(8 * sizeof(typename C::low_t) >= C::LINE_LOW_BITS,
                "low_t must hold LINE_LOW_BITS bits");
  static_assert(8 * sizeof(typename C::high_t) >= C::CODE_BITS - C::LINE_LOW_BITS,
                "high_t must hold CODE_BITS - LINE_LOW_BITS bits");
  static_assert(C::LINE_HIGH_BLOCKS <= C::LINE_BLOCKS,
                "LINE_HIGH_BLOCKS must be LINE_BLOCKS at most: entries have one number in both");
  LowBlock<C> lower;
  HighBlock<C> upper;
store_split:
  for (int s = 0; s < BLOCK_CODES; s++) {
#pragma HLS UNROLL  // wiring
    lower.code[s] = typename C::low_t(uint32_t(block.code[s]) & ((1u << C::LINE_LOW_BITS) - 1));
    upper.code[s] = typename C::high_t(uint32_t(block.code[s]) >> C::LINE_LOW_BITS);
  }
store_copy:
  for (int k = 0; k < LineCopies<C>::COUNT; k++) {
#pragma HLS UNROLL  // every copy
    low[k][at] = lower;
    if (wide) high[k][at] = upper;
  }
}

// Place of a group of pixels in the input: row and column of the first pixel's window corner, and
// that corner's entry in the line buffer (possibly before the ring's first).
template <class C>
struct Corner {
  typename C::y_t y;
  typename C::x_t x;
  typename C::entry_t entry;
};

#endif  // LINE_BUFFER_HPP
