// SPDX-License-Identifier: Apache-2.0
// One engine for many small networks: runs a network's files layer by layer and writes what came
// out, and whatever else changed in memory.
//
//   engine PARAMS GOLDEN OUTPUT
//
// OUTPUT: per layer the counters, the number of words changed elsewhere, the outputs (uint64).
#include <utility>

#include "accelerator.hpp"
#include "testbench.hpp"

typedef std::vector<uint64_t> Words;

// Words of a memory that changed, but for `words` words of each image from `first` on.
static uint64_t changed(const Words& now, const Words& before, uint64_t stride, int64_t first,
                        int64_t words) {
  uint64_t found = 0;
  for (uint64_t i = 0; i < now.size(); i++) {
    const int64_t at = int64_t(i % stride) - first;
    if ((at < 0 || at >= words) && now[i] != before[i]) found++;
  }
  return found;
}

// What is in on-chip memory A (0) or B (1).
static Words chip_words(int m) {
  const uint64_t* words = reinterpret_cast<const uint64_t*>(chip_memory(m));
  return Words(words, words + (m ? Network::CHIP_B_WORDS : Network::CHIP_A_WORDS));
}

int main(int argc, char** argv) {
  if (argc != 4) stop("usage: engine PARAMS GOLDEN OUTPUT");
  const std::string params = argv[1], golden = argv[2];
  Design design = read_design<Network>(params, golden);
  const int32_t layers = int32_t(design.layers.size()), images = design.batch;
  Words weights(design.weight_words());
  InputFile(params + "/weights.bin", weights.size() * WORD_BYTES)
      .read(0, weights.data(), weights.size() * WORD_BYTES);
  if (check_parameters(design, weights, layers, Network::WEIGHT_PORTS).wrong) {
    stop("the parameters must be as they were written");
  }
  std::FILE* result = std::fopen(argv[3], "wb");
  if (!result) stop("cannot write the output file");
  const uint64_t arena = design.layers[0].d.map_words;
  Words memory(images * arena, 0xA5A5A5A5A5A5A5A5ull);
  InputFile input(golden + "/input.bin", images * design.input_words * WORD_BYTES);
  for (int32_t n = 0; n < images; n++) {
    input.read(n * design.input_words * WORD_BYTES,
               &memory[n * arena + design.layers[0].d.in_addr], design.input_words * WORD_BYTES);
  }
  for (int m = 0; m < 2; m++) {
    std::memset(static_cast<void*>(chip_memory(m)), 0xA5, chip_words(m).size() * WORD_BYTES);
  }
  for (int32_t l = 0; l < layers; l++) {
    const LayerDesc& d = design.layers[l].d;
    const uint64_t words = output_words(design.layers[l]);
    const int from = d.chip_swap ? 1 : 0, to = 1 - from;  // the on-chip memories of this layer
    const Words before = memory, kept[2] = {chip_words(0), chip_words(1)};
    uint64_t counters[COUNTERS];
    uint32_t id = 0;
    call<Network>(accelerator, weights, weights.size() / Network::WEIGHT_PORTS, design.program,
                  memory, l, images, counters, &id,
                  std::make_index_sequence<Network::WEIGHT_PORTS>());
    if (id != Network::DESIGN_ID) stop("the accelerator did not report its engine");
    const Words chip[2] = {chip_words(0), chip_words(1)};
    uint64_t strays = changed(memory, before, arena, d.out_chip ? 0 : d.out_addr,
                              d.out_chip ? 0 : words);
    strays += changed(chip[to], kept[to], d.out_chip ? d.out_words : 1, d.out_addr,
                      d.out_chip ? words : 0);
    const bool cached = d.in_chip == PLACE_CACHE;
    const int64_t copied = int64_t(d.in_plane_words) * d.blocks * d.conv_groups;
    strays += changed(chip[from], kept[from], d.chip_words, d.cache_addr, cached ? copied : 0);
    std::fwrite(counters, sizeof(uint64_t), COUNTERS, result);
    std::fwrite(&strays, sizeof strays, 1, result);
    const Words& map = d.out_chip ? chip[to] : memory;
    for (int32_t n = 0; n < images; n++) {
      std::fwrite(&map[uint64_t(n) * d.out_words + d.out_addr], sizeof(uint64_t), words, result);
    }
  }
  if (std::fclose(result) != 0) stop("cannot write the output file");
  return 0;
}
