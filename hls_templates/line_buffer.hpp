// SPDX-License-Identifier: Apache-2.0
// Line buffer: a ring of input rows as packed codes, written one pixel block a cycle and read SIMD
// codes a cycle, both in the same cycle. Row y of image n is the (n*rows_used + y)-th row ever
// written and lies in ring slot (that number modulo ring_rows); within a row the order is
// [column][group], and the G = SIMD/8 blocks of a group lie in G banks.
#ifndef LINE_BUFFER_HPP
#define LINE_BUFFER_HPP

#include "layer.hpp"
#include "packing.hpp"

template <class C>
class LineBuffer {
 public:
  // An add has two sources: the second's blocks start at a bank of their own, behind the first's.
  LineBuffer(const LayerDesc& d, const Pass& pass)
      : ring_rows_(d.ring_rows),
        width_(d.in_width),
        groups_(pass.groups * d.sources),
        blocks_(pass.blocks),
        second_(pass.groups * C::G),
        last_((d.sources - 1) * second_ + pass.blocks - 1),
        write_slot_(0),
        write_block_(0),
        write_x_(0) {}

  // Stores the next block; blocks arrive row by row, plane by plane within a row.
  void push(const CodeBlock<C>& block, CodeBlock<C> memory[C::G][C::LINE_BLOCKS]) {
#pragma HLS INLINE
    const int32_t address = (write_slot_ * width_ + write_x_) * groups_ + write_block_ / C::G;
    memory[write_block_ % C::G][address] = block;
    const bool plane_end = write_x_ == width_ - 1;
    const bool row_end = plane_end && write_block_ == last_;
    const int32_t next_block = write_block_ == blocks_ - 1 ? second_ : write_block_ + 1;
    write_x_ = plane_end ? 0 : write_x_ + 1;
    write_block_ = row_end ? 0 : (plane_end ? next_block : write_block_);
    if (row_end) write_slot_ = write_slot_ == ring_rows_ - 1 ? 0 : write_slot_ + 1;
  }

  // Where the SIMD codes of group g at (slot, column x) are.
  int32_t address(int32_t slot, int32_t x, int32_t g) const {
#pragma HLS INLINE
    return (slot * width_ + x) * groups_ + g;
  }

 private:
  int32_t ring_rows_, width_, groups_, blocks_, second_, last_;
  int32_t write_slot_, write_block_, write_x_;
};

#endif  // LINE_BUFFER_HPP
