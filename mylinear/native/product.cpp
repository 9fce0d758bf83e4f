#include "product.hpp"

#include <algorithm>
#include <cstring>

#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__)
#define FOR_EACH_PROCESSOR __attribute__((target_clones("default", "arch=haswell", "arch=skylake-avx512")))
#else
#define FOR_EACH_PROCESSOR
#endif

namespace mylinear {
namespace {

using ort_ops::BuiltIn;
using ort_ops::Context;
using ort_ops::element_type;
using ort_ops::Node;
using ort_ops::Packed;
using ort_ops::Shape;

// Sizes found by measuring: benchmarks/results/native_kernels.md.
constexpr std::int64_t kPackedFrom = 128 * 128;  // elements of a weight: below, a session's run costs more
constexpr std::int64_t kBlock = 1 << 20;         // elements of a weight that one thread goes through
constexpr std::int64_t kMostBlocks = 16;
constexpr std::int64_t kTask = 3 << 19;  // multiplications that are worth a task of their own
constexpr std::int64_t kMostTasks = 64;
constexpr std::int64_t kVectorTask = 1 << 17;  // and for one row

template <typename T>
BuiltIn make_gemm(const Node& node, bool has_bias) {
  return BuiltIn(node, "Gemm", 13, {{"T", element_type<T>}},
                 {{"transA", 0}, {"transB", 1}, {"alpha", 1.0f}, {"beta", 1.0f}}, has_bias ? 3 : 2, 1);
}

std::int64_t tasks_for(std::int64_t work, std::int64_t each, std::int64_t most) {
  return std::clamp<std::int64_t>(work / each, 1, most);
}

// The first of `count` things for part `index` of `parts`.
std::int64_t part(std::int64_t count, std::int64_t index, std::int64_t parts) {
  return count * index / parts;
}

// Four rows of the weight at a time, so that the additions of one need not wait for those of another.
template <typename T>
inline void dot_rows(const Sizes& sizes, const T* x, const T* weight, const T* bias, T* y) {
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

template <typename T>
Product<T>::Product(const Node& node, const T* weight, std::int64_t in, std::int64_t out, const T* bias,
                    bool has_bias)
    : gemm_(make_gemm<T>(node, has_bias)) {
  const bool constant = weight != nullptr && (bias != nullptr || !has_bias);
  if (!constant || in * out < kPackedFrom) return;
  const std::int64_t count = tasks_for(in * out, kBlock, kMostBlocks);
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t first = part(out, i, count), rows = part(out, i + 1, count) - first;
    std::vector<ort_ops::PackedConstant> constants;
    constants.push_back({weight + first * in, static_cast<std::size_t>(rows * in) * sizeof(T), {rows, in}});
    if (has_bias) constants.push_back({bias + first, static_cast<std::size_t>(rows) * sizeof(T), {rows}});
    blocks_.push_back({first, rows, Packed(node, "Gemm", 13, element_type<T>, {{"transB", 1}}, constants)});
  }
}

template <typename T>
void Product<T>::operator()(const Context& context, const Sizes& sizes, const T* x, const T* weight,
                            const T* bias, T* y) const {
  if (sizes.rows == 1) {
    const std::int64_t tasks = tasks_for(sizes.in * sizes.out, kVectorTask, kMostTasks);
    if (tasks == 1) return times_vector(sizes, x, weight, bias, y);
    context.parallel_for(static_cast<std::size_t>(tasks), [&](std::size_t task) {
      const std::int64_t first = part(sizes.out, static_cast<std::int64_t>(task), tasks);
      const std::int64_t rows = part(sizes.out, static_cast<std::int64_t>(task) + 1, tasks) - first;
      const T* own_bias = bias == nullptr ? nullptr : bias + first;
      times_vector({1, sizes.in, rows}, x, weight + first * sizes.in, own_bias, y + first);
    });
  } else if (blocks_.empty()) {
    by_one_operator(context, sizes, x, weight, bias, y);
  } else {
    by_blocks(context, sizes, x, y);
  }
}

// Blocks of the weight times chunks of x's rows, in ONNX Runtime's own threads.
template <typename T>
void Product<T>::by_blocks(const Context& context, const Sizes& sizes, const T* x, T* y) const {
  const auto blocks = static_cast<std::int64_t>(blocks_.size());
  const std::int64_t work = sizes.rows * sizes.in * sizes.out;
  const std::int64_t chunks =
      std::min(sizes.rows, std::max<std::int64_t>(tasks_for(work, kTask, kMostTasks) / blocks, 1));
  const auto run = [&](std::size_t task) {
    const Block& block = blocks_[task % blocks_.size()];
    const auto chunk = static_cast<std::int64_t>(task / blocks_.size());
    const std::int64_t first = part(sizes.rows, chunk, chunks);
    const std::int64_t rows = part(sizes.rows, chunk + 1, chunks) - first;
    const auto from = context.wrap(x + first * sizes.in, {rows, sizes.in});
    T* to = y + first * sizes.out + block.first;
    if (blocks == 1) {
      const auto whole = context.wrap(to, {rows, block.count});
      return block.packed(from.value(), whole.value());
    }
    // A block's columns of y don't lie together.
    const auto columns = context.template scratch<T>(static_cast<std::size_t>(rows * block.count));
    const auto whole = context.wrap(columns.data(), {rows, block.count});
    block.packed(from.value(), whole.value());
    for (std::int64_t row = 0; row < rows; ++row)
      std::memcpy(to + row * sizes.out, columns.data() + row * block.count,
                  static_cast<std::size_t>(block.count) * sizeof(T));
  };
  const auto tasks = static_cast<std::size_t>(blocks * chunks);
  if (tasks == 1) return run(0);
  context.parallel_for(tasks, run);
}

template <typename T>
void Product<T>::by_one_operator(const Context& context, const Sizes& sizes, const T* x, const T* weight,
                                 const T* bias, T* y) const {
  const auto from = context.wrap(x, {sizes.rows, sizes.in});
  const auto by = context.wrap(weight, {sizes.out, sizes.in});
  const auto to = context.wrap(y, {sizes.rows, sizes.out});
  if (bias == nullptr) return gemm_(context, {from.value(), by.value()}, {to.value()});
  const auto plus = context.wrap(bias, {sizes.out});
  gemm_(context, {from.value(), by.value(), plus.value()}, {to.value()});
}

template class Product<float>;
template class Product<double>;

}  // namespace mylinear
