// SPDX-License-Identifier: Apache-2.0
// MemoryPort: a memory port with bursts asked for by hand. For synthesis it is hls::burst_maxi; in
// simulation a word that was not asked for, or is asked for and never moved, stops the program.
#ifndef MEMORY_PORT_HPP
#define MEMORY_PORT_HPP

#include "layer.hpp"

#ifdef __SYNTHESIS__
#include "hls_burst_maxi.h"

template <class C>
using MemoryPort = hls::burst_maxi<typename C::bus_t>;
#else
#include <deque>

#include "timing.hpp"

template <class C>
class MemoryPort {
 public:
  typedef typename C::bus_t bus_t;
  MemoryPort(const bus_t* memory) : memory_(const_cast<bus_t*>(memory)) {}

  void read_request(std::size_t offset, std::size_t words) {
    reads_.push_back({offset, words});
    clock_.request(words);
  }
  bus_t read() {
    const std::size_t at = next(reads_);
    clock_.read();
    return memory_[at];
  }
  void write_request(std::size_t offset, std::size_t words) { writes_.push_back({offset, words}); }
  void write(const bus_t& word) {
    const std::size_t waiting = writes_.size();
    memory_[next(writes_)] = word;
    clock_.write(writes_.size() < waiting);
  }
  void write_response() { clock_.response(); }

 private:
  struct Burst {
    std::size_t offset, words;
  };

  std::size_t next(std::deque<Burst>& bursts) {
    if (bursts.empty()) Processes::fail("a memory port moves a word that no burst asked for");
    Burst& burst = bursts.front();
    const std::size_t at = burst.offset++;
    if (--burst.words == 0) bursts.pop_front();
    return at;
  }

  bus_t* memory_;
  std::deque<Burst> reads_, writes_;
  PortClock clock_;
};
#endif

#endif  // MEMORY_PORT_HPP
