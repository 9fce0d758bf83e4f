// MYLINEAR for ONNX Runtime without Python: Y = X·Wᵀ + B on the CPU and on CUDA.
#include <cstdint>
#include <optional>
#include <ort_ops/op.hpp>

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

// Checks what was given; x may have any leading dimensions, and the bias may be absent.
Sizes sizes_of(const Shape& x, const Shape& weight, const Shape* bias) {
  if (weight.size() != 2) fail("MYLINEAR: weight is ", weight, "; expected (out, in)");
  const std::int64_t out = weight[0], in = weight[1];
  if (x.empty() || x.back() != in)
    fail("MYLINEAR: weight is ", weight, " but x is ", x, "; expected x (..., ", in, ")");
  if (bias != nullptr && (bias->size() != 1 || bias->front() != out))
    fail("MYLINEAR: weight is ", weight, " but bias is ", *bias, "; expected bias (", out, ",)");
  std::int64_t rows = 1;
  for (std::size_t i = 0; i + 1 < x.size(); ++i) rows *= x[i];
  return {rows, in, out, out};
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

template <typename T>
struct OnCpu {
  static constexpr const char* name = "MYLINEAR";

  std::optional<Input<T>> weight_, bias_;  // where they are constants
  Product<T> product_;

  explicit OnCpu(const Node& node)
      : weight_(node.constant<T>(1)), bias_(node.constant<T>(2)), product_(node, node.has_input(2)) {
    if (!weight_) return;
    const Shape& weight = weight_->shape();
    // What is wrong with constants is said here, once.
    const Sizes sizes =
        sizes_of({0, weight.size() == 2 ? weight[1] : 0}, weight, bias_ ? &bias_->shape() : nullptr);
    product_.pack(node, sizes, weight_->data(), bias_ ? bias_->data() : nullptr);
  }

  static void infer(Shapes& shapes) { infer_shapes(shapes); }

  void compute(const Context& context, Input<T> x, Input<T> given, std::optional<Input<T>> given_bias,
               Output<T> y) const {
    const Input<T>& weight = weight_ ? *weight_ : given;
    const Input<T>* bias = bias_ ? &*bias_ : given_bias ? &*given_bias : nullptr;
    const Sizes sizes = sizes_of(x.shape(), weight.shape(), bias ? &bias->shape() : nullptr);
    T* to = allocate(y, x, sizes);
    Operand<const T> plus;
    if (bias) plus = {bias->data(), bias->value()};
    if (is_trivial(sizes, plus.data, to)) return;
    const bool matrix = x.rank() == 2;
    product_(context, sizes, {x.data(), matrix ? x.value() : nullptr}, {weight.data(), weight.value()}, plus,
             {to, matrix ? y.value() : nullptr});
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
    const Sizes sizes = sizes_of(x.shape(), weight.shape(), bias ? &bias->shape() : nullptr);
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
