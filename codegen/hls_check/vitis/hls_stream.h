// SPDX-License-Identifier: Apache-2.0
// hls::stream as synthesis sees it, for compiling with clang; nothing is run with it. An element
// comes from, and goes to, a place that the compiler knows nothing of.
#ifndef HLS_STREAM_H
#define HLS_STREAM_H

namespace hls {

template <class T>
class stream {
 public:
  stream() {}
  explicit stream(const char*) {}
  stream(const stream&) = delete;
  T read() { return *front(); }
  void write(const T& item) { *back() = item; }
  bool empty() const;
  bool full() const;

 private:
  const T* front();
  T* back();
};

}  // namespace hls

#endif  // HLS_STREAM_H
