// SPDX-License-Identifier: Apache-2.0
// Pass: one tile of PE output channels times one chunk of input channels, the unit of work of the
// engine; and what all headers share. LayerDesc, a row of the layer table, is in layer_desc.hpp.
#ifndef LAYER_HPP
#define LAYER_HPP

#include <cstdint>

#include "layer_desc.hpp"

// Bits of a 64-bit bus word; addresses count words.
const int WORD_BITS = 64;
const int WORD_BYTES = 8;
// Channels of a pixel block: 8 codes of T bits are exactly T bytes.
const int BLOCK_CODES = 8;
static_assert(WORD_BITS == 8 * WORD_BYTES, "a word must have 8 bits in each of its bytes");

// Entries of a normalisation table: 32 per octave of a sum of squares below 2^36 (docs/formats.md).
const int LRN_POINTS = 32;
const int LRN_POINTS_LOG2 = 5;
const int LRN_ENTRIES = 1025;
static_assert(LRN_POINTS == 1 << LRN_POINTS_LOG2, "LRN_POINTS must be 2^LRN_POINTS_LOG2");
static_assert(LRN_ENTRIES == LRN_POINTS * (36 - LRN_POINTS_LOG2 + 1) + 1,
              "LRN_ENTRIES must reach 2^36 and have one more point");
// Windows whose average leaves padding out may have up to so many elements.
const int MAX_COUNT = 64;

// One step through the engine's pipeline of processes; handed from each process to the next.
struct Pass {
  int32_t tile;          // running index of the tile of PE output channels
  int32_t first;         // 1: first chunk of its tile, accumulators start at the bias
  int32_t last;          // 1: last chunk of its tile, results leave the accumulators
  int32_t blocks;        // channel blocks of each input read in this pass
  int32_t steps;         // cycles of the multiplier array for each group of PIXELS pixels
  int32_t first_block;   // first channel block, counted over the whole input feature map
  int32_t input_parts;   // images that are read, and one more where the next pass's first rows are
  int32_t skip_rows;     // rows of the first image that the pass before has taken in
  int32_t ahead_rows;    // rows of the next pass's first image that this one takes in
  int32_t next_blocks;   // of the next pass
  int32_t next_block;    // first_block of the next pass
  int32_t next_fetch;    // fetch of the next pass
  int32_t out_plane;     // first output plane (of 8 channels), over the whole output feature map
  int32_t planes;        // output planes that exist, of the PE/8 computed
  int32_t weight_addr;   // word address of this pass's weights in every port's section
  int32_t weight_words;  // and how many words there are in each, codebook and biases included
  int32_t table_words;   // codebook entries in front of them: first pass of a coded layer
  int32_t images;        // images in the batch
  int32_t fetch;         // 1: first tile that reads this chunk: a cached input comes from DRAM
};

// The input rows begin..end-1 of one image, of so many blocks from first_block on.
struct InputPart {
  int32_t image, begin, end, blocks, first_block, fetch;
};

// What a pass reads, in order: the rows of every image that are not in the line buffer yet, then
// the first rows of the next pass, so that it need not wait for them.
inline InputPart input_part(const LayerDesc& d, const Pass& pass, int32_t n) {
  const bool next = n == pass.images;
  const InputPart part = {next ? 0 : n,
                          n == 0 ? pass.skip_rows : 0,
                          next ? pass.ahead_rows : d.rows_used,
                          next ? pass.next_blocks : pass.blocks,
                          next ? pass.next_block : pass.first_block,
                          next ? pass.next_fetch : pass.fetch};
  return part;
}

// What the engine counts, in the order of the AXI-Lite registers; iterations of each process's
// innermost loop, one clock cycle each at initiation interval 1.
enum Counter {
  COUNT_BYTES_READ,
  COUNT_BYTES_WRITTEN,
  COUNT_BYTES_WEIGHTS,
  COUNT_CYCLES,
  COUNT_LOAD,
  COUNT_READ,
  COUNT_UNPACK,
  COUNT_COMPUTE,
  COUNT_FINISH,
  COUNT_POOL,
  COUNT_PACK,
  COUNT_WRITE,
  COUNTERS
};

typedef uint32_t count_t;

// v * 2^s. Plain << is undefined for negative native integers before C++20; ap_int defines it.
inline int32_t shift_left(int32_t v, int s) {
  return int32_t(uint32_t(v) << s);
}
inline int64_t shift_left(int64_t v, int s) {
  return int64_t(uint64_t(v) << s);
}
template <class T>
T shift_left(T v, int s) {
#pragma HLS INLINE
  return v << s;
}

inline int32_t min_of(int32_t a, int32_t b) {
  return a < b ? a : b;
}
inline int32_t max_of(int32_t a, int32_t b) {
  return a > b ? a : b;
}

// Input rows of one image that output row oy needs, counted from its first row.
inline int32_t rows_needed(const LayerDesc& d, int32_t oy) {
  const int32_t last = oy * d.stride_h - d.pad_top + (d.kernel_h - 1) * d.dilation_h;
  return max_of(0, min_of(last + 1, d.rows_used));
}

#endif  // LAYER_HPP
