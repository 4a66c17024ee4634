// SPDX-License-Identifier: Apache-2.0
// Weight loader: DDR words -> rows of weights and biases. A row of the file holds the PE*SIMD
// weights that one cycle consumes, `weight_bits` bits each, and is a whole number of words from
// every port, so words are collected in registers and split at once: no gearbox. Fields are
// weights, or indices into the layer's codebook. A layer begins with its codebook, a tile with its
// biases and, in a scaled layer, weight scales, which go to finish (docs/formats.md, section 4);
// all words of a layer follow each other: one burst.
#ifndef WEIGHT_LOADER_HPP
#define WEIGHT_LOADER_HPP

#include "fifo.hpp"
#include "memory_port.hpp"
#include "weight_row.hpp"
#include "work.hpp"

// Field `index` of a packed row of fields of `width` bits, sign-extended. Both are constants after
// unrolling: wiring.
inline int16_t row_field(const uint64_t* row, int index, int width) {
#pragma HLS INLINE
  const int bit = index * width;
  const int word = bit / WORD_BITS;
  const int offset = bit % WORD_BITS;
  uint64_t field = row[word] >> offset;
  if (offset + width > WORD_BITS) field |= row[word + 1] << (WORD_BITS - offset);
  const int spare = WORD_BITS - width;
  return int16_t(int64_t(field << spare) >> spare);
}

// The fields of half a row, 64 at a time: those are w words.
template <class C>
void split_fields(const uint64_t row[C::ROW_WORDS], int first, int w,
                  int16_t field[C::SIMD * C::PE]) {
#pragma HLS INLINE
split_group:
  for (int group = 0; group < C::SIMD * C::PE / C::SHARED / WORD_BITS; group++) {
#pragma HLS UNROLL  // likewise
  split_lane:
#ifndef __SYNTHESIS__
#pragma GCC unroll 64  // constant shifts here, too: g++ would gather fields from memory
#endif
    for (int i = 0; i < WORD_BITS; i++) {
#pragma HLS UNROLL  // the whole row in one cycle
      field[(first + group) * WORD_BITS + i] = row_field(row + (first + group) * w, i, w);
    }
  }
}

// Splits a row into its fields; a width of which a row never has so many fills only the first ones
// (two weights share a multiplier up to PAIR_BITS). The width takes one of a few constant values,
// so each case is wiring and the choice a multiplexer.
template <class C>
void split_row(const uint64_t row[C::ROW_WORDS], Count<16> width, int16_t field[C::SIMD * C::PE]) {
#pragma HLS INLINE
  const int widest = C::weight_width(C::WEIGHT_WIDTHS - 1);
  const int GROUPS = C::SIMD * C::PE / C::SHARED / WORD_BITS;  // of 64 fields in half a row
  static_assert(C::PE * C::SIMD % (C::SHARED * WORD_BITS) == 0,
                "PE * SIMD must be a multiple of 64, of 128 with pairs: a row is whole words");
  static_assert(widest <= 16, "the largest width, the last of weight_width, must be 16 at most");
  static_assert(C::PE / C::SHARED * C::SIMD * widest <= C::ROW_WORDS * WORD_BITS,
                "ROW_WORDS must hold a weight of the largest width for every multiplier");
split_width:
#ifndef __SYNTHESIS__
#pragma GCC unroll 16  // likewise
#endif
  for (int k = 0; k < C::WEIGHT_WIDTHS; k++) {
#pragma HLS UNROLL  // one case per width that occurs; the first is also the default
    const int w = C::weight_width(k);
    if (k == 0 || width == w) {
    split_half:
      for (int half = 0; half < C::SHARED; half++) {
#pragma HLS UNROLL  // no row has two weights a multiplier that are wider
        if (half == 0 || w <= C::PAIR_BITS) split_fields<C>(row, half * GROUPS, w, field);
      }
    }
  }
}

// Asks a port for all words of a layer.
template <class C>
bool ask_words(MemoryPort<C>& port, const LoadWork<C>& w) {
#pragma HLS INLINE
  port.read_request(w.address, w.words);
  return true;
}

// What the next word belongs to.
enum Section { SECTION_TABLE, SECTION_BIAS, SECTION_ROWS };

// `weights`: a port each, every one with its own section of the weight file.
template <class C, class... Ports>
void load_weights(Fifo<LoadWork<C>>& work_in, Fifo<WeightRow<C>>& rows, Fifo<BiasTile<C>>& biases,
                  Fifo<ScaleTile<C>>& scales, Fifo<count_t>& count, Ports... weights) {
  static_assert(sizeof...(Ports) == C::WEIGHT_PORTS, "one port per section");
  static_assert(C::ROW_WORDS % C::WEIGHT_PORTS == 0,
                "ROW_WORDS must be a multiple of WEIGHT_PORTS: a row is whole words of every port");
  static_assert(2 * C::BIAS_WORDS * C::WEIGHT_PORTS >= C::PE,
                "BIAS_WORDS must hold PE biases, two a word of every port");
  static_assert(SCALES * C::SCALE_WORDS * C::WEIGHT_PORTS >= C::PE,
                "SCALE_WORDS must hold PE weight scales, eight a word of every port");
  static_assert((C::TABLE_ENTRIES & (C::TABLE_ENTRIES - 1)) == 0,
                "TABLE_ENTRIES must be a power of two: an index is masked");
  // Words of a section in each port: a codebook, a tile's biases and scales, or a chunk's rows.
  const int ROWS = C::WEIGHT_ROWS * C::ROW_WORDS / C::WEIGHT_PORTS;
  const int SECTION_WORDS = ROWS + C::TABLE_ENTRIES + C::BIAS_WORDS + C::SCALE_WORDS;
  typedef typename C::weight_t weight_t;
  typedef typename C::acc_t acc_t;
  static weight_t table[C::SIMD * C::PE][C::TABLE_ENTRIES];
#pragma HLS ARRAY_PARTITION variable = table complete dim = 1          // a copy per lane
#pragma HLS BIND_STORAGE variable = table type = ram_1p impl = lutram  // small, and many copies
  const LoadWork<C> w = work_in.read();
  const bool coded = C::HAS_CODEBOOK && w.weight_table > 0;
  // An index is a field without its sign.
  const int mask = min_of<int>(w.weight_table, C::TABLE_ENTRIES) - 1;
  uint64_t row[C::ROW_WORDS];
#pragma HLS ARRAY_PARTITION variable = row complete  // registers: a whole row
  BiasTile<C> bias;
#pragma HLS ARRAY_PARTITION variable = bias.start complete  // registers: any lane
  ScaleTile<C> scale;
#pragma HLS ARRAY_PARTITION variable = scale.factor complete  // registers: any lane
  const bool scaled = C::HAS_SCALE && w.scaled;
  const Count<SECTION_WORDS> head = scaled ? C::BIAS_WORDS + C::SCALE_WORDS : C::BIAS_WORDS;
  Section section = coded ? SECTION_TABLE : SECTION_BIAS;
  Digit<Count<SECTION_WORDS>> word;  // of the section
  Digit<Count<C::MAX_PASSES>> chunk;
  Digit<Count<C::ROW_WORDS>> place;       // of the row
  Digit<Count<SECTION_WORDS>> length[3];  // of biases, of a chunk's rows, of the last chunk's
#pragma HLS ARRAY_PARTITION variable = length complete  // registers
  length[0].start(int(head));
  length[1].start(int(w.rows_words));
  length[2].start(int(w.last_words));
  word.start(coded ? int(w.table_words) : int(head));
  chunk.start(w.chunks);
  place.start(w.row_words == 0 ? 1 : int(w.row_words));
  if (w.words != 0) {
    const bool asked[C::WEIGHT_PORTS] = {ask_words(weights, w)...};
    (void)asked;
  }
load_word:
  for (cycle_t i = 0; i < w.words; i++) {
#pragma HLS PIPELINE II = 1  // one bus word from each port a cycle; one burst a layer
#pragma HLS LOOP_TRIPCOUNT min = 1 max = C::MAX_PASSES * C::WEIGHT_ROWS
    const uint64_t port[C::WEIGHT_PORTS] = {uint64_t(weights.read())...};
    uint64_t entry = 0;
  join_ports:
    for (int q = 0; q < C::WEIGHT_PORTS; q++) {
#pragma HLS UNROLL  // the entry comes from the first port, the others bring 0
      entry |= port[q];
    }
    if (section == SECTION_TABLE) {
    copy_entry:
      for (int lane = 0; lane < C::SIMD * C::PE; lane++) {
#pragma HLS UNROLL  // into all copies at once
        table[lane][int(word.value)] = weight_t(int16_t(uint16_t(entry)));
      }
    }
    if (section == SECTION_BIAS) {
    split_bias:
      for (int q = 0; q < C::WEIGHT_PORTS; q++) {
#pragma HLS UNROLL  // two biases a word
        const int p = 2 * (int(word.value) * C::WEIGHT_PORTS + q);
        if (p < C::PE) {
          bias.start[p] = shift_left(acc_t(int32_t(uint32_t(port[q]))), int(w.bias_shift));
          bias.start[p + 1] =
              shift_left(acc_t(int32_t(uint32_t(port[q] >> 32))), int(w.bias_shift));
        }
      }
      if (scaled) {
      split_scale:
        for (int q = 0; q < C::WEIGHT_PORTS; q++) {
#pragma HLS UNROLL  // eight scales a word
          const int first = SCALES * ((int(word.value) - C::BIAS_WORDS) * C::WEIGHT_PORTS + q);
        split_factor:
          for (int i = 0; i < SCALES; i++) {
#pragma HLS UNROLL  // PE is a multiple of eight
            if (first >= 0 && first < C::PE) {
              scale.factor[first + i] = uint8_t(port[q] >> (SCALE_BITS * i));
            }
          }
        }
        if (word.last) scales.write(scale);
      }
      if (word.last) biases.write(bias);
    }
    if (section == SECTION_ROWS) {
    place_word:
      for (int q = 0; q < C::WEIGHT_PORTS; q++) {
#pragma HLS UNROLL  // a register listens to one port only, whatever the width
        row[int(place.value) * C::WEIGHT_PORTS + q] = port[q];
      }
      if (place.step()) {
        int16_t number[C::SIMD * C::PE] = {0};
#pragma HLS ARRAY_PARTITION variable = number complete  // wires
        split_row<C>(row, w.weight_bits, number);
        weight_t weight[C::SIMD * C::PE];
#pragma HLS ARRAY_PARTITION variable = weight complete  // wires
      decode_lane:
        for (int lane = 0; lane < C::SIMD * C::PE; lane++) {
#pragma HLS UNROLL  // the whole row in one cycle
          weight[lane] = coded ? table[lane][number[lane] & mask] : weight_t(number[lane]);
        }
        WeightRow<C> out;
        const int MULTIPLIERS = WeightRow<C>::MULTIPLIERS;
        const int UPPER = C::SIMD * C::PE - C::SIMD * MULTIPLIERS;  // 0 where there are none
      store_s:
        for (int s = 0; s < C::SIMD; s++) {
#pragma HLS UNROLL  // likewise
        store_k:
          for (int k = 0; k < MULTIPLIERS; k++) {
#pragma HLS UNROLL  // likewise
            const int lane = s * MULTIPLIERS + k;
            out.set(s, k, weight[lane], weight[UPPER + lane], w.paired);
          }
        }
        rows.write(out);
      }
    }
    if (word.step()) {
      if (section == SECTION_ROWS) {
        section = chunk.step() ? SECTION_BIAS : SECTION_ROWS;
      } else {
        section = section == SECTION_TABLE ? SECTION_BIAS : SECTION_ROWS;
      }
      word = length[section == SECTION_BIAS ? 0 : (chunk.last ? 2 : 1)];
    }
  }
  count.write(w.words);
}

#endif  // WEIGHT_LOADER_HPP
