// SPDX-License-Identifier: Apache-2.0
// Max pool on codes: QE and QK are monotone, so the largest code belongs to the largest value.
// Keeps the last pool_h rows of the tile and emits a pooled row as soon as its last row is there.
// Windows are clipped to the map; padding never wins.
#ifndef POOLING_HPP
#define POOLING_HPP

#include "fifo.hpp"
#include "layer.hpp"
#include "packing.hpp"

template <class C>
void max_pool(const LayerDesc& d, Fifo<Pass>& pass_in, Fifo<Pass>& pass_out,
              Fifo<CodeVector<C>>& in, Fifo<CodeVector<C>>& out, Fifo<count_t>& count) {
  static_assert(C::POOL_WIDTH <= C::MAX_WIDTH, "POOL_WIDTH must be MAX_WIDTH at most");
  static CodeVector<C> rows[C::POOL_ROWS][C::POOL_WIDTH];
#pragma HLS AGGREGATE variable = rows  // one wide memory word per pixel
  const Pass pass = pass_in.read();
  pass_out.write(pass);
  count_t total = 0;
  const bool active = pass.last && !d.raw;
  const bool pooled = d.pool_h * d.pool_w > 1 || d.pool_stride_h * d.pool_stride_w > 1;
  if (active && !pooled) {
    const int32_t pixels = pass.images * d.conv_height * d.conv_width;
  pool_bypass:
    for (int32_t i = 0; i < pixels; i++) {
#pragma HLS PIPELINE II = 1  // one pixel a cycle
#pragma HLS LOOP_TRIPCOUNT min = 1 max = C::MAX_IMAGES * C::MAX_HEIGHT * C::MAX_WIDTH
      out.write(in.read());
    }
    total = pixels;
  }
pool_image:
  for (int32_t n = 0; n < (active && pooled ? pass.images : 0); n++) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = C::MAX_IMAGES
    int32_t have = 0;  // rows taken in so far
    int32_t slot = 0;  // where the next one goes: have modulo pool_h
  pool_row:
    for (int32_t py = 0; py <= d.out_height; py++) {  // the extra turn takes in unused rows
#pragma HLS LOOP_TRIPCOUNT min = 2 max = C::MAX_HEIGHT
      const int32_t top = py * d.pool_stride_h - d.pool_pad_top;
      const int32_t need =
          py < d.out_height ? min_of(top + d.pool_h, d.conv_height) : d.conv_height;
    pool_take_row:
      for (int32_t y = have; y < need; y++) {
#pragma HLS LOOP_TRIPCOUNT min = 0 max = C::POOL_ROWS
      pool_take:
        for (int32_t x = 0; x < d.conv_width; x++) {
#pragma HLS PIPELINE II = 1  // one pixel a cycle
#pragma HLS LOOP_TRIPCOUNT min = 1 max = C::POOL_WIDTH
          rows[slot][x] = in.read();
        }
        slot = slot == d.pool_h - 1 ? 0 : slot + 1;
        total += d.conv_width;
      }
      have = max_of(have, need);
      if (py == d.out_height) break;
      // Row y of the map lies pool_h - (have - y) slots behind the next free one.
      int32_t px = 0, ky = 0, kx = 0;
      CodeVector<C> best;
      const int32_t steps = d.out_width * d.pool_h * d.pool_w;
    pool_window:
      for (int32_t i = 0; i < steps; i++) {
#pragma HLS PIPELINE II = 1  // one window element of all lanes a cycle
#pragma HLS LOOP_TRIPCOUNT min = 1 max = C::POOL_WIDTH * C::POOL_ROWS
        const int32_t y = top + ky;
        const int32_t x = px * d.pool_stride_w - d.pool_pad_left + kx;
        const bool inside = y >= 0 && y < d.conv_height && x >= 0 && x < d.conv_width;
        const int32_t back = slot - (have - y);
        const CodeVector<C>& item =
            rows[inside ? (back < 0 ? back + d.pool_h : back) : 0][inside ? x : 0];
        const bool start = ky == 0 && kx == 0;
      pool_lane:
        for (int p = 0; p < C::PE; p++) {
#pragma HLS UNROLL  // one comparator per lane
          const typename C::code_t code = inside ? item.code[p] : typename C::code_t(0);
          best.code[p] = start || code > best.code[p] ? code : best.code[p];
        }
        const bool row_end = kx == d.pool_w - 1;
        const bool window_end = row_end && ky == d.pool_h - 1;
        if (window_end) out.write(best);
        kx = row_end ? 0 : kx + 1;
        ky = window_end ? 0 : (row_end ? ky + 1 : ky);
        px = window_end ? px + 1 : px;
      }
      total += steps;
    }
  }
  count.write(total);
}

#endif  // POOLING_HPP
