// SPDX-License-Identifier: Apache-2.0
// Finish process: requantize and encode (QE/QK) the accumulators of each pixel, QK_UNITS lanes a
// cycle: one unit serves many lanes, because a pixel takes many cycles to accumulate. The PIXELS
// pixels of a group follow each other; those beyond the end of a row are dropped. An average pool
// and a normalisation multiply the accumulator first. The last layer's accumulators pass through.
#ifndef FINISH_HPP
#define FINISH_HPP

#include "conversion_units.hpp"
#include "fifo.hpp"
#include "layer.hpp"
#include "normalize.hpp"
#include "packing.hpp"
#include "requantize.hpp"

// The number that is requantized for output lane `lane` of a pixel.
template <class C>
typename C::wide_t finish_lane(const LayerDesc& d, const SumVector<C>& vector, int32_t lane,
                               int32_t reciprocal) {
#pragma HLS INLINE
  typedef typename C::wide_t wide_t;
  static_assert(sizeof(typename C::acc_t) <= sizeof(wide_t), "wide_t must hold an acc_t");
  static_assert(!C::HAS_LRN || C::PE >= 3 * BLOCK_CODES,
                "PE must be 24 or more for a normalisation: a plane and its neighbours");
  if (C::HAS_LRN && d.op == OP_LRN) {
    const int32_t at = lane + BLOCK_CODES;  // the first plane holds neighbours only
    if (at >= C::PE - BLOCK_CODES) return wide_t(0);
    const uint64_t q = sum_of_squares<C>(vector.sum, at, d.lrn_size);
    return wide_t(vector.sum[at]) * wide_t(lrn_factor<C>(q, d.lrn_table));
  }
  if (C::HAS_AVERAGE && reciprocal != 0) return wide_t(vector.sum[lane]) * wide_t(reciprocal);
  return wide_t(vector.sum[lane]);
}

template <class C>
void finish(const LayerDesc& d, Fifo<Pass>& pass_in, Fifo<Pass>& pass_out, Fifo<SumGroup<C>>& in,
            Fifo<CodeVector<C>>& codes, Fifo<SumVector<C>>& raw, Fifo<count_t>& count) {
  static_assert(C::PE % C::QK_UNITS == 0, "PE must be a multiple of QK_UNITS: all units are busy");
  const Pass pass = pass_in.read();
  pass_out.write(pass);
  const Encoder<C> encoder(d);
  const int32_t pixels = pass.last ? pass.images * d.conv_height * d.conv_width : 0;
  SumGroup<C> group;
  int32_t q = 0, ox = 0, oy = 0;  // pixel of the group, column and row
  if (d.raw) {
  finish_raw:
    for (int32_t i = 0; i < pixels; i++) {
#pragma HLS PIPELINE II = 1  // one pixel a cycle
#pragma HLS LOOP_TRIPCOUNT min = 0 max = C::MAX_IMAGES
      if (q == 0) group = in.read();
      raw.write(group.pixel[q]);
      const bool row_end = ox == d.conv_width - 1;
      q = row_end || q == C::PIXELS - 1 ? 0 : q + 1;
      ox = row_end ? 0 : ox + 1;
    }
    count.write(pixels);
  } else {
    const int32_t steps = pixels * (C::PE / C::QK_UNITS);
    int32_t lane = 0;
    CodeVector<C> result;
  finish_lanes:
    for (int32_t i = 0; i < steps; i++) {
#pragma HLS PIPELINE II = 1  // QK_UNITS lanes a cycle
#pragma HLS LOOP_TRIPCOUNT min = 0 max = C::MAX_IMAGES * C::MAX_HEIGHT * C::MAX_WIDTH
      if (lane == 0 && q == 0) group = in.read();
      const SumVector<C>& vector = group.pixel[q];
      int32_t reciprocal = d.reciprocal;
      if (C::HAS_AVERAGE && d.exclude_pad) {
        const int32_t top = oy * d.stride_h - d.pad_top;
        const int32_t left = ox * d.stride_w - d.pad_left;
        reciprocal = C::reciprocal(inside_count(top, d.kernel_h, d.in_height) *
                                   inside_count(left, d.kernel_w, d.in_width));
      }
    unit_u:
      for (int u = 0; u < C::QK_UNITS; u++) {
#pragma HLS UNROLL  // one requantizer and one QE/QK each
        const typename C::quant_t y = requantize<C>(finish_lane<C>(d, vector, lane + u, reciprocal),
                                                    d.requant_shift, d.y_min, d.y_max);
        result.code[lane + u] = encoder(y);
      }
      const bool full = lane + C::QK_UNITS == C::PE;
      if (full) codes.write(result);
      lane = full ? 0 : lane + C::QK_UNITS;
      const bool row_end = full && ox == d.conv_width - 1;
      const bool image_end = row_end && oy == d.conv_height - 1;
      q = row_end || (full && q == C::PIXELS - 1) ? 0 : (full ? q + 1 : q);
      ox = row_end ? 0 : (full ? ox + 1 : ox);
      oy = image_end ? 0 : (row_end ? oy + 1 : oy);
    }
    count.write(steps);
  }
}

#endif  // FINISH_HPP
