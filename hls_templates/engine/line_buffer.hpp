// SPDX-License-Identifier: Apache-2.0
// Line buffer: a ring of input rows as packed codes, written one pixel block a cycle, read at
// PIXELS*G places at once (G = SIMD/8), both in the same cycle. Row y of image n is the
// (n*rows_used + y)-th row ever written and lies in ring slot (that number modulo ring_rows);
// within a row the order is [column][block], chunk_blocks entries a column.
//
// The G blocks of a cycle may belong to different taps and so lie anywhere: each has a copy of the
// whole buffer of its own, with one write and one read port, which is what a block RAM has.
#ifndef LINE_BUFFER_HPP
#define LINE_BUFFER_HPP

#include "layer.hpp"
#include "packing.hpp"

// All copies hold the same, so that a simulation needs but one.
template <class C>
struct LineCopies {
#ifdef __SYNTHESIS__
  static const int COUNT = C::G * C::PIXELS;
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

// Whether a layer's codes have more than the low bits.
template <class C>
bool has_wide_codes(const LayerDesc& d) {
#pragma HLS INLINE
  return C::CODE_BITS > C::LINE_LOW_BITS && max_of(d.in_bits, d.in2_bits) > C::LINE_LOW_BITS;
}

// The writing side.
template <class C>
class LineWriter {
  static_assert(C::LINE_LOW_BITS >= 1 && C::LINE_LOW_BITS <= C::CODE_BITS,
                "LINE_LOW_BITS must be from 1 to CODE_BITS");
  static_assert(8 * sizeof(typename C::low_t) >= C::LINE_LOW_BITS,
                "low_t must hold LINE_LOW_BITS bits");
  static_assert(8 * sizeof(typename C::high_t) >= C::CODE_BITS - C::LINE_LOW_BITS,
                "high_t must hold CODE_BITS - LINE_LOW_BITS bits");
  static_assert(C::LINE_HIGH_BLOCKS <= C::LINE_BLOCKS,
                "LINE_HIGH_BLOCKS must be LINE_BLOCKS at most: entries have one number in both");

 public:
  // An add has two sources: the second's blocks lie behind the first's, filled up to whole groups.
  LineWriter(const LayerDesc& d, const Pass& pass, int32_t slot)
      : column_(d.chunk_blocks),
        row_(d.in_width * d.chunk_blocks),
        ring_(d.ring_rows * d.in_width * d.chunk_blocks),
        width_(d.in_width),
        rows_left_(pass.images * d.rows_used - pass.skip_rows),
        next_blocks_(pass.next_blocks),
        start_(slot * row_),
        at_(start_),
        x_(0),
        block_(0),
        // All rows of this pass may be here already: what comes then is the next pass's.
        wide_(has_wide_codes<C>(d)),
        blocks_(rows_left_ > 0 ? pass.blocks : pass.next_blocks),
        second_((blocks_ + C::G - 1) / C::G * C::G),
        last_((d.sources - 1) * second_ + blocks_ - 1) {}

  // Stores the next block; blocks arrive row by row, plane by plane within a row. The address
  // grows by additions alone: a product would take DSP blocks that the multipliers need.
  void push(const CodeBlock<C>& block, LowBlock<C> low[LineCopies<C>::COUNT][C::LINE_BLOCKS],
            HighBlock<C> high[LineCopies<C>::COUNT][C::LINE_HIGH_BLOCKS]) {
#pragma HLS INLINE
    LowBlock<C> lower;
    HighBlock<C> upper;
  push_split:
    for (int s = 0; s < BLOCK_CODES; s++) {
#pragma HLS UNROLL  // wiring
      lower.code[s] = typename C::low_t(uint32_t(block.code[s]) & ((1u << C::LINE_LOW_BITS) - 1));
      upper.code[s] = typename C::high_t(uint32_t(block.code[s]) >> C::LINE_LOW_BITS);
    }
  push_copy:
    for (int k = 0; k < LineCopies<C>::COUNT; k++) {
#pragma HLS UNROLL  // every copy
      low[k][at_] = lower;
      if (wide_) high[k][at_] = upper;
    }
    const bool plane_end = x_ == width_ - 1;
    const bool row_end = plane_end && block_ == last_;
    const int32_t next_block = block_ == blocks_ - 1 ? second_ : block_ + 1;
    const int32_t next_start = start_ + row_ == ring_ ? 0 : start_ + row_;
    if (row_end) {
      start_ = next_start;
      at_ = next_start;
      block_ = 0;
      rows_left_--;
      if (rows_left_ == 0) {  // what follows belongs to the next pass; it has but one source
        blocks_ = next_blocks_;
        last_ = next_blocks_ - 1;
      }
    } else {
      at_ = plane_end ? start_ + next_block : at_ + column_;
      block_ = plane_end ? next_block : block_;
    }
    x_ = plane_end ? 0 : x_ + 1;
  }

 private:
  int32_t column_, row_, ring_, width_, rows_left_, next_blocks_;
  int32_t start_, at_, x_, block_;
  bool wide_;
  int32_t blocks_, second_, last_;
};

// Where one lane group stands in the list of (kernel row, kernel column, block), block fastest:
// the block, the tap's distance from the window's corner, and the entry's from the corner's.
struct Tap {
  int32_t block, x, y, entry;
};

// The walk of G lane groups over that list, G items a cycle, whatever taps they belong to; only
// the end of the list is filled up. For operations without weights a tap has a multiple of G
// blocks, so that all groups are at the same tap.
//   A cycle adds G to a number with the digits (y, x, block), so each digit carries at most once.
// Every comparison is with a constant of the pass and all are made at once; the two carries then
// choose what is added: one comparison, two multiplexers and one addition from cycle to cycle, and
// no table of items that would have to be written before a pass can begin.
template <class C>
class TapWalk {
 public:
  TapWalk(const LayerDesc& d, const Pass& pass) {
#pragma HLS ARRAY_PARTITION variable = first_ complete  // registers
    const int32_t blocks =
        d.op == OP_CONV ? pass.blocks : d.sources * ((pass.blocks + C::G - 1) / C::G) * C::G;
    const int32_t x_end = d.kernel_w * d.dilation_w;
    y_end_ = d.kernel_h * d.dilation_h;
    Tap at = {0, 0, 0, 0};
  walk_first:
    for (int g = 0; g < C::G; g++) {
#pragma HLS PIPELINE off  // once per pass: small before fast
      first_[g] = at;
      at.block++;
      if (at.block == blocks) {
        at.block = 0;
        at.x += d.dilation_w;
      }
      if (at.x == x_end) {
        at.x = 0;
        at.y += d.dilation_h;
      }
      at.entry = (at.y * d.in_width + at.x) * d.chunk_blocks + at.block;
    }
    // Now `at` is G as digits: what a cycle adds, less what a carry takes away.
    block_limit_ = blocks - at.block;
    x_limit_ = x_end - at.x;
    x_step_ = d.dilation_w;
    plain_ = at;
    block_carry_ = carried(at, blocks, d.dilation_w, 0, d.dilation_w * d.chunk_blocks - blocks);
    const int32_t row = (d.dilation_h * d.in_width - x_end) * d.chunk_blocks;
    x_carry_ = carried(at, 0, -x_end, d.dilation_h, row);
    both_carry_ = carried(block_carry_, 0, -x_end, d.dilation_h, row);
  }

  // Lane group g at the beginning of the list.
  Tap first(int g) const {
#pragma HLS INLINE
    return first_[g];
  }

  // The same lane group a cycle later.
  Tap next(const Tap& at) const {
#pragma HLS INLINE
    const bool block_carry = at.block >= block_limit_;
    const bool x_carry = at.x >= (block_carry ? x_limit_ - x_step_ : x_limit_);
    const Tap& by =
        x_carry ? (block_carry ? both_carry_ : x_carry_) : (block_carry ? block_carry_ : plain_);
    const Tap to = {at.block + by.block, at.x + by.x, at.y + by.y, at.entry + by.entry};
    return to;
  }

  // False behind the end of the list.
  bool exists(const Tap& at) const {
#pragma HLS INLINE
    return at.y < y_end_;
  }

 private:
  static Tap carried(const Tap& by, int32_t blocks, int32_t x, int32_t y, int32_t entries) {
    const Tap sum = {by.block - blocks, by.x + x, by.y + y, by.entry + entries};
    return sum;
  }

  int32_t y_end_, block_limit_, x_limit_, x_step_;
  Tap first_[C::G], plain_, block_carry_, x_carry_, both_carry_;
};

#endif  // LINE_BUFFER_HPP
