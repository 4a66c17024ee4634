// SPDX-License-Identifier: Apache-2.0
// A stream of the simulation: it holds no more than its depth, and a process waits where the
// hardware would.
#ifndef STREAM_HPP
#define STREAM_HPP

#include "timing.hpp"

template <class T>
class Fifo : private Channel {
 public:
  Fifo(const char* name, std::size_t depth)
      : Channel{name, depth, 0}, items_(new T[depth]), clock_(depth) {}
  Fifo(const Fifo&) = delete;
  Fifo& operator=(const Fifo&) = delete;

  ~Fifo() {
    Processes::all().join();
    if (held) Processes::fail(std::string("stream '") + name + "' is left with unread elements");
  }

  bool empty() const {
    Processes::all().synchronize();
    return held == 0 || !clock_.arrived(head_);
  }

  void write(const T& item) {
    if (held == depth) wait_for(writer_);
    const std::size_t end = head_ + held, at = end < depth ? end : end - depth;
    items_[at] = item;
    held++;
    const uint64_t cycle = clock_.write(at);
    if (reader_) wake(reader_, cycle);
  }

  T read() {
    if (held == 0) wait_for(reader_);
    const std::size_t at = head_;
    head_ = at + 1 == depth ? 0 : at + 1;
    held--;
    const uint64_t cycle = clock_.read(at);
    // A writer goes on when half the stream is free, so that processes change less often. It runs
    // later than this copy.
    if (writer_ && (TIMED || 2 * held <= depth)) {
      wake(writer_, writer_->begun(cycle));
    }
    return items_[at];
  }

 private:
  void wait_for(Fiber*& place) {
    place = Processes::all().current();
    Processes::all().wait(*this);
    place = nullptr;
  }
  static void wake(Fiber* fiber, uint64_t cycle) {
    if (fiber->waits) Processes::all().wake(fiber, cycle);
  }

  std::unique_ptr<T[]> items_;
  StreamClock clock_;
  std::size_t head_ = 0;
  Fiber *reader_ = nullptr, *writer_ = nullptr;
};

#endif  // STREAM_HPP
