// Operators as somebody might write them who errs, or who takes what is natural for granted.
#include <ort_ops/op.hpp>

namespace {

using namespace ort_ops;

// A message of numbers of 8 bits, and of dimensions.
struct Say {
  static constexpr const char* name = "Say";
  static void infer(Shapes& shapes) {
    if (shapes.attribute("early", false)) fail("Say: x is ", *shapes.input(0), "; expected none");
  }
  void compute(Input<std::uint8_t> x, Output<float>) const {
    fail("Say: x is ", x.data()[0], " and ", static_cast<std::int8_t>(-5), "; expected none");
  }
};

}  // namespace

ORT_OPS_LIBRARY("test.native", Say)
