// SPDX-License-Identifier: Apache-2.0
// What the probes share: each is one shape of code that the engine relies on, small enough for
// minutes of synthesis, with a simulation of its own below it (docs/hls.md).
#ifndef PROBE_HPP
#define PROBE_HPP

#include "ap_int.h"
#include "fifo.hpp"
#include "memory_port.hpp"

struct Probe {
  typedef ap_uint<64> bus_t;
};
typedef Probe::bus_t word_t;

const int ITEMS = 64;  // iterations of a probe's loop

#endif  // PROBE_HPP
