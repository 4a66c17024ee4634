// SPDX-License-Identifier: Apache-2.0
// The engine with run-time tables, so that one program runs many small networks: constants are
// generous limits, set by -D on the command line; the tables come from a file.
//
//   engine NETWORK OUTPUT
//
// NETWORK: int64 layers, images, KNQ tables, LRN tables, weight words, input address, input words
// of an image; LayerDesc rows; centroids, thresholds [tables][KNQ_LEVELS], LRN factors (int32); the
// weights; the inputs; per layer the output words of an image (int64).
// OUTPUT: per layer the counters, the number of words changed elsewhere, the outputs (uint64).
#include <cstdio>
#include <cstdlib>
#include <utility>
#include <vector>

#include "ap_int.h"
#include "layer.hpp"

static std::vector<int32_t> centroid_table, threshold_table, lrn_tables;

struct Network {
#ifdef CSIM_FAST
  typedef uint64_t bus_t;
  typedef int16_t weight_t;
  typedef uint16_t code_t;
  typedef uint8_t low_t;
  typedef uint16_t high_t;
  typedef FUZZ_VALUE value_t;
  typedef int32_t quant_t;
  typedef int64_t tree_t;
  typedef int64_t acc_t;
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
  typedef ap_int<FUZZ_WEIGHT_BITS> weight_t;
  typedef ap_uint<16> code_t;
  typedef ap_uint<FUZZ_LOW_BITS> low_t;
  typedef ap_uint<16 - FUZZ_LOW_BITS> high_t;
  typedef ap_int<17> value_t;
  typedef ap_int<18> quant_t;
  typedef ap_int<48> tree_t;
  typedef ap_int<53> acc_t;
  typedef ap_int<64> wide_t;
  typedef ap_uint<128> in_gear_t;
  typedef ap_uint<128> out_gear_t;
  typedef ap_int<9> y_t;
  typedef ap_int<9> x_t;
  typedef ap_int<16> entry_t;
  typedef ap_int<9> block_t;
  typedef ap_int<8> plane_t;
  typedef ap_int<11> channel_t;
#endif
  static const bool HAS_ENQ = true, HAS_KNQ = true, HAS_OPS = true;
  static const bool HAS_LRN = FUZZ_PE >= 24, HAS_AVERAGE = true, HAS_CODEBOOK = true;
  static const int32_t SIMD = FUZZ_SIMD, PE = FUZZ_PE, PIXELS = FUZZ_PIXELS, G = SIMD / 8;
  static const int32_t WEIGHT_BITS = FUZZ_WEIGHT_BITS, VALUE_BITS = 17;
  static const int32_t WEIGHT_ROWS = FUZZ_WEIGHT_ROWS;
  static const int32_t WEIGHT_PORTS = FUZZ_WEIGHT_PORTS, WEIGHT_WIDTHS = 16;
  static const int32_t READ_AHEAD = 4, WRITE_AHEAD = 4;
  static const int32_t ROW_WORDS = PE * SIMD * 16 / 64, TABLE_ENTRIES = 256;
  static const int32_t BIAS_WORDS = (PE / 2 + WEIGHT_PORTS - 1) / WEIGHT_PORTS;
  static const int32_t PSUM_GROUPS = FUZZ_PSUM_GROUPS, QK_UNITS = FUZZ_QK_UNITS;
  static const int32_t CODE_BITS = 16, LINE_BLOCKS = FUZZ_LINE_BLOCKS;
  static const int32_t LINE_LOW_BITS = FUZZ_LOW_BITS, LINE_HIGH_BLOCKS = LINE_BLOCKS;
  static const int32_t KNQ_LEVELS = FUZZ_KNQ_LEVELS;
  static const int32_t POOL_ROWS = 8, POOL_WIDTH = 64, PACK_WIDTH = 64, PACK_PLANES = PE / 8;
  static const int32_t MAX_IMAGES = FUZZ_IMAGES, ARENA_WORDS = FUZZ_ARENA_WORDS;
  static const int32_t CHIP_A_WORDS = FUZZ_CHIP_WORDS, CHIP_B_WORDS = FUZZ_CHIP_WORDS + 1;
  static const int32_t MAX_HEIGHT = 64, MAX_WIDTH = 64, MAX_BLOCKS = 64, MAX_ROW_WORDS = 256;
  static const int32_t WEIGHT_WORDS = 1 << 20, MAX_ROW_STEPS = 1 << 20, MAX_PASSES = 1 << 12, LRN_REACH = 8;
  static const int32_t IN_WIDTHS = 16, OUT_WIDTHS = 16;  // every T from 1 to 16

  static constexpr int in_width(int k) { return k + 1; }
  static constexpr int out_width(int k) { return k + 1; }
  static constexpr int weight_width(int k) { return k + 1; }
  static value_t centroid(int table, int code) {
    return value_t(centroid_table[table * KNQ_LEVELS + code]);
  }
  static quant_t threshold(int table, int code) {
    return quant_t(threshold_table[table * KNQ_LEVELS + code]);
  }
  static int32_t lrn(int table, int point) { return lrn_tables[table * LRN_ENTRIES + point]; }
  static int32_t reciprocal(int n) { return n ? ((1 << 24) + n / 2) / n : 0; }
};

#include "engine.hpp"

static void check(bool good, const char* what) {
  if (good) return;
  std::fprintf(stderr, "error: %s\n", what);
  std::exit(2);
}

template <class T>
static std::vector<T> take(std::FILE* file, uint64_t count) {
  std::vector<T> items(count);
  check(std::fread(items.data(), sizeof(T), count, file) == count, "the network file is too short");
  return items;
}

// Words of a memory that changed, but for `words` words of each image from `first` on.
static uint64_t changed(const std::vector<uint64_t>& now, const std::vector<uint64_t>& before,
                        uint64_t stride, int64_t first, int64_t words) {
  uint64_t found = 0;
  for (uint64_t i = 0; i < now.size(); i++) {
    const int64_t at = int64_t(i % stride) - first;
    if ((at < 0 || at >= words) && now[i] != before[i]) found++;
  }
  return found;
}

// Each weight port gets its section of the weights.
template <std::size_t... Q>
static void run(const std::vector<uint64_t>& weights, Network::bus_t* fm,
                Network::bus_t* chip_in, Network::bus_t* chip_out, const LayerDesc& layer,
                int32_t images, Counters& counters, std::index_sequence<Q...>) {
  const Network::bus_t* first = reinterpret_cast<const Network::bus_t*>(weights.data());
  layer_region<Network>(MemoryPort<Network>(fm), MemoryPort<Network>(fm), chip_in, chip_out, layer,
                        images, counters.value, first + Q * (weights.size() / Network::WEIGHT_PORTS)...);
}

int main(int argc, char** argv) {
  check(argc == 3, "usage: engine NETWORK OUTPUT");
  std::FILE* file = std::fopen(argv[1], "rb");
  check(file != nullptr, "cannot open the network file");
  const std::vector<int64_t> head = take<int64_t>(file, 7);
  const int64_t layers = head[0], images = head[1], input_words = head[6];
  const std::vector<LayerDesc> table = take<LayerDesc>(file, layers);
  centroid_table = take<int32_t>(file, head[2] * Network::KNQ_LEVELS);
  threshold_table = take<int32_t>(file, head[2] * Network::KNQ_LEVELS);
  lrn_tables = take<int32_t>(file, head[3] * LRN_ENTRIES);
  const std::vector<uint64_t> weights = take<uint64_t>(file, head[4]);
  const std::vector<uint64_t> input = take<uint64_t>(file, images * input_words);
  const std::vector<int64_t> words = take<int64_t>(file, layers);
  std::fclose(file);
  check(images <= Network::MAX_IMAGES, "too many images");

  std::FILE* result = std::fopen(argv[2], "wb");
  check(result != nullptr, "cannot write the output file");
  const uint64_t arena = Network::ARENA_WORDS;
  std::vector<uint64_t> memory(images * arena, 0xA5A5A5A5A5A5A5A5ull);
  for (int64_t n = 0; n < images; n++) {
    for (int64_t i = 0; i < input_words; i++)
      memory[n * arena + head[5] + i] = input[n * input_words + i];
  }
  const uint64_t stride[2] = {Network::CHIP_A_WORDS, Network::CHIP_B_WORDS};
  std::vector<uint64_t> chip[2];
  for (int m = 0; m < 2; m++) chip[m].assign(images * stride[m], 0xA5A5A5A5A5A5A5A5ull);
  for (int64_t l = 0; l < layers; l++) {
    const LayerDesc& d = table[l];
    const int from = d.chip_swap ? 1 : 0, to = 1 - from;  // the on-chip memories of this layer
    const std::vector<uint64_t> before = memory, kept[2] = {chip[0], chip[1]};
    Counters counters = {{0}};
    Network::bus_t* fm = reinterpret_cast<Network::bus_t*>(memory.data());
    run(weights, fm, reinterpret_cast<Network::bus_t*>(chip[from].data()),
        reinterpret_cast<Network::bus_t*>(chip[to].data()), d, int32_t(images), counters,
        std::make_index_sequence<Network::WEIGHT_PORTS>());
    uint64_t strays = changed(memory, before, arena, d.out_chip ? 0 : d.out_addr,
                              d.out_chip ? 0 : words[l]);
    strays += changed(chip[to], kept[to], stride[to], d.out_addr, d.out_chip ? words[l] : 0);
    const bool cached = d.in_chip == PLACE_CACHE;
    const int64_t copied = int64_t(d.in_plane_words) * d.blocks * d.conv_groups;
    strays += changed(chip[from], kept[from], stride[from], d.cache_addr, cached ? copied : 0);
    std::fwrite(counters.value, sizeof(uint64_t), COUNTERS, result);
    std::fwrite(&strays, sizeof strays, 1, result);
    for (int64_t n = 0; n < images; n++)
      std::fwrite(d.out_chip ? &chip[to][n * stride[to] + d.out_addr] : &memory[n * arena + d.out_addr],
                  sizeof(uint64_t), words[l], result);
  }
  check(std::fclose(result) == 0, "cannot write the output file");
  return 0;
}
