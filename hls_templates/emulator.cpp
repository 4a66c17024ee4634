// SPDX-License-Identifier: Apache-2.0
// The accelerator as a shared library, for the emulated board: a C interface around the top
// function. Simulation only; compiled together with accelerator.cpp of one network.
#include "accelerator.hpp"
#include "tables.hpp"

extern "C" {

// Runs layers first..last. Addresses are those of this process; `weights` need not point into a
// buffer itself, as long as what the layers read does.
void emulator_run(uint64_t weights, uint64_t fm_in, uint64_t fm_out, int32_t first, int32_t last,
                  int32_t images, uint64_t* counters, uint32_t* design_id) {
  typedef Network::bus_t bus_t;
  accelerator(reinterpret_cast<const bus_t*>(weights), reinterpret_cast<const bus_t*>(fm_in),
              reinterpret_cast<bus_t*>(fm_out), first, last, images, counters, design_id);
}

// What the bus of a real board knows and a pointer does not: how much memory a call touches.
int32_t emulator_layers() {
  return sizeof(LAYER_TABLE) / sizeof(LAYER_TABLE[0]);
}
int32_t emulator_arena_words() {
  return Network::ARENA_WORDS;
}
// Words of an image in on-chip memory A (0) or B (1).
int32_t emulator_chip_words(int32_t memory) {
  return memory ? Network::CHIP_B_WORDS : Network::CHIP_A_WORDS;
}
int32_t emulator_max_images() {
  return Network::MAX_IMAGES;
}
// First word of weights.bin that layer l reads; the end of the file for l = emulator_layers().
int32_t emulator_weight_address(int32_t l) {
  return l < emulator_layers() ? LAYER_TABLE[l].weight_addr : Network::WEIGHT_WORDS;
}
}
