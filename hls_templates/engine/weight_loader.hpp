// SPDX-License-Identifier: Apache-2.0
// Weight loader: DDR words -> one side of the ping-pong weight buffer. A row of the file holds the
// PE*SIMD weights that one cycle consumes, `weight_bits` bits each, and is a whole number of words
// from every port, so words are collected in registers and split at once: no gearbox. Fields are
// weights, or indices into the layer's codebook. A layer's first pass brings the codebook in front
// of everything, a tile's first pass its biases in front of the rows (docs/formats.md, section 4).
#ifndef WEIGHT_LOADER_HPP
#define WEIGHT_LOADER_HPP

#include "fifo.hpp"
#include "layer.hpp"

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

// Splits a row into its fields. The width takes one of a few constant values, so each case is
// wiring and the choice a multiplexer.
template <class C>
void split_row(const uint64_t row[C::ROW_WORDS], int32_t width, int16_t field[C::SIMD * C::PE]) {
#pragma HLS INLINE
  const int widest = C::weight_width(C::WEIGHT_WIDTHS - 1);
  static_assert(C::PE * C::SIMD % WORD_BITS == 0,
                "PE * SIMD must be a multiple of 64: a row is whole words, whatever the width");
  static_assert(widest <= 16, "the largest width, the last of weight_width, must be 16 at most");
  static_assert(C::PE * C::SIMD * widest <= C::ROW_WORDS * WORD_BITS,
                "ROW_WORDS must hold PE * SIMD weights of the largest width");
split_width:
  for (int k = 0; k < C::WEIGHT_WIDTHS; k++) {
#pragma HLS UNROLL  // one case per width that occurs; the first is also the default
    const int w = C::weight_width(k);
    if (k == 0 || width == w) {
    split_lane:
      for (int i = 0; i < C::SIMD * C::PE; i++) {
#pragma HLS UNROLL  // the whole row in one cycle
        field[i] = row_field(row, i, w);
      }
    }
  }
}

// `weights`: one pointer per port, each to its own section of the weight file.
template <class C, class... Ports>
void load_weights(const LayerDesc& d, Fifo<Pass>& pass_in,
                  typename C::weight_t buffer[C::WEIGHT_ROWS][C::SIMD][C::PE], int32_t bias[C::PE],
                  Fifo<count_t>& count, Ports... weights) {
  static_assert(sizeof...(Ports) == C::WEIGHT_PORTS, "one pointer per port");
  static_assert(C::ROW_WORDS % C::WEIGHT_PORTS == 0,
                "ROW_WORDS must be a multiple of WEIGHT_PORTS: a row is whole words of every port");
  static_assert(2 * C::BIAS_WORDS * C::WEIGHT_PORTS >= C::PE,
                "BIAS_WORDS must hold PE biases, two a word of every port");
  static_assert((C::TABLE_ENTRIES & (C::TABLE_ENTRIES - 1)) == 0,
                "TABLE_ENTRIES must be a power of two: an index is masked");
  typedef typename C::weight_t weight_t;
  static weight_t table[C::SIMD * C::PE][C::TABLE_ENTRIES];
#pragma HLS ARRAY_PARTITION variable = table complete dim = 1          // a copy per lane
#pragma HLS BIND_STORAGE variable = table type = ram_1p impl = lutram  // small, and many copies
  const Pass pass = pass_in.read();
load_table:
  for (int32_t i = 0; i < pass.table_words; i++) {
#pragma HLS PIPELINE II = 1  // one entry a cycle: a copy has one write port
#pragma HLS LOOP_TRIPCOUNT min = 0 max = C::TABLE_ENTRIES
    const uint64_t word[C::WEIGHT_PORTS] = {uint64_t(weights[pass.weight_addr + i])...};
    uint64_t entry = 0;
  join_ports:
    for (int q = 0; q < C::WEIGHT_PORTS; q++) {
#pragma HLS UNROLL  // the entry comes from the first port, the others bring 0
      entry |= word[q];
    }
  copy_entry:
    for (int lane = 0; lane < C::SIMD * C::PE; lane++) {
#pragma HLS UNROLL  // into all copies at once
      table[lane][i] = weight_t(int16_t(uint16_t(entry)));
    }
  }
  const bool biased = pass.first && pass.weight_words > 0;
  const int32_t rows_start = pass.table_words + (biased ? C::BIAS_WORDS : 0);
clear_bias:
  for (int p = 0; p < C::PE; p++) {
#pragma HLS UNROLL  // registers; stays 0 for operations without weights
    bias[p] = 0;
  }
load_bias:
  for (int32_t i = pass.table_words; i < rows_start; i++) {
#pragma HLS PIPELINE II = 1  // one bus word from each port a cycle
#pragma HLS LOOP_TRIPCOUNT min = 0 max = C::BIAS_WORDS
    const uint64_t word[C::WEIGHT_PORTS] = {uint64_t(weights[pass.weight_addr + i])...};
  split_bias:
    for (int q = 0; q < C::WEIGHT_PORTS; q++) {
#pragma HLS UNROLL  // two biases a word
      const int32_t p = 2 * ((i - pass.table_words) * C::WEIGHT_PORTS + q);
      if (p < C::PE) {
        bias[p] = int32_t(uint32_t(word[q]));
        bias[p + 1] = int32_t(uint32_t(word[q] >> 32));
      }
    }
  }
  const int32_t width = d.weight_bits, row_words = d.row_words;
  const bool coded = C::HAS_CODEBOOK && d.weight_table > 0;
  // An index is a field without its sign.
  const int32_t mask = min_of(d.weight_table, C::TABLE_ENTRIES) - 1;
  uint64_t row[C::ROW_WORDS];
#pragma HLS ARRAY_PARTITION variable = row complete  // registers: a whole row
  int32_t have = 0;                                  // words of the current row, from each port
  int32_t r = 0;
load_word:
  for (int32_t i = rows_start; i < pass.weight_words; i++) {
#pragma HLS PIPELINE II = 1  // one bus word from each port a cycle; bursts of known length
#pragma HLS LOOP_TRIPCOUNT min = 1 max = C::WEIGHT_ROWS * C::ROW_WORDS / C::WEIGHT_PORTS
    const uint64_t word[C::WEIGHT_PORTS] = {uint64_t(weights[pass.weight_addr + i])...};
  place_word:
    for (int q = 0; q < C::WEIGHT_PORTS; q++) {
#pragma HLS UNROLL  // a register listens to one port only, whatever the width
      row[have * C::WEIGHT_PORTS + q] = word[q];
    }
    have++;
    if (have == row_words) {
      int16_t number[C::SIMD * C::PE];
#pragma HLS ARRAY_PARTITION variable = number complete  // wires
      split_row<C>(row, width, number);
    store_s:
      for (int s = 0; s < C::SIMD; s++) {
#pragma HLS UNROLL  // the whole row in one cycle
      store_p:
        for (int p = 0; p < C::PE; p++) {
#pragma HLS UNROLL  // the whole row in one cycle
          const int lane = s * C::PE + p;
          buffer[r][s][p] = coded ? table[lane][number[lane] & mask] : weight_t(number[lane]);
        }
      }
      r++;
      have = 0;
    }
  }
  count.write(pass.weight_words);
}

#endif  // WEIGHT_LOADER_HPP
