// SPDX-License-Identifier: Apache-2.0
// Processes and what joins them. count_t: what a process counts in a layer; cycle_t: iterations in
// which it has worked; region_cycles(): those of the busiest, in a timed simulation all of the
// region so far.
//
// Stream<T, DEPTH>: a stream between two processes of a dataflow region; Fifo<T>: what a process
// sees of it. For synthesis both are hls::stream, and a pragma gives the stream its depth. In
// simulation a stream holds DEPTH elements, too, and a process waits where the hardware would; what
// would hang the hardware stops the program with the stream's name (processes.hpp).
#ifndef FIFO_HPP
#define FIFO_HPP

#ifdef CSIM_FAST
#include <cstdint>

typedef uint32_t count_t;
#else
#include "ap_int.h"

typedef ap_uint<32> count_t;
#endif

#ifdef __SYNTHESIS__
#include "hls_stream.h"

template <class T>
using Fifo = hls::stream<T>;
template <class T, int DEPTH>
using Stream = hls::stream<T>;
#define PROCESS(function, ...) function(__VA_ARGS__)
#else
#include "stream.hpp"

template <class T, int DEPTH>
class Stream : public Fifo<T> {
 public:
  static_assert(DEPTH >= 1, "the depth of a stream must be 1 or more");
  explicit Stream(const char* name) : Fifo<T>(name, DEPTH) {}
};

// Calls a process of a dataflow region: PROCESS(function, arguments...). In simulation it runs
// beside the others until a stream of the region goes out of scope.
#define PROCESS(function, ...) Processes::all().start(#function, [&] { function(__VA_ARGS__); })
#endif

#ifndef CSIM_TIMED
typedef count_t cycle_t;
inline count_t region_cycles(count_t busiest) {
#pragma HLS INLINE
  return busiest;
}
#endif

#endif  // FIFO_HPP
