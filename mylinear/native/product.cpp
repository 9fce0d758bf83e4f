#include "product.hpp"

#include <algorithm>
#include <cstring>

#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__)
#define ALWAYS_INLINE __attribute__((always_inline)) inline
#define FOR_EACH_PROCESSOR __attribute__((target_clones("default", "arch=haswell", "arch=skylake-avx512")))
#else
#define ALWAYS_INLINE inline
#define FOR_EACH_PROCESSOR
#endif

namespace mylinear {
namespace {

using ort_ops::Context;
using ort_ops::element_type;
using ort_ops::Node;
using ort_ops::Packed;

// Sizes found by measuring: benchmarks/results/native_kernels.md.
constexpr std::int64_t kPackedFrom = 128 * 128;  // elements of a weight: below, calling anything costs more
constexpr std::int64_t kBlock = 1 << 18;         // elements of a weight that one thread goes through
constexpr std::int64_t kMostBlocks = 16;
constexpr std::int64_t kRows = 128;  // of x that are worth reading a block for

// The first of `count` things for part `index` of `parts`.
std::int64_t part(std::int64_t count, std::int64_t index, std::int64_t parts) {
  return count * index / parts;
}

// Four rows of the weight at a time, so that the additions of one need not wait for those of another.
template <typename T>
ALWAYS_INLINE void dot_rows(const Sizes& sizes, const T* x, const T* weight, const T* bias, T* y) {
  const std::int64_t in = sizes.in;
  std::int64_t row = 0;
  for (; row + 4 <= sizes.out; row += 4) {
    const T* w = weight + row * in;
    T a = 0, b = 0, c = 0, d = 0;
#pragma omp simd reduction(+ : a, b, c, d)
    for (std::int64_t i = 0; i < in; ++i) {
      a += x[i] * w[i];
      b += x[i] * w[in + i];
      c += x[i] * w[2 * in + i];
      d += x[i] * w[3 * in + i];
    }
    y[row] = a;
    y[row + 1] = b;
    y[row + 2] = c;
    y[row + 3] = d;
  }
  for (; row < sizes.out; ++row) {
    T sum = 0;
#pragma omp simd reduction(+ : sum)
    for (std::int64_t i = 0; i < in; ++i) sum += x[i] * weight[row * in + i];
    y[row] = sum;
  }
  if (bias != nullptr)
    for (std::int64_t i = 0; i < sizes.out; ++i) y[i] += bias[i];
}

}  // namespace

FOR_EACH_PROCESSOR void times_vector(const Sizes& sizes, const float* x, const float* weight,
                                     const float* bias, float* y) {
  dot_rows(sizes, x, weight, bias, y);
}
FOR_EACH_PROCESSOR void times_vector(const Sizes& sizes, const double* x, const double* weight,
                                     const double* bias, double* y) {
  dot_rows(sizes, x, weight, bias, y);
}

#define CONVERT(From, To)                                                                         \
  FOR_EACH_PROCESSOR void convert(const From* from, std::size_t count, To* to) {                  \
    for (std::size_t i = 0; i < count; ++i) to[i] = static_cast<To>(static_cast<float>(from[i])); \
  }
CONVERT(ort_ops::Float16, float)
CONVERT(ort_ops::BFloat16, float)
CONVERT(float, ort_ops::Float16)
CONVERT(float, ort_ops::BFloat16)
#undef CONVERT

template <typename T>
Product<T>::Product(const Node& node, const T* weight, std::int64_t in, std::int64_t out, const T* bias,
                    bool has_bias)
    : gemm_(node, has_bias) {
  const bool constant = weight != nullptr && (bias != nullptr || !has_bias);
  if (!constant || in * out < kPackedFrom || !Packed::is_there(node)) return;
  const std::int64_t count = std::clamp<std::int64_t>(in * out / kBlock, 1, kMostBlocks);
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t first = part(out, i, count), rows = part(out, i + 1, count) - first;
    std::vector<ort_ops::PackedConstant> constants;
    constants.push_back({weight + first * in, static_cast<std::size_t>(rows * in) * sizeof(T), {rows, in}});
    if (has_bias) constants.push_back({bias + first, static_cast<std::size_t>(rows) * sizeof(T), {rows}});
    blocks_.push_back({first, rows, Packed(node, "Gemm", 13, element_type<T>, {{"transB", 1}}, constants)});
  }
}

template <typename T>
void Product<T>::operator()(const Context& context, const Sizes& sizes, Operand<const T> x,
                            Operand<const T> weight, Operand<const T> bias, Operand<T> y) const {
  if (sizes.rows == 1 && sizes.in * sizes.out < kPackedFrom)
    times_vector(sizes, x.data, weight.data, bias.data, y.data);
  else if (sizes.rows == 1 || blocks_.empty())
    gemm_(context, sizes, x, weight, bias, y);
  else
    by_blocks(context, sizes, x.data, y.data);
}

// Blocks of the weight times chunks of x's rows, in ONNX Runtime's own threads.
template <typename T>
void Product<T>::by_blocks(const Context& context, const Sizes& sizes, const T* x, T* y) const {
  const auto blocks = static_cast<std::int64_t>(blocks_.size());
  const std::int64_t chunks = std::max<std::int64_t>(sizes.rows / kRows, 1);
  const auto run = [&](std::size_t task) {
    const Context own(context);  // its memory is not for several threads at once
    const Block& block = blocks_[task % blocks_.size()];
    const auto chunk = static_cast<std::int64_t>(task / blocks_.size());
    const std::int64_t first = part(sizes.rows, chunk, chunks);
    const std::int64_t rows = part(sizes.rows, chunk + 1, chunks) - first;
    const auto from = own.wrap(x + first * sizes.in, {rows, sizes.in});
    T* to = y + first * sizes.out + block.first;
    if (blocks == 1) {
      const auto whole = own.wrap(to, {rows, block.count});
      return block.packed(from.value(), whole.value());
    }
    // A block's columns of y don't lie together.
    const auto columns = own.template scratch<T>(static_cast<std::size_t>(rows * block.count));
    const auto whole = own.wrap(columns.data(), {rows, block.count});
    block.packed(from.value(), whole.value());
    for (std::int64_t row = 0; row < rows; ++row)
      std::memcpy(to + row * sizes.out, columns.data() + row * block.count,
                  static_cast<std::size_t>(block.count) * sizeof(T));
  };
  const auto tasks = static_cast<std::size_t>(blocks * chunks);
  if (tasks == 1) return run(0);
  context.parallel_for(tasks, run);
}

template class Product<float>;
template class Product<double>;

}  // namespace mylinear
