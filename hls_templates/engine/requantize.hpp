// SPDX-License-Identifier: Apache-2.0
// Requantize: y = clamp((acc + 2^(s-1)) >> s, y_min, y_max); s <= 0 shifts left and does not round.
// The clamp at y_min = 0 is the ReLU. wide_t holds acc + 2^(s-1) and acc << -s without overflow.
#ifndef REQUANTIZE_HPP
#define REQUANTIZE_HPP

#include "layer.hpp"

template <class C>
typename C::quant_t requantize(typename C::wide_t acc, int shift, int y_min, int y_max) {
#pragma HLS INLINE
  typedef typename C::wide_t wide_t;
  wide_t y = acc;
  if (shift > 0) {
    y = (y + (wide_t(1) << (shift - 1))) >> shift;
  } else {
    y = shift_left(y, -shift);
  }
  if (y < wide_t(y_min)) y = wide_t(y_min);
  if (y > wide_t(y_max)) y = wide_t(y_max);
  return typename C::quant_t(y);
}

#endif  // REQUANTIZE_HPP
