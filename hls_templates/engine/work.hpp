// SPDX-License-Identifier: Apache-2.0
// What control() sends the processes: for every layer a Work each, with just the fields that the
// process needs; and the tokens by which the planning processes steer those that move data. C is
// struct Network: y_t, x_t, entry_t, ... are the exact widths that the code generator has proved.
#ifndef WORK_HPP
#define WORK_HPP

#include "ap_int.h"
#include "layer.hpp"

// Eight codes of one pixel, in channel order.
template <class C>
struct CodeBlock {
  typename C::code_t code[BLOCK_CODES];
};

// One code per output channel of a tile, for one pixel.
template <class C>
struct CodeVector {
  typename C::code_t code[C::PE];
};

// One accumulator per output channel of a tile, for one pixel.
template <class C>
struct SumVector {
  typename C::acc_t sum[C::PE];
};

// The same for PIXELS neighbours in a row; those beyond its end carry sums that nobody uses.
template <class C>
struct SumGroup {
  SumVector<C> pixel[C::PIXELS];
};

// --- load_weights ---------------------------------------------------------------------------

struct LoadWork {
  addr_t address;       // of the layer's first word in every port's section
  count_t words;        // of the whole layer, in every section; 0 for operations without weights
  count_t table_words;  // codebook entries in front of everything
  count_t rows_words;   // words of the weight rows of a whole chunk
  count_t last_words;   // and of the last chunk
  int32_t row_words, weight_bits, weight_table, chunks, bias_shift;
};

// The biases of a tile, shifted: what its accumulators start at.
template <class C>
struct BiasTile {
  typename C::acc_t start[C::PE];
};

// The weights that one cycle consumes, lane * PE + output channel: one memory word, written whole.
template <class C>
class WeightRow {
 public:
  typedef typename C::weight_t weight_t;
#ifdef CSIM_FAST
  weight_t get(int lane) const { return lane_[lane]; }
  void set(int lane, weight_t weight) { lane_[lane] = weight; }

 private:
  weight_t lane_[C::SIMD * C::PE];
#else
  weight_t get(int lane) const {
#pragma HLS INLINE
    const int low = lane % C::PE * C::WEIGHT_BITS;
    weight_t weight;
    weight.range(C::WEIGHT_BITS - 1, 0) = part_[lane / C::PE].range(low + C::WEIGHT_BITS - 1, low);
    return weight;
  }
  void set(int lane, weight_t weight) {
#pragma HLS INLINE
    const int low = lane % C::PE * C::WEIGHT_BITS;
    part_[lane / C::PE].range(low + C::WEIGHT_BITS - 1, low) = weight.range(C::WEIGHT_BITS - 1, 0);
  }

 private:
  ap_uint<C::PE * C::WEIGHT_BITS> part_[C::SIMD];  // of a lane; none beyond ap_int's 1024 bits
#endif
};

// --- plan_reads -> read_words, unpack_rows, compute -----------------------------------------

struct ReadWork {
  int32_t images, rows, sources, width;
  int32_t row_bytes[2];    // of an input row of each source
  addr_t plane_words[2];   // from plane to plane of each source
  addr_t map[2], chip[2];  // of the map's first word: in DRAM, and on chip
  int32_t place[2];        // enum Place
  int32_t bits[2];
  int32_t chip_words;     // of an image in the memory that is read
  int32_t clamp, planes;  // of a normalisation: planes beyond 0 .. planes-1 are the edge's
  int32_t row_entries, ring_entries;
};

// One pass: which planes it reads.
struct ReadPass {
  addr_t offset[2];  // of the first plane from the map, of each source
  int32_t plane;     // its number; counts where it may lie outside
  int32_t blocks;    // planes
  int32_t second;    // line buffer entry of the second source's first block in a pixel
  int32_t fetch;     // 1: a cached input comes from DRAM
  int32_t last;      // 1: last pass of the layer that reads
};

// The words of one row of one plane.
struct ReadJob {
  addr_t address, copy;  // in DRAM, on chip
  uint16_t held, words;  // words that come from the chip, and all
  bool keep, last;       // keep: what comes from DRAM is copied on chip; last of the layer
};

struct UnpackJob {
  uint8_t bits, offset;  // T, and bytes before the row's first in its first word
  bool last;
};

// Where the row goes in the line buffer.
template <class C>
struct LineJob {
  typename C::entry_t entry;
  bool row_end;  // last plane of its row
};

struct UnpackWork {
  int32_t width;
};

// --- plan_rows -> compute -------------------------------------------------------------------

struct RowWork {
  int32_t images, rows, conv_height, columns, prefetch_next, resident, passes, chunks;
  int32_t stride_h, pad_top, first_rows, reach;
  int32_t row_entries, ring_entries, stride_entries, image_entries, top_entries, left_entries;
  int32_t first_channel, tile_channels, group_channels, tiles_per_group, is_conv;
};

// One output row of a pass, or (columns 0) input rows that are needed before it.
template <class C>
struct RowJob {
  typename C::y_t rows_in;    // input rows to take in meanwhile
  typename C::y_t y;          // first row of the window
  typename C::entry_t entry;  // line buffer entry of its corner, left padding included
  int32_t first_channel;      // of the tile, where there are operations without weights
  bool computes, first, last, pass_end, layer_end;  // first, last chunk
};

// --- plan_taps -> compute -------------------------------------------------------------------

struct TapWork {
  int32_t is_conv, sources, kernel_h, kernel_w, dilation_h, dilation_w;
  int32_t column_entries, row_entries;  // from tap to tap, across and down
  int32_t passes;
};

// Where one lane group stands in the list of (kernel row, kernel column, block), block fastest: the
// tap's distance from the window's corner, and the entry's from the corner's.
template <class C>
struct Tap {
  typename C::x_t x;
  typename C::y_t y;
  typename C::entry_t entry;
  bool exists;  // false behind the end of the list
};

// The taps of one cycle, one for each of the G lane groups.
template <class C>
struct TapRow {
  Tap<C> tap[C::G];
  typename C::block_t group;  // of an operation: which SIMD channels
  bool second;                // and whether of the second source
  bool pass_end, layer_end;
};

// --- compute --------------------------------------------------------------------------------

struct ComputeWork {
  int32_t is_conv, chunks, columns, wide, width, height;
  int32_t chunk_blocks, ring_entries, stride_w, pad_left, pixel_entries;
  int32_t align[2], channels;
  CodeSettings source[2];
};

// --- finish, max_pool, pack_rows, write_words -------------------------------------------------

struct FinishWork {
  int32_t raw, op, tiles, images, conv_height, conv_width;
  int32_t requant_shift, y_min, y_max, reciprocal, exclude_pad, lrn_size, lrn_table;
  int32_t stride_h, stride_w, pad_top, pad_left, kernel_h, kernel_w, in_height, in_width;
  CodeSettings code;
};

struct PoolWork {
  int32_t raw, pooled, tiles, images, conv_height, conv_width, out_height, out_width;
  int32_t pool_h, pool_w, stride_h, stride_w, pad_top, pad_left;
};

struct PackWork {
  int32_t raw, tiles, images, out_height, out_width, out_bits;
};

// One tile of output channels.
struct TileJob {
  addr_t offset;           // of its first plane (raw: channel) from the map
  uint16_t planes, lanes;  // that exist
};

struct WriteWork {
  int32_t raw, tiles, images, rows, row_bytes, channels;
  addr_t map, plane_words;
  addr_t image_words;
  bool on_chip;
};

struct WriteJob {
  addr_t address;
  uint16_t words;
  bool on_chip, last;
};

#endif  // WORK_HPP
