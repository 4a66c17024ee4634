// SPDX-License-Identifier: Apache-2.0
// hls::burst_maxi as synthesis sees it, for compiling with clang (see hls_stream.h).
#ifndef HLS_BURST_MAXI_H
#define HLS_BURST_MAXI_H

#include <cstddef>

namespace hls {

template <class T>
class burst_maxi {
 public:
  burst_maxi(T* memory);
  void read_request(std::size_t offset, std::size_t words);
  T read() { return *front(); }
  void write_request(std::size_t offset, std::size_t words);
  void write(const T& word) { *back() = word; }
  void write_response();

 private:
  const T* front();
  T* back();
};

}  // namespace hls

#endif  // HLS_BURST_MAXI_H
