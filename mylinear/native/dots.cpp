#include <algorithm>

#include "loops.hpp"

// Processors are told apart by what they have in common (x86-64-v3: AVX2, FMA and F16C; v4: AVX-512).
#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__clang__) && __GNUC__ >= 12
#include <immintrin.h>
// GCC 12 takes what its own header leaves undefined on purpose for a mistake of ours (its bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#define FOR_V3 __attribute__((target("arch=x86-64-v3")))
#define FOR_V4 __attribute__((target("arch=x86-64-v4")))
#endif

namespace mylinear {
namespace {

using ort_ops::BFloat16;
using ort_ops::Float16;

// Sums of x's products with four rows of the weight: the additions of one need not wait for those of another.
template <typename T>
void four_dots(std::int64_t in, const Wide<T>* x, const T* const* w, Wide<T>* sums) {
  Wide<T> a = 0, b = 0, c = 0, d = 0;
#pragma omp simd reduction(+ : a, b, c, d)
  for (std::int64_t i = 0; i < in; ++i) {
    a += x[i] * static_cast<Wide<T>>(w[0][i]);
    b += x[i] * static_cast<Wide<T>>(w[1][i]);
    c += x[i] * static_cast<Wide<T>>(w[2][i]);
    d += x[i] * static_cast<Wide<T>>(w[3][i]);
  }
  sums[0] = a, sums[1] = b, sums[2] = c, sums[3] = d;
}

template <typename T>
void dots_anywhere(const Sizes& sizes, const Wide<T>* x, const T* weight, const T* bias, Wide<T>* y) {
  for (std::int64_t row = 0; row < sizes.rows; ++row, x += sizes.in, y += sizes.stride)
    for (std::int64_t i = 0; i < sizes.out; i += 4) {
      // Where fewer than four are left, the last stands for those that are missing, too.
      const auto at = [&](std::int64_t k) { return std::min(i + k, sizes.out - 1); };
      const T* const w[] = {weight + at(0) * sizes.in, weight + at(1) * sizes.in, weight + at(2) * sizes.in,
                            weight + at(3) * sizes.in};
      Wide<T> sums[4];
      four_dots(sizes.in, x, w, sums);
      for (std::int64_t k = 0; k < 4; ++k)
        y[at(k)] = bias == nullptr ? sums[k] : sums[k] + static_cast<Wide<T>>(bias[at(k)]);
    }
}

#ifdef FOR_V3
namespace v3 {

constexpr int kTileRows = 2;  // 8 of 16 registers for sums
template <typename W>
struct Vectors;

template <>
struct Vectors<float> {
  using Vector = __m256;
  static constexpr std::int64_t kLanes = 8;

  FOR_V3 static Vector load(const float* from) { return _mm256_loadu_ps(from); }
  FOR_V3 static Vector load(const Float16* from) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  }
  FOR_V3 static Vector load(const BFloat16* from) {
    const __m256i bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
    return _mm256_castsi256_ps(_mm256_slli_epi32(bits, 16));
  }
  template <typename T>
  FOR_V3 static Vector load(const T* from, std::int64_t count) {
    T some[kLanes] = {};
    for (std::int64_t i = 0; i < kLanes; ++i)
      if (i < count) some[i] = from[i];
    return load(some);
  }
  FOR_V3 static Vector add(Vector a, Vector b, Vector to) { return _mm256_fmadd_ps(a, b, to); }
  FOR_V3 static void store_totals(const Vector* of, float* to) {
    const Vector each = _mm256_hadd_ps(_mm256_hadd_ps(of[0], of[1]), _mm256_hadd_ps(of[2], of[3]));
    _mm_storeu_ps(to, _mm_add_ps(_mm256_castps256_ps128(each), _mm256_extractf128_ps(each, 1)));
  }
};

template <>
struct Vectors<double> {
  using Vector = __m256d;
  static constexpr std::int64_t kLanes = 4;

  FOR_V3 static Vector load(const double* from) { return _mm256_loadu_pd(from); }
  FOR_V3 static Vector load(const double* from, std::int64_t count) {
    return _mm256_setr_pd(from[0], count > 1 ? from[1] : 0, count > 2 ? from[2] : 0, 0);
  }
  FOR_V3 static Vector add(Vector a, Vector b, Vector to) { return _mm256_fmadd_pd(a, b, to); }
  FOR_V3 static void store_totals(const Vector* of, double* to) {
    const Vector ab = _mm256_hadd_pd(of[0], of[1]), cd = _mm256_hadd_pd(of[2], of[3]);
    const Vector low = _mm256_permute2f128_pd(ab, cd, 0x20), high = _mm256_permute2f128_pd(ab, cd, 0x31);
    _mm256_storeu_pd(to, _mm256_add_pd(low, high));
  }
};

#define FOR_PROCESSOR FOR_V3
#include "tiles.hpp"
#undef FOR_PROCESSOR

}  // namespace v3

namespace v4 {

constexpr int kTileRows = 4;  // 16 of 32 registers for sums
template <typename W>
struct Vectors;

template <>
struct Vectors<float> {
  using Vector = __m512;
  static constexpr std::int64_t kLanes = 16;

  FOR_V4 static __mmask16 first(std::int64_t count) { return static_cast<__mmask16>((1 << count) - 1); }
  FOR_V4 static Vector widened(const Float16*, __m256i bits) { return _mm512_cvtph_ps(bits); }
  FOR_V4 static Vector widened(const BFloat16*, __m256i bits) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  }
  FOR_V4 static Vector load(const float* from) { return _mm512_loadu_ps(from); }
  FOR_V4 static Vector load(const float* from, std::int64_t count) {
    return _mm512_maskz_loadu_ps(first(count), from);
  }
  template <typename T>
  FOR_V4 static Vector load(const T* from) {
    return widened(from, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  }
  template <typename T>
  FOR_V4 static Vector load(const T* from, std::int64_t count) {
    return widened(from, _mm256_maskz_loadu_epi16(first(count), from));
  }
  FOR_V4 static Vector add(Vector a, Vector b, Vector to) { return _mm512_fmadd_ps(a, b, to); }
  FOR_V4 static void store_totals(const Vector* of, float* to) {
    __m256 half[4];
    for (int k = 0; k < 4; ++k)
      half[k] = _mm256_add_ps(_mm512_castps512_ps256(of[k]), _mm512_extractf32x8_ps(of[k], 1));
    v3::Vectors<float>::store_totals(half, to);
  }
};

template <>
struct Vectors<double> {
  using Vector = __m512d;
  static constexpr std::int64_t kLanes = 8;

  FOR_V4 static Vector load(const double* from) { return _mm512_loadu_pd(from); }
  FOR_V4 static Vector load(const double* from, std::int64_t count) {
    return _mm512_maskz_loadu_pd(static_cast<__mmask8>((1 << count) - 1), from);
  }
  FOR_V4 static Vector add(Vector a, Vector b, Vector to) { return _mm512_fmadd_pd(a, b, to); }
  FOR_V4 static void store_totals(const Vector* of, double* to) {
    __m256d half[4];
    for (int k = 0; k < 4; ++k)
      half[k] = _mm256_add_pd(_mm512_castpd512_pd256(of[k]), _mm512_extractf64x4_pd(of[k], 1));
    v3::Vectors<double>::store_totals(half, to);
  }
};

#define FOR_PROCESSOR FOR_V4
#include "tiles.hpp"
#undef FOR_PROCESSOR

}  // namespace v4
#endif

}  // namespace

template <typename T>
void dots(const Sizes& sizes, const Wide<T>* x, const T* weight, const T* bias, Wide<T>* y) {
#ifdef FOR_V3
  constexpr std::int64_t kLittle =
      1 << 15;  // products; measured: below, registers of 512 bits aren't awake yet
  const bool little = sizes.rows * sizes.in * sizes.out <= kLittle;
  if (!little && __builtin_cpu_supports("x86-64-v4")) return v4::dots_by_tiles(sizes, x, weight, bias, y);
  if (__builtin_cpu_supports("x86-64-v3")) return v3::dots_by_tiles(sizes, x, weight, bias, y);
#endif
  dots_anywhere(sizes, x, weight, bias, y);
}
template void dots<double>(const Sizes&, const double*, const double*, const double*, double*);
template void dots<float>(const Sizes&, const float*, const float*, const float*, float*);
template void dots<Float16>(const Sizes&, const float*, const Float16*, const Float16*, float*);
template void dots<BFloat16>(const Sizes&, const float*, const BFloat16*, const BFloat16*, float*);

std::int64_t few_rows() {
#ifdef FOR_V3
  if (__builtin_cpu_supports("x86-64-v4")) return 2 * v4::kTileRows;
  if (__builtin_cpu_supports("x86-64-v3")) return v3::kTileRows;
#endif
  return 1;
}

}  // namespace mylinear
