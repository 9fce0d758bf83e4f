// MYLINEAR for ONNX Runtime without Python: Y = X·Wᵀ + B on the CPU and on CUDA.
#include <algorithm>
#include <cstdint>
#include <optional>
#include <ort_ops/op.hpp>
#include <type_traits>
#include <vector>

#include "product.hpp"

namespace mylinear {
namespace {

using ort_ops::BFloat16;
using ort_ops::Context;
using ort_ops::Dims;
using ort_ops::fail;
using ort_ops::Float16;
using ort_ops::Input;
using ort_ops::Node;
using ort_ops::Output;
using ort_ops::Shape;
using ort_ops::Shapes;

// y: x's shape with `out` for the last dimension.
void infer_shapes(Shapes& shapes) {
  const auto x = shapes.input(0), weight = shapes.input(1);
  if (!x || !weight || weight->size() != 2) return;
  Dims y = *x;
  y.back() = weight->front();
  shapes.output(0, y);
}

// Checks what was given; x may have any leading dimensions, and a bias that isn't there has none.
Sizes sizes_of(const Shape& x, const Shape& weight, const Shape& bias) {
  if (weight.size() != 2) fail("MYLINEAR: weight is ", weight, "; expected (out, in)");
  const std::int64_t out = weight[0], in = weight[1];
  if (x.empty() || x.back() != in)
    fail("MYLINEAR: weight is ", weight, " but x is ", x, "; expected x (..., ", in, ")");
  if (!bias.empty() && (bias.size() != 1 || bias.front() != out))
    fail("MYLINEAR: weight is ", weight, " but bias is ", bias, "; expected bias (", out, ",)");
  std::int64_t rows = 1;
  for (std::size_t i = 0; i + 1 < x.size(); ++i) rows *= x[i];
  return {rows, in, out};
}

template <typename T>
T* allocate(Output<T>& y, const Input<T>& x, const Sizes& sizes) {
  Shape shape = x.shape();
  shape.back() = sizes.out;
  return y.allocate(shape);
}

// Whether there is nothing to be multiplied; then y is the bias, or zeros.
template <typename T>
bool is_trivial(const Sizes& sizes, const T* bias, T* y) {
  if (sizes.rows != 0 && sizes.in != 0 && sizes.out != 0) return false;
  for (std::int64_t row = 0; row < sizes.rows; ++row)
    for (std::int64_t i = 0; i < sizes.out; ++i) *y++ = bias == nullptr ? T() : bias[i];
  return true;
}

// A weight or a bias where the model has it as a constant, in the type that the product is computed in.
template <typename T, typename Wide>
class Held {
 public:
  Held(const Node& node, std::size_t index) : input_(node.constant<T>(index)) {
    if (input_) shape_ = input_->shape();
    if constexpr (!std::is_same_v<T, Wide>) {
      if (!input_) return;
      wide_.resize(input_->size());
      convert(input_->data(), wide_.size(), wide_.data());
    }
  }
  const Wide* data() const {
    if (!input_) return nullptr;
    if constexpr (std::is_same_v<T, Wide>)
      return input_->data();
    else
      return wide_.data();
  }
  // Empty where it is no constant.
  const Shape& shape() const { return shape_; }

 private:
  std::optional<Input<T>> input_;
  Shape shape_;
  std::vector<Wide> wide_;
};

// Float and double as they are; 16-bit types in float32, in which products and sums of them are exact or
// nearly so.
template <typename T>
struct OnCpu {
  using Wide = std::conditional_t<std::is_same_v<T, double>, double, float>;
  static constexpr const char* name = "MYLINEAR";

  Held<T, Wide> weight_, bias_;
  std::optional<Product<Wide>> product_;

  explicit OnCpu(const Node& node) : weight_(node, 1), bias_(node, 2) {
    Sizes sizes{0, 0, 0};
    if (weight_.data() != nullptr)  // what is wrong with constants is said here, once
      sizes =
          sizes_of({0, weight_.shape().size() == 2 ? weight_.shape()[1] : 0}, weight_.shape(), bias_.shape());
    product_.emplace(node, weight_.data(), sizes.in, sizes.out, bias_.data(), node.has_input(2));
  }

  static void infer(Shapes& shapes) { infer_shapes(shapes); }

  void compute(const Context& context, Input<T> x, Input<T> weight, std::optional<Input<T>> bias,
               Output<T> y) const {
    const Sizes sizes = sizes_of(x.shape(), weight_.data() ? weight_.shape() : weight.shape(),
                                 bias_.data() || !bias ? bias_.shape() : bias->shape());
    T* to = allocate(y, x, sizes);
    if (is_trivial(sizes, bias ? bias->data() : nullptr, to)) return;
    if constexpr (std::is_same_v<T, Wide>) {
      const bool matrix = x.rank() == 2;
      Operand<const T> plus;
      if (bias) plus = {bias_.data() ? bias_.data() : bias->data(), bias->value()};
      (*product_)(context, sizes, {x.data(), matrix ? x.value() : nullptr},
                  {weight_.data() ? weight_.data() : weight.data(), weight.value()}, plus,
                  {to, matrix ? y.value() : nullptr});
    } else {
      const auto wide_x = widened(context, x);
      const auto wide_y = context.scratch<Wide>(static_cast<std::size_t>(sizes.rows * sizes.out));
      const auto wide_weight = weight_.data() ? std::nullopt : std::optional(widened(context, weight));
      const auto wide_bias = bias_.data() || !bias ? std::nullopt : std::optional(widened(context, *bias));
      (*product_)(context, sizes, {wide_x.data()}, {wide_weight ? wide_weight->data() : weight_.data()},
                  {wide_bias ? wide_bias->data() : bias_.data()}, {wide_y.data()});
      convert(context, wide_y.data(), wide_y.size(), to);
    }
  }

 private:
  static ort_ops::Scratch<Wide> widened(const Context& context, const Input<T>& input) {
    auto wide = context.scratch<Wide>(input.size());
    convert(context, input.data(), wide.size(), wide.data());
    return wide;
  }
};

// By ONNX Runtime's own Gemm, on its stream.
template <typename T>
struct OnCuda {
  static constexpr const char* name = "MYLINEAR";
  static constexpr const char* provider = "CUDAExecutionProvider";

  Gemm<T> gemm_;

  explicit OnCuda(const Node& node) : gemm_(node, node.has_input(2)) {}

  static void infer(Shapes& shapes) { infer_shapes(shapes); }

  void compute(const Context& context, Input<T> x, Input<T> weight, std::optional<Input<T>> bias,
               Output<T> y) const {
    const Sizes sizes = sizes_of(x.shape(), weight.shape(), bias ? bias->shape() : Shape());
    T* to = allocate(y, x, sizes);
    if (sizes.rows == 0 || sizes.out == 0) return;
    const Operand<const T> plus = bias ? Operand<const T>{bias->data(), bias->value()} : Operand<const T>{};
    gemm_(context, sizes, {x.data()}, {weight.data(), weight.value()}, plus, {to});
  }
};

}  // namespace
}  // namespace mylinear

ORT_OPS_LIBRARY("mylinear", mylinear::OnCpu<float>, mylinear::OnCpu<double>,
                mylinear::OnCpu<ort_ops::Float16>, mylinear::OnCpu<ort_ops::BFloat16>,
                mylinear::OnCuda<float>, mylinear::OnCuda<double>, mylinear::OnCuda<ort_ops::Float16>,
                mylinear::OnCuda<ort_ops::BFloat16>)
