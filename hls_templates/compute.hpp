// SPDX-License-Identifier: Apache-2.0
// Compute process: line buffer -> decoders (CE/CK) -> PE x SIMD multipliers -> accumulators.
// For every output pixel of the convolution: acc[p] = (bias[p] << bias_shift) + sum over the taps
// and groups of this pass; passes over further input channels go on from stored partial sums.
// While one output row is computed, the input rows that the next one needs are taken in.
#ifndef COMPUTE_HPP
#define COMPUTE_HPP

#include "conversion_units.hpp"
#include "fifo.hpp"
#include "layer.hpp"
#include "line_buffer.hpp"
#include "mac_array.hpp"
#include "packing.hpp"

// Input rows of one image that output row oy needs, counted from its first row.
inline int32_t rows_needed(const LayerDesc& d, int32_t oy) {
  const int32_t last = oy * d.stride_h - d.pad_top + (d.kernel_h - 1) * d.dilation_h;
  return max_of(0, min_of(last + 1, d.rows_used));
}

// The state of the walk over one output row: pixels, kernel taps, groups, innermost last.
struct TapCursor {
  int32_t ox, ky, kx, g;
};

template <class C>
void compute(const LayerDesc& d, Fifo<Pass>& pass_in, Fifo<Pass>& pass_out,
             Fifo<CodeBlock<C>>& blocks,
             const typename C::weight_t weight[C::WEIGHT_ROWS][C::SIMD][C::PE],
             const int32_t bias[C::PE], Fifo<SumVector<C>>& sums, Fifo<count_t>& count) {
  typedef typename C::acc_t acc_t;
  static CodeBlock<C> line[C::G][C::LINE_BLOCKS];
#pragma HLS ARRAY_PARTITION variable = line complete dim = 1  // one bank per block of a group
#pragma HLS AGGREGATE variable = line                         // eight codes in one memory word
  static SumVector<C> partial[C::PSUM_PIXELS];
#pragma HLS AGGREGATE variable = partial  // one wide memory word per pixel
  const Pass pass = pass_in.read();
  pass_out.write(pass);
  const Decoder<C> decoder(first_source(d));
  const Decoder<C> decoder2(second_source(d));  // of an add's second input
  LineBuffer<C> buffer(d, pass);
  acc_t start[C::PE];
#pragma HLS ARRAY_PARTITION variable = start complete  // registers
bias_p:
  for (int p = 0; p < C::PE; p++) {
#pragma HLS UNROLL  // registers
    start[p] = shift_left(acc_t(bias[p]), d.bias_shift);
  }

  const int32_t groups = pass.groups * d.sources;
  const int32_t row_blocks = d.in_width * pass.blocks * d.sources;
  const int32_t row_steps = d.conv_width * d.kernel_h * d.kernel_w * groups;
  count_t total = 0;
  int32_t pixel = 0;
  int32_t loaded = 0;      // rows of the current image in the ring, or on their way
  int32_t image_slot = 0;  // ring slot of the current image's row 0
compute_image:
  for (int32_t n = 0; n < pass.images; n++) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = C::MAX_IMAGES
    const int32_t prefill = max_of(0, rows_needed(d, 0) - loaded) * row_blocks;
  prefill_block:
    for (int32_t i = 0; i < prefill; i++) {
#pragma HLS PIPELINE II = 1  // one block a cycle
#pragma HLS LOOP_TRIPCOUNT min = 0 max = C::LINE_BLOCKS
      buffer.push(blocks.read(), line);
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
      // Rows to take in during this step: for the next output row, or for the next image's first;
      // in the last step of an image, also the rows no window needs.
      const bool last_row = oy == d.conv_height - 1;
      const bool ahead = last_row && d.prefetch_next && n < pass.images - 1;
      const int32_t target = last_row ? d.rows_used : rows_needed(d, oy + 1);
      const int32_t next_rows = ahead ? rows_needed(d, 0) : 0;
      const int32_t loads = (target - loaded + next_rows) * row_blocks;
      const int32_t steps = max_of(loads, row_steps);
      TapCursor at = {0, 0, 0, 0};
      int32_t weight_row = 0;
      acc_t acc[C::PE];
#pragma HLS ARRAY_PARTITION variable = acc complete  // registers
    compute_step:
      for (int32_t i = 0; i < steps; i++) {
#pragma HLS PIPELINE II = 1                            // SIMD*PE multiply-accumulates a cycle
#pragma HLS DEPENDENCE variable = line inter false     // rows read are never those being written
#pragma HLS DEPENDENCE variable = partial inter false  // each pixel is read, later written, once
#pragma HLS LOOP_TRIPCOUNT min = 1 max = C::MAX_ROW_STEPS
        if (i < loads) buffer.push(blocks.read(), line);
        if (i < row_steps) {
          const int32_t y = top + at.ky * d.dilation_h;
          const int32_t x = at.ox * d.stride_w - d.pad_left + at.kx * d.dilation_w;
          const bool inside = y >= 0 && y < d.in_height && x >= 0 && x < d.in_width;
          const int32_t ahead_slot = base_slot + y - base_y;
          const int32_t slot = ahead_slot >= d.ring_rows ? ahead_slot - d.ring_rows : ahead_slot;
          const int32_t address = inside ? buffer.address(slot, x, at.g) : 0;
          const bool second = C::HAS_OPS && at.g >= pass.groups;
          typename C::value_t value[C::SIMD];
#pragma HLS ARRAY_PARTITION variable = value complete  // registers
        decode_s:
          for (int s = 0; s < C::SIMD; s++) {
#pragma HLS UNROLL  // one CE/CK per lane; padding is the value 0
            const typename C::code_t code = line[s / BLOCK_CODES][address].code[s % BLOCK_CODES];
            const typename C::value_t decoded = second ? decoder2(code) : decoder(code);
            value[s] = inside ? decoded : typename C::value_t(0);
          }
          typename C::tree_t sum[C::PE];
#pragma HLS ARRAY_PARTITION variable = sum complete  // wires
          if (C::HAS_OPS && d.op != OP_CONV) {
            spread<C>(value, second ? at.g - pass.groups : at.g, second ? d.in2_align : d.in_align,
                      pass.first_block * BLOCK_CODES, d.out_channels, sum);
          } else {
            mac_array<C>(weight[weight_row], value, sum);
          }

          const bool first_tap = at.g == 0 && at.ky == 0 && at.kx == 0;
          const bool group_end = at.g == groups - 1;
          const bool kernel_row_end = group_end && at.kx == d.kernel_w - 1;
          const bool pixel_end = kernel_row_end && at.ky == d.kernel_h - 1;
          if (first_tap) {
          start_p:
            for (int p = 0; p < C::PE; p++) {
#pragma HLS UNROLL  // registers
              acc[p] = pass.first ? start[p] : partial[pixel].sum[p];
            }
          }
        accumulate_p:
          for (int p = 0; p < C::PE; p++) {
#pragma HLS UNROLL  // one accumulator each
            acc[p] += sum[p];
          }
          if (pixel_end) {
            SumVector<C> result;
          result_p:
            for (int p = 0; p < C::PE; p++) {
#pragma HLS UNROLL  // wires
              result.sum[p] = acc[p];
            }
            if (pass.last) {
              sums.write(result);
            } else {
              partial[pixel] = result;
            }
            pixel++;
          }
          weight_row = pixel_end || d.op != OP_CONV ? 0 : weight_row + 1;
          at.g = group_end ? 0 : at.g + 1;
          at.kx = kernel_row_end ? 0 : (group_end ? at.kx + 1 : at.kx);
          at.ky = pixel_end ? 0 : (kernel_row_end ? at.ky + 1 : at.ky);
          at.ox = pixel_end ? at.ox + 1 : at.ox;
        }
      }
      total += steps;
      loaded = last_row ? next_rows : target;
    }
    // The next image's row 0 lies behind this image's last row.
    image_slot = base_slot + d.rows_used - base_y;
    if (image_slot >= d.ring_rows) image_slot -= d.ring_rows;
  }
  count.write(total);
}

#endif  // COMPUTE_HPP
