// SPDX-License-Identifier: Apache-2.0
// What the test bench does, for the network whose files it is given; simulation only.
//  1. Parameters: program.bin must be for this engine, and it and weights.bin must have their
//     checksums, layer by layer, so that no changed bit goes unnoticed even where requantization
//     would hide it.
//  2. For each batch and layer: one call of the accelerator, then every stored code is compared
//     with the reference; the first difference of each layer is printed with its place.
//  3. csim.json and logits.bin are written for the report.
#ifndef TESTBENCH_HPP
#define TESTBENCH_HPP

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "program.hpp"

const char* const PROGRAM_FILE = "program.bin";

// One layer: its row of the program, and what golden/checks.txt says of it.
struct Layer {
  LayerDesc d;
  std::string name, golden;  // golden: file name under the golden folder
  int32_t channels;          // of the stored output
  double macs;               // for one image
  uint64_t weight_words;     // of all sections of weights.bin
  unsigned weight_crc;
};

struct Design {
  std::vector<Layer> layers;
  std::vector<uint64_t> program;
  int32_t batch;         // images a call
  uint64_t input_words;  // of an image

  uint64_t weight_words() const {
    uint64_t words = 0;
    for (const Layer& layer : layers) words += layer.weight_words;
    return words;
  }
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

// A binary file read in pieces; its size must be exactly what the design says, where it does.
class InputFile {
 public:
  explicit InputFile(const std::string& path, uint64_t bytes = UINT64_MAX) : path_(path) {
    file_ = std::fopen(path.c_str(), "rb");
    if (!file_) stop("cannot open " + path + "; run `make codegen` again");
    std::fseek(file_, 0, SEEK_END);
    size = uint64_t(std::ftell(file_));
    if (size != bytes && bytes != UINT64_MAX) {
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

  uint64_t size;  // bytes

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

// Rows and columns of a layer's output as it is stored.
inline int32_t stored_height(const LayerDesc& d) {
  return d.out_height * d.places_h * d.interleave;
}
inline int32_t stored_width(const LayerDesc& d) {
  return d.out_width * d.places_w;
}

// Words of a layer's output for one image.
inline uint64_t output_words(const Layer& layer) {
  const LayerDesc& d = layer.d;
  const uint64_t pixels = uint64_t(stored_height(d)) * stored_width(d);
  return d.raw ? pixels * d.out_channels : uint64_t(planes_of(layer.channels)) * d.out_plane_words;
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
inline void compare(const uint64_t* got, const uint64_t* expected, const Layer& info, int32_t image,
                    LayerResult& result) {
  const LayerDesc& d = info.d;
  const int64_t pixels = int64_t(stored_height(d)) * stored_width(d);
  result.codes += uint64_t(info.channels) * pixels;
  const uint64_t words = output_words(info);
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
            info.name.c_str(), int(image), int(c), int(i / stored_width(d)),
            int(i % stored_width(d)), static_cast<long long>(want), static_cast<long long>(have));
        result.shown = true;
      }
    }
  }
  if (found == 0) {  // the codes agree, so padding channels or the bits behind a plane differ
    found = 1;
    if (!result.shown) {
      std::printf("MISMATCH in layer %s: image %d: padding of the packed output differs\n",
                  info.name.c_str(), int(image));
      result.shown = true;
    }
  }
  result.mismatches += found;
}

// What the checksums found: layers whose parameters differ, and how many layers are safe to run. A
// changed record could make the engine run forever or leave its memory, so it is not run.
struct ParameterCheck {
  int32_t wrong, runnable;
};

// True, with a message, where the checksum is not the expected one.
inline bool differs(uint32_t crc, unsigned expected, const std::string& layer, const char* what) {
  if (crc == expected) return false;
  std::printf("MISMATCH in layer %s: checksum of its %s\n", layer.c_str(), what);
  return true;
}

// Word k of a program as two halves.
inline uint32_t program_half(const std::vector<uint64_t>& program, uint64_t half) {
  return uint32_t(program[half / 2] >> (half % 2 ? 32 : 0));
}

// Reads golden/checks.txt and the program; stops where the program is for another engine.
template <class C>
Design read_design(const std::string& params, const std::string& golden) {
  Design design;
  const std::string path = params + "/" + PROGRAM_FILE;
  InputFile file(path);
  design.program.resize(file.size / WORD_BYTES);
  file.read(0, design.program.data(), design.program.size() * WORD_BYTES);
  const std::vector<uint64_t>& program = design.program;
  const int head = 2 * PROGRAM_HEADER_WORDS - 1;
  if (program.size() < uint64_t(PROGRAM_HEADER_WORDS) ||
      program_half(program, 0) != PROGRAM_MAGIC || program_half(program, 1) != PROGRAM_VERSION ||
      program_half(program, 5) != file.size / WORD_BYTES ||
      program_half(program, 6) != uint32_t(LAYER_COLUMNS) ||
      program_half(program, head) != crc32(program.data(), head * sizeof(int32_t), 0)) {
    stop("MISMATCH in the header of " + path + "; run `make codegen` again");
  }
  if (program_half(program, 2) != C::DESIGN_ID) {
    stop(path + " must be a program of this engine; run `make codegen` again");
  }
  const std::string checks = golden + "/checks.txt";
  std::FILE* text = std::fopen(checks.c_str(), "r");
  if (!text) stop("cannot open " + checks + "; run `make codegen` again");
  int batch = 0;
  unsigned long long words = 0;
  bool good = std::fscanf(text, "%d %llu", &batch, &words) == 2 && batch > 0;
  design.batch = batch;
  design.input_words = words;
  for (uint32_t l = 0; good && l < program_half(program, 4); l++) {
    unsigned index = 0;
    int channels = 0;
    char file_name[256], name[256];
    Layer layer;
    good = std::fscanf(text, "%u %llu %x %d %lf %255s %255s", &index, &words, &layer.weight_crc,
                       &channels, &layer.macs, file_name, name) == 7 &&
           index == l && words % C::WEIGHT_PORTS == 0;
    layer.weight_words = words;
    layer.channels = channels;
    layer.golden = file_name;
    layer.name = name;
    design.layers.push_back(layer);
  }
  std::fclose(text);
  if (!good) stop(checks + " must have a line of each layer; run `make codegen` again");
  return design;
}

// Whether the record of layer l and its entry of the index are as they were written; reads its row.
inline bool take_record(Design& design, int32_t l) {
  const std::vector<uint64_t>& program = design.program;
  const uint64_t at = PROGRAM_HEADER_WORDS + uint64_t(PROGRAM_INDEX_WORDS) * l;
  if (at + 1 >= program.size()) return false;
  const uint64_t first = program_half(program, 2 * at),
                 words = program_half(program, 2 * at + 1) >> 1;
  if (first + words > program.size() || words < uint64_t(ROW_COLUMN_WORDS)) return false;
  const uint32_t crc =
      crc32(&program[first], words * WORD_BYTES, crc32(&program[at], WORD_BYTES, 0));
  if (program[at + 1] != crc) return false;
  int32_t column[LAYER_COLUMNS];
  std::memcpy(column, &program[first], sizeof column);
  design.layers[l].d = layer_desc(column);
  return true;
}

// Compares the checksums of what was generated, layer by layer.
inline ParameterCheck check_parameters(Design& design, const std::vector<uint64_t>& weights,
                                       int32_t layers, int32_t ports) {
  ParameterCheck check = {0, layers};
  uint64_t end = 0;
  for (int32_t l = 0; l < layers; l++) {
    const Layer& layer = design.layers[l];
    const uint64_t begin = end, section = weights.size() / ports;  // of one port
    end += layer.weight_words / ports;
    const bool record_wrong = !take_record(design, l);
    if (record_wrong) std::printf("MISMATCH in layer %s: its program\n", layer.name.c_str());
    uint32_t stored = 0;
    for (int32_t q = 0; q < ports; q++) {
      const uint64_t* part = weights.data() + q * section + begin;
      stored = crc32(part, (end - begin) * WORD_BYTES, stored);
    }
    const bool weights_wrong = differs(stored, layer.weight_crc, layer.name, "weights");
    check.wrong += record_wrong || weights_wrong ? 1 : 0;
    if (record_wrong) check.runnable = min_of(check.runnable, l);
  }
  std::fflush(stdout);
  return check;
}

inline void print_table(const Design& design, int32_t layers,
                        const std::vector<LayerResult>& results) {
  std::printf("%-16s %15s %5s %12s %11s %13s %13s %13s\n", "layer", "shape", "bits", "codes",
              "mismatches", "bytes read", "written", "weights");
  for (int32_t l = 0; l < layers; l++) {
    const Layer& layer = design.layers[l];
    const LayerDesc& d = layer.d;
    const LayerResult& r = results[l];
    char shape[40], bits[8];
    std::snprintf(shape, sizeof shape, "%dx%dx%d", int(layer.channels), int(stored_height(d)),
                  int(stored_width(d)));
    std::snprintf(bits, sizeof bits, "%d", int(d.raw ? WORD_BITS : d.out_bits));
    std::printf("%-16s %15s %5s %12llu %11llu %13llu %13llu %13llu\n", layer.name.c_str(), shape,
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
    macs += design.layers[l].macs * images;
    mismatches += results[l].mismatches;
  }
#ifdef CSIM_TIMED
  const char* types = "timed";
#elif defined(CSIM_FAST)
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
        l ? "," : "", design.layers[l].name.c_str(), static_cast<unsigned long long>(r.codes),
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
void call(Top accelerator, const std::vector<uint64_t>& weights, uint64_t section,
          std::vector<uint64_t>& program, std::vector<uint64_t>& memory, int32_t layer,
          int32_t images, uint64_t* count, uint32_t* id, std::index_sequence<Q...>) {
  typedef typename C::bus_t bus_t;
  bus_t* fm = reinterpret_cast<bus_t*>(memory.data());
  accelerator(reinterpret_cast<const bus_t*>(weights.data() + Q * section)...,
              reinterpret_cast<bus_t*>(program.data()), fm, fm, layer, layer, images, count, id);
}

// The accelerator on the network in PARAMS, against the reference in GOLDEN. ap_uint<64> and
// uint64_t are both one word. `chip` gives the on-chip memories, which keep their contents between
// calls.
template <class C, class Top, class Chip>
int run_testbench(int argc, char** argv, Top accelerator, Chip chip) {
  static_assert(sizeof(typename C::bus_t) == WORD_BYTES, "a bus word must take 8 bytes in memory");
  if (argc < 5) stop("usage: csim PARAMS GOLDEN OUTPUT IMAGES [LAYERS]");
  const std::string params = argv[1], golden = argv[2], output = argv[3];
  const int32_t images = std::atoi(argv[4]);
  Design design = read_design<C>(params, golden);
  const int32_t all = int32_t(design.layers.size());
  const int32_t asked = argc > 5 ? min_of(std::atoi(argv[5]), all) : all;
  if (images < 1 || asked < 1) stop("IMAGES and LAYERS must be 1 or more");

  std::vector<uint64_t> weights(design.weight_words());
  InputFile(params + "/weights.bin", weights.size() * WORD_BYTES)
      .read(0, weights.data(), weights.size() * WORD_BYTES);
  const ParameterCheck check = check_parameters(design, weights, asked, C::WEIGHT_PORTS);
  const int32_t layers = check.runnable;
  const int wrong_parameters = check.wrong;
  const uint64_t section = weights.size() / C::WEIGHT_PORTS;
  // co-simulation copies so many words of each port
  weights.resize(section * (C::WEIGHT_PORTS - 1) + std::max<uint64_t>(section, COSIM_WORDS));
  design.program.resize(std::max<uint64_t>(design.program.size(), COSIM_WORDS));

  const uint64_t input_words = design.input_words;
  InputFile input(golden + "/input.bin", images * input_words * WORD_BYTES);
  std::FILE* logits = nullptr;
  if (layers == all) {
    logits = std::fopen((output + "/logits.bin").c_str(), "wb");
    if (!logits) stop("cannot write " + output + "/logits.bin");
  }
  std::vector<LayerResult> results(layers, LayerResult());
  // A pattern, not zeros: what is read without having been written must not look right.
  const uint64_t arena = layers ? design.layers[0].d.map_words : 0;  // of an image
  std::vector<uint64_t> memory(std::max<uint64_t>(arena * design.batch, COSIM_WORDS),
                               0xA5A5A5A5A5A5A5A5ull);
  const uint64_t chip_words[2] = {C::CHIP_A_WORDS, C::CHIP_B_WORDS};
  for (int m = 0; m < 2; m++) {
    std::memset(static_cast<void*>(chip(m)), 0xA5, chip_words[m] * WORD_BYTES);
  }
  std::vector<uint64_t> expected;
  std::vector<std::vector<uint64_t>> raw(design.batch);  // of each image, head after head
  for (int32_t start = 0; layers && start < images; start += design.batch) {
    const int32_t batch = min_of(design.batch, images - start);
    for (int32_t n = 0; n < batch; n++) {
      input.read((start + n) * input_words * WORD_BYTES,
                 &memory[n * arena + design.layers[0].d.in_addr], input_words * WORD_BYTES);
    }
    for (int32_t l = 0; l < layers; l++) {
      const Layer& layer = design.layers[l];
      const LayerDesc& d = layer.d;
      uint64_t count[COUNTERS];
      uint32_t id = 0;
      const auto begin = std::chrono::steady_clock::now();
      call<C>(accelerator, weights, section, design.program, memory, l, batch, count, &id,
              std::make_index_sequence<C::WEIGHT_PORTS>());
      const auto end = std::chrono::steady_clock::now();
      if (id != C::DESIGN_ID) stop("the accelerator did not report its engine");
      results[l].seconds += std::chrono::duration<double>(end - begin).count();
      for (int i = 0; i < COUNTERS; i++) results[l].count[i] += count[i];
      const uint64_t words = output_words(layer);
      InputFile reference(golden + "/" + layer.golden, images * words * WORD_BYTES);
      expected.resize(words);
      for (int32_t n = 0; n < batch; n++) {
        reference.read((start + n) * words * WORD_BYTES, expected.data(), words * WORD_BYTES);
        const uint64_t* map = d.out_chip
                                  ? reinterpret_cast<const uint64_t*>(chip(d.chip_swap ? 0 : 1))
                                  : memory.data();
        const uint64_t* got = map + uint64_t(n) * d.out_words + d.out_addr;
        compare(got, expected.data(), layer, start + n, results[l]);
        if (d.raw) raw[n].insert(raw[n].end(), got, got + words);
      }
    }
    for (int32_t n = 0; n < batch; n++) {
      if (logits && std::fwrite(raw[n].data(), WORD_BYTES, raw[n].size(), logits) != raw[n].size())
        stop("cannot write " + output + "/logits.bin");
      raw[n].clear();
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
    macs += design.layers[l].macs * images;
    if (results[l].mismatches && !first) first = design.layers[l].name.c_str();
  }
  std::printf("%d image(s), %d layer(s), %.2f s, %.0f MMAC/s\n", int(images), int(layers), seconds,
              macs / 1e6 / (seconds > 0 ? seconds : 1));
  if (mismatches || wrong_parameters) {
    if (layers < asked)
      std::printf("layer %s and those behind it were not run\n",
                  design.layers[layers].name.c_str());
    std::printf("FAILED: %llu mismatches%s%s, %d layer(s) with changed parameters\n",
                static_cast<unsigned long long>(mismatches), first ? ", first in layer " : "",
                first ? first : "", wrong_parameters);
    return 1;
  }
  std::printf("PASSED: every layer is bit-exact\n");
  return 0;
}

#endif  // TESTBENCH_HPP
