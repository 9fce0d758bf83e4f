#include "loops.hpp"

#include <algorithm>

// Processors are told apart by what they have in common (x86-64-v3: AVX2, FMA and F16C; v4: AVX-512):
// versions for `arch=haswell` and the like are taken by that very model alone.
#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__clang__) && __GNUC__ >= 12
#include <immintrin.h>
#define FOR_EACH_PROCESSOR __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#define FOR_V3 __attribute__((target("arch=x86-64-v3")))
#define ALWAYS_INLINE __attribute__((always_inline)) inline
#else
#define FOR_EACH_PROCESSOR
#define ALWAYS_INLINE inline
#endif

namespace mylinear {
namespace {

using ort_ops::BFloat16;
using ort_ops::Float16;

// Sums of x's products with four rows of the weight: the additions of one need not wait for those of another.
template <typename T>
ALWAYS_INLINE void four_dots(std::int64_t in, const Wide<T>* x, const T* const* w, Wide<T>* sums) {
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

#ifdef FOR_V3
FOR_V3 inline __m256 eight(const float* from) { return _mm256_loadu_ps(from); }
FOR_V3 inline __m256 eight(const Float16* from) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}
FOR_V3 inline __m256 eight(const BFloat16* from) {
  const __m256i bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  return _mm256_castsi256_ps(_mm256_slli_epi32(bits, 16));
}

// By hand: no compiler finds the instruction that widens float16 in the loop above, and float32 takes twice
// as long in it where the weight is small.
template <typename T>
FOR_V3 inline void four_dots_v3(std::int64_t in, const float* x, const T* const* w, float* sums) {
  __m256 a = _mm256_setzero_ps(), b = a, c = a, d = a;
  std::int64_t i = 0;
  for (; i + 8 <= in; i += 8) {
    const __m256 from = eight(x + i);
    a = _mm256_fmadd_ps(from, eight(w[0] + i), a);
    b = _mm256_fmadd_ps(from, eight(w[1] + i), b);
    c = _mm256_fmadd_ps(from, eight(w[2] + i), c);
    d = _mm256_fmadd_ps(from, eight(w[3] + i), d);
  }
  const __m256 abcd = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
  _mm_storeu_ps(sums, _mm_add_ps(_mm256_castps256_ps128(abcd), _mm256_extractf128_ps(abcd, 1)));
  for (; i < in; ++i)
    for (int k = 0; k < 4; ++k) sums[k] += x[i] * static_cast<float>(w[k][i]);
}
#endif

template <auto four, typename T>
ALWAYS_INLINE void dots_by(const Sizes& sizes, const Wide<T>* x, const T* weight, const T* bias, Wide<T>* y) {
  for (std::int64_t row = 0; row < sizes.rows; ++row, x += sizes.in, y += sizes.out)
    for (std::int64_t i = 0; i < sizes.out; i += 4) {
      // Where fewer than four are left, the last stands for those that are missing, too.
      const auto at = [&](std::int64_t k) { return std::min(i + k, sizes.out - 1); };
      const T* const w[] = {weight + at(0) * sizes.in, weight + at(1) * sizes.in, weight + at(2) * sizes.in,
                            weight + at(3) * sizes.in};
      Wide<T> sums[4];
      four(sizes.in, x, w, sums);
      for (std::int64_t k = 0; k < 4; ++k)
        y[at(k)] = bias == nullptr ? sums[k] : sums[k] + static_cast<Wide<T>>(bias[at(k)]);
    }
}

#ifdef FOR_V3
template <typename T>
FOR_V3 void dots_v3(const Sizes& sizes, const float* x, const T* weight, const T* bias, float* y) {
  dots_by<four_dots_v3<T>>(sizes, x, weight, bias, y);
}
#endif

}  // namespace

FOR_EACH_PROCESSOR void dots(const Sizes& sizes, const double* x, const double* weight, const double* bias,
                             double* y) {
  dots_by<four_dots<double>>(sizes, x, weight, bias, y);
}

template <typename T>
void dots(const Sizes& sizes, const float* x, const T* weight, const T* bias, float* y) {
#ifdef FOR_V3
  if (__builtin_cpu_supports("x86-64-v3")) return dots_v3(sizes, x, weight, bias, y);
#endif
  dots_by<four_dots<T>>(sizes, x, weight, bias, y);
}
template void dots(const Sizes&, const float*, const float*, const float*, float*);
template void dots(const Sizes&, const float*, const Float16*, const Float16*, float*);
template void dots(const Sizes&, const float*, const BFloat16*, const BFloat16*, float*);

#define CONVERT(From, To)                                                                         \
  FOR_EACH_PROCESSOR void convert(const From* from, std::size_t count, To* to) {                  \
    for (std::size_t i = 0; i < count; ++i) to[i] = static_cast<To>(static_cast<float>(from[i])); \
  }
CONVERT(Float16, float)
CONVERT(BFloat16, float)
CONVERT(float, Float16)
CONVERT(float, BFloat16)
#undef CONVERT

}  // namespace mylinear
