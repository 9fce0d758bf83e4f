// Two structs of one name of which ONNX Runtime would never choose the second.
#include <ort_ops/op.hpp>

namespace {

template <int kVersion>
struct Relu {
  static constexpr const char* name = "Relu";
  static constexpr int since_version = kVersion;
  void compute(ort_ops::Input<float> x, ort_ops::Output<float> y) const { y.allocate(x.shape()); }
};

}  // namespace

ORT_OPS_LIBRARY("test.forms", Relu<1>, Relu<2>)
