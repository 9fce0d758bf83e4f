// An operator for each thing that ort_ops/op.hpp offers.
#include <algorithm>
#include <cstring>
#include <numeric>
#include <ort_ops/op.hpp>
#include <stdexcept>

namespace {

using namespace ort_ops;

// Several element types, an attribute with a default, a shape function.
template <typename T>
struct Scale {
  static constexpr const char* name = "Scale";
  float factor;
  explicit Scale(const Node& node) : factor(node.attribute("factor", 1.0f)) {}
  static void infer(Shapes& shapes) { shapes.output(0, shapes.input(0)); }
  void compute(Input<T> x, Output<T> y) const {
    T* to = y.allocate(x.shape());
    for (T each : x) *to++ = static_cast<T>(factor * static_cast<float>(each));
  }
};

// An optional input and an optional output.
struct AddAndCount {
  static constexpr const char* name = "AddAndCount";
  static void infer(Shapes& shapes) {
    shapes.output(0, shapes.input(0));
    shapes.output(1, Dims{});  // which a node may leave out
  }
  void compute(Input<float> x, std::optional<Input<float>> bias, Output<float> y,
               OptionalOutput<std::int64_t> count) const {
    float* to = y.allocate(x.shape());
    for (std::size_t i = 0; i < x.size(); ++i) to[i] = x.data()[i] + (bias ? bias->data()[0] : 0);
    if (std::int64_t* n = count.allocate({})) *n = static_cast<std::int64_t>(x.size());
  }
};

// As many inputs as there are, of one type, and as many outputs.
struct Rotate {
  static constexpr const char* name = "Rotate";
  void compute(Inputs<double> xs, Outputs<double> ys) const {
    if (ys.size() != xs.size())
      fail("Rotate: ", ys.size(), " outputs for ", xs.size(), " inputs; expected as many");
    for (std::size_t i = 0; i < xs.size(); ++i) {
      const Input<double>& x = xs[(i + 1) % xs.size()];
      std::copy(x.begin(), x.end(), ys[i].allocate(x.shape()));
    }
  }
};

// Attributes of every kind, as a text.
struct Describe {
  static constexpr const char* name = "Describe";
  std::string text;
  explicit Describe(const Node& node) {
    text = "i=" + std::to_string(node.attribute<std::int64_t>("i")) +
           " f=" + std::to_string(node.attribute<float>("f"));
    text +=
        " s=" + node.attribute<std::string>("s") + " flag=" + (node.attribute("flag", false) ? "yes" : "no");
    for (std::int64_t each : node.attribute<std::vector<std::int64_t>>("ints"))
      text += " " + std::to_string(each);
    for (float each : node.attribute<std::vector<float>>("floats")) text += " " + std::to_string(each);
    const auto tensor = node.attribute<Constant<double>>("tensor");
    text += " tensor" + to_text(tensor.shape) + "=" + std::to_string(tensor.data.at(0));
    text += " node=" + node.name();
  }
  void compute(Output<std::string> y) const {
    y.allocate_strings({1});
    y.set(0, text);
  }
};

struct ListOfStrings {
  static constexpr const char* name = "ListOfStrings";
  std::vector<std::string> each;
  explicit ListOfStrings(const Node& node) : each(node.attribute<std::vector<std::string>>("each")) {}
  void compute(Output<std::string> y) const {
    y.allocate_strings({static_cast<std::int64_t>(each.size())});
    for (std::size_t i = 0; i < each.size(); ++i) y.set(i, each[i]);
  }
};

struct Upper {
  static constexpr const char* name = "Upper";
  void compute(Input<std::string> x, Output<std::string> y) const {
    y.allocate_strings(x.shape());
    for (std::size_t i = 0; i < x.size(); ++i) {
      std::string text = x.at(i);
      for (char& each : text) each = each >= 'a' && each <= 'z' ? static_cast<char>(each - 32) : each;
      y.set(i, text);
    }
  }
};

// Elements of any type, and where the type of an output comes from.
struct Copy {
  static constexpr const char* name = "Copy";
  static void infer(Shapes& shapes) { shapes.output(0, shapes.input(0), shapes.type(0)); }
  void compute(Input<Any> x, Output<Any> y) const {
    const std::size_t width =
        x.type() == element_type<double> || x.type() == element_type<std::int64_t> ? 8 : 4;
    std::memcpy(y.allocate(x.shape()), x.data(), x.size() * width);
  }
};

// A shape that comes of attributes of every kind that a shape function reads.
struct Shaped {
  static constexpr const char* name = "Shaped";
  static void infer(Shapes& shapes) {
    Dims dims;
    for (std::int64_t size : shapes.attribute("sizes", std::vector<std::int64_t>{7})) dims.emplace_back(size);
    for (float size : shapes.attribute("floats", std::vector<float>{})) dims.emplace_back(std::int64_t(size));
    dims.emplace_back(shapes.attribute("i", std::int64_t{8}));
    dims.emplace_back(std::int64_t(shapes.attribute("f", 9.0f)));
    dims.emplace_back(shapes.attribute("flag", false) ? 1 : 0);
    dims.emplace_back(shapes.attribute("symbol", std::string("none")));
    shapes.output(0, dims);
  }
  void compute(Input<float> x, Output<float> y) const { y.allocate(x.shape()); }
};

// A sorted table, made once where the input is a constant.
struct Rank {
  static constexpr const char* name = "Rank";
  std::vector<float> sorted;
  bool constant = false;
  explicit Rank(const Node& node) {
    if (auto table = node.constant<float>(1)) {
      sorted.assign(table->begin(), table->end());
      std::sort(sorted.begin(), sorted.end());
      constant = true;
    }
  }
  void compute(Input<float> x, Input<float>, Output<std::int64_t> y, Output<bool> known) const {
    std::int64_t* to = y.allocate(x.shape());
    for (float each : x) *to++ = std::lower_bound(sorted.begin(), sorted.end(), each) - sorted.begin();
    *known.allocate({}) = constant;
  }
};

// A loop in ONNX Runtime's threads, over memory for the time of the run.
struct SumOfSquares {
  static constexpr const char* name = "SumOfSquares";
  void compute(const Context& context, Input<double> x, Output<double> y) const {
    auto squares = context.scratch<double>(x.size());
    const double* from = x.data();
    context.parallel_for(x.size(), [&](std::size_t i) {
      if (from[i] < 0) fail("SumOfSquares: element ", i, " is negative");
      squares[i] = from[i] * from[i];
    });
    *y.allocate({}) = std::accumulate(squares.data(), squares.data() + x.size(), 0.0);
  }
};

// Built-in operators from inside: one invoked, one packed.
struct Products {
  static constexpr const char* name = "Products";
  BuiltIn gemm;
  std::optional<Packed> packed;
  explicit Products(const Node& node)
      : gemm(node, "Gemm", 13, {{"T", element_type<float>}},
             {{"transA", 0}, {"transB", 1}, {"alpha", 1.0f}, {"beta", 1.0f}}, 2, 1) {
    if (auto weight = node.constant<float>(1); weight && Packed::is_there(node))
      packed.emplace(
          node, "Gemm", 13, element_type<float>, std::vector<BuiltIn::Attribute>{{"transB", 1}},
          std::vector<PackedConstant>{{weight->data(), weight->size() * sizeof(float), weight->shape()}});
  }
  void compute(const Context& context, Input<float> x, Input<float> weight, Output<float> invoked,
               OptionalOutput<float> by_packed) const {
    const Shape shape{x.shape()[0], weight.shape()[0]};
    invoked.allocate(shape);
    gemm(context, {x.value(), weight.value()}, {invoked.value()});
    if (packed && by_packed.allocate(shape) != nullptr) (*packed)(x.value(), by_packed.value());
  }
};

// On a GPU: a number on the CPU, built-in operators, and memory for the time of the run between them.
struct AddTimes {
  static constexpr const char* name = "AddTimes";
  static constexpr const char* provider = "CUDAExecutionProvider";
  BuiltIn add;
  explicit AddTimes(const Node& node) : add(node, "Add", 14, {{"T", element_type<float>}}, {}, 2, 1) {}
  void compute(const Context& context, Input<float> x, HostInput<std::int64_t> times, Output<float> y) const {
    if (context.stream() == nullptr) fail("AddTimes: there is no stream");
    const auto memory = context.scratch<float>(x.size());
    const auto sum = context.wrap(memory.data(), x.shape());
    y.allocate(x.shape());
    add(context, {x.value(), x.value()}, {sum.value()});
    for (std::int64_t i = 1; i < times.data()[0]; ++i) add(context, {sum.value(), x.value()}, {sum.value()});
    add(context, {sum.value(), x.value()}, {y.value()});
  }
};

// A constant that is read as another type than it has.
struct Misread {
  static constexpr const char* name = "Misread";
  explicit Misread(const Node& node) { node.constant<std::int64_t>(1); }
  void compute(Input<float> x, Input<float>, Output<float> y) const { y.allocate(x.shape()); }
};

// A shape function of two structs, which throws for a negative size.
template <typename T>
struct Sized {
  static constexpr const char* name = "Sized";
  static void infer(Shapes& shapes) {
    const std::int64_t size = shapes.attribute("size", std::int64_t{0});
    if (size < 0) fail("Sized: size is ", size);
    shapes.output(0, Dims{size});
  }
  void compute(Input<T> x, Output<T> y) const { y.allocate(x.shape()); }
};

// Every way to fail.
struct Fail {
  static constexpr const char* name = "Fail";
  std::int64_t how;
  explicit Fail(const Node& node) : how(node.attribute<std::int64_t>("how")) {
    if (how == 0) fail("Fail: refused when it is made");
  }
  static void infer(Shapes& shapes) {
    if (shapes.attribute("how", std::int64_t{0}) == 1) fail("Fail: no such shape");
    if (auto x = shapes.input(0)) shapes.output(0, *x);
  }
  void compute(Input<float> x, Output<float> y) const {
    if (how == 2) fail("Fail: x is ", x.shape(), "; expected another");
    if (how == 3) throw std::runtime_error("a standard exception");
    if (how == 4) throw 7;
    if (how == 5) y.allocate({-3});
    if (how == 6) throw std::bad_alloc();
    std::copy(x.begin(), x.end(), y.allocate(x.shape()));
  }
};

// Halves as they come, in and out.
template <typename T>
struct Half {
  static constexpr const char* name = "Half";
  void compute(Input<T> x, Output<float> wide, Output<T> back) const {
    float* to = wide.allocate(x.shape());
    T* again = back.allocate(x.shape());
    for (T each : x) {
      *to = static_cast<float>(each);
      *again++ = T(*to++);
    }
  }
};
template <typename T>
struct ToHalf {
  static constexpr const char* name = std::is_same_v<T, Float16> ? "ToFloat16" : "ToBFloat16";
  void compute(Input<float> x, Output<T> y) const {
    T* to = y.allocate(x.shape());
    for (float each : x) *to++ = T(each);
  }
};

// In a domain of its own, and there from a version on.
struct Elsewhere {
  static constexpr const char* name = "Elsewhere";
  static constexpr const char* domain = "test.other";
  static constexpr int since_version = 2;
  void compute(HostInput<std::int64_t> x, Output<std::int64_t> y) const {
    std::copy(x.begin(), x.end(), y.allocate(x.shape()));
  }
};

}  // namespace

ORT_OPS_LIBRARY("test.native", Scale<float>, Scale<double>, Scale<Float16>, AddAndCount, Rotate, Describe,
                ListOfStrings, Upper, Shaped, Misread, Sized<float>, Sized<double>, Copy, Rank, SumOfSquares,
                AddTimes, Products, Fail, Half<Float16>, Half<BFloat16>, ToHalf<Float16>, ToHalf<BFloat16>,
                Elsewhere)
