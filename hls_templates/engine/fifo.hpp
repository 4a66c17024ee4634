// SPDX-License-Identifier: Apache-2.0
// Fifo<T>: the stream between two processes of the engine. For synthesis it is hls::stream. In
// simulation it is a queue that stops the program, with the stream's name, when it is read while
// empty or destroyed while not: what would hang the hardware must not pass as a warning.
#ifndef FIFO_HPP
#define FIFO_HPP

#include "hls_stream.h"

#ifdef __SYNTHESIS__
template <class T>
using Fifo = hls::stream<T>;
#else
#include <cstdio>
#include <cstdlib>
#include <vector>

template <class T>
class Fifo {
 public:
  explicit Fifo(const char* name) : name_(name), head_(0) {}
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

#endif  // FIFO_HPP
