// C++ types of tensors' elements, and ONNX's numbers for them (TensorProto.DataType).
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>
#include <string>

namespace ort_ops {

namespace detail {
template <typename To, typename From>
To bits_of(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}
}  // namespace detail

// IEEE half precision. Conversions round to the nearest, ties to even, and are written without branches, so
// that compilers turn loops of them into vector instructions.
struct Float16 {
  std::uint16_t bits = 0;

  Float16() = default;
  explicit Float16(float value) {
    const std::uint32_t word = detail::bits_of<std::uint32_t>(value);
    const std::uint32_t sign = word >> 16 & 0x8000u;
    const std::uint32_t size = word & 0x7fffffffu;
    // Below 2^-14 the spacing is 2^-24: adding 0.5 in float32 rounds to that.
    const float aligned = detail::bits_of<float>(size) + 0.5f;
    const std::uint32_t small = detail::bits_of<std::uint32_t>(aligned) - 0x3f000000u;
    const std::uint32_t usual = (size - 0x38000000u + 0xfffu + (size >> 13 & 1u)) >> 13;
    const std::uint32_t special = size > 0x7f800000u ? 0x7e00u | (size >> 13 & 0x3ffu) : 0x7c00u;
    const std::uint32_t finite = size < 0x38800000u ? small : usual;
    bits = static_cast<std::uint16_t>(sign | (size >= 0x47800000u ? special : finite));
  }
  operator float() const {
    const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000u) << 16;
    const std::uint32_t size = bits & 0x7fffu;
    // Subnormal: its digits behind those of 0.5, which is taken away again.
    const float small = detail::bits_of<float>(0x3f000000u | size) - 0.5f;
    const std::uint32_t usual = (size << 13) + (size >= 0x7c00u ? 0x70000000u : 0x38000000u);
    const std::uint32_t word = size < 0x0400u ? detail::bits_of<std::uint32_t>(small) : usual;
    return detail::bits_of<float>(sign | word);
  }
};

// The upper half of a float32.
struct BFloat16 {
  std::uint16_t bits = 0;

  BFloat16() = default;
  explicit BFloat16(float value) {
    const std::uint32_t word = detail::bits_of<std::uint32_t>(value);
    const std::uint32_t rounded = (word + 0x7fffu + (word >> 16 & 1u)) >> 16;
    const std::uint32_t quiet = word >> 16 | 0x40u;  // a NaN stays one
    bits = static_cast<std::uint16_t>((word & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);
  }
  operator float() const { return detail::bits_of<float>(static_cast<std::uint32_t>(bits) << 16); }
};

namespace detail {

// What float has, of fewer digits; the numbers are bits. In brackets: <windows.h> has macros of these names.
template <typename Half, int kDigits, int kExponent, std::uint16_t kMin, std::uint16_t kMax,
          std::uint16_t kEpsilon, std::uint16_t kInfinity, std::uint16_t kNan>
struct HalfLimits : std::numeric_limits<float> {
  static constexpr int digits = kDigits;
  static constexpr int digits10 = (kDigits - 1) * 30103 / 100000;
  static constexpr int max_digits10 = kDigits * 30103 / 100000 + 2;
  static constexpr int max_exponent = kExponent, min_exponent = 3 - kExponent;
  static constexpr int max_exponent10 = kExponent * 30103 / 100000;
  static constexpr int min_exponent10 = (2 - kExponent) * 30103 / 100000;

  static constexpr Half(min)() { return of(kMin); }
  static constexpr Half(max)() { return of(kMax); }
  static constexpr Half lowest() { return of(kMax | 0x8000U); }
  static constexpr Half epsilon() { return of(kEpsilon); }
  static constexpr Half denorm_min() { return of(1); }
  static constexpr Half infinity() { return of(kInfinity); }
  static constexpr Half quiet_NaN() { return of(kNan); }
  static constexpr Half signaling_NaN() { return of(kInfinity | 1U); }
  static constexpr Half round_error() { return of((kExponent - 2U) << (kDigits - 1)); }

 private:
  static constexpr Half of(std::uint32_t bits) {
    Half half;
    half.bits = static_cast<std::uint16_t>(bits);
    return half;
  }
};

}  // namespace detail
}  // namespace ort_ops

template <>
class std::numeric_limits<ort_ops::Float16>
    : public ort_ops::detail::HalfLimits<ort_ops::Float16, 11, 16, 0x0400, 0x7bff, 0x1400, 0x7c00, 0x7e00> {};
template <>
class std::numeric_limits<ort_ops::BFloat16>
    : public ort_ops::detail::HalfLimits<ort_ops::BFloat16, 8, 128, 0x0080, 0x7f7f, 0x3c00, 0x7f80, 0x7fc0> {
};

namespace ort_ops {

// Elements of whatever type: for operators that copy or look at bytes.
struct Any;

template <typename T>
struct ElementType {
  static_assert(
      sizeof(T) == 0,
      "element types are Any, bool, float, double, std::string, Float16, BFloat16 and the integers of "
      "<cstdint>");
  static constexpr int value = 0;
};
// clang-format off
template <> struct ElementType<Any> { static constexpr int value = 0; };
template <> struct ElementType<float> { static constexpr int value = 1; };
template <> struct ElementType<std::uint8_t> { static constexpr int value = 2; };
template <> struct ElementType<std::int8_t> { static constexpr int value = 3; };
template <> struct ElementType<std::uint16_t> { static constexpr int value = 4; };
template <> struct ElementType<std::int16_t> { static constexpr int value = 5; };
template <> struct ElementType<std::int32_t> { static constexpr int value = 6; };
template <> struct ElementType<std::int64_t> { static constexpr int value = 7; };
template <> struct ElementType<std::string> { static constexpr int value = 8; };
template <> struct ElementType<bool> { static constexpr int value = 9; };
template <> struct ElementType<Float16> { static constexpr int value = 10; };
template <> struct ElementType<double> { static constexpr int value = 11; };
template <> struct ElementType<std::uint32_t> { static constexpr int value = 12; };
template <> struct ElementType<std::uint64_t> { static constexpr int value = 13; };
template <> struct ElementType<BFloat16> { static constexpr int value = 16; };
// clang-format on

template <typename T>
inline constexpr int element_type = ElementType<T>::value;

}  // namespace ort_ops
