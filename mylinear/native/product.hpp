// Y = X·Wᵀ + B on the CPU, by whichever way is the fastest for the sizes at hand.
#pragma once

#include <cstdint>
#include <ort_ops/op.hpp>
#include <vector>

#include "loops.hpp"

namespace mylinear {

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

// In Wide<T>. A few rows of x, or very little, by dots; else by ONNX Runtime's Gemm, with a constant weight
// packed when the kernel is made, as ONNX Runtime does for a node of its own: with float32 weights as they
// lie in memory batches of 2 to 32 take up to 2.6 times as long. Of 16-bit weights no other copy in float32
// is kept.
template <typename T>
class Product {
 public:
  Product(const ort_ops::Node& node, bool has_bias) : gemm_(node, has_bias), has_bias_(has_bias) {}

  // For a weight that is a constant; bias: null where it is none.
  void pack(const ort_ops::Node& node, const Sizes& sizes, const T* weight, const T* bias);

  // bias: null where the node has none.
  void operator()(const ort_ops::Context& context, const Sizes& sizes, Operand<const T> x,
                  Operand<const T> weight, Operand<const T> bias, Operand<T> y) const;

 private:
  // Some of the weight's rows, packed: columns `first` to `first + count` of y.
  struct Block {
    std::int64_t first, count;
    ort_ops::Packed packed;
  };

  void wide(const ort_ops::Context& context, const Sizes& sizes, Operand<const Wide<T>> x,
            Operand<const T> weight, Operand<const T> bias, Operand<Wide<T>> y) const;
  void by_blocks(const ort_ops::Context& context, const Sizes& sizes, const Wide<T>* x, Wide<T>* y) const;

  Gemm<Wide<T>> gemm_;
  bool has_bias_;
  std::vector<Block> blocks_;  // none where the weight isn't packed
};

}  // namespace mylinear
