// SPDX-License-Identifier: Apache-2.0
// ap_int and ap_uint over clang's _BitInt, with the widths of results that UG1399 gives them. Only
// for compiling what synthesis sees with clang; nothing is run with it.
#ifndef AP_INT_H
#define AP_INT_H

#include <type_traits>

namespace ap {

template <int W, bool S>
struct Bits {
  typedef signed _BitInt(W) type;
};
template <int W>
struct Bits<W, false> {
  typedef unsigned _BitInt(W) type;
};
template <>
struct Bits<1, true> {  // a signed _BitInt has two bits or more
  typedef signed _BitInt(2) type;
};

constexpr int larger(int a, int b) {
  return a > b ? a : b;
}

constexpr int smaller(int a, int b) {
  return a < b ? a : b;
}

template <int W, bool S>
class Int;

// Width and sign of what takes part in an operation.
template <class T, class = void>
struct Operand {
  static const bool valid = false;  // by its conversion to a native type
  static const int width = 1;
  static const bool sign = false;
};
template <int W, bool S>
struct Operand<Int<W, S>> {
  static const bool valid = true;
  static const int width = W;
  static const bool sign = S;
};
template <class T>
struct Operand<T, typename std::enable_if<std::is_integral<T>::value>::type> {
  static const bool valid = true;
  static const int width = std::is_same<T, bool>::value ? 1 : 8 * sizeof(T);
  static const bool sign = std::is_signed<T>::value;
};

// Bits high .. low of a number, read and written.
template <int W, bool S>
struct Range {
  typedef typename Bits<W, false>::type raw;
  Int<W, S>& whole;
  int high, low;

  raw mask() const { return raw(~raw(0)) >> (W - 1 - (high - low)); }
  operator unsigned long long() const {
    return (unsigned long long)(raw(raw(whole.value) >> low) & mask());
  }
  Range& operator=(const Range& from) { return assign((unsigned long long)(from)); }
  template <class T, class = typename std::enable_if<std::is_arithmetic<T>::value>::type>
  Range& operator=(T from) {
    return assign(from);
  }
  template <int W2, bool S2>
  Range& operator=(const Int<W2, S2>& from) {
    return assign(from.value);
  }
  template <int W2, bool S2>
  Range& operator=(const Range<W2, S2>& from) {
    return assign((unsigned long long)(from));
  }

 private:
  template <class T>
  Range& assign(T from) {
    whole.value = (raw(whole.value) & ~(mask() << low)) | ((raw(from) & mask()) << low);
    return *this;
  }
};

template <int W, bool S>
class Int {
 public:
  static const int width = W;
  typedef typename Bits<W, S>::type raw;
  raw value;

  Int() = default;
  template <class T, class = typename std::enable_if<std::is_arithmetic<T>::value>::type>
  constexpr Int(T from) : value(raw(from)) {}
  template <int W2, bool S2>
  constexpr Int(const Int<W2, S2>& from) : value(raw(from.value)) {}
  template <int W2, bool S2>
  Int(const Range<W2, S2>& from) : value(raw((unsigned long long)(from))) {}

  // The smallest native type that holds it, as the vendor's headers convert.
  template <int BITS>
  using pick = typename std::conditional<
      (BITS <= 8), typename std::conditional<S, signed char, unsigned char>::type,
      typename std::conditional<
          (BITS <= 16), typename std::conditional<S, short, unsigned short>::type,
          typename std::conditional<
              (BITS <= 32), typename std::conditional<S, int, unsigned>::type,
              typename std::conditional<S, long long, unsigned long long>::type>::type>::type>::
      type;
  constexpr operator pick<W>() const { return pick<W>(value); }
  int to_int() const { return int(value); }
  unsigned to_uint() const { return unsigned(value); }
  bool operator!() const { return value == 0; }

  Range<W, S> range(int high, int low) { return Range<W, S>{*this, high, low}; }
  Range<W, S> range(int high, int low) const {
    return Range<W, S>{const_cast<Int&>(*this), high, low};
  }
  Range<W, S> operator()(int high, int low) { return range(high, low); }
  Range<W, S> operator()(int high, int low) const { return range(high, low); }
  Range<W, S> operator[](int bit) { return range(bit, bit); }
  bool operator[](int bit) const { return bool((value >> bit) & 1); }

#define AP_ASSIGN(sign)                        \
  template <class T>                           \
  Int& operator sign##=(const T& by) {         \
    return *this = Int(*this sign by);         \
  }
  AP_ASSIGN(+)
  AP_ASSIGN(-)
  AP_ASSIGN(*)
  AP_ASSIGN(/)
  AP_ASSIGN(%)
  AP_ASSIGN(&)
  AP_ASSIGN(|)
  AP_ASSIGN(^)
  AP_ASSIGN(<<)
  AP_ASSIGN(>>)
#undef AP_ASSIGN
  Int& operator++() { return *this += Int<1, false>(1); }
  Int& operator--() { return *this -= Int<1, false>(1); }
  Int operator++(int) {
    const Int before = *this;
    ++*this;
    return before;
  }
  Int operator--(int) {
    const Int before = *this;
    --*this;
    return before;
  }
};

template <class A, class B>
struct Both {
  typedef Operand<A> a;
  typedef Operand<B> b;
  static const bool any =
      a::valid && b::valid && (std::is_class<A>::value || std::is_class<B>::value);
  static const bool sign = a::sign || b::sign;
  static const int width = larger(a::width + (sign && !a::sign), b::width + (sign && !b::sign));
};

// An operation whose result has `bits` bits.
#define AP_BINARY(operation, bits, is_signed)                                                  \
  template <class A, class B, class P = Both<A, B>,                                            \
            class = typename std::enable_if<P::any>::type>                                     \
  constexpr Int<(bits), (is_signed)> operator operation(const A& a, const B& b) {              \
    typedef Int<ap::larger((bits), P::width), P::sign> Wide;                                   \
    return Int<(bits), (is_signed)>(Wide(a).value operation Wide(b).value);                    \
  }
AP_BINARY(+, P::width + 1, P::sign)
AP_BINARY(-, P::width + 1, true)
AP_BINARY(*, P::a::width + P::b::width, P::sign)
AP_BINARY(/, P::a::width + P::b::sign, P::sign)
AP_BINARY(%, ap::smaller(P::a::width, P::b::width + (P::a::sign && !P::b::sign)), P::a::sign)
AP_BINARY(&, P::width, P::sign)
AP_BINARY(|, P::width, P::sign)
AP_BINARY(^, P::width, P::sign)
#undef AP_BINARY

#define AP_COMPARE(sign_)                                               \
  template <class A, class B, class P = Both<A, B>,                     \
            class = typename std::enable_if<P::any>::type>              \
  constexpr bool operator sign_(const A& a, const B& b) {               \
    typedef Int<P::width, P::sign> Wide;                                \
    return Wide(a).value sign_ Wide(b).value;                           \
  }
AP_COMPARE(==)
AP_COMPARE(!=)
AP_COMPARE(<)
AP_COMPARE(<=)
AP_COMPARE(>)
AP_COMPARE(>=)
#undef AP_COMPARE

template <int W, bool S>
constexpr Int<W, S> operator<<(const Int<W, S>& a, int by) {
  return Int<W, S>(typename Int<W, S>::raw(a.value << by));
}
template <int W, bool S>
constexpr Int<W, S> operator>>(const Int<W, S>& a, int by) {
  return Int<W, S>(typename Int<W, S>::raw(a.value >> by));
}
template <int W, bool S>
constexpr Int<W + 1, true> operator-(const Int<W, S>& a) {
  return Int<W + 1, true>(0) - a;
}
template <int W, bool S>
constexpr Int<W, S> operator~(const Int<W, S>& a) {
  return Int<W, S>(typename Int<W, S>::raw(~a.value));
}

}  // namespace ap

template <int W>
using ap_int = ap::Int<W, true>;
template <int W>
using ap_uint = ap::Int<W, false>;

#endif  // AP_INT_H
