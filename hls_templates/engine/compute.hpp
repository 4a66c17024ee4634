// SPDX-License-Identifier: Apache-2.0
// Compute process: line buffer -> decoders (CE/CK) -> PIXELS x PE x SIMD multipliers ->
// accumulators. What any compute stage must do for a pass, whatever its arithmetic is inside:
//   pass_in  a Pass, handed on through pass_out.
//   blocks   the pass's input: the rows that input_part() lists, plane by plane within a row.
//   weight   [row][lane][output channel]: row r holds items r*G .. r*G+G-1 of the list of (kernel
//            row, kernel column, block), block fastest, eight lanes each; 0 behind its end.
//   bias     one per output channel; 0 for operations without weights.
//   sums     after the last chunk, for every output row of the convolution ceil(conv_width/PIXELS)
//            groups of PIXELS pixels, with acc[p] = (bias[p] << bias_shift) + sum over taps and
//            channels of weight * value.
//   count    cycles taken, as codegen/design/cost.py predicts them.
// Passes over further input channels go on from stored partial sums. While one output row is
// computed, the input rows that the next one needs are taken in: during the last one, those of the
// next image or of the next pass.
#ifndef COMPUTE_HPP
#define COMPUTE_HPP

#include "conversion_units.hpp"
#include "fifo.hpp"
#include "layer.hpp"
#include "line_buffer.hpp"
#include "mac_array.hpp"
#include "packing.hpp"

// Place of a group of pixels in the input: row and column of the first pixel's window corner, that
// corner's entry in the line buffer (possibly before the ring's first), the ring's entries, and
// columns and entries from one pixel to the next.
struct Corner {
  int32_t y, x, entry, ring, next_x, next_entry;
};

// Decoded values of the blocks that the lane groups stand at, for PIXELS neighbours; 0 outside the
// map and behind the end of the list.
template <class C>
void fetch(const LayerDesc& d, const LowBlock<C> low[LineCopies<C>::COUNT][C::LINE_BLOCKS],
           const HighBlock<C> high[LineCopies<C>::COUNT][C::LINE_HIGH_BLOCKS],
           const TapWalk<C>& walk, const Tap at[C::G], const Corner& corner,
           const Decoder<C>& decoder, const Decoder<C>& decoder2, bool second,
           typename C::value_t value[C::PIXELS][C::SIMD]) {
#pragma HLS INLINE
  const bool wide = has_wide_codes<C>(d);
fetch_q:
  for (int q = 0; q < C::PIXELS; q++) {
#pragma HLS UNROLL  // a read port each
  fetch_g:
    for (int g = 0; g < C::G; g++) {
#pragma HLS UNROLL  // a read port each
      const int32_t y = corner.y + at[g].y;
      const int32_t x = corner.x + q * corner.next_x + at[g].x;
      const bool inside =
          walk.exists(at[g]) && y >= 0 && y < d.in_height && x >= 0 && x < d.in_width;
      const int32_t ahead = corner.entry + q * corner.next_entry + at[g].entry;
      const int32_t entry = ahead >= corner.ring ? ahead - corner.ring : ahead;
      const int copy = (q * C::G + g) % LineCopies<C>::COUNT;
      const LowBlock<C>& lower = low[copy][inside ? entry : 0];
      const HighBlock<C>& upper = high[copy][inside && wide ? entry : 0];
    decode_s:
      for (int s = 0; s < BLOCK_CODES; s++) {
#pragma HLS UNROLL  // one CE/CK per lane; padding is the value 0
        const uint32_t bits =
            uint32_t(lower.code[s]) | (wide ? uint32_t(upper.code[s]) << C::LINE_LOW_BITS : 0);
        const typename C::code_t code = typename C::code_t(bits);
        const typename C::value_t decoded = second ? decoder2(code) : decoder(code);
        value[q][g * BLOCK_CODES + s] = inside ? decoded : typename C::value_t(0);
      }
    }
  }
}

// Adds the sums of a cycle; the first ones of a pixel start at the bias or at the chunk before's.
template <class C>
void accumulate(bool begin, bool first_chunk, const typename C::acc_t start[C::PE],
                const SumGroup<C>& before, const typename C::tree_t sum[C::PIXELS][C::PE],
                typename C::acc_t acc[C::PIXELS][C::PE]) {
#pragma HLS INLINE
accumulate_q:
  for (int q = 0; q < C::PIXELS; q++) {
#pragma HLS UNROLL  // registers
  accumulate_p:
    for (int p = 0; p < C::PE; p++) {
#pragma HLS UNROLL  // one accumulator each
      const typename C::acc_t base =
          begin ? (first_chunk ? start[p] : before.pixel[q].sum[p]) : acc[q][p];
      acc[q][p] = base + sum[q][p];
    }
  }
}

// The accumulators of a group of pixels as one word.
template <class C>
SumGroup<C> joined(const typename C::acc_t acc[C::PIXELS][C::PE]) {
#pragma HLS INLINE
  SumGroup<C> group;
joined_q:
  for (int q = 0; q < C::PIXELS; q++) {
#pragma HLS UNROLL  // wires
  joined_p:
    for (int p = 0; p < C::PE; p++) {
#pragma HLS UNROLL  // wires
      group.pixel[q].sum[p] = acc[q][p];
    }
  }
  return group;
}

template <class C>
void compute(const LayerDesc& d, Fifo<Pass>& pass_in, Fifo<Pass>& pass_out,
             Fifo<CodeBlock<C>>& blocks,
             const typename C::weight_t weight[C::WEIGHT_ROWS][C::SIMD][C::PE],
             const int32_t bias[C::PE], Fifo<SumGroup<C>>& sums, Fifo<count_t>& count) {
  typedef typename C::acc_t acc_t;
  static_assert(C::SIMD % BLOCK_CODES == 0, "SIMD must be a multiple of 8, the codes of a block");
  static_assert(C::G * BLOCK_CODES == C::SIMD, "G must be SIMD / 8, the blocks of a cycle");
  static LowBlock<C> low[LineCopies<C>::COUNT][C::LINE_BLOCKS];
#pragma HLS ARRAY_PARTITION variable = low complete dim = 1  // a read port per lane group
#pragma HLS AGGREGATE variable = low                         // eight codes in one memory word
  static HighBlock<C> high[LineCopies<C>::COUNT][C::LINE_HIGH_BLOCKS];
#pragma HLS ARRAY_PARTITION variable = high complete dim = 1  // a read port per lane group
#pragma HLS AGGREGATE variable = high                         // eight codes in one memory word
  static SumGroup<C> partial[C::PSUM_GROUPS];
#pragma HLS AGGREGATE variable = partial  // one wide memory word per group of pixels
  static int32_t next_slot;               // ring slot of the first row that this pass needs
  const Pass pass = pass_in.read();
  pass_out.write(pass);
  const Decoder<C> decoder(first_source(d));
  const Decoder<C> decoder2(second_source(d));  // of an add's second input
  const bool reuse = pass.input_parts == 0;     // a resident input that is there already
  int32_t image_slot = pass.skip_rows > 0 ? next_slot : 0;  // of the current image's row 0
  const int32_t write_slot = image_slot + pass.skip_rows;
  LineWriter<C> writer(d, pass, write_slot >= d.ring_rows ? write_slot - d.ring_rows : write_slot);
  const TapWalk<C> walk(d, pass);
  acc_t start[C::PE];
#pragma HLS ARRAY_PARTITION variable = start complete  // registers
bias_p:
  for (int p = 0; p < C::PE; p++) {
#pragma HLS UNROLL  // registers
    start[p] = shift_left(acc_t(bias[p]), d.bias_shift);
  }

  const int32_t row_entries = d.in_width * d.chunk_blocks;
  const int32_t row_blocks = d.in_width * pass.blocks * d.sources;
  const int32_t next_row_blocks = d.in_width * pass.next_blocks;
  const int32_t columns = (d.conv_width + C::PIXELS - 1) / C::PIXELS;
  const int32_t row_steps = columns * pass.steps;
  const int32_t source_groups = (pass.blocks + C::G - 1) / C::G;  // of an operation
  count_t total = 0;
  int32_t pixels = 0;               // groups of pixels done
  int32_t loaded = pass.skip_rows;  // rows of the current image in the ring, or on their way
compute_image:
  for (int32_t n = 0; n < pass.images; n++) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = C::MAX_IMAGES
    if (reuse) loaded = d.rows_used;
    const int32_t prefill = max_of(0, rows_needed(d, 0) - loaded) * row_blocks;
  prefill_block:
    for (int32_t i = 0; i < prefill; i++) {
#pragma HLS PIPELINE II = 1  // one block a cycle
#pragma HLS LOOP_TRIPCOUNT min = 0 max = C::LINE_BLOCKS
      writer.push(blocks.read(), low, high);
    }
    total += prefill;
    loaded = max_of(loaded, rows_needed(d, 0));
    int32_t base_y = 0;  // the first input row of the window that exists, and its ring slot
    int32_t base_slot = image_slot;
  compute_row:
    for (int32_t oy = 0; oy < d.conv_height; oy++) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = C::MAX_HEIGHT
      const int32_t top = oy * d.stride_h - d.pad_top;
      const int32_t new_base = max_of(base_y, min_of(top, d.rows_used));
      base_slot += new_base - base_y;
      if (base_slot >= d.ring_rows) base_slot -= d.ring_rows;
      base_y = new_base;
      // Rows to take in during this step: for the next output row, or for the first of the next
      // image or pass; in the last step of an image, also the rows no window needs.
      const bool last_row = oy == d.conv_height - 1;
      const bool last_image = n == pass.images - 1;
      const int32_t target = max_of(loaded, last_row ? d.rows_used : rows_needed(d, oy + 1));
      const bool next_image = last_row && !last_image && d.prefetch_next && !reuse;
      const int32_t next_rows =
          next_image ? rows_needed(d, 0) : (last_row && last_image ? pass.ahead_rows : 0);
      const int32_t loads =
          (target - loaded) * row_blocks + next_rows * (last_image ? next_row_blocks : row_blocks);
      const int32_t steps = max_of(loads, row_steps);
      Corner corner = {top,
                       -d.pad_left,
                       (base_slot + top - base_y) * row_entries - d.pad_left * d.chunk_blocks,
                       d.ring_rows * row_entries,
                       d.stride_w,
                       d.stride_w * d.chunk_blocks};
      int32_t step = 0;   // of the current group of pixels
      int32_t group = 0;  // of SIMD channels, in an operation
      Tap at[C::G];
#pragma HLS ARRAY_PARTITION variable = at complete  // registers
      acc_t acc[C::PIXELS][C::PE];
#pragma HLS ARRAY_PARTITION variable = acc complete dim = 0  // registers
    compute_step:
      for (int32_t i = 0; i < steps; i++) {
#pragma HLS PIPELINE II = 1                            // PIXELS*SIMD*PE multiply-adds a cycle
#pragma HLS DEPENDENCE variable = low inter false      // rows read are never those being written
#pragma HLS DEPENDENCE variable = high inter false     // nor here
#pragma HLS DEPENDENCE variable = partial inter false  // each group is read, later written, once
#pragma HLS LOOP_TRIPCOUNT min = 1 max = C::MAX_ROW_STEPS
        if (i < loads) writer.push(blocks.read(), low, high);
        if (i < row_steps) {
          const bool begin = step == 0;
          const bool end = step == pass.steps - 1;
        walk_g:
          for (int g = 0; g < C::G; g++) {
#pragma HLS UNROLL  // a cursor each
            at[g] = begin ? walk.first(g) : walk.next(at[g]);
          }
          const bool second = C::HAS_OPS && d.op != OP_CONV && group >= source_groups;
          typename C::value_t value[C::PIXELS][C::SIMD];
          typename C::tree_t sum[C::PIXELS][C::PE];
#pragma HLS ARRAY_PARTITION variable = value complete dim = 0  // registers
#pragma HLS ARRAY_PARTITION variable = sum complete dim = 0    // wires
          fetch<C>(d, low, high, walk, at, corner, decoder, decoder2, second, value);
          if (C::HAS_OPS && d.op != OP_CONV) {
            spread<C>(value, second ? group - source_groups : group,
                      second ? d.in2_align : d.in_align, pass.first_block * BLOCK_CODES,
                      d.out_channels, sum);
          } else {
            mac_array<C>(weight[step], value, sum);
          }
          accumulate<C>(begin, pass.first, start, partial[pass.first ? 0 : pixels], sum, acc);
          if (end) {
            const SumGroup<C> result = joined<C>(acc);
            if (pass.last) {
              sums.write(result);
            } else {
              partial[pixels] = result;
            }
            pixels++;
            corner.x += C::PIXELS * corner.next_x;
            corner.entry += C::PIXELS * corner.next_entry;
          }
          step = end ? 0 : step + 1;
          group = group == d.sources * source_groups - 1 ? 0 : group + 1;
        }
      }
      total += steps;
      loaded = last_row ? next_rows : target;
    }
    // The next image's row 0 lies behind this image's last row.
    image_slot = base_slot + d.rows_used - base_y;
    if (image_slot >= d.ring_rows) image_slot -= d.ring_rows;
  }
  next_slot = image_slot;
  count.write(total);
}

#endif  // COMPUTE_HPP
