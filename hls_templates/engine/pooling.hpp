// SPDX-License-Identifier: Apache-2.0
// Max pool on codes: QE and QK are monotone, so the largest code belongs to the largest value.
// Keeps the last pool_h rows of the tile and emits a pooled row as soon as its last row is there.
// Windows are clipped to the map; padding never wins.
#ifndef POOLING_HPP
#define POOLING_HPP

#include "fifo.hpp"
#include "work.hpp"

template <class C>
void max_pool(Fifo<PoolWork<C>>& work_in, Fifo<CodeVector<C>>& in, Fifo<CodeVector<C>>& out,
              Fifo<count_t>& count) {
  static_assert(C::POOL_WIDTH <= C::MAX_WIDTH, "POOL_WIDTH must be MAX_WIDTH at most");
  static CodeVector<C> rows[C::POOL_ROWS][C::POOL_WIDTH];
#pragma HLS AGGREGATE variable = rows compact = bit  // one wide memory word per pixel
  const PoolWork<C> w = work_in.read();
  Digit<typename C::x_t> x, kx, px;
  Digit<typename C::y_t> slot, ky, taken, py;
  Digit<Count<C::MAX_IMAGES>> image;
  Digit<Count<C::MAX_PASSES>> tile;
  x.start(w.conv_width);  // of the row that is taken in
  slot.start(w.pool_h);   // where it goes
  kx.start(w.pool_w);     // of the window
  ky.start(w.pool_h);
  taken.start(w.conv_height);  // rows taken in of the image
  px.start(w.out_width);       // of the pooled row
  py.start(w.out_height);      // pooled row
  image.start(w.images);
  tile.start(w.tiles);
  typedef typename C::y_t y_t;
  const y_t bottom = w.pool_h - w.pad_top;  // the row behind an image's first window
  y_t top = -w.pad_top;                     // first row of the window
  y_t spare = -bottom;  // rows taken in from the one behind the window on; negative: it lacks some
  typename C::x_t left = -w.pad_left;  // first column of the window
  bool all_in = false;                 // the image's last row is here
  bool all_out = !w.pooled;            // its last pooled row has been emitted
  CodeVector<C> best;
  cycle_t total = 0;
pool_step:
  for (bool end = w.raw; !end;) {
#pragma HLS PIPELINE II = 1  // a pixel in, or a window element of all lanes, a cycle
#pragma HLS LOOP_TRIPCOUNT min = 1 max = C::POOL_WIDTH * C::POOL_ROWS
    bool image_end = false;
    total++;
    // behind the last pooled row those rows are taken in that no window needs
    if (!all_in && (all_out || spare < 0)) {
      const CodeVector<C> pixel = in.read();
      if (w.pooled) {
        rows[slot.value][x.value] = pixel;
      } else {
        out.write(pixel);
      }
      if (x.step()) {
        slot.step();
        spare++;
        all_in = taken.step();
        image_end = all_in && all_out;
      }
    } else {
      const typename C::x_t column = left + kx.value;
      const y_t y = top + ky.value;
      const bool inside = y >= 0 && y < w.conv_height && column >= 0 && column < w.conv_width;
      // Row ky of the window lies pool_h + spare - ky slots before the next free one.
      const y_t back = slot.value + ky.value - w.pool_h - spare;
      const CodeVector<C>& item =
          rows[inside ? int(back < 0 ? y_t(back + w.pool_h) : back) : 0][inside ? int(column) : 0];
      const bool start = ky.value == 0 && kx.value == 0;
    pool_lane:
      for (int p = 0; p < C::PE; p++) {
#pragma HLS UNROLL  // one comparator per lane
        const typename C::code_t code = inside ? item.code[p] : typename C::code_t(0);
        best.code[p] = start || code > best.code[p] ? code : best.code[p];
      }
      if (kx.step() && ky.step()) {
        out.write(best);
        left += w.stride_w;
        if (px.step()) {
          left = -w.pad_left;
          top += w.stride_h;
          spare -= w.stride_h;
          all_out = py.step();
          image_end = all_in && all_out;
        }
      }
    }
    if (image_end) {
      top = -w.pad_top;
      spare = -bottom;
      all_in = false;
      all_out = !w.pooled;
      slot.start(w.pool_h);
      end = image.step() && tile.step();
    }
  }
  count.write(total);
}

#endif  // POOLING_HPP
