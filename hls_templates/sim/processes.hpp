// SPDX-License-Identifier: Apache-2.0
// The processes of a dataflow region as fibers of one thread; simulation only. A process runs until
// a stream makes it wait, so a run is the same every time. When every process waits, none would
// ever go on: that is the hardware's deadlock, and the message has the streams' names.
#ifndef PROCESSES_HPP
#define PROCESSES_HPP

#include <setjmp.h>
#include <ucontext.h>

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
  const Channel* channel = nullptr;  // the stream
};

// The processes of the region that runs.
class Processes {
 public:
  static Processes& all() {
    static Processes processes;
    return processes;
  }

  template <class Body>
  void start(Body body) {
    if (spare_.empty()) spare_.emplace_back(new Fiber);
    fibers_.push_back(std::move(spare_.back()));
    spare_.pop_back();
    Fiber& fiber = *fibers_.back();
    fiber.body = body;
    fiber.entered = fiber.waits = false;
    ready_.push_back(&fiber);
    running_++;
  }

  // Runs all processes to their end; for the code that started them.
  void join() {
    while (running_ > 0) {
      if (ready_.empty()) wake_writers();
      if (ready_.empty()) fail_all();
      current_ = ready_.front();
      ready_.pop_front();
      enter_from_main(*current_);
    }
    for (std::unique_ptr<Fiber>& fiber : fibers_) spare_.push_back(std::move(fiber));
    fibers_.clear();
  }

  // The running process waits until another one calls wake() for it.
  Fiber* current() const { return current_; }
  void wait(const Channel& channel) {
    current_->channel = &channel;
    current_->waits = true;
    leave(false);
  }
  void wake(Fiber* fiber) {
    fiber->waits = false;
    ready_.push_back(fiber);
  }

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
      if (fiber->waits && channel->held > 0 && channel->held < channel->depth) wake(fiber.get());
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
    current_ = ready_.front();
    ready_.pop_front();
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
  Fiber* current_ = nullptr;
  int running_ = 0;
  jmp_buf main_;
  void* main_stack_ = nullptr;
  const void* main_bottom_ = nullptr;
  std::size_t main_bytes_ = 0;
};

// A stream that holds no more than its depth.
template <class T>
class Fifo : private Channel {
 public:
  Fifo(const char* name, std::size_t depth) : Channel{name, depth, 0}, items_(new T[depth]) {}
  Fifo(const Fifo&) = delete;
  Fifo& operator=(const Fifo&) = delete;

  ~Fifo() {
    Processes::all().join();
    if (held) Processes::fail(std::string("stream '") + name + "' is left with unread elements");
  }

  bool empty() const { return held == 0; }

  void write(const T& item) {
    if (held == depth) wait_for(writer_);
    const std::size_t end = head_ + held;
    items_[end < depth ? end : end - depth] = item;
    held++;
    if (reader_) wake(reader_);
  }

  T read() {
    if (held == 0) wait_for(reader_);
    const std::size_t at = head_;
    head_ = at + 1 == depth ? 0 : at + 1;
    held--;
    // A writer goes on when half the stream is free, so that processes change less often. It runs
    // later than this copy.
    if (writer_ && 2 * held <= depth) wake(writer_);
    return items_[at];
  }

 private:
  void wait_for(Fiber*& place) {
    place = Processes::all().current();
    Processes::all().wait(*this);
    place = nullptr;
  }
  static void wake(Fiber* fiber) {
    if (fiber->waits) Processes::all().wake(fiber);
  }

  std::unique_ptr<T[]> items_;
  std::size_t head_ = 0;
  Fiber *reader_ = nullptr, *writer_ = nullptr;
};

#endif  // PROCESSES_HPP
