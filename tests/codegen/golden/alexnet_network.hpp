// SPDX-License-Identifier: Apache-2.0
// Constants of one engine: widths and depths, for every network that fits them.
// Written by codegen 0.1.0. Do not edit: change the plan and generate again.
#ifndef NETWORK_HPP
#define NETWORK_HPP

#include "ap_int.h"
#include "layer.hpp"

struct Network {
  // Types. Exact widths for synthesis and for CSIM_TYPES=exact; for a fast C-simulation, native
  // integers that the width analysis has proved wide enough.
#ifdef CSIM_FAST
  typedef uint64_t bus_t;
  typedef int16_t weight_t;
  typedef uint16_t code_t;
  typedef uint16_t low_t;
  typedef uint8_t high_t;
  typedef int16_t value_t;
  typedef uint16_t quant_t;
  typedef int32_t tree_t;
  typedef int64_t acc_t;
  typedef int32_t operand_t;
  typedef int64_t wide_t;
  typedef unsigned __int128 in_gear_t;
  typedef unsigned __int128 out_gear_t;
  typedef int32_t y_t;
  typedef int32_t x_t;
  typedef int32_t entry_t;
  typedef int32_t block_t;
  typedef int32_t plane_t;
  typedef int32_t channel_t;
#else
  typedef ap_uint<64> bus_t;
  typedef ap_int<14> weight_t;
  typedef ap_uint<10> code_t;
  typedef ap_uint<10> low_t;
  typedef ap_uint<1> high_t;
  typedef ap_int<13> value_t;
  typedef ap_uint<13> quant_t;
  typedef ap_int<30> tree_t;
  typedef ap_int<40> acc_t;
  typedef ap_int<2> operand_t;
  typedef ap_int<41> wide_t;
  typedef ap_uint<128> in_gear_t;
  typedef ap_uint<80> out_gear_t;
  typedef ap_int<8> y_t;
  typedef ap_int<8> x_t;
  typedef ap_int<13> entry_t;
  typedef ap_int<11> block_t;
  typedef ap_int<11> plane_t;
  typedef ap_int<14> channel_t;
#endif

  static const uint32_t DESIGN_ID = 0;  // of all that is rendered
  static const bool HAS_ENQ = false;  // whether QE and CE exist
  static const bool HAS_KNQ = true;  // whether QK and CK exist
  static const bool HAS_OPS = false;  // whether layers without weights can run
  static const bool HAS_LRN = false;  // whether normalisations can
  static const bool HAS_CODEBOOK = false;  // whether weight codebooks exist
  static const bool HAS_AVERAGE = false;  // whether average pools can run
  static const bool HAS_PRODUCT = false;  // whether two inputs can be multiplied
  static const bool HAS_SCALE = false;  // whether output channels can have a weight scale
  static const int32_t SIMD = 8;  // input channels a cycle
  static const int32_t PE = 24;  // output channels a cycle
  static const int32_t PIXELS = 1;  // pixels a cycle
  static const int32_t G = 1;  // channel blocks a cycle
  static const int32_t KERNEL_ROWS = 0;  // of a depthwise kernel a cycle, 0 where lanes are none
  static const int32_t WINDOW = 1;  // blocks a cycle of a group's first pixel
  static const int32_t WEIGHT_BITS = 14;  // W
  static const int32_t SHARED = 1;  // output channels that share a multiplier at most
  static const int32_t PAIR_BITS = 0;  // largest W of weights that do
  static const int32_t PAIR_SHIFT = 0;  // of the upper weight
  static const int32_t PACKED_BITS = 14;  // of a weight, or of two, in the weight buffer
  static const int32_t VALUE_BITS = 13;  // of a decoded activation, sign included
  static const int32_t TREE_BITS = 30;  // of a sum of SIMD products
  static const int32_t ACC_BITS = 40;  // that no input can overflow
  static const int32_t CODE_BITS = 10;  // largest T
  static const int32_t WEIGHT_ROWS = 256;  // rows of one side of the weight buffer
  static const int32_t TAP_ROWS = 256;  // rows of one side of the tap table
  static const int32_t WEIGHT_PORTS = 1;  // memory ports for weights
  static const int32_t READ_AHEAD = 4;  // rows whose bursts are asked for ahead, a power of two
  static const int32_t WRITE_AHEAD = 4;  // rows whose bursts may be under way
  static const int32_t WEIGHT_WIDTHS = 1;  // widths at which weights are stored
  static const int32_t ROW_WORDS = 42;  // words of a row of weights
  static const int32_t BIAS_WORDS = 12;  // bus words of a tile's biases, from each port
  static const int32_t SCALE_WORDS = 3;  // of their weight scales, likewise
  static const int32_t TABLE_ENTRIES = 1;  // entries of the largest codebook
  static const int32_t LINE_BLOCKS = 1368;  // entries of a line buffer copy
  static const int32_t LINE_LOW_BITS = 10;  // bits of a code that every entry holds
  static const int32_t LINE_HIGH_BLOCKS = 1;  // entries that hold a code's other bits
  static const int32_t SUM_DISTANCE = 16;  // steps from writing a sum that waits to reading it
  static const int32_t PSUM_GROUPS = 169;  // groups of pixels that wait for their next chunk
  static const int32_t QK_UNITS = 1;  // requantizers and encoders
  static const int32_t FACTOR_UNITS = 1;  // of them, those with a wide factor
  static const int32_t KNQ_LEVELS = 8;  // codes of the largest table
  static const int32_t POOL_ROWS = 3;  // rows of a pool window
  static const int32_t POOL_WIDTH = 55;  // columns of its map
  static const int32_t PACK_WIDTH = 27;  // columns of the widest output
  static const int32_t PACK_PLANES = 3;  // output planes of a tile
  static const int32_t MAX_IMAGES = 1;  // images a call
  static const int32_t MAX_HEIGHT = 57;  // rows of a map
  static const int32_t MAX_WIDTH = 57;  // columns of a map
  static const int32_t MAX_BLOCKS = 512;  // channel blocks of a pass's inputs
  static const int32_t MAX_ROW_WORDS = 73;  // bus words of a row
  static const int32_t MAX_ROW_STEPS = 14592;  // cycles of an output row
  static const int32_t MAX_PASSES = 855;  // passes of a layer
  static const int32_t FACTOR_BITS = 2;  // of what a sum is multiplied by
  static const int32_t LRN_REACH = 0;  // channels to either side in a normalisation
  static const int32_t IN_WIDTHS = 2;  // widths T that are read
  static const int32_t OUT_WIDTHS = 1;  // widths T that are written
  static const int32_t CHIP_A_WORDS = 3072;  // bus words of on-chip memory A
  static const int32_t CHIP_B_WORDS = 24372;  // bus words of on-chip memory B

  // Widths T of the feature maps that are read and written.
  static constexpr int in_width(int k) {
    constexpr int widths[] = {3, 10};
    return widths[k];
  }
  static constexpr int out_width(int k) {
    constexpr int widths[] = {3};
    return widths[k];
  }

  // Widths at which weights are stored.
  static constexpr int weight_width(int k) {
    constexpr int widths[] = {14};
    return widths[k];
  }
};

#endif  // NETWORK_HPP
