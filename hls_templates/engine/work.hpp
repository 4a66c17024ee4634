// SPDX-License-Identifier: Apache-2.0
// What control() sends the processes: for every layer a Work each, with just the fields that the
// process needs; and the tokens by which the planning processes steer those that move data. C is
// struct Network: y_t, x_t, entry_t, ... are the exact widths that the code generator has proved.
#ifndef WORK_HPP
#define WORK_HPP

#include "ap_int.h"
#include "fifo.hpp"
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

// The same for PIXELS neighbours in a row, pixel by pixel; those beyond its end carry sums that
// nobody uses. Flat, as all that is stored in one memory word: AGGREGATE takes no struct in a
// struct.
template <class C>
struct SumGroup {
  typename C::acc_t sum[C::PIXELS * C::PE];
};

// --- load_weights ---------------------------------------------------------------------------

template <class C>
struct LoadWork {
  addr_t address;       // of the layer's first word in every port's section
  count_t words;        // of the whole layer, in every section; 0 for operations without weights
  count_t table_words;  // codebook entries in front of everything
  count_t rows_words;   // words of the weight rows of a whole chunk
  count_t last_words;   // and of the last chunk
  Count<C::ROW_WORDS> row_words;
  Count<16> weight_bits;
  Count<C::TABLE_ENTRIES> weight_table;
  Count<C::MAX_PASSES> chunks;
  Count<32> bias_shift;
  bool scaled;
  bool paired;  // two output channels share a multiplier
};

// The biases of a tile, shifted: what its accumulators start at.
template <class C>
struct BiasTile {
  typename C::acc_t start[C::PE];
};

const int SCALE_BITS = 8;  // of an output channel's weight scale
const int SCALES = WORD_BITS / SCALE_BITS;

// The weight scales of a tile.
template <class C>
struct ScaleTile {
  uint8_t factor[C::PE];
};

// --- plan_reads -> read_words, unpack_rows, compute -----------------------------------------

template <class C>
struct ReadWork {
  Count<C::MAX_IMAGES> images;
  typename C::y_t rows;
  Count<2> sources;
  Count<C::MAX_ROW_WORDS * WORD_BYTES> row_bytes[2];  // of an input row of each source
  addr_t plane_words[2];                              // from plane to plane of each source
  addr_t map[2], chip[2];                             // of the map's first word: in DRAM, on chip
  Count<2> place[2];                                  // enum Place
  Count<16> bits[2];
  addr_t map_words, chip_words;  // from image to image in DRAM, and on chip
  bool clamp;                    // of a normalisation: planes beyond 0 .. planes-1 are the edge's
  bool repeat;                   // the second source is a pixel, which is read for every row
  typename C::plane_t planes;    // of the map
  typename C::entry_t row_entries, ring_entries;
};

// One pass: which planes it reads.
template <class C>
struct ReadPass {
  addr_t offset[2];            // of the first plane from the map, of each source
  typename C::plane_t plane;   // its number; counts where it may lie outside
  typename C::block_t blocks;  // planes
  typename C::block_t second;  // line buffer entry of the second source's first block in a pixel
  bool fetch;                  // a cached input comes from DRAM
  bool last;                   // of the layer's passes that read
};

// The words of one row of one plane.
template <class C>
struct ReadJob {
  addr_t address, copy;                 // in DRAM, on chip
  Count<C::MAX_ROW_WORDS> held, words;  // words that come from the chip, and all
  bool keep, last;  // keep: what comes from DRAM is copied on chip; last of the layer
};

struct UnpackJob {
  Count<16> bits;                // T
  Count<WORD_BYTES - 1> offset;  // bytes before the row's first in its first word
  bool repeat;                   // one pixel takes the place of the whole row
  bool last;
};

// Where the row goes in the line buffer.
template <class C>
struct LineJob {
  typename C::entry_t entry;
  bool row_end;  // last plane of its row
};

template <class C>
struct UnpackWork {
  typename C::x_t width;
};

// --- plan_rows -> compute -------------------------------------------------------------------

template <class C>
struct RowWork {
  Count<C::MAX_IMAGES> images;
  typename C::y_t rows, conv_height;
  bool prefetch_next, resident, is_conv;
  Count<C::MAX_PASSES> passes, chunks;
  typename C::y_t stride_h, pad_top, first_rows, reach;
  typename C::entry_t row_entries, ring_entries, stride_entries, image_entries;
  typename C::entry_t top_entries, left_entries;
  typename C::channel_t first_channel, tile_channels;
};

// One output row of a pass, or (columns 0) input rows that are needed before it.
template <class C>
struct RowJob {
  typename C::y_t rows_in;              // input rows to take in meanwhile
  typename C::y_t y;                    // first row of the window
  typename C::entry_t entry;            // line buffer entry of its corner, left padding included
  typename C::channel_t first_channel;  // of the tile, where there are operations without weights
  bool computes, first, last, pass_end, layer_end;  // first, last chunk
};

// --- plan_taps -> compute -------------------------------------------------------------------

template <class C>
struct TapWork {
  bool is_conv, depthwise;
  Count<2> sources;
  typename C::y_t kernel_h, dilation_h;
  typename C::x_t kernel_w, dilation_w;
  typename C::entry_t column_entries, row_entries;  // from tap to tap, across and down
  Count<C::MAX_PASSES> passes;
};

// The taps of one cycle: where each of the G lane groups stands in the list of (kernel row, kernel
// column, block), block fastest; where lanes are channels, WINDOW rows of a column.
template <class C>
struct TapRow {
  typename C::x_t x[C::WINDOW];          // distance of the tap from the window's corner
  typename C::y_t y[C::WINDOW];          // likewise
  typename C::entry_t entry[C::WINDOW];  // and of its line buffer entry from the corner's
  bool exists[C::WINDOW];                // false behind the end of the list
  typename C::block_t group;             // of an operation: which SIMD channels
  bool second;                           // and whether of the second source
  bool pass_end, layer_end;
};

// --- compute --------------------------------------------------------------------------------

template <class C>
struct ComputeWork {
  bool is_conv, wide, paired;  // wide: codes have bits in the upper memory
  bool depthwise;              // lanes are channels
  Count<C::MAX_PASSES> chunks;
  typename C::x_t columns, lead, width, stride_w, pad_left;
  typename C::y_t height;
  typename C::entry_t chunk_blocks, ring_entries, pixel_entries;
  Count<31> align[2];
  typename C::channel_t channels;
  CodeSettings source[2];
};

// --- finish, max_pool, pack_rows, write_words -------------------------------------------------

// A shift to the right, to the left where it is negative: less than the 64 bits of a sum.
#ifdef CSIM_FAST
typedef int32_t shift_t;
#else
typedef ap_int<7> shift_t;
#endif

template <class C>
struct FinishWork {
  bool raw, scaled, exclude_pad;
  bool wide;    // sums have the wide factor of an average, a normalisation or a product
  bool single;  // a group has one pixel
  Count<3> op;  // enum Operation
  Count<C::PE> pixel_steps;
  Count<C::MAX_PASSES> tiles;
  Count<C::MAX_IMAGES> images;
  typename C::y_t conv_height, stride_h, pad_top, kernel_h, in_height;
  typename C::x_t conv_width, stride_w, pad_left, kernel_w, in_width;
  shift_t requant_shift;
  typename C::quant_t y_min, y_max;
  Count<1 << 24> reciprocal;  // of an average: 2^24 over its elements
  Count<2 * C::LRN_REACH + 1> lrn_size;
  CodeSettings code;
};

template <class C>
struct PoolWork {
  bool raw, pooled;
  Count<C::MAX_PASSES> tiles;
  Count<C::MAX_IMAGES> images;
  typename C::y_t conv_height, out_height, pool_h, stride_h, pad_top;
  typename C::x_t conv_width, out_width, pool_w, stride_w, pad_left;
};

template <class C>
struct PackWork {
  bool raw, apart;  // apart: a plane of the tile for every place of a pixel
  Count<C::MAX_PASSES> tiles;
  Count<C::MAX_IMAGES> images;
  typename C::y_t out_height;
  typename C::x_t out_width;
  Count<16> out_bits;
  Count<MAX_UPSCALE> places_h, places_w;
};

// One tile of output channels.
template <class C>
struct TileJob {
  addr_t offset;                 // of its first plane (raw: channel) from the map
  Count<C::PACK_PLANES> planes;  // that exist
  Count<C::PE> lanes;            // likewise
};

template <class C>
struct WriteWork {
  // parts: all rows are part_words, because other tiles' rows lie between them, or raw pixels are
  // written a row at a time
  bool raw, on_chip, parts;
  Count<C::MAX_PASSES> tiles;
  Count<C::MAX_IMAGES> images;
  Count<C::MAX_HEIGHT * C::MAX_WIDTH> rows;        // raw: pixels, or rows of them
  Count<C::MAX_ROW_WORDS * WORD_BYTES> row_bytes;  // from row to row
  Count<C::MAX_ROW_WORDS> part_words;
  addr_t channels, map, plane_words, image_words;  // channels: raw, from row to row
};

template <class C>
struct WriteJob {
  addr_t address;
  Count<C::MAX_ROW_WORDS> words;
  bool on_chip, last;
};

#endif  // WORK_HPP
