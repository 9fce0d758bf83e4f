// More names than ONNX Runtime takes in one entry of a session's options.
#include <array>
#include <ort_ops/op.hpp>
#include <string>

namespace {

constexpr std::size_t kCount = 12, kLength = 200;

std::string name_of(std::size_t number) { return std::string(kLength, static_cast<char>('A' + number)); }

const std::array<std::string, kCount>& names() {
  static const auto& made = *new auto([] {
    std::array<std::string, kCount> each;
    for (std::size_t i = 0; i < kCount; ++i) each[i] = name_of(i);
    return each;
  }());
  return made;
}

template <std::size_t kNumber>
struct Plus {
  static inline const char* const name = names()[kNumber].c_str();
  void compute(ort_ops::Input<float> x, ort_ops::Output<float> y) const {
    float* to = y.allocate(x.shape());
    for (float each : x) *to++ = each + kNumber;
  }
};

}  // namespace

ORT_OPS_LIBRARY("test.many", Plus<0>, Plus<1>, Plus<2>, Plus<3>, Plus<4>, Plus<5>, Plus<6>, Plus<7>, Plus<8>,
                Plus<9>, Plus<10>, Plus<11>)
