// SPDX-License-Identifier: Apache-2.0
// Weight loader: DDR words -> one side of the ping-pong weight buffer. A buffer row holds the
// PE*SIMD weights that one cycle consumes, W bits each, and is a whole number of bus words, so
// words are collected in registers and the row is written at once: no gearbox. A tile's first pass
// brings its biases in front of the rows, two 32-bit integers a word.
#ifndef WEIGHT_LOADER_HPP
#define WEIGHT_LOADER_HPP

#include "fifo.hpp"
#include "layer.hpp"

// Field `index` of a packed row, sign-extended. The index is a constant after unrolling: wiring.
template <class C>
typename C::weight_t weight_field(const uint64_t row[C::ROW_WORDS], int index) {
#pragma HLS INLINE
  const int bit = index * C::WEIGHT_BITS;
  const int word = bit / WORD_BITS;
  const int offset = bit % WORD_BITS;
  uint64_t field = row[word] >> offset;
  if (offset + C::WEIGHT_BITS > WORD_BITS) field |= row[word + 1] << (WORD_BITS - offset);
  const int spare = WORD_BITS - C::WEIGHT_BITS;
  return typename C::weight_t(int64_t(field << spare) >> spare);
}

template <class C>
void load_weights(const typename C::bus_t* weights, Fifo<Pass>& pass_in,
                  typename C::weight_t buffer[C::WEIGHT_ROWS][C::SIMD][C::PE], int32_t bias[C::PE],
                  Fifo<count_t>& count) {
  const Pass pass = pass_in.read();
  const int32_t bias_words = pass.first && pass.weight_words > 0 ? C::PE / 2 : 0;
clear_bias:
  for (int p = 0; p < C::PE; p++) {
#pragma HLS UNROLL  // registers; stays 0 for operations without weights
    bias[p] = 0;
  }
load_bias:
  for (int32_t i = 0; i < bias_words; i++) {
#pragma HLS PIPELINE II = 1  // one bus word a cycle
#pragma HLS LOOP_TRIPCOUNT min = 0 max = C::PE / 2
    const uint64_t word = uint64_t(weights[pass.weight_addr + i]);
    bias[2 * i] = int32_t(uint32_t(word));
    bias[2 * i + 1] = int32_t(uint32_t(word >> 32));
  }
  uint64_t row[C::ROW_WORDS];
#pragma HLS ARRAY_PARTITION variable = row complete  // registers: a whole buffer row
  int32_t have = 0;                                  // words of the current row
  int32_t r = 0;
load_word:
  for (int32_t i = bias_words; i < pass.weight_words; i++) {
#pragma HLS PIPELINE II = 1  // one bus word a cycle; a burst of known length
#pragma HLS LOOP_TRIPCOUNT min = 1 max = C::WEIGHT_ROWS * C::ROW_WORDS
    row[have] = uint64_t(weights[pass.weight_addr + i]);
    have++;
    if (have == C::ROW_WORDS) {
    split_s:
      for (int s = 0; s < C::SIMD; s++) {
#pragma HLS UNROLL  // the whole row in one cycle
      split_p:
        for (int p = 0; p < C::PE; p++) {
#pragma HLS UNROLL  // the whole row in one cycle
          buffer[r][s][p] = weight_field<C>(row, s * C::PE + p);
        }
      }
      r++;
      have = 0;
    }
  }
  count.write(pass.weight_words);
}

#endif  // WEIGHT_LOADER_HPP
