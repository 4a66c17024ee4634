// SPDX-License-Identifier: Apache-2.0
// The processes of a dataflow region as fibers of one thread; simulation only. A process runs until
// a stream makes it wait, so a run is the same every time. When every process waits, none would
// ever go on: that is the hardware's deadlock, and the message has the streams' names.
//
// With CSIM_TIMED every process has a clock of its own (timing.hpp). The process whose clock is
// furthest behind goes first, so that whoever looks at a stream or at the DRAM sees all that
// happened before.
#ifndef PROCESSES_HPP
#define PROCESSES_HPP

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#ifdef CSIM_TIMED
const bool TIMED = true;
#else
const bool TIMED = false;
#endif
// Cycles from the start of a call to that of its processes.
const uint64_t CALL_CYCLES = 4;

// Pipeline depth of the loop of a process. Only synthesis knows it; these are the stages that
// operands, memories and adder trees need at 100 to 150 MHz, and what they cost is a pass's start.
inline uint64_t loop_latency(const std::string& function) {
  static const struct {
    const char* name;
    uint64_t cycles;
  } LATENCY[] = {{"compute<", 20},  {"finish<", 16},  {"unpack_rows<", 6},
                 {"pack_rows<", 6}, {"max_pool<", 5}, {"load_weights<", 4}};
  for (const auto& entry : LATENCY) {
    if (function.compare(0, std::string(entry.name).size(), entry.name) == 0) return entry.cycles;
  }
  return 3;
}

// What the processes know of a stream of any type.
struct Channel {
  const char* name;
  std::size_t depth, held;
};

// One process: its stack, where it stands, and what it waits for.
struct Fiber {
  static const std::size_t STACK_BYTES = std::size_t(1) << 20;

  std::unique_ptr<char[]> stack{new char[STACK_BYTES]};
  std::function<void()> body;
  jmp_buf place;
  ucontext_t entry;
  bool entered = false, waits = false;
  const Channel* channel = nullptr;  // the stream that it waits for
  uint64_t now = 0;                  // clock cycle of the process
  uint64_t latency = 0;              // cycles from what a loop reads to what it writes

  // When the step began whose element is written in a cycle.
  uint64_t begun(uint64_t cycle) const { return cycle > latency ? cycle - latency : 0; }
};

// The processes of the region that runs.
class Processes {
 public:
  static Processes& all() {
    static Processes processes;
    return processes;
  }

  // `function`: as it is written in the call.
  template <class Body>
  void start(const char* function, Body body) {
    if (spare_.empty()) spare_.emplace_back(new Fiber);
    fibers_.push_back(std::move(spare_.back()));
    spare_.pop_back();
    Fiber& fiber = *fibers_.back();
    fiber.body = body;
    fiber.entered = fiber.waits = false;
    fiber.now = outside_.now + CALL_CYCLES;
    fiber.latency = loop_latency(function);
    ready_.push_back(&fiber);
    running_++;
  }

  // Runs all processes to their end; for the code that started them.
  void join() {
    while (running_ > 0) {
      if (ready_.empty()) wake_writers();
      if (ready_.empty()) fail_all();
      current_ = next();
      enter_from_main(*current_);
    }
    for (std::unique_ptr<Fiber>& fiber : fibers_) {
      end_ = std::max(end_, fiber->now + fiber->latency);
      spare_.push_back(std::move(fiber));
    }
    current_ = &outside_;
    outside_.now = begin_ = end_;
    fibers_.clear();
  }

  // The running process waits until another one calls wake() for it.
  Fiber* current() const { return current_; }
  void wait(const Channel& channel) {
    current_->channel = &channel;
    current_->waits = true;
    leave(false);
  }
  void wake(Fiber* fiber, uint64_t cycle) {
    fiber->waits = false;
    fiber->now = std::max(fiber->now, cycle);
    ready_.push_back(fiber);
  }

  // Returns when no other process can do anything before this one's clock.
  void synchronize() {
    if (!TIMED) return;
    for (const Fiber* fiber : ready_) {
      if (fiber->now < current_->now) {
        ready_.push_back(current_);
        leave(false);
        return;
      }
    }
  }

  // Cycles since the region before ended.
  uint64_t elapsed() const { return current_->now - begin_; }

  static void fail(const std::string& what) {
    std::fprintf(stderr, "error: %s: the hardware would hang here\n", what.c_str());
    std::fflush(stderr);
    std::_Exit(3);  // no destructors: other processes are in the middle of something
  }

 private:
  // A writer is woken when half of its stream is free, or here, when nobody else can go on.
  void wake_writers() {
    for (const std::unique_ptr<Fiber>& fiber : fibers_) {
      const Channel* channel = fiber->channel;
      if (fiber->waits && channel->held > 0 && channel->held < channel->depth) {
        wake(fiber.get(), 0);
      }
    }
  }

  void fail_all() {
    std::string text = "deadlock, every process waits";
    for (const std::unique_ptr<Fiber>& fiber : fibers_) {
      if (!fiber->waits) continue;
      const Channel& channel = *fiber->channel;
      text += std::string("; stream '") + channel.name + "' is " +
              (channel.held ? "full with " + std::to_string(channel.held) : "empty");
    }
    fail(text);
  }

  // The process to go on with.
  Fiber* next() {
    std::deque<Fiber*>::iterator chosen = ready_.begin();
    for (std::deque<Fiber*>::iterator it = chosen; TIMED && it != ready_.end(); ++it) {
      if ((*it)->now < (*chosen)->now) chosen = it;
    }
    Fiber* fiber = *chosen;
    ready_.erase(chosen);
    return fiber;
  }

  static void body() {
    Processes& processes = all();
    processes.arrived();
    processes.current_->body();
    processes.running_--;
    processes.leave(true);
  }

  void enter_from_main(Fiber& fiber) {
    if (_setjmp(main_)) {
      arrived();
      return;
    }
    enter(fiber, &main_stack_);
  }

  // Goes on with `fiber`; does not return.
  void enter(Fiber& fiber, void** left) {
    switching(left, fiber.stack.get(), Fiber::STACK_BYTES);
    if (fiber.entered) _longjmp(fiber.place, 1);
    fiber.entered = true;
    reuse(fiber);
    getcontext(&fiber.entry);
    fiber.entry.uc_stack.ss_sp = fiber.stack.get();
    fiber.entry.uc_stack.ss_size = Fiber::STACK_BYTES;
    fiber.entry.uc_link = nullptr;
    makecontext(&fiber.entry, &Processes::body, 0);
    setcontext(&fiber.entry);
  }

  // Hands over to the next process that can go on, or to join().
  void leave(bool ended) {
    void* left = nullptr;
    if (!ended && _setjmp(current_->place)) {
      arrived();
      return;
    }
    if (ready_.empty()) {
      switching(ended ? nullptr : &left, main_bottom_, main_bytes_);
      _longjmp(main_, 1);
    }
    current_ = next();
    enter(*current_, ended ? nullptr : &left);
  }

  // AddressSanitizer is told of every change of stacks.
#ifdef __SANITIZE_ADDRESS__
  // Frames of the process that ended on this stack were left without returning.
  void reuse(Fiber& fiber) { __asan_unpoison_memory_region(fiber.stack.get(), Fiber::STACK_BYTES); }
  void switching(void** left, const void* bottom, std::size_t bytes) {
    __sanitizer_start_switch_fiber(left, bottom, bytes);
  }
  void arrived() {
    const void* bottom = nullptr;
    std::size_t bytes = 0;
    __sanitizer_finish_switch_fiber(nullptr, &bottom, &bytes);
    if (!main_bottom_) {
      main_bottom_ = bottom;
      main_bytes_ = bytes;
    }
  }
#else
  void reuse(Fiber&) {}
  void switching(void**, const void*, std::size_t) {}
  void arrived() {}
#endif

  std::vector<std::unique_ptr<Fiber>> fibers_, spare_;
  std::deque<Fiber*> ready_;
  Fiber outside_;  // what runs between regions
  Fiber* current_ = &outside_;
  int running_ = 0;
  uint64_t begin_ = 0, end_ = 0;  // of the region and what led to it, in cycles
  jmp_buf main_;
  void* main_stack_ = nullptr;
  const void* main_bottom_ = nullptr;
  std::size_t main_bytes_ = 0;
};

#endif  // PROCESSES_HPP
