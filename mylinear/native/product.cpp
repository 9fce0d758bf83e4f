#include "product.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <type_traits>

namespace mylinear {
namespace {

using ort_ops::Context;
using ort_ops::element_type;
using ort_ops::Node;
using ort_ops::Packed;

// Sizes found by measuring: benchmarks/results/native_kernels.md.
constexpr std::int64_t kDots = 1 << 15;   // products that dots is through with before anything can be called
constexpr std::int64_t kBlock = 1 << 18;  // elements of a weight that one thread goes through
constexpr std::int64_t kMostBlocks = 16;
constexpr std::int64_t kCached = 1 << 19;    // elements of a weight that a core's cache holds in float32
constexpr std::int64_t kRows = 128;          // of x that are worth reading a block for,
constexpr std::int64_t kProducts = 1 << 23;  // and products that are worth a thread

// Elements of a weight from which it is packed. float32: below, to call a session costs more than it saves.
// 16-bit types: it saves the copy in float32, and the threads that ONNX Runtime's Gemm would wake for little.
// float64: ONNX Runtime doesn't pack it.
template <typename T>
constexpr std::int64_t kPackedFrom = 1;
template <>
constexpr std::int64_t kPackedFrom<float> = 128 * 128;
template <>
constexpr std::int64_t kPackedFrom<double> = std::numeric_limits<std::int64_t>::max();

// As many rows of x as dots is through with before Gemm. It widens 16-bit weights each time, which pays where
// that saves reading twice the bytes from further away.
template <typename T>
std::int64_t rows_for_dots(const Sizes& sizes) {
  const bool near = sizeof(T) == 2 && sizes.in * sizes.out < kCached;
  return std::max<std::int64_t>(near ? few_rows() / 4 : few_rows(), 1);
}

// Elements in the type that their products are summed in: themselves, or a copy in `to`.
template <typename T>
const Wide<T>* widened(const T* from, std::int64_t count, [[maybe_unused]] std::vector<Wide<T>>& to) {
  if constexpr (std::is_same_v<T, Wide<T>>) {
    return from;
  } else {
    to.resize(static_cast<std::size_t>(count));
    convert(from, to.size(), to.data());
    return to.data();
  }
}

// A copy for the time of a run; none of nothing.
template <typename T>
ort_ops::Scratch<float> widened(const Context& context, const T* from, std::int64_t count) {
  auto to = context.scratch<float>(from == nullptr ? 0 : static_cast<std::size_t>(count));
  convert(context, from, to.size(), to.data());
  return to;
}

}  // namespace

template <typename T>
void Product<T>::pack(const Node& node, const Sizes& sizes, const T* weight, const T* bias) {
  const std::int64_t in = sizes.in, out = sizes.out;
  if ((has_bias_ && bias == nullptr) || in * out < kPackedFrom<T> || !Packed::is_there(node)) return;
  const std::int64_t count =
      std::clamp<std::int64_t>(in * out / kBlock, 1, std::min<std::int64_t>(kMostBlocks, out));
  std::vector<Wide<T>> wide, wide_bias;
  const auto bytes = [](std::int64_t elements) {
    return static_cast<std::size_t>(elements) * sizeof(Wide<T>);
  };
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t first = part(out, i, count), rows = part(out, i + 1, count) - first;
    std::vector<ort_ops::PackedConstant> constants;
    constants.push_back({widened(weight + first * in, rows * in, wide), bytes(rows * in), {rows, in}});
    if (has_bias_) constants.push_back({widened(bias + first, rows, wide_bias), bytes(rows), {rows}});
    blocks_.push_back(
        {first, rows, Packed(node, "Gemm", 13, element_type<Wide<T>>, {{"transB", 1}}, constants)});
  }
}

template <typename T>
void Product<T>::operator()(const Context& context, const Sizes& sizes, Operand<const T> x,
                            Operand<const T> weight, Operand<const T> bias, Operand<T> y) const {
  if constexpr (std::is_same_v<T, Wide<T>>) {
    wide(context, sizes, x, weight, bias, y);
  } else {
    const auto wide_x = widened(context, x.data, sizes.rows * sizes.in);
    const auto wide_y = context.scratch<float>(static_cast<std::size_t>(sizes.rows * sizes.out));
    wide(context, sizes, {wide_x.data()}, weight, bias, {wide_y.data()});
    convert(context, wide_y.data(), wide_y.size(), y.data);
  }
}

template <typename T>
void Product<T>::wide(const Context& context, const Sizes& sizes, Operand<const Wide<T>> x,
                      Operand<const T> weight, Operand<const T> bias, Operand<Wide<T>> y) const {
  if (sizes.rows <= rows_for_dots<T>(sizes) || sizes.rows * sizes.in * sizes.out <= kDots)
    return dots(context, sizes, x.data, weight.data, bias.data, y.data);
  if (!blocks_.empty()) return by_blocks(context, sizes, x.data, y.data);
  if constexpr (std::is_same_v<T, Wide<T>>) {
    gemm_(context, sizes, x, weight, bias, y);
  } else {
    const auto wide_weight = widened(context, weight.data, sizes.in * sizes.out);
    const auto wide_bias = widened(context, bias.data, sizes.out);
    gemm_(context, sizes, x, {wide_weight.data()}, {wide_bias.data()}, y);
  }
}

// Blocks of the weight times chunks of x's rows, in ONNX Runtime's own threads.
template <typename T>
void Product<T>::by_blocks(const Context& context, const Sizes& sizes, const Wide<T>* x, Wide<T>* y) const {
  const auto blocks = static_cast<std::int64_t>(blocks_.size());
  const std::int64_t chunks =
      std::max<std::int64_t>(sizes.rows / std::max(kRows, kProducts * blocks / (sizes.in * sizes.out)), 1);
  const auto run = [&](std::size_t task) {
    const Context own(context);  // its memory is not for several threads at once
    const Block& block = blocks_[task % blocks_.size()];
    const auto chunk = static_cast<std::int64_t>(task / blocks_.size());
    const std::int64_t first = part(sizes.rows, chunk, chunks);
    const std::int64_t rows = part(sizes.rows, chunk + 1, chunks) - first;
    const auto from = own.wrap(x + first * sizes.in, {rows, sizes.in});
    Wide<T>* to = y + first * sizes.out + block.first;
    if (blocks == 1) {
      const auto whole = own.wrap(to, {rows, block.count});
      return block.packed(from.value(), whole.value());
    }
    // A block's columns of y don't lie together.
    const auto columns = own.template scratch<Wide<T>>(static_cast<std::size_t>(rows * block.count));
    const auto whole = own.wrap(columns.data(), {rows, block.count});
    block.packed(from.value(), whole.value());
    for (std::int64_t row = 0; row < rows; ++row)
      std::memcpy(to + row * sizes.out, columns.data() + row * block.count,
                  static_cast<std::size_t>(block.count) * sizeof(Wide<T>));
  };
  const auto tasks = static_cast<std::size_t>(blocks * chunks);
  if (tasks == 1) return run(0);
  context.parallel_for(tasks, run);
}

template class Product<float>;
template class Product<double>;
template class Product<ort_ops::Float16>;
template class Product<ort_ops::BFloat16>;

}  // namespace mylinear
