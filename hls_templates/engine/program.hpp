// SPDX-License-Identifier: Apache-2.0
// The program: what a network is to the engine, beside its weights (docs/formats.md, section 5). A
// header, an index that says where each layer's record is, and the records: the layer's row, then
// its tables as int32, two a word: centroids of its inputs, thresholds, factors of a normalisation.
#ifndef PROGRAM_HPP
#define PROGRAM_HPP

#include "layer.hpp"
#include "memory_port.hpp"

const uint32_t PROGRAM_MAGIC = 0x5051554E;  // "NUQP" as bytes
const uint32_t PROGRAM_VERSION = 1;
const int PROGRAM_HEADER_WORDS = 4;
const int PROGRAM_INDEX_WORDS = 2;  // of a layer
const int ROW_COLUMN_WORDS = (LAYER_COLUMNS + 1) / 2;
const int LRN_WORDS = (LRN_ENTRIES + 1) / 2;

// Words of a KNQ table.
template <class C>
struct KnqTable {
  static const int WORDS = (C::KNQ_LEVELS + 1) / 2;
};

// Where a layer's record is, and which on-chip memory the layer reads.
struct RecordPlace {
  addr_t address, words;
  bool swap;  // it reads B and writes A, not the other way round
};

// The two int32 of a word.
inline int32_t low_half(uint64_t word) {
#pragma HLS INLINE
  return int32_t(uint32_t(word));
}
inline int32_t high_half(uint64_t word) {
#pragma HLS INLINE
  return int32_t(uint32_t(word >> 32));
}

// Reads a layer's entry of the index.
template <class C>
RecordPlace find_record(MemoryPort<C> program, int32_t layer) {
#pragma HLS INLINE off  // once a layer, before its region begins
  program.read_request(PROGRAM_HEADER_WORDS + PROGRAM_INDEX_WORDS * layer, 1);
  const uint64_t entry = uint64_t(program.read());
  const uint32_t size = uint32_t(high_half(entry));
  const RecordPlace place = {addr_t(low_half(entry)), size >> 1, (size & 1) != 0};
  return place;
}

// The row of a record whose words are about to come.
template <class C>
LayerDesc read_row(MemoryPort<C>& program) {
#pragma HLS INLINE
  typename C::bus_t word[ROW_COLUMN_WORDS];
#pragma HLS ARRAY_PARTITION variable = word complete  // registers, where LayerDesc lies
read_column:
  for (Count<ROW_COLUMN_WORDS> i = 0; i < ROW_COLUMN_WORDS; i++) {
#pragma HLS PIPELINE II = 1  // a word a cycle
    word[i] = program.read();
  }
  int32_t column[2 * ROW_COLUMN_WORDS];
#pragma HLS ARRAY_PARTITION variable = column complete  // wires
split_column:
  for (int i = 0; i < ROW_COLUMN_WORDS; i++) {
#pragma HLS UNROLL  // wires
    column[2 * i] = low_half(uint64_t(word[i]));
    column[2 * i + 1] = high_half(uint64_t(word[i]));
  }
  return layer_desc(column);
}

#endif  // PROGRAM_HPP
