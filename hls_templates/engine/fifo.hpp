// SPDX-License-Identifier: Apache-2.0
// Stream<T, DEPTH>: a stream between two processes of a dataflow region; Fifo<T>: what a process
// sees of it. For synthesis both are hls::stream, and a pragma gives the stream its depth. In
// simulation, what would hang the hardware stops the program with the stream's name:
//  - CSIM_THREADS undefined: processes run one after another, and a stream grows as it must. Being
//    read while empty and being left with elements are errors.
//  - CSIM_THREADS defined: every PROCESS is a thread, and a stream holds DEPTH elements. A thread
//    waits where the hardware would; when all threads wait, that is an error, too.
#ifndef FIFO_HPP
#define FIFO_HPP

#include "hls_stream.h"

#ifdef __SYNTHESIS__
template <class T>
using Fifo = hls::stream<T>;
template <class T, int DEPTH>
using Stream = hls::stream<T>;
#else
#ifdef CSIM_THREADS
#include "threads.hpp"
#else
#include <cstdio>
#include <cstdlib>
#include <vector>

template <class T>
class Fifo {
 public:
  Fifo(const char* name, int) : name_(name), head_(0) {}
  Fifo(const Fifo&) = delete;
  Fifo& operator=(const Fifo&) = delete;

  ~Fifo() {
    if (head_ != items_.size()) fail("is left with unread elements");
  }

  void write(const T& item) { items_.push_back(item); }

  T read() {
    if (head_ == items_.size()) fail("is read while empty");
    const T item = items_[head_++];
    if (head_ == items_.size()) {
      items_.clear();
      head_ = 0;
    }
    return item;
  }

 private:
  void fail(const char* what) const {
    std::fprintf(stderr, "error: stream '%s' %s: the hardware would hang here\n", name_, what);
    std::exit(3);
  }

  const char* name_;
  std::vector<T> items_;
  std::size_t head_;
};
#endif

template <class T, int DEPTH>
class Stream : public Fifo<T> {
 public:
  static_assert(DEPTH >= 1, "the depth of a stream must be 1 or more");
  explicit Stream(const char* name) : Fifo<T>(name, DEPTH) {}
};
#endif

// Calls a process of a dataflow region: PROCESS(function, arguments...). With CSIM_THREADS it runs
// until it ends or a stream of the region goes out of scope.
#if defined(CSIM_THREADS) && !defined(__SYNTHESIS__)
#define PROCESS(function, ...) Threads::all().start([&] { function(__VA_ARGS__); })
#else
#define PROCESS(function, ...) function(__VA_ARGS__)
#endif

#endif  // FIFO_HPP
