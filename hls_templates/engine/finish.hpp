// SPDX-License-Identifier: Apache-2.0
// Finish process: requantize and encode (QE/QK) the accumulators of each pixel, QK_UNITS lanes a
// cycle: one unit serves many lanes, because a pixel takes many cycles to accumulate. The PIXELS
// pixels of a group follow each other; those beyond the end of a row are dropped. An average pool,
// a normalisation and weights with a scale for each channel multiply the accumulator first, a
// product of two inputs the one value by the other, all by one multiplier a unit. The wide factors
// of all but the scales take DSP blocks, so only FACTOR_UNITS of the units have them, which serve
// such layers alone. The last layer's accumulators pass through. `tables`: thresholds of a KNQ
// encoder, then the factors of a normalisation. `scales`: of a tile.
#ifndef FINISH_HPP
#define FINISH_HPP

#include "conversion_units.hpp"
#include "fifo.hpp"
#include "normalize.hpp"
#include "requantize.hpp"
#include "work.hpp"

// What an accumulator is multiplied by, 1 where a layer has no such factor.
#ifdef CSIM_FAST
template <class C, bool WIDE>
using Factor = int32_t;
#else
template <class C, bool WIDE>
using Factor = ap_int<(WIDE ? C::FACTOR_BITS : SCALE_BITS + 1)>;
#endif

// An accumulator times its factor. Where weight scales are all that there is, a product is five
// rows of an adder, and the array has the DSP blocks; a wider factor takes some.
template <class C, bool WIDE>
struct Scaled {
  static typename C::wide_t product(typename C::acc_t sum, Factor<C, true> factor) {
#pragma HLS INLINE
    const typename C::wide_t product = typename C::wide_t(sum) * factor;
#pragma HLS BIND_OP variable = product op = mul impl = dsp  // a wide factor
    return product;
  }
};
template <class C>
struct Scaled<C, false> {
  static typename C::wide_t product(typename C::acc_t sum, Factor<C, false> factor) {
#pragma HLS INLINE
    const typename C::wide_t product = typename C::wide_t(sum) * factor;
#pragma HLS BIND_OP variable = product op = mul impl = fabric  // the array takes the DSP blocks
    return product;
  }
};

// The two values of a product, of which the accumulator is the sum: compute has shifted the second
// one above the first.
template <class C>
struct Operands {
  explicit Operands(typename C::acc_t sum)
      : first(int32_t(uint32_t(sum) << (32 - C::VALUE_BITS)) >> (32 - C::VALUE_BITS)),
        second(Factor<C, true>(sum >> C::VALUE_BITS) + (first < 0 ? 1 : 0)) {
#pragma HLS INLINE
    static_assert(C::VALUE_BITS <= 32, "VALUE_BITS must be 32 at most, as a value is shifted");
    static_assert(!C::HAS_PRODUCT || C::FACTOR_BITS >= C::VALUE_BITS,
                  "FACTOR_BITS must hold a value of VALUE_BITS");
    static_assert(!C::HAS_PRODUCT || 8 * sizeof(typename C::acc_t) >= 2 * C::VALUE_BITS,
                  "acc_t must hold two values of VALUE_BITS");
  }

  int32_t first;
  Factor<C, true> second;
};

// The number that is requantized for output lane `lane` of a pixel, in a unit that may have a WIDE
// factor or only that of a weight scale.
template <class C, bool WIDE>
typename C::wide_t finish_lane(const FinishWork<C>& w, const SumVector<C>& vector, int lane,
                               int32_t reciprocal, const ScaleTile<C>& scale,
                               const LrnFactors<C>& factors) {
#pragma HLS INLINE
  typedef typename C::wide_t wide_t;
  static_assert(sizeof(typename C::acc_t) <= sizeof(wide_t), "wide_t must hold an acc_t");
  static_assert(!C::HAS_LRN || C::PE >= 3 * BLOCK_CODES,
                "PE must be 24 or more for a normalisation: a plane and its neighbours");
  const bool HAS_WIDE = WIDE && (C::HAS_LRN || C::HAS_AVERAGE || C::HAS_PRODUCT);
  if (!HAS_WIDE && !C::HAS_SCALE) return wide_t(vector.sum[lane]);
  int at = lane;
  Factor<C, HAS_WIDE> factor = 1;
  if (WIDE && C::HAS_LRN && w.op == OP_LRN) {
    at = lane + BLOCK_CODES;  // the first plane holds neighbours only
    if (at >= C::PE - BLOCK_CODES) return wide_t(0);
    factor = lrn_factor<C>(sum_of_squares<C>(vector.sum, at, w.lrn_size), factors);
  } else if (WIDE && C::HAS_AVERAGE && reciprocal != 0) {
    factor = reciprocal;
  } else if (C::HAS_SCALE && w.scaled) {
    factor = scale.factor[lane];
  }
  typename C::acc_t sum = vector.sum[at];
  if (WIDE && C::HAS_PRODUCT && w.op == OP_PRODUCT) {
    const Operands<C> operands(sum);
    sum = operands.first;
    factor = operands.second;
  }
  return Scaled<C, HAS_WIDE>::product(sum, factor);
}

template <class C>
void finish(Fifo<FinishWork<C>>& work_in, Fifo<typename C::bus_t>& tables,
            Fifo<ScaleTile<C>>& scales, Fifo<SumGroup<C>>& in, Fifo<CodeVector<C>>& codes,
            Fifo<SumVector<C>>& raw, Fifo<count_t>& count) {
  static_assert(C::PE % C::QK_UNITS == 0, "PE must be a multiple of QK_UNITS: all units are busy");
  static_assert(C::PE % C::FACTOR_UNITS == 0 && C::FACTOR_UNITS <= C::QK_UNITS,
                "FACTOR_UNITS must divide PE and be QK_UNITS at most");
  static LrnFactors<C> factors[LrnCopies<C>::COUNT];
#pragma HLS ARRAY_PARTITION variable = factors complete  // read ports for each unit
  const FinishWork<C> w = work_in.read();
  typename C::quant_t threshold[2 * KnqTable<C>::WORDS];
#pragma HLS ARRAY_PARTITION variable = threshold complete  // registers
  take_table<C>(tables, w.code.scheme, threshold);
  const Encoder<C> encoder(w.code, threshold);
  if (C::HAS_LRN && w.op == OP_LRN) load_factors<C>(tables, factors);
  Digit<Count<C::PE>> part;
  Digit<Count<C::PIXELS>> q;
  Digit<typename C::x_t> ox;
  Digit<typename C::y_t> oy;
  Digit<Count<C::MAX_IMAGES>> image;
  Digit<Count<C::MAX_PASSES>> tile;
  part.start(w.pixel_steps);  // of a pixel's lanes
  const Count<C::PIXELS> pixels = w.single ? 1 : C::PIXELS;
  q.start(pixels);  // pixel of the group
  ox.start(w.conv_width);
  oy.start(w.conv_height);
  image.start(w.images);
  tile.start(w.tiles);
  const Count<C::PE> units = w.wide ? C::FACTOR_UNITS : C::QK_UNITS;
  Count<C::PE> lane = 0;
  typename C::y_t top = -w.pad_top;  // corner of an average's window
  typename C::x_t left = -w.pad_left;
  bool tile_begin = true;
  ScaleTile<C> scale;
#pragma HLS ARRAY_PARTITION variable = scale.factor complete  // registers: any lane
  SumGroup<C> group;
  CodeVector<C> result;
#pragma HLS ARRAY_PARTITION variable = group.sum complete    // registers: any pixel, any lane
#pragma HLS ARRAY_PARTITION variable = result.code complete  // registers
  cycle_t total = 0;
finish_lanes:
  for (bool end = false; !end;) {
#pragma HLS PIPELINE II = 1  // QK_UNITS lanes a cycle; a pixel where they are stored as they are
#pragma HLS LOOP_TRIPCOUNT min = 0 max = C::MAX_IMAGES * C::MAX_HEIGHT * C::MAX_WIDTH
    if (lane == 0 && q.value == 0) group = in.read();
    if (C::HAS_SCALE && w.scaled && tile_begin) scale = scales.read();
    tile_begin = false;
    SumVector<C> vector;
  select_q:
    for (int k = 0; k < C::PIXELS; k++) {
#pragma HLS UNROLL  // a multiplexer over the pixels
    select_p:
      for (int p = 0; p < C::PE; p++) {
#pragma HLS UNROLL  // of every lane
        if (k == 0 || q.value == k) vector.sum[p] = group.sum[k * C::PE + p];
      }
    }
    if (w.raw) {
      raw.write(vector);
    } else {
      int32_t reciprocal = w.reciprocal;
      if (C::HAS_AVERAGE && w.exclude_pad) {
        reciprocal = reciprocal_of(inside_count(top, w.kernel_h, w.in_height),
                                   inside_count(left, w.kernel_w, w.in_width));
      }
    unit_u:
      for (int u = 0; u < C::QK_UNITS; u++) {
#pragma HLS UNROLL  // one requantizer and one QE/QK each
        if (u < C::FACTOR_UNITS || !w.wide) {
          const LrnFactors<C>& own = factors[u % LrnCopies<C>::COUNT];
          const int at = int(lane) + u;
          const typename C::wide_t scaled =
              u < C::FACTOR_UNITS ? finish_lane<C, true>(w, vector, at, reciprocal, scale, own)
                                  : finish_lane<C, false>(w, vector, at, reciprocal, scale, own);
          const typename C::quant_t y = requantize<C>(scaled, w.requant_shift, w.y_min, w.y_max);
          result.code[at] = encoder(y);
        }
      }
      if (part.last) codes.write(result);
    }
    total++;
    const bool pixel_end = part.step();
    lane = pixel_end ? Count<C::PE>(0) : Count<C::PE>(lane + units);
    const bool row_end = ox.step(pixel_end);
    if (row_end) {
      q.start(pixels);  // pixels beyond the row's end are dropped
      left = -w.pad_left;
      top += w.stride_h;
    } else {
      q.step(pixel_end);
      if (pixel_end) left += w.stride_w;
    }
    if (oy.step(row_end)) {
      top = -w.pad_top;
      tile_begin = image.step();
      end = tile_begin && tile.step();
    }
  }
  count.write(total);
}

#endif  // FINISH_HPP
