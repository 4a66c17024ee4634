// SPDX-License-Identifier: Apache-2.0
// Compute process: line buffer -> decoders (CE/CK) -> compute stage -> sums. In every cycle it may
// take in a block of an input row, a row of the next pass's weights, and do one step of the stage:
// input rows and weights arrive while the ones before them are worked on.
//   centroids  of each input with a KNQ decoder.
//   rows     what to do: an output row, or input rows to wait for (plan_rows).
//   lines    where each row of a plane goes in the line buffer; blocks: its pixels.
//   taps     for each step of a pass the places of its G blocks in the window; weights: their
//            weights, eight lanes each, 0 behind the end of the list.
//   biases   what the accumulators of a tile start at; 0 for operations without weights.
//   sums     after the last chunk, for every output row ceil(conv_width/PIXELS) groups of PIXELS
//            pixels. Passes over further input channels go on from stored partial sums.
//   count    cycles in which it worked, as codegen/design/cost.py predicts them.
#ifndef COMPUTE_HPP
#define COMPUTE_HPP

#include "conversion_units.hpp"
#include "fifo.hpp"
#include "line_buffer.hpp"
#include "pair_array.hpp"
#include "work.hpp"

// Decoded values of the blocks that the lane groups stand at, for PIXELS neighbours; 0 outside the
// map and behind the end of the list. Blocks beyond G are a depthwise layer's, of the first pixel.
template <class C>
void fetch(const ComputeWork<C>& w, const LowBlock<C> low[LineCopies<C>::COUNT][C::LINE_BLOCKS],
           const HighBlock<C> high[LineCopies<C>::COUNT][C::LINE_HIGH_BLOCKS],
           const TapRow<C>& taps, const Corner<C>& corner, const Decoder<C>& decoder,
           const Decoder<C>& decoder2,
           typename C::value_t value[C::PIXELS][C::WINDOW * BLOCK_CODES]) {
#pragma HLS INLINE
fetch_q:
  for (int q = 0; q < C::PIXELS; q++) {
#pragma HLS UNROLL  // a read port each
  fetch_g:
    for (int g = 0; g < C::WINDOW; g++) {
#pragma HLS UNROLL  // a read port each
      if (g >= C::G && (q > 0 || !w.depthwise)) continue;
      const typename C::y_t y = corner.y + taps.y[g];
      const typename C::x_t x = corner.x + q * w.stride_w + taps.x[g];
      const bool inside = taps.exists[g] && y >= 0 && y < w.height && x >= 0 && x < w.width;
      const typename C::entry_t ahead = corner.entry + q * w.pixel_entries + taps.entry[g];
      const typename C::entry_t entry =
          ahead >= w.ring_entries ? typename C::entry_t(ahead - w.ring_entries) : ahead;
      const int copy = (q == 0 ? g : C::WINDOW + (q - 1) * C::G + g) % LineCopies<C>::COUNT;
      const LowBlock<C>& lower = low[copy][inside ? int(entry) : 0];
      const HighBlock<C>& upper = high[copy][inside && w.wide ? int(entry) : 0];
      typename C::code_t code[BLOCK_CODES];
      typename C::value_t decoded[BLOCK_CODES];
    join_s:
      for (int s = 0; s < BLOCK_CODES; s++) {
#pragma HLS UNROLL  // wiring
        const uint32_t upper_bits = w.wide ? uint32_t(upper.code[s]) << C::LINE_LOW_BITS : 0;
        code[s] = typename C::code_t(uint32_t(lower.code[s]) | upper_bits);
      }
      if (C::HAS_OPS && g < C::G && taps.second) {
        decoder2(code, decoded);
      } else {
        decoder(code, decoded);
      }
    pad_s:
      for (int s = 0; s < BLOCK_CODES; s++) {
#pragma HLS UNROLL  // padding is the value 0
        value[q][g * BLOCK_CODES + s] = inside ? decoded[s] : typename C::value_t(0);
      }
    }
  }
}

// Where the next row of weights and taps is stored, and of which pass. The rows of the pass that
// is computed and of the next one lie in the two halves of one memory.
template <class C>
struct HalfBuffer {
  bool upper;                // which half is computed with
  Count<C::TAP_ROWS> taken;  // rows of the next pass
  bool ready, full;          // whether the halves are complete
  bool all;                  // whether the layer's last row is here
};

template <class C>
void compute(Fifo<ComputeWork<C>>& work_in, Fifo<typename C::bus_t>& centroids,
             Fifo<RowJob<C>>& rows, Fifo<LineJob<C>>& lines, Fifo<CodeBlock<C>>& blocks,
             Fifo<TapRow<C>>& taps, Fifo<WeightRow<C>>& weights, Fifo<BiasTile<C>>& biases,
             Fifo<SumGroup<C>>& sums, Fifo<count_t>& count) {
  static_assert(C::SIMD % BLOCK_CODES == 0, "SIMD must be a multiple of 8, the codes of a block");
  static_assert(C::G * BLOCK_CODES == C::SIMD, "G must be SIMD / 8, the blocks of a cycle");
  static LowBlock<C> low[LineCopies<C>::COUNT][C::LINE_BLOCKS];
#pragma HLS ARRAY_PARTITION variable = low complete dim = 1  // a read port per lane group
#pragma HLS AGGREGATE variable = low compact = bit           // eight codes in one memory word
  static HighBlock<C> high[LineCopies<C>::COUNT][C::LINE_HIGH_BLOCKS];
#pragma HLS ARRAY_PARTITION variable = high complete dim = 1  // a read port per lane group
#pragma HLS AGGREGATE variable = high compact = bit           // eight codes in one memory word
  static SumGroup<C> partial[C::PSUM_GROUPS];
#pragma HLS AGGREGATE variable = partial compact = bit  // one wide memory word per group of pixels
  static WeightRow<C> weight[2 * C::WEIGHT_ROWS];
#pragma HLS AGGREGATE variable = weight compact = bit  // one word a row, written whole
  static TapRow<C> tap[2 * C::TAP_ROWS];
#pragma HLS AGGREGATE variable = tap compact = bit                    // one word a row
#pragma HLS BIND_STORAGE variable = tap type = ram_s2p impl = lutram  // shallow and wide
  const ComputeWork<C> w = work_in.read();
#pragma HLS ARRAY_PARTITION variable = w.align complete  // registers
  const bool conv = w.is_conv;
  typename C::value_t centroid[2][2 * KnqTable<C>::WORDS];        // of both inputs
#pragma HLS ARRAY_PARTITION variable = centroid complete dim = 0  // registers
  take_table<C>(centroids, w.source[0].scheme, centroid[0]);
  take_table<C>(centroids, w.source[1].scheme, centroid[1]);
  const Decoder<C> decoder(w.source[0], centroid[0]);
  const Decoder<C> decoder2(w.source[1], centroid[1]);  // of an add's second input
  typename StageOf<C, C::SHARED>::type stage;
  BiasTile<C> bias;
clear_bias:
  for (int p = 0; p < C::PE; p++) {
#pragma HLS UNROLL  // registers; stays 0 for operations without weights
    bias.start[p] = 0;
  }
  HalfBuffer<C> buffer = {false, 0, false, false, false};
  static_assert(C::TAP_ROWS >= C::WEIGHT_ROWS, "every row of weights must have its taps");
  Digit<Count<C::MAX_PASSES>> chunk;
  Digit<typename C::x_t> column, x;
  Digit<Count<C::TAP_ROWS>> step, next_step;  // of the group of pixels; of the next pass, so far
  chunk.start(w.chunks);
  column.start(w.columns);
  x.start(w.width);
  step.start(1);
  next_step.start(1);
  RowJob<C> row = {0, 0, 0, 0, false, false, false, false, false};
  LineJob<C> line = {0, false};
  Corner<C> corner = {0, 0, 0};
  typename C::entry_t at = 0;        // line buffer entry of the next block
  typename C::y_t rows_left = 0;     // input rows still to be taken in
  bool more = false;                 // whether there are any
  Count<C::PSUM_GROUPS> pixels = 0;  // groups of pixels done in a pass whose sums wait
  const int group = C::PIXELS;       // pixels that are worked on together
  const typename C::x_t group_x = w.depthwise ? w.stride_w : typename C::x_t(group * w.stride_w);
  const typename C::entry_t group_entries =
      w.depthwise ? w.pixel_entries : typename C::entry_t(group * w.pixel_entries);
  bool begin = true, computing = false;
  cycle_t total = 0;
compute_step:
  for (bool end = false; !end;) {
#pragma HLS PIPELINE II = 1  // PIXELS*SIMD*PE multiply-adds a cycle
    // plan_rows keeps passes apart; what is read of `partial` between them is not used. low, high,
    // weight and tap are written before they are read, so that the read is one stage behind the
    // write and no promise is needed.
#pragma HLS DEPENDENCE variable = partial inter RAW distance = C::SUM_DISTANCE true  // see above
#pragma HLS LOOP_TRIPCOUNT min = 1 max = C::MAX_ROW_STEPS
    if (begin) {
      row = rows.read();
      rows_left = row.rows_in;
      more = row.rows_in != 0;
      computing = row.computes;
      corner.y = row.y;
      corner.x = -w.pad_left;
      corner.entry = row.entry;
      begin = false;
    }
    if (!buffer.ready && buffer.full) {
      buffer.upper = !buffer.upper;
      buffer.ready = true;
      buffer.full = false;
      step = next_step;
      buffer.taken = 0;
      const bool tile_begin = chunk.value == 0;
      if (conv && tile_begin) bias = biases.read();
      chunk.step();
    }
    const bool work = buffer.ready || !computing;  // else the pass's weights are missing
    if (!buffer.full && !buffer.all && (!work || (!taps.empty() && (!conv || !weights.empty())))) {
      const int side = buffer.upper ? 0 : 1;
      const TapRow<C> next = taps.read();
      tap[side * C::TAP_ROWS + int(buffer.taken)] = next;
      if (conv) weight[side * C::WEIGHT_ROWS + int(buffer.taken)] = weights.read();
      next_step.start(Count<C::TAP_ROWS>(buffer.taken + 1));
      buffer.taken++;
      buffer.full = next.pass_end;
      buffer.all = next.layer_end;
    }
    const bool steps = work && computing;
    const bool begins = steps && step.value == 0;
    const bool moves = C::KERNEL_ROWS > 0 && w.depthwise && column.value != 0;
    typename C::acc_t added[C::PIXELS][C::PE] = {};
#pragma HLS ARRAY_PARTITION variable = added complete dim = 0  // wires
    if (work && more) {
      if (x.value == 0) {
        line = lines.read();
        at = line.entry;
      }
      store_block<C>(blocks.read(), at, w.wide, low, high);
      at += w.chunk_blocks;
      if (x.step() && line.row_end) {
        more = rows_left != 1;
        rows_left--;
      }
    }
    if (steps) {
      const int side = buffer.upper ? 1 : 0;
      const TapRow<C> at_taps = tap[side * C::TAP_ROWS + int(step.value)];
      typename C::value_t value[C::PIXELS][C::WINDOW * BLOCK_CODES];
#pragma HLS ARRAY_PARTITION variable = value complete dim = 0  // registers
      fetch<C>(w, low, high, at_taps, corner, decoder, decoder2, value);
      if (C::HAS_OPS && !conv) {
        stage.spread(value, at_taps.group, w.align[at_taps.second], row.first_channel, w.channels,
                     added);
      } else {
        stage.step(weight[side * C::WEIGHT_ROWS + int(step.value)], value, w.paired,
                   C::KERNEL_ROWS > 0 && w.depthwise, added);
      }
    }
    // In every cycle, with 0 in those without a step: no choice lies behind the addition.
    stage.next(begins, moves, row.first, bias, partial[begins && !row.first ? int(pixels) : 0],
               added);
    const bool leads = column.value < w.lead;  // a column in front of a row's first pixel
    if (step.step(steps)) {
      const bool row_end = column.step();
      if (row.last) {
        if (!leads) sums.write(stage.result());
      } else {
        partial[pixels] = stage.result();
      }
      pixels++;
      corner.x += group_x;
      corner.entry += group_entries;
      if (row_end) computing = false;
    }
    if (work) {
      total++;
      if (!more && !computing) {
        begin = true;
        end = row.layer_end;
        if (row.pass_end) {
          buffer.ready = false;
          pixels = 0;
        }
      }
    }
  }
  count.write(total);
}

#endif  // COMPUTE_HPP
