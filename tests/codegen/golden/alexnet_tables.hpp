// SPDX-License-Identifier: Apache-2.0
// Tables of alexnet: the layer table and the KNQ tables.
// Written by codegen 0.1.0 from the manifest with SHA-256 0000000000000000000000000000000000000000000000000000000000000000.
#ifndef TABLES_HPP
#define TABLES_HPP

#include "layer.hpp"

// One row per layer, columns in the order of LayerDesc:
//   in_addr, out_addr, in_bits, in_signed, in_height, in_width, rows_used, in_plane_words, blocks,
//   chunks, chunk_blocks, kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, pad_top,
//   pad_left, conv_height, conv_width, ring_rows, prefetch_next, resident, conv_groups,
//   tiles_per_group, group_out_planes, out_channels, pool_h, pool_w, pool_stride_h, pool_stride_w,
//   pool_pad_top, pool_pad_left, out_height, out_width, out_bits, out_plane_words, weight_addr,
//   weight_bits, weight_table, row_words, bias_shift, requant_shift, y_max, in_scheme, in_shift,
//   in_half, in_table, out_scheme, out_shift, out_half, out_table, raw, op, out_signed, y_min,
//   sources, in_align, in2_align, in2_addr, in2_bits, in2_plane_words, in2_signed, in2_scheme,
//   in2_shift, in2_half, in2_table, reciprocal, exclude_pad, lrn_size, lrn_table, in_chip, in2_chip,
//   out_chip, chip_swap, cache_addr, columns, first_rows, row_entries, ring_entries, image_entries,
//   stride_entries, pixel_entries, top_entries, left_entries, tap_row_entries, tap_column_entries,
//   in_row_bytes, in2_row_bytes, out_row_bytes, tile_planes, last_planes, last_blocks, chunk_words,
//   chunk2_words, group_words, tile_words, last_tile_words, rows_words, last_words, layer_tiles,
//   layer_passes, reach, write_rows, layer_words
// clang-format off
static const LayerDesc LAYER_TABLE[8] = {
    {0, 0, 10, 1, 57, 57, 57, 4062,   6, 1,   6, 3, 3, 1, 1, 1, 1, 0, 0, 55, 55,  4, 0, 0, 1,   3,   8,   64, 3, 3, 2, 2, 0, 0, 27, 27, 3, 274,        0, 14, 0, 42, 0, 14, 4095, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1, 1, 0, 55, 3, 342, 1368, 342, 342,   6,   0,  0, 342,   6, 570, 0, 81, 3, 2,   6, 24372, 0, 24372, 822, 548,  2268,  2268,   3,   3, 3, 27,    6840},  // conv1
    {0, 0,  3, 0, 27, 27, 27,  274,   8, 1,   8, 5, 5, 1, 1, 1, 1, 2, 2, 27, 27,  6, 1, 0, 1,   8,  24,  192, 3, 3, 2, 2, 0, 0, 13, 13, 3,  64,     6840, 14, 0, 42, 0, 14, 4095, 2, 0, 0, 0, 2, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 27, 3, 216, 1296, 648, 216,   8, 432, 16, 216,   8,  81, 0, 39, 3, 3,   8,  2192, 0,  2192, 192, 192,  8400,  8400,   8,   8, 3, 13,   67296},  // conv2
    {0, 0,  3, 0, 13, 13, 13,   64,  24, 1,  24, 3, 3, 1, 1, 1, 1, 1, 1, 13, 13,  4, 1, 0, 1,  16,  48,  384, 1, 1, 1, 1, 0, 0, 13, 13, 3,  64,    74136, 14, 0, 42, 0, 14, 4095, 2, 0, 0, 1, 2, 0, 0, 2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 1, 0, 13, 2, 312, 1248, 312, 312,  24, 312, 24, 312,  24,  39, 0, 39, 3, 3,  24,  1536, 0,  1536, 192, 192,  9072,  9072,  16,  16, 2, 13,  145344},  // conv3
    {0, 0,  3, 0, 13, 13, 13,   64,  48, 2,  24, 3, 3, 1, 1, 1, 1, 1, 1, 13, 13,  4, 1, 0, 1,  11,  32,  256, 1, 1, 1, 1, 0, 0, 13, 13, 3,  64,   219480, 14, 0, 42, 0, 14, 4095, 2, 0, 0, 2, 2, 0, 0, 3, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 13, 2, 312, 1248, 312, 312,  24, 312, 24, 312,  24,  39, 0, 39, 3, 2,  24,  1536, 0,  3072, 192, 128,  9072,  9072,  11,  22, 2, 13,  199716},  // conv4
    {0, 0,  3, 0, 13, 13, 13,   64,  32, 2,  16, 3, 3, 1, 1, 1, 1, 1, 1, 13, 13,  4, 1, 0, 1,  11,  32,  256, 3, 3, 2, 2, 0, 0,  6,  6, 3,  14,   419196, 14, 0, 42, 0, 14, 4095, 2, 0, 0, 3, 2, 0, 0, 4, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 1, 0, 13, 2, 208,  832, 208, 208,  16, 208, 16, 208,  16,  39, 0, 18, 3, 2,  16,  1024, 0,  2048,  42,  28,  6048,  6048,  11,  22, 2,  6,  133188},  // conv5
    {0, 0,  3, 0,  6,  6,  6,   14,  32, 5,   7, 6, 6, 1, 1, 1, 1, 0, 0,  1,  1, 12, 1, 0, 1, 171, 512, 4096, 1, 1, 1, 1, 0, 0,  1,  1, 3,   1,   552384, 14, 0, 42, 0, 14, 4095, 2, 0, 0, 4, 2, 0, 0, 5, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0,  1, 6,  42,  504, 252,  42,   7,   0,  0,  42,   7,  18, 0,  3, 3, 2,   4,    98, 0,   448,   3,   2, 10584,  6048, 171, 855, 6,  1, 8275716},  // fc6
    {0, 0,  3, 0,  1,  1,  1,    1, 512, 2, 256, 1, 1, 1, 1, 1, 1, 0, 0,  1,  1,  2, 1, 0, 1, 171, 512, 4096, 1, 1, 1, 1, 0, 0,  1,  1, 3,   1,  8828100, 14, 0, 42, 0, 14, 4095, 2, 0, 0, 5, 2, 0, 0, 6, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 1, 0,  1, 1, 256,  512, 256, 256, 256,   0,  0, 256, 256,   3, 0,  3, 3, 2, 256,   256, 0,   512,   3,   2, 10752, 10752, 171, 342, 1,  1, 3679236},  // fc7
    {0, 0,  3, 0,  1,  1,  1,    1, 512, 2, 256, 1, 1, 1, 1, 1, 1, 0, 0,  1,  1,  2, 1, 0, 1,  42, 125, 1000, 1, 1, 1, 1, 0, 0,  1,  1, 0,   0, 12507336, 14, 0, 42, 0,  0,    0, 2, 0, 0, 6, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0,  1, 1, 256,  512, 256, 256, 256,   0,  0, 256, 256,   3, 0,  0, 3, 2, 256,   256, 0,   512,  24,   0, 10752, 10752,  42,  84, 1,  1,  903672},  // fc8
};

// Decoded value of each code, a row per KNQ table; unused codes repeat the last centroid.
static const int32_t CENTROID[7][8] = {
    {0, 585, 1170, 1755, 2340, 2925, 3510, 4095},  // conv1
    {0, 585, 1170, 1755, 2340, 2925, 3510, 4095},  // conv2
    {0, 585, 1170, 1755, 2340, 2925, 3510, 4095},  // conv3
    {0, 585, 1170, 1755, 2340, 2925, 3510, 4095},  // conv4
    {0, 585, 1170, 1755, 2340, 2925, 3510, 4095},  // conv5
    {0, 585, 1170, 1755, 2340, 2925, 3510, 4095},  // fc6
    {0, 585, 1170, 1755, 2340, 2925, 3510, 4095},  // fc7
};

// Smallest value of each code, a row per KNQ table; unused thresholds are never reached.
static const int32_t THRESHOLD[7][8] = {
    {0, 585, 1170, 1755, 2340, 2925, 3510, 4095},  // conv1
    {0, 585, 1170, 1755, 2340, 2925, 3510, 4095},  // conv2
    {0, 585, 1170, 1755, 2340, 2925, 3510, 4095},  // conv3
    {0, 585, 1170, 1755, 2340, 2925, 3510, 4095},  // conv4
    {0, 585, 1170, 1755, 2340, 2925, 3510, 4095},  // conv5
    {0, 585, 1170, 1755, 2340, 2925, 3510, 4095},  // fc6
    {0, 585, 1170, 1755, 2340, 2925, 3510, 4095},  // fc7
};

// Factors of local response normalisation, a row per layer that has one; see docs/formats.md, 2.8.
static const int32_t LRN_TABLE[1][LRN_ENTRIES] = {
    {0},
};

// round(2^24 / n): averages over n elements of a window.
static const int32_t RECIPROCAL[MAX_COUNT + 1] = {
    0, 16777216, 8388608, 5592405, 4194304, 3355443, 2796203, 2396745, 2097152, 1864135, 1677722,
    1525201, 1398101, 1290555, 1198373, 1118481, 1048576, 986895, 932068, 883011, 838861, 798915,
    762601, 729444, 699051, 671089, 645278, 621378, 599186, 578525, 559241, 541201, 524288, 508400,
    493448, 479349, 466034, 453438, 441506, 430185, 419430, 409200, 399458, 390168, 381300, 372827,
    364722, 356962, 349525, 342392, 335544, 328965, 322639, 316551, 310689, 305040, 299593, 294337,
    289262, 284360, 279620, 275036, 270600, 266305, 262144
};
// clang-format on

#endif  // TABLES_HPP
