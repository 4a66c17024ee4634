// SPDX-License-Identifier: Apache-2.0
// When things happen in a timed simulation (CSIM_TYPES=timed), which has a clock in every process;
// in any other these classes do nothing.
//
// A process's loop does one step a cycle, as its pipeline does at initiation interval 1: where it
// adds one to its cycle_t. What a step writes can be read `latency` cycles later. A step waits for
// an element that has not arrived, and for room. A memory port asks the DRAM for bursts, so many at
// a time as its adapter has room for; the DRAM serves all ports' bursts one after another.
#ifndef TIMING_HPP
#define TIMING_HPP

#include "processes.hpp"

#ifdef CSIM_TIMED
#if !defined(DRAM_WORDS_PER_CYCLE) || !defined(ADAPTER_WORDS)
#error \
    "what the DRAM sustains of 64-bit words in a clock cycle, and what an adapter holds, must be given"
#endif
// From a request to the first word: what Vitis HLS assumes of a port (UG1399, m_axi_latency).
const uint64_t DRAM_LATENCY = 64;
// Words of a burst at most, as AXI3 ports have it (UG585).
const uint64_t DRAM_BURST = 16;

// Iterations in which a process has worked.
class cycle_t {
 public:
  cycle_t(uint32_t count = 0) : count_(count) {}
  operator uint32_t() const { return count_; }
  cycle_t operator++(int) {
    Processes::all().current()->now++;
    return cycle_t(count_++);
  }

 private:
  uint32_t count_;
};

inline uint32_t region_cycles(uint32_t) {
  return uint32_t(Processes::all().elapsed());
}

// When the places of a stream were filled and freed.
class StreamClock {
 public:
  explicit StreamClock(std::size_t depth) : filled_(depth, 0), freed_(depth, 0) {}

  bool arrived(std::size_t at) const { return filled_[at] <= Processes::all().current()->now; }
  // Cycle in which the element is there.
  uint64_t write(std::size_t at) {
    Fiber& fiber = *Processes::all().current();
    fiber.now = written_ = std::max({fiber.now, written_ + 1, fiber.begun(freed_[at])});
    return filled_[at] = fiber.now + fiber.latency + 1;
  }
  // Cycle in which its place is free.
  uint64_t read(std::size_t at) {
    Fiber& fiber = *Processes::all().current();
    fiber.now = read_ = std::max({fiber.now, read_ + 1, filled_[at]});
    return freed_[at] = fiber.now + 1;
  }

 private:
  std::vector<uint64_t> filled_, freed_;
  uint64_t written_ = 0, read_ = 0;  // the last cycles
};

// The DRAM behind all ports: it moves one burst after another.
class Dram {
 public:
  // Cycle in which a burst of so many words begins that the current process asks for.
  static uint64_t serve(uint64_t words) {
    static double free = 0;
    const uint64_t asked = Processes::all().current()->now + DRAM_LATENCY;
    const double begin = std::max(double(asked), free);
    free = begin + double(words) / DRAM_WORDS_PER_CYCLE;
    return uint64_t(begin);
  }
};

// One direction of one memory port.
class PortClock {
 public:
  // Asks for words to be read.
  void request(uint64_t words) {
    asked_ += words;
    ask();
  }

  // One word, read in its turn.
  void read() {
    Fiber& fiber = *Processes::all().current();
    Burst& burst = bursts_.front();
    fiber.now = last_ = std::max(
        {fiber.now, last_ + 1,
         burst.begin + uint64_t(burst.done / std::min(1.0, double(DRAM_WORDS_PER_CYCLE)))});
    flying_--;
    if (++burst.done == burst.words) bursts_.pop_front();
    ask();
  }

  // One word, written in its turn; `last` of its request.
  void write(bool last) {
    Fiber& fiber = *Processes::all().current();
    fiber.now = last_ = std::max(fiber.now, last_ + 1);
    if (++flying_ < DRAM_BURST && !last) return;
    Processes::all().synchronize();
    written_ = Dram::serve(flying_) + flying_;
    flying_ = 0;
    if (last) responses_.push_back(written_ + DRAM_LATENCY);
  }

  void response() {
    Fiber& fiber = *Processes::all().current();
    fiber.now = std::max(fiber.now, responses_.front());
    responses_.pop_front();
  }

 private:
  struct Burst {
    uint64_t begin, words, done;
  };

  void ask() {
    while (asked_ > 0) {
      const uint64_t words = std::min(asked_, DRAM_BURST);
      if (flying_ > 0 && flying_ + words > ADAPTER_WORDS) return;
      Processes::all().synchronize();
      bursts_.push_back({Dram::serve(words), words, 0});
      asked_ -= words;
      flying_ += words;
    }
  }

  std::deque<Burst> bursts_;
  std::deque<uint64_t> responses_;
  uint64_t asked_ = 0, flying_ = 0, last_ = 0, written_ = 0;
};
#else
class StreamClock {
 public:
  explicit StreamClock(std::size_t) {}
  bool arrived(std::size_t) const { return true; }
  uint64_t write(std::size_t) { return 0; }
  uint64_t read(std::size_t) { return 0; }
};

class PortClock {
 public:
  void request(uint64_t) {}
  void read() {}
  void write(bool) {}
  void response() {}
};
#endif

#endif  // TIMING_HPP
