// An operator in a file of its own: x - limit above limit, x + limit below -limit, 0 between.
#include <ort_ops/op.hpp>

template <typename T>
struct Softshrink {
  static constexpr const char* name = "Softshrink";
  T limit;

  explicit Softshrink(const ort_ops::Node& node) : limit(node.attribute("lambd", 0.5f)) {
    if (limit < 0) ort_ops::fail("Softshrink: lambd is ", limit, "; expected 0 or more");
  }

  static void infer(ort_ops::Shapes& shapes) { shapes.output(0, shapes.input(0)); }

  void compute(ort_ops::Input<T> x, ort_ops::Output<T> y) const {
    T* to = y.allocate(x.shape());
    for (T each : x) *to++ = each > limit ? each - limit : each < -limit ? each + limit : T(0);
  }
};

ORT_OPS_LIBRARY("example", Softshrink<float>, Softshrink<double>)
