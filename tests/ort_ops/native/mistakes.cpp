// Operators as somebody might write them who errs, or who takes what is natural for granted.
#include <algorithm>
#include <limits>
#include <optional>
#include <ort_ops/op.hpp>
#include <string>
#include <vector>

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

// Returns where there is nothing to compute.
struct Hasty {
  static constexpr const char* name = "Hasty";
  void compute(Input<float> x, Output<float> y, Output<float>) const {
    if (float* to = y.allocate(x.shape())) std::copy(x.begin(), x.end(), to);
  }
};

// Outputs that a node may leave out in the middle, which is seldom thought of.
struct Spread {
  static constexpr const char* name = "Spread";
  void compute(Input<float> x, Outputs<float> ys) const {
    for (Output<float>& y : ys)
      if (x.size() != 0) std::copy(x.begin(), x.end(), y.allocate(x.shape()));
  }
};

// Texts, and results of other operators, for which there is no room yet.
struct Early {
  static constexpr const char* name = "Early";
  std::int64_t how;
  BuiltIn relu;
  std::optional<Packed> packed;
  explicit Early(const Node& node)
      : how(node.attribute<std::int64_t>("how")),
        relu(node, "Relu", 14, {{"T", element_type<float>}}, {}, 1, 1) {
    if (how == 2) packed.emplace(node, "Relu", 14, element_type<float>, Attributes{}, Constants{});
  }
  void compute(const Context& context, Input<float> x, Output<std::string> text, Output<float> y) const {
    if (how == 0) text.set(0, "a");
    if (how == 1) relu(context, {x.value()}, {y.value()});
    if (how == 2) (*packed)(x.value(), y.value());
  }

 private:
  using Attributes = std::vector<BuiltIn::Attribute>;
  using Constants = std::vector<PackedConstant>;
};

// A shape function that fails, and a kernel that can't be made.
struct Shapeless {
  static constexpr const char* name = "Shapeless";
  static void infer(Shapes& shapes) {
    if (shapes.attribute("bad", false)) fail("Shapeless: no such shape");
  }
  void compute(Input<float> x, Output<float> y) const {
    std::copy(x.begin(), x.end(), y.allocate(x.shape()));
  }
};
struct Unmade {
  static constexpr const char* name = "Unmade";
  explicit Unmade(const Node&) { fail("Unmade: refused"); }
  void compute(Input<float> x, Output<float> y) const { y.allocate(x.shape()); }
};

// The numbers of a type, in order: 0 where a template is written for float alone.
template <typename T>
struct Limits {
  static constexpr const char* name = "Limits";
  void compute(Input<T>, Output<T> y) const {
    using Of = std::numeric_limits<T>;
    T* to = y.allocate({6});
    for (T each : {Of::lowest(), Of::denorm_min(), Of::min(), Of::epsilon(), Of::max(), Of::infinity()})
      *to++ = each;
  }
};

// A tensor of texts as an attribute.
struct Texts {
  static constexpr const char* name = "Texts";
  Constant<std::string> texts;
  explicit Texts(const Node& node) : texts(node.attribute<Constant<std::string>>("texts")) {}
  void compute(Output<std::string> y) const {
    y.allocate_strings(texts.shape);
    for (std::size_t i = 0; i < texts.data.size(); ++i) y.set(i, texts.data[i]);
  }
};

// Of which there is less than is asked for; and none that throws.
struct Greedy {
  static constexpr const char* name = "Greedy";
  void compute(const Context& context, Input<float> x, Output<float> y) const {
    context.scratch<double>((std::size_t{1} << 61) + 1)[4096] = 0;
    y.allocate(x.shape());
  }
};
struct Sure {
  static constexpr const char* name = "Sure";
  void compute(Output<float> y) const noexcept { *y.allocate({}) = 1; }
};

// Exceptions that say nothing, or nothing that can be read.
struct Mute : std::exception {
  const char* what() const noexcept override { return nullptr; }
};
struct Mumble {
  static constexpr const char* name = "Mumble";
  static void infer(Shapes& shapes) {
    if (shapes.attribute("early", false)) throw Mute();
  }
  void compute(Input<float> x, Output<float>) const {
    if (x.size() == 1) throw Mute();
    fail("Mumble: \xff\xc3\xa9\xed\xa0\x80\xf0\x9f\x98\x80\xe2\x82");
  }
};

}  // namespace

ORT_OPS_LIBRARY("test.native", Say, Hasty, Spread, Early, Shapeless, Unmade, Limits<Float16>,
                Limits<BFloat16>, Texts, Greedy, Sure, Mumble)
