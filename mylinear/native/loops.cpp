#include "loops.hpp"

// Processors are told apart by what they have in common (x86-64-v3: AVX2, FMA and F16C; v4: AVX-512):
// versions for `arch=haswell` and the like are taken by that very model alone.
#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__clang__) && __GNUC__ >= 12
#define FOR_EACH_PROCESSOR __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define FOR_EACH_PROCESSOR
#endif

namespace mylinear {

using ort_ops::BFloat16;
using ort_ops::Float16;

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
