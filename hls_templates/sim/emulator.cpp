// SPDX-License-Identifier: Apache-2.0
// The accelerator as a shared library, for the emulated board: a C interface around the top
// function. Simulation only; compiled together with accelerator.cpp of one network.
#include <utility>

#include "accelerator.hpp"
#include "tables.hpp"

typedef Network::bus_t bus_t;

template <std::size_t... Q>
static void run(std::index_sequence<Q...>, const uint64_t* weights, uint64_t fm_in, uint64_t fm_out,
                int32_t first, int32_t last, int32_t images, uint64_t* counters,
                uint32_t* design_id) {
  accelerator(reinterpret_cast<const bus_t*>(weights[Q])..., reinterpret_cast<bus_t*>(fm_in),
              reinterpret_cast<bus_t*>(fm_out), first, last, images, counters, design_id);
}

// All else is hidden: static variables of templates would otherwise be one for all designs that a
// process has loaded, whatever their sizes.
#pragma GCC visibility push(default)
extern "C" {

// Runs layers first..last. Addresses are those of this process, `weights` has one per weight port;
// they need not point into a buffer themselves, as long as what the layers read does.
void emulator_run(const uint64_t* weights, uint64_t fm_in, uint64_t fm_out, int32_t first,
                  int32_t last, int32_t images, uint64_t* counters, uint32_t* design_id) {
  run(std::make_index_sequence<Network::WEIGHT_PORTS>(), weights, fm_in, fm_out, first, last,
      images, counters, design_id);
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
int32_t emulator_weight_ports() {
  return Network::WEIGHT_PORTS;
}
// First word that layer l reads of each port's section of weights.bin; the section's end for
// l = emulator_layers().
int32_t emulator_weight_address(int32_t l) {
  return l < emulator_layers() ? LAYER_TABLE[l].weight_addr
                               : Network::WEIGHT_WORDS / Network::WEIGHT_PORTS;
}
// Where the first bias of layer l is in the first section.
int32_t emulator_bias_address(int32_t l) {
  return LAYER_TABLE[l].weight_addr + LAYER_TABLE[l].weight_table;
}
}
#pragma GCC visibility pop
