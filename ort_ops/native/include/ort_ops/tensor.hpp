// What an operator's compute is given: inputs to read, outputs to allocate and fill.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "ort_ops/elements.hpp"
#include "ort_ops/status.hpp"

namespace ort_ops {

// Where a tensor's buffer is: the execution provider's device, or always the CPU.
enum class Memory { kDevice, kHost };

inline std::size_t count_of(const Shape& shape) {
  std::size_t count = 1;
  for (std::int64_t size : shape) count *= static_cast<std::size_t>(size);
  return count;
}

namespace detail {

struct TypeAndShape {
  int type = 0;
  Shape shape;
};

// From ONNX Runtime 1.24 on.
inline TypeAndShape type_and_dims(const abi::Api* api, const abi::Value* value) {
  int type = 0;
  const std::int64_t* dims = nullptr;
  std::size_t rank = 0;
  check(api, abi::GetTensorTypeAndDims(api, value, &type, &dims, &rank));
  return {type, Shape(dims, dims + rank)};
}

// From any. `type` is asked for where it is 0.
inline TypeAndShape type_and_shape(const abi::Api* api, const abi::Value* value, int type = 0) {
  TypeAndShape result{type, {}};
  abi::TensorInfo* info = nullptr;
  check(api, abi::GetTensorTypeAndShape(api, value, &info));
  std::size_t rank = 0;
  abi::Status* status = type == 0 ? abi::GetTensorElementType(api, info, &result.type) : nullptr;
  if (status == nullptr) status = abi::GetDimensionsCount(api, info, &rank);
  if (status == nullptr) {
    result.shape.resize(rank);
    status = abi::GetDimensions(api, info, result.shape.data(), rank);
  }
  abi::ReleaseTensorInfo(api, info);
  check(api, status);
  return result;
}

inline void* data_of(const abi::Api* api, const abi::Value* value) {
  void* data = nullptr;
  check(api, abi::GetTensorMutableData(api, const_cast<abi::Value*>(value), &data));
  return data;
}

}  // namespace detail

// A tensor that is read. Only valid during compute, or as long as the kernel for a constant. What isn't asked
// for isn't fetched.
template <typename T, Memory kMemory = Memory::kDevice>
class Input {
 public:
  Input(const abi::Api* api, const abi::Value* value, int minor_release = 0)
      : api_(api), value_(value), minor_release_(minor_release) {}

  const Shape& shape() const { return own().shape; }
  std::size_t rank() const { return shape().size(); }
  std::size_t size() const { return count_of(shape()); }  // elements
  int type() const { return own().type; }                 // ONNX's number: for Any
  const abi::Value* value() const { return value_; }

  // The elements in row-major order; const void* for Any. Not for strings.
  auto data() const {
    static_assert(!std::is_same_v<T, std::string>, "strings are read one by one: input.at(i)");
    if constexpr (std::is_same_v<T, Any>)
      if (type() == element_type<std::string>) fail("a tensor of strings has no elements to be copied");
    if (data_ == nullptr) data_ = detail::data_of(api_, value_);
    if constexpr (std::is_same_v<T, Any>)
      return data_;
    else
      return static_cast<const T*>(data_);
  }
  auto begin() const { return data(); }
  auto end() const { return data() + size(); }

  // A string of a tensor of strings.
  std::string at(std::size_t i) const {
    static_assert(std::is_same_v<T, std::string>, "at(i) is for strings; elements are data()[i]");
    std::size_t length = 0;
    check(api_, abi::GetStringElementLength(api_, value_, i, &length));
    std::string text(length, '\0');
    check(api_, abi::GetStringElement(api_, value_, length, i, text.data()));
    return text;
  }

 private:
  const detail::TypeAndShape& own() const {
    if (!own_)
      own_ = minor_release_ >= 24 ? detail::type_and_dims(api_, value_)
                                  : detail::type_and_shape(api_, value_, element_type<T>);
    return *own_;
  }

  const abi::Api* api_;
  const abi::Value* value_;
  int minor_release_;
  mutable std::optional<detail::TypeAndShape> own_;
  mutable const void* data_ = nullptr;
};

template <typename T>
using HostInput = Input<T, Memory::kHost>;

// The inputs that follow the others, of one element type; of various ones for Any.
template <typename T>
using Inputs = std::vector<Input<T>>;

// A tensor that is written, once its shape is known.
template <typename T>
class Output {
 public:
  // made: set once the output is allocated; null for one that may be left out.
  Output(const abi::Api* api, abi::KernelContext* context, std::size_t index, char* made = nullptr)
      : api_(api), context_(context), index_(index), made_(made) {}

  // Returns the buffer for a shape; for an OptionalOutput that nobody asked for, null. One of no elements is
  // allocated, too.
  auto allocate(const Shape& shape) {
    static_assert(!std::is_same_v<T, std::string>, "strings are written one by one: allocate_strings");
    create(shape);
    if constexpr (std::is_same_v<T, Any>)
      if (value_ != nullptr && detail::type_and_shape(api_, value_).type == element_type<std::string>)
        fail("a tensor of strings has no elements to be copied");
    void* data = value_ == nullptr ? nullptr : detail::data_of(api_, value_);
    if constexpr (std::is_same_v<T, Any>)
      return data;
    else
      return static_cast<T*>(data);
  }

  // For strings: makes room for them; false where nobody asked for the output.
  bool allocate_strings(const Shape& shape) {
    create(shape);
    return value_ != nullptr;
  }
  void set(std::size_t i, const std::string& text) {
    if (value_ == nullptr)
      fail("output ", index_, " has no room for a text; expected allocate_strings before");
    char* buffer = nullptr;
    check(api_, abi::GetStringElementBuffer(api_, value_, i, text.size(), &buffer));
    text.copy(buffer, text.size());
  }

  abi::Value* value() const { return value_; }  // once it is allocated

 private:
  void create(const Shape& shape) {
    if (context_ == nullptr) return;  // the node leaves the output out
    check(api_, abi::GetOutput(api_, context_, index_, shape.data(), shape.size(), &value_));
    if (made_ == nullptr) return;
    if (value_ == nullptr) fail("the node leaves output ", index_, " out; expected a name");
    *made_ = 1;
  }

  const abi::Api* api_;
  abi::KernelContext* context_;
  std::size_t index_;
  char* made_;
  abi::Value* value_ = nullptr;
};

// One that a node may leave out.
template <typename T>
class OptionalOutput : public Output<T> {
  using Output<T>::Output;
};

// The outputs that follow the others.
template <typename T>
using Outputs = std::vector<Output<T>>;

}  // namespace ort_ops
