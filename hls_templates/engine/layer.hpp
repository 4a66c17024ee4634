// SPDX-License-Identifier: Apache-2.0
// LayerDesc: one row of the constant layer table (the papers' Lidx selects it), and Pass: one tile
// of PE output channels times one chunk of input channels, the unit of work of the engine. What
// each field means is defined in docs/formats.md; LAYER_FIELDS there and the order here are the
// same.
#ifndef LAYER_HPP
#define LAYER_HPP

#include <cstdint>

// Bits of a 64-bit bus word; addresses count words.
const int WORD_BITS = 64;
const int WORD_BYTES = 8;
// Channels of a pixel block: 8 codes of T bits are exactly T bytes.
const int BLOCK_CODES = 8;
static_assert(WORD_BITS == 8 * WORD_BYTES, "a word must have 8 bits in each of its bytes");

// What a layer computes: a convolution; the sum of its window (add, average pool, max pool alone),
// channel by channel; or local response normalisation.
enum Operation { OP_CONV = 0, OP_SUM = 1, OP_LRN = 2 };

// Where a feature map is: in DRAM; in an on-chip memory; or in DRAM, but its first reading leaves a
// copy on chip, from which the later tiles of output channels read.
enum Place { PLACE_DDR = 0, PLACE_CHIP = 1, PLACE_CACHE = 2 };

enum Scheme { SCHEME_UNIFORM = 0, SCHEME_ENQ = 1, SCHEME_KNQ = 2 };

struct LayerDesc {
  // Input feature map.
  int32_t in_addr, out_addr;
  int32_t in_bits, in_signed;
  int32_t in_height, in_width, rows_used, in_plane_words;
  int32_t blocks, chunks, chunk_blocks;
  // Convolution.
  int32_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, pad_top, pad_left;
  int32_t conv_height, conv_width, ring_rows, prefetch_next, resident;
  int32_t conv_groups, tiles_per_group, group_out_planes, out_channels;
  // Max pool (1x1 where there is none) and the stored output.
  int32_t pool_h, pool_w, pool_stride_h, pool_stride_w, pool_pad_top, pool_pad_left;
  int32_t out_height, out_width, out_bits, out_plane_words;
  // Weights and arithmetic.
  int32_t weight_addr, weight_bits, weight_table, row_words;
  int32_t bias_shift, requant_shift, y_max;
  // Decoder of the input, encoder of the output.
  int32_t in_scheme, in_shift, in_half, in_table;
  int32_t out_scheme, out_shift, out_half, out_table;
  int32_t raw;
  // Operations without weights: the second input of an add, alignment, average, normalisation.
  int32_t op, out_signed, y_min;
  int32_t sources, in_align, in2_align, in2_addr, in2_bits, in2_plane_words;
  int32_t in2_signed, in2_scheme, in2_shift, in2_half, in2_table;
  int32_t reciprocal, exclude_pad, lrn_size, lrn_table;
  // Where the feature maps are (enum Place), and which on-chip memory is read, which written.
  int32_t in_chip, in2_chip, out_chip, chip_swap, cache_addr;
};

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
