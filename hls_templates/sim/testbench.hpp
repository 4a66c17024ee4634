// SPDX-License-Identifier: Apache-2.0
// What every test bench does, whatever the network; simulation only.
//  1. Parameters: the weight file, the layer table and the KNQ tables must have the checksums that
//     the code generator wrote, layer by layer, so that no changed bit goes unnoticed even where
//     requantization would hide it.
//  2. For each batch and layer: one call of the accelerator, then every stored code is compared
//  with
//     the reference; the first difference of each layer is printed with its place.
//  3. csim.json and logits.bin are written for the report.
#ifndef TESTBENCH_HPP
#define TESTBENCH_HPP

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "layer.hpp"

// What the table does not hold: for people and for the report.
struct LayerInfo {
  const char* name;
  const char* golden;  // file name under the golden folder
  int32_t channels;    // of the stored output
  double macs;         // for one image
};

struct Design {
  const LayerDesc* table;
  const LayerInfo* info;
  int32_t layers;
  const int32_t* centroid;  // [tables][levels]
  const int32_t* threshold;
  int32_t levels;
  const int32_t* lrn;  // [tables][LRN_ENTRIES]
};

struct LayerResult {
  uint64_t codes, mismatches, count[COUNTERS];
  double seconds;
  bool shown;
};

inline void stop(const std::string& message) {
  std::fprintf(stderr, "error: %s\n", message.c_str());
  std::exit(2);
}

// A binary file read in pieces; its size must be exactly what the design says.
class InputFile {
 public:
  InputFile(const std::string& path, uint64_t bytes) : path_(path) {
    file_ = std::fopen(path.c_str(), "rb");
    if (!file_) stop("cannot open " + path + "; run `make codegen` again");
    std::fseek(file_, 0, SEEK_END);
    const uint64_t size = uint64_t(std::ftell(file_));
    if (size != bytes) {
      stop(path + " must have " + std::to_string(bytes) + " bytes, not " + std::to_string(size) +
           "; run `make codegen` again");
    }
    std::rewind(file_);
  }
  ~InputFile() { std::fclose(file_); }
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  void read(uint64_t offset, void* target, uint64_t bytes) {
    std::fseek(file_, long(offset), SEEK_SET);
    if (std::fread(target, 1, bytes, file_) != bytes) stop("cannot read " + path_);
  }

 private:
  std::string path_;
  std::FILE* file_;
};

// CRC-32 (polynomial 0xEDB88320, as zlib's crc32), continued from `crc`.
inline uint32_t crc32(const void* data, uint64_t bytes, uint32_t crc) {
  static uint32_t table[8][256];
  if (table[0][1] == 0) {
    for (uint32_t i = 0; i < 256; i++) {
      uint32_t c = i;
      for (int k = 0; k < 8; k++) c = c & 1 ? 0xEDB88320u ^ (c >> 1) : c >> 1;
      table[0][i] = c;
    }
    for (uint32_t i = 0; i < 256; i++) {
      for (int t = 1; t < 8; t++)
        table[t][i] = (table[t - 1][i] >> 8) ^ table[0][table[t - 1][i] & 255];
    }
  }
  const unsigned char* p = static_cast<const unsigned char*>(data);
  crc = ~crc;
  for (; bytes >= 8; bytes -= 8, p += 8) {
    uint32_t low, high;
    std::memcpy(&low, p, 4);
    std::memcpy(&high, p + 4, 4);
    low ^= crc;
    crc = table[7][low & 255] ^ table[6][(low >> 8) & 255] ^ table[5][(low >> 16) & 255] ^
          table[4][low >> 24] ^ table[3][high & 255] ^ table[2][(high >> 8) & 255] ^
          table[1][(high >> 16) & 255] ^ table[0][high >> 24];
  }
  for (; bytes > 0; bytes--, p++) crc = (crc >> 8) ^ table[0][(crc ^ *p) & 255];
  return ~crc;
}

inline int32_t planes_of(int32_t channels) {
  return (channels + BLOCK_CODES - 1) / BLOCK_CODES;
}

// Words of a layer's output for one image.
inline uint64_t output_words(const LayerDesc& d, const LayerInfo& info) {
  const uint64_t pixels = uint64_t(d.out_height) * d.out_width;
  return d.raw ? pixels * d.out_channels : uint64_t(planes_of(info.channels)) * d.out_plane_words;
}

// Code of (channel, pixel) in a packed feature map.
inline uint32_t code_at(const uint64_t* map, const LayerDesc& d, int32_t channel, int64_t pixel) {
  const uint64_t bit = (uint64_t(channel / BLOCK_CODES) * d.out_plane_words) * WORD_BITS +
                       uint64_t(pixel) * d.out_bits * BLOCK_CODES +
                       uint64_t(channel % BLOCK_CODES) * d.out_bits;
  const uint64_t word = bit / WORD_BITS, offset = bit % WORD_BITS;
  uint64_t value = map[word] >> offset;
  if (offset + d.out_bits > uint64_t(WORD_BITS)) value |= map[word + 1] << (WORD_BITS - offset);
  return uint32_t(value & ((uint64_t(1) << d.out_bits) - 1));
}

// Compares one image's output; prints the first difference of the layer.
inline void compare(const uint64_t* got, const uint64_t* expected, const LayerDesc& d,
                    const LayerInfo& info, int32_t image, LayerResult& result) {
  const int64_t pixels = int64_t(d.out_height) * d.out_width;
  result.codes += uint64_t(info.channels) * pixels;
  const uint64_t words = output_words(d, info);
  if (std::memcmp(got, expected, words * WORD_BYTES) == 0) return;
  uint64_t found = 0;
  for (int32_t c = 0; c < info.channels; c++) {
    for (int64_t i = 0; i < pixels; i++) {
      const int64_t raw_at = i * d.out_channels + c;
      const int64_t want = d.raw ? int64_t(expected[raw_at]) : int64_t(code_at(expected, d, c, i));
      const int64_t have = d.raw ? int64_t(got[raw_at]) : int64_t(code_at(got, d, c, i));
      if (want == have) continue;
      found++;
      if (!result.shown) {
        std::printf(
            "MISMATCH in layer %s: image %d, channel %d, row %d, column %d: expected %lld, got "
            "%lld\n",
            info.name, int(image), int(c), int(i / d.out_width), int(i % d.out_width),
            static_cast<long long>(want), static_cast<long long>(have));
        result.shown = true;
      }
    }
  }
  if (found == 0) {  // the codes agree, so padding channels or the bits behind a plane differ
    found = 1;
    if (!result.shown) {
      std::printf("MISMATCH in layer %s: image %d: padding of the packed output differs\n",
                  info.name, int(image));
      result.shown = true;
    }
  }
  result.mismatches += found;
}

// What the checksums found: layers whose parameters differ, and how many layers are safe to run. A
// changed layer table row could make the engine run forever or leave its memory, so it is not run.
struct ParameterCheck {
  int32_t wrong, runnable;
};

// True, with a message, where the checksum is not the expected one.
inline bool differs(uint32_t crc, unsigned expected, const char* layer, const char* what) {
  if (crc == expected) return false;
  std::printf("MISMATCH in layer %s: checksum of its %s\n", layer, what);
  return true;
}

// Compares the checksums of what was generated, layer by layer.
inline ParameterCheck check_parameters(const std::string& path, const Design& design,
                                       int32_t layers, const std::vector<uint64_t>& weights,
                                       int32_t ports) {
  std::FILE* file = std::fopen(path.c_str(), "r");
  if (!file) stop("cannot open " + path + "; run `make codegen` again");
  ParameterCheck check = {0, layers};
  uint64_t end = 0;
  for (int32_t l = 0; l < layers; l++) {
    int index = 0;
    unsigned weights_crc = 0, row_crc = 0, knq_crc = 0;
    unsigned long long words = 0;
    if (std::fscanf(file, "%d %llu %x %x %x", &index, &words, &weights_crc, &row_crc, &knq_crc) !=
            5 ||
        index != l) {
      stop(path + " must have one line per layer; run `make codegen` again");
    }
    const LayerDesc& d = design.table[l];
    const char* name = design.info[l].name;
    const uint64_t begin = end, section = weights.size() / ports;  // of one port
    end += words / ports;
    if (end > section || words % ports)
      stop(path + " does not fit weights.bin; run `make codegen` again");
    const bool row_wrong = differs(crc32(&d, sizeof d, 0), row_crc, name, "layer table row");
    uint32_t crc = 0;
    if (!row_wrong && d.out_scheme == SCHEME_KNQ) {
      const uint64_t row = uint64_t(d.out_table) * design.levels;
      const uint64_t bytes = (uint64_t(1) << d.out_bits) * sizeof(int32_t);
      crc = crc32(design.threshold + row, bytes, crc32(design.centroid + row, bytes, 0));
    }
    if (!row_wrong && d.op == OP_LRN) {
      crc = crc32(design.lrn + d.lrn_table * LRN_ENTRIES, LRN_ENTRIES * sizeof(int32_t), crc);
    }
    const bool knq_wrong = !row_wrong && differs(crc, knq_crc, name, "KNQ or LRN tables");
    uint32_t stored = 0;
    for (int32_t q = 0; q < ports; q++) {
      const uint64_t* part = weights.data() + q * section + begin;
      stored = crc32(part, (end - begin) * WORD_BYTES, stored);
    }
    const bool weights_wrong = differs(stored, weights_crc, name, "weights");
    check.wrong += row_wrong || knq_wrong || weights_wrong ? 1 : 0;
    if (row_wrong) check.runnable = min_of(check.runnable, l);
  }
  std::fclose(file);
  std::fflush(stdout);
  return check;
}

inline void print_table(const Design& design, int32_t layers,
                        const std::vector<LayerResult>& results) {
  std::printf("%-16s %15s %5s %12s %11s %13s %13s %13s\n", "layer", "shape", "bits", "codes",
              "mismatches", "bytes read", "written", "weights");
  for (int32_t l = 0; l < layers; l++) {
    const LayerDesc& d = design.table[l];
    const LayerResult& r = results[l];
    char shape[40], bits[8];
    std::snprintf(shape, sizeof shape, "%dx%dx%d", int(design.info[l].channels), int(d.out_height),
                  int(d.out_width));
    std::snprintf(bits, sizeof bits, "%d", int(d.raw ? WORD_BITS : d.out_bits));
    std::printf("%-16s %15s %5s %12llu %11llu %13llu %13llu %13llu\n", design.info[l].name, shape,
                bits, static_cast<unsigned long long>(r.codes),
                static_cast<unsigned long long>(r.mismatches),
                static_cast<unsigned long long>(r.count[COUNT_BYTES_READ]),
                static_cast<unsigned long long>(r.count[COUNT_BYTES_WRITTEN]),
                static_cast<unsigned long long>(r.count[COUNT_BYTES_WEIGHTS]));
  }
}

inline void write_json(const std::string& path, const Design& design, int32_t layers,
                       int32_t images, int wrong_parameters,
                       const std::vector<LayerResult>& results) {
  static const char* const COUNTER_NAMES[COUNTERS] = {
      "bytes_read", "bytes_written", "bytes_weights", "cycles", "load", "read",
      "unpack",     "compute",       "finish",        "pool",   "pack", "write"};
  std::FILE* file = std::fopen(path.c_str(), "w");
  if (!file) stop("cannot write " + path);
  double seconds = 0, macs = 0;
  uint64_t mismatches = uint64_t(wrong_parameters);
  for (int32_t l = 0; l < layers; l++) {
    seconds += results[l].seconds;
    macs += design.info[l].macs * images;
    mismatches += results[l].mismatches;
  }
#ifdef CSIM_FAST
  const char* types = "fast";
#else
  const char* types = "exact";
#endif
  std::fprintf(file,
               "{\"types\": \"%s\", \"images\": %d, \"seconds\": %.6f, \"macs\": %.0f, "
               "\"mmacs_per_s\": %.1f, \"mismatches\": %llu,\n \"layers\": [",
               types, int(images), seconds, macs, macs / 1e6 / (seconds > 0 ? seconds : 1),
               static_cast<unsigned long long>(mismatches));
  for (int32_t l = 0; l < layers; l++) {
    const LayerResult& r = results[l];
    std::fprintf(
        file, "%s\n  {\"name\": \"%s\", \"codes\": %llu, \"mismatches\": %llu, \"seconds\": %.6f",
        l ? "," : "", design.info[l].name, static_cast<unsigned long long>(r.codes),
        static_cast<unsigned long long>(r.mismatches), r.seconds);
    for (int i = 0; i < COUNTERS; i++) {
      std::fprintf(file, ", \"%s\": %llu", COUNTER_NAMES[i],
                   static_cast<unsigned long long>(r.count[i]));
    }
    std::fprintf(file, "}");
  }
  std::fprintf(file, "\n ]}\n");
  if (std::fclose(file) != 0) stop("cannot write " + path);
}

// One layer through the top function; each weight port gets its section of the file.
template <class C, class Top, std::size_t... Q>
void call(Top accelerator, const uint64_t* weights, typename C::bus_t* fm, int32_t layer,
          int32_t images, uint64_t* count, uint32_t* id, std::index_sequence<Q...>) {
  typedef typename C::bus_t bus_t;
  accelerator(reinterpret_cast<const bus_t*>(weights + Q * (C::WEIGHT_WORDS / C::WEIGHT_PORTS))...,
              fm, fm, layer, layer, images, count, id);
}

// The feature map memory as the accelerator sees it. ap_uint<64> and uint64_t are both one word.
// `chip` gives the on-chip memories, which keep their contents between calls.
template <class C, class Top, class Chip>
int run_testbench(int argc, char** argv, const Design& design, Top accelerator, Chip chip) {
  typedef typename C::bus_t bus_t;
  static_assert(sizeof(bus_t) == WORD_BYTES, "a bus word must take 8 bytes in memory");
  if (argc < 5) stop("usage: csim PARAMS GOLDEN OUTPUT IMAGES [LAYERS]");
  const std::string params = argv[1], golden = argv[2], output = argv[3];
  const int32_t images = std::atoi(argv[4]);
  const int32_t asked = argc > 5 ? min_of(std::atoi(argv[5]), design.layers) : design.layers;
  if (images < 1 || asked < 1) stop("IMAGES and LAYERS must be 1 or more");

  std::vector<uint64_t> weights(C::WEIGHT_WORDS);
  InputFile(params + "/weights.bin", C::WEIGHT_WORDS * uint64_t(WORD_BYTES))
      .read(0, weights.data(), C::WEIGHT_WORDS * uint64_t(WORD_BYTES));
  const ParameterCheck check =
      check_parameters(golden + "/checks.txt", design, asked, weights, C::WEIGHT_PORTS);
  const int32_t layers = check.runnable;
  const int wrong_parameters = check.wrong;

  const uint64_t input_words = C::INPUT_WORDS;
  InputFile input(golden + "/input.bin", images * input_words * WORD_BYTES);
  std::FILE* logits = nullptr;
  if (layers == design.layers) {
    logits = std::fopen((output + "/logits.bin").c_str(), "wb");
    if (!logits) stop("cannot write " + output + "/logits.bin");
  }
  std::vector<LayerResult> results(layers, LayerResult());
  // A pattern, not zeros: what is read without having been written must not look right.
  std::vector<uint64_t> memory(uint64_t(C::ARENA_WORDS) * C::MAX_IMAGES, 0xA5A5A5A5A5A5A5A5ull);
  const uint64_t chip_words[2] = {C::CHIP_A_WORDS, C::CHIP_B_WORDS};
  for (int m = 0; m < 2; m++) {
    std::memset(static_cast<void*>(chip(m)), 0xA5, chip_words[m] * C::MAX_IMAGES * WORD_BYTES);
  }
  std::vector<uint64_t> expected;
  for (int32_t start = 0; start < images; start += C::MAX_IMAGES) {
    const int32_t batch = min_of(C::MAX_IMAGES, images - start);
    for (int32_t n = 0; n < batch; n++) {
      input.read((start + n) * input_words * WORD_BYTES,
                 &memory[uint64_t(n) * C::ARENA_WORDS + C::INPUT_ADDR], input_words * WORD_BYTES);
    }
    for (int32_t l = 0; l < layers; l++) {
      const LayerDesc& d = design.table[l];
      const LayerInfo& info = design.info[l];
      uint64_t count[COUNTERS];
      uint32_t id = 0;
      bus_t* fm = reinterpret_cast<bus_t*>(memory.data());
      const auto begin = std::chrono::steady_clock::now();
      call<C>(accelerator, weights.data(), fm, l, batch, count, &id,
              std::make_index_sequence<C::WEIGHT_PORTS>());
      const auto end = std::chrono::steady_clock::now();
      if (id != C::DESIGN_ID) stop("the accelerator did not report its design");
      results[l].seconds += std::chrono::duration<double>(end - begin).count();
      for (int i = 0; i < COUNTERS; i++) results[l].count[i] += count[i];
      const uint64_t words = output_words(d, info);
      InputFile reference(golden + "/" + info.golden, images * words * WORD_BYTES);
      expected.resize(words);
      for (int32_t n = 0; n < batch; n++) {
        reference.read((start + n) * words * WORD_BYTES, expected.data(), words * WORD_BYTES);
        const int m = d.chip_swap ? 0 : 1;
        const uint64_t* got =
            d.out_chip ? reinterpret_cast<const uint64_t*>(chip(m)) + n * chip_words[m] + d.out_addr
                       : &memory[uint64_t(n) * C::ARENA_WORDS + d.out_addr];
        compare(got, expected.data(), d, info, start + n, results[l]);
        if (logits && d.raw && std::fwrite(got, WORD_BYTES, words, logits) != words) {
          stop("cannot write " + output + "/logits.bin");
        }
      }
    }
  }
  if (logits && std::fclose(logits) != 0) stop("cannot write " + output + "/logits.bin");

  print_table(design, layers, results);
  write_json(output + "/csim.json", design, layers, images, wrong_parameters, results);
  uint64_t mismatches = 0;
  double seconds = 0, macs = 0;
  const char* first = nullptr;
  for (int32_t l = 0; l < layers; l++) {
    mismatches += results[l].mismatches;
    seconds += results[l].seconds;
    macs += design.info[l].macs * images;
    if (results[l].mismatches && !first) first = design.info[l].name;
  }
  std::printf("%d image(s), %d layer(s), %.2f s, %.0f MMAC/s\n", int(images), int(layers), seconds,
              macs / 1e6 / (seconds > 0 ? seconds : 1));
  if (mismatches || wrong_parameters) {
    if (layers < asked)
      std::printf("layer %s and those behind it were not run\n", design.info[layers].name);
    std::printf("FAILED: %llu mismatches%s%s, %d layer(s) with changed parameters\n",
                static_cast<unsigned long long>(mismatches), first ? ", first in layer " : "",
                first ? first : "", wrong_parameters);
    return 1;
  }
  std::printf("PASSED: every layer is bit-exact\n");
  return 0;
}

#endif  // TESTBENCH_HPP
