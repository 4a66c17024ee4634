// SPDX-License-Identifier: Apache-2.0
// The four conversion units of the ENQ/KNQ paper (Figs. 2 and 3): QE and QK turn a fixed-point
// value into the code that is stored, CE and CK turn a code into the value that is multiplied.
// Decoder and Encoder pick the unit of the current layer; the engine's loops do not know which one
// they run; their tables come from the program when a layer begins. C is the engine's constants
// (network.hpp): types, HAS_ENQ, HAS_KNQ, KNQ_LEVELS.
#ifndef CONVERSION_UNITS_HPP
#define CONVERSION_UNITS_HPP

#include "fifo.hpp"
#include "program.hpp"

// CE, Fig. 2(b): value = code << a (+ half a step for codes other than 0, variant mid). a comes
// from the layer table, which is the paper's DEC1.
template <class C>
struct CE {
  static typename C::value_t decode(int code, int shift, int half) {
#pragma HLS INLINE
    return typename C::value_t(shift_left(int32_t(code), shift) + (code != 0 ? half : 0));
  }
};

// QE, Fig. 2(a): code = (value + half) >> a, saturated at the largest code; half is 0 for floor.
template <class C>
struct QE {
  static int encode(typename C::quant_t value, int shift, int half, int largest) {
#pragma HLS INLINE
    return min_of<int>((int(value) + half) >> shift, largest);
  }
};

// CK, Fig. 3(b): value = centroid[code], a multiplexer over the layer's centroids. Lanes that hold
// no channel may carry any code; the mask keeps it inside the table, its value is never used.
template <class C>
struct CK {
  static_assert((C::KNQ_LEVELS & (C::KNQ_LEVELS - 1)) == 0, "KNQ_LEVELS must be a power of two");
  static_assert(C::KNQ_LEVELS <= 1 << C::CODE_BITS, "KNQ_LEVELS must be 2^CODE_BITS at most");
  static typename C::value_t decode(typename C::code_t code,
                                    const typename C::value_t centroid[C::KNQ_LEVELS]) {
#pragma HLS INLINE
    return centroid[int(code) & (C::KNQ_LEVELS - 1)];
  }
};

// QK, Fig. 3(a): code = number of thresholds j >= 1 that the value reaches. The comparators'
// outputs are a thermometer code, so counting ones is the paper's priority encoder DEC2.
template <class C>
struct QK {
  static typename C::code_t encode(typename C::quant_t value,
                                   const typename C::quant_t threshold[C::KNQ_LEVELS]) {
#pragma HLS INLINE
    int code = 0;
  comparators:
    for (int j = 1; j < C::KNQ_LEVELS; j++) {
#pragma HLS UNROLL  // one comparator each
      code += value >= threshold[j] ? 1 : 0;
    }
    return typename C::code_t(code);
  }
};

// Takes a KNQ table from a stream; where the scheme is another, there is none.
template <class C, class T>
void take_table(Fifo<typename C::bus_t>& tables, int scheme, T table[2 * KnqTable<C>::WORDS]) {
#pragma HLS INLINE
take_entry:
  for (Count<KnqTable<C>::WORDS> j = 0; j < KnqTable<C>::WORDS; j++) {
#pragma HLS PIPELINE II = 1  // two a cycle
    const uint64_t word = scheme == SCHEME_KNQ ? uint64_t(tables.read()) : 0;
    table[2 * j] = T(low_half(word));
    table[2 * j + 1] = T(high_half(word));
  }
}

// Decodes the codes of one feature map. Signed codes are two's complement, but KNQ's are indices.
template <class C>
class Decoder {
 public:
  Decoder(const CodeSettings& s, const typename C::value_t centroid[2 * KnqTable<C>::WORDS])
      : scheme_(s.scheme),
        shift_(s.shift),
        half_(s.half),
        sign_(s.is_signed ? 1 << (int(s.bits) - 1) : 0) {
#pragma HLS ARRAY_PARTITION variable = centroid_ complete  // registers: any code of any lane
  load_centroids:
    for (int j = 0; j < 2 * KnqTable<C>::WORDS; j++) {
#pragma HLS UNROLL  // the multiplexer inputs of CK, held in registers for the layer
      centroid_[j] = centroid[j];
    }
  }

  // The eight codes of a block.
  void operator()(const typename C::code_t code[BLOCK_CODES],
                  typename C::value_t value[BLOCK_CODES]) const {
#pragma HLS INLINE
  decode_s:
    for (int s = 0; s < BLOCK_CODES; s++) {
#pragma HLS UNROLL  // one CE/CK per lane
      // (k ^ s) - s sign-extends for s = 2^(bits-1) and is k itself for s = 0.
      const int number = (int(code[s]) ^ sign_) - sign_;
      if (C::HAS_KNQ && scheme_ == SCHEME_KNQ) {
        value[s] = CK<C>::decode(code[s], centroid_);
      } else if (C::HAS_ENQ && scheme_ == SCHEME_ENQ) {
        value[s] = CE<C>::decode(number, shift_, half_);
      } else {
        value[s] = typename C::value_t(number);
      }
    }
  }

 private:
  int scheme_, shift_, half_, sign_;
  typename C::value_t centroid_[2 * KnqTable<C>::WORDS];
};

// Encodes the requantized values of one layer.
template <class C>
class Encoder {
 public:
  Encoder(const CodeSettings& s, const typename C::quant_t threshold[2 * KnqTable<C>::WORDS])
      : scheme_(s.scheme),
        shift_(s.shift),
        half_(s.half),
        mask_((1 << int(s.bits)) - 1),
        largest_(s.is_signed ? mask_ >> 1 : mask_) {
#pragma HLS ARRAY_PARTITION variable = threshold_ complete  // registers
  load_thresholds:
    for (int j = 0; j < 2 * KnqTable<C>::WORDS; j++) {
#pragma HLS UNROLL  // the comparator inputs of QK, held in registers for the layer
      threshold_[j] = threshold[j];
    }
  }

  typename C::code_t operator()(typename C::quant_t value) const {
#pragma HLS INLINE
    if (C::HAS_KNQ && scheme_ == SCHEME_KNQ) return QK<C>::encode(value, threshold_);
    const int number = C::HAS_ENQ && scheme_ == SCHEME_ENQ
                           ? QE<C>::encode(value, shift_, half_, largest_)
                           : int(value);
    return typename C::code_t(number & mask_);
  }

 private:
  int scheme_, shift_, half_, mask_, largest_;
  typename C::quant_t threshold_[2 * KnqTable<C>::WORDS];
};

#endif  // CONVERSION_UNITS_HPP
