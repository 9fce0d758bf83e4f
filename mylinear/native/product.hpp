// Y = X·Wᵀ + B on the CPU, by whichever way is the fastest for the sizes at hand.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <ort_ops/op.hpp>
#include <vector>

namespace mylinear {

// The sizes of one product: x is (rows, in), the weight (out, in), y (rows, out).
struct Sizes {
  std::int64_t rows, in, out;
};

// A matrix in row-major order, or a bias; `value` is the tensor of just this shape, where there is one.
template <typename T>
struct Operand {
  T* data = nullptr;
  const ort_ops::abi::Value* value = nullptr;
};

// ONNX Runtime's own Gemm, on the provider of the node that it is made for, with weights as they lie in
// memory.
template <typename T>
class Gemm {
 public:
  Gemm(const ort_ops::Node& node, bool has_bias)
      : gemm_(node, "Gemm", 13, {{"T", ort_ops::element_type<T>}},
              {{"transA", 0}, {"transB", 1}, {"alpha", 1.0f}, {"beta", 1.0f}}, has_bias ? 3 : 2, 1) {}

  void operator()(const ort_ops::Context& context, const Sizes& sizes, Operand<const T> x,
                  Operand<const T> weight, Operand<const T> bias, Operand<T> y) const {
    std::vector<ort_ops::Wrapped> made;
    made.reserve(4);
    const auto value_of = [&](auto operand, const ort_ops::Shape& shape) {
      if (operand.value != nullptr || operand.data == nullptr)
        return const_cast<ort_ops::abi::Value*>(operand.value);
      made.push_back(context.wrap(operand.data, shape));
      return made.back().value();
    };
    const auto* from = value_of(x, {sizes.rows, sizes.in});
    const auto* by = value_of(weight, {sizes.out, sizes.in});
    auto* to = value_of(y, {sizes.rows, sizes.out});
    if (bias.data == nullptr) return gemm_(context, {from, by}, {to});
    gemm_(context, {from, by, value_of(bias, {sizes.out})}, {to});
  }

 private:
  ort_ops::BuiltIn gemm_;
};

// In T, which is float or double. A weight that the model has as a constant is packed when the kernel is
// made, as ONNX Runtime does for a node of its own: with weights as they lie in memory batches of 2 to 32
// take up to 2.6 times as long (benchmarks/results/native_kernels.md).
template <typename T>
class Product {
 public:
  // weight, bias: where they are constants; has_bias: whether the node has one at all.
  Product(const ort_ops::Node& node, const T* weight, std::int64_t in, std::int64_t out, const T* bias,
          bool has_bias);

  // bias may be null, as at the making.
  void operator()(const ort_ops::Context& context, const Sizes& sizes, Operand<const T> x,
                  Operand<const T> weight, Operand<const T> bias, Operand<T> y) const;

 private:
  // Some of the weight's rows, packed: columns `first` to `first + count` of y.
  struct Block {
    std::int64_t first, count;
    ort_ops::Packed packed;
  };

  void by_blocks(const ort_ops::Context& context, const Sizes& sizes, const T* x, T* y) const;

  Gemm<T> gemm_;
  std::vector<Block> blocks_;  // none where the weight is no constant, or small
};

// y = W·x + b for one row, and a weight that stays in the processor's cache.
void times_vector(const Sizes& sizes, const float* x, const float* weight, const float* bias, float* y);
void times_vector(const Sizes& sizes, const double* x, const double* weight, const double* bias, double* y);

// Copies in another precision, rounded to the nearest.
void convert(const ort_ops::Float16* from, std::size_t count, float* to);
void convert(const ort_ops::BFloat16* from, std::size_t count, float* to);
void convert(const float* from, std::size_t count, ort_ops::Float16* to);
void convert(const float* from, std::size_t count, ort_ops::BFloat16* to);

// The same in ONNX Runtime's threads, where there is enough of it.
template <typename From, typename To>
void convert(const ort_ops::Context& context, const From* from, std::size_t count, To* to) {
  constexpr std::size_t kTask = 1 << 15;
  const std::size_t tasks = count / kTask;
  if (tasks < 2) return convert(from, count, to);
  context.parallel_for(tasks, [&](std::size_t task) {
    const std::size_t first = task * kTask, last = task + 1 == tasks ? count : first + kTask;
    convert(from + first, last - first, to + first);
  });
}

}  // namespace mylinear
