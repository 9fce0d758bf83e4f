// Loops over elements, compiled for several processors: dot products, and copies in another precision.
#pragma once

#include <cstddef>
#include <cstdint>
#include <ort_ops/op.hpp>
#include <type_traits>

namespace mylinear {

// The sizes of one product: x is (rows, in), the weight (out, in), y (rows, out); y's rows are `stride`
// apart.
struct Sizes {
  std::int64_t rows, in, out, stride;
};

// What products of T are summed in: 16-bit types in float32, in which products and sums of them are exact or
// nearly so.
template <typename T>
using Wide = std::conditional_t<std::is_same_v<T, double>, double, float>;

// The first of `count` things for part `index` of `parts`.
inline std::int64_t part(std::int64_t count, std::int64_t index, std::int64_t parts) {
  return count * index / parts;
}

// Y = X·Wᵀ + b, a dot product for each element, of the weight as it lies in memory. bias may be null.
template <typename T>  // double, float, Float16, BFloat16
void dots(const Sizes& sizes, const Wide<T>* x, const T* weight, const T* bias, Wide<T>* y);

// As many rows of x as dots is quick for on this processor: going through a large weight takes as long for
// them as for one. benchmarks/results/native_kernels.md
std::int64_t few_rows();

// The same in ONNX Runtime's threads, where the weight is worth waking them for.
template <typename T>
void dots(const ort_ops::Context& context, const Sizes& sizes, const Wide<T>* x, const T* weight,
          const T* bias, Wide<T>* y) {
  constexpr std::int64_t kTask = 1 << 18;  // bytes of the weight,
  constexpr std::int64_t kLeastTasks = 8;  // 2 MiB: measured, less is done before another thread is awake
  const std::int64_t tasks = sizes.in * sizes.out / (kTask / static_cast<std::int64_t>(sizeof(T)));
  if (tasks < kLeastTasks) return dots<T>(sizes, x, weight, bias, y);
  context.parallel_for(static_cast<std::size_t>(tasks), [&](std::size_t i) {
    const auto task = static_cast<std::int64_t>(i);
    const std::int64_t first = part(sizes.out, task, tasks), last = part(sizes.out, task + 1, tasks);
    dots<T>({sizes.rows, sizes.in, last - first, sizes.stride}, x, weight + first * sizes.in,
            bias == nullptr ? bias : bias + first, y + first);
  });
}

// Copies in another precision, rounded to the nearest.
void convert(const ort_ops::Float16* from, std::size_t count, float* to);
void convert(const ort_ops::BFloat16* from, std::size_t count, float* to);
void convert(const float* from, std::size_t count, ort_ops::Float16* to);
void convert(const float* from, std::size_t count, ort_ops::BFloat16* to);

// The same in ONNX Runtime's threads, where there is enough of it.
template <typename From, typename To>
void convert(const ort_ops::Context& context, const From* from, std::size_t count, To* to) {
  constexpr std::size_t kTask = 1 << 15, kLeastTasks = 8;  // elements; another thread takes 30 µs to awake
  const std::size_t tasks = count / kTask;
  if (tasks < kLeastTasks) return convert(from, count, to);
  context.parallel_for(tasks, [&](std::size_t task) {
    const std::size_t first = task * kTask, last = task + 1 == tasks ? count : first + kTask;
    convert(from + first, last - first, to + first);
  });
}

}  // namespace mylinear
