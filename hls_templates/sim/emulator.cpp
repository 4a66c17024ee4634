// SPDX-License-Identifier: Apache-2.0
// The accelerator as a shared library, for the emulated board: a C interface around the top
// function. Simulation only; compiled together with accelerator.cpp of one engine.
#include <cstring>
#include <utility>

#include "accelerator.hpp"
#include "program.hpp"

typedef Network::bus_t bus_t;

template <std::size_t... Q>
static void run(std::index_sequence<Q...>, const uint64_t* weights, uint64_t program,
                uint64_t fm_in, uint64_t fm_out, int32_t first, int32_t last, int32_t images,
                uint64_t* counters, uint32_t* design_id) {
  accelerator(reinterpret_cast<const bus_t*>(weights[Q])..., reinterpret_cast<bus_t*>(program),
              reinterpret_cast<bus_t*>(fm_in), reinterpret_cast<bus_t*>(fm_out), first, last,
              images, counters, design_id);
}

// All else is hidden: static variables of templates would otherwise be one for all designs that a
// process has loaded, whatever their sizes.
#pragma GCC visibility push(default)
extern "C" {

// Runs layers first..last. Addresses are those of this process, `weights` has one per weight port;
// they need not point into a buffer themselves, as long as what the layers read does.
void emulator_run(const uint64_t* weights, uint64_t program, uint64_t fm_in, uint64_t fm_out,
                  int32_t first, int32_t last, int32_t images, uint64_t* counters,
                  uint32_t* design_id) {
  run(std::make_index_sequence<Network::WEIGHT_PORTS>(), weights, program, fm_in, fm_out, first,
      last, images, counters, design_id);
}

// What the bus of a real board knows and a pointer does not: how much memory a call touches.
int32_t emulator_max_images() {
  return Network::MAX_IMAGES;
}
int32_t emulator_weight_ports() {
  return Network::WEIGHT_PORTS;
}
// Words of on-chip memory A (0) or B (1).
int32_t emulator_chip_words(int32_t memory) {
  return memory ? Network::CHIP_B_WORDS : Network::CHIP_A_WORDS;
}
// Of the layer whose record is at `record`: the first word and the words that it reads of each
// port's section of weights.bin, where its first bias is in the first section, and the words of an
// image's feature maps.
void emulator_layer(const uint64_t* record, int64_t* reach) {
  int32_t column[LAYER_COLUMNS];
  std::memcpy(column, record, sizeof column);
  const LayerDesc d = layer_desc(column);
  reach[0] = d.weight_addr;
  reach[1] = d.layer_words;
  reach[2] = d.weight_addr + d.weight_table;
  reach[3] = d.map_words;
}
}
#pragma GCC visibility pop
