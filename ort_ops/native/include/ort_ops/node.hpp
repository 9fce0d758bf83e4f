// The node that a kernel is made for: its attributes, and inputs that are constants.
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "ort_ops/tensor.hpp"

namespace ort_ops {

// A tensor that is an attribute.
template <typename T>
struct Constant {
  Shape shape;
  std::vector<T> data;
};

namespace detail {
template <typename T>
struct IsConstant : std::false_type {};
template <typename T>
struct IsConstant<Constant<T>> : std::true_type {};
}  // namespace detail

class Node {
 public:
  Node(const abi::Api* api, const abi::KernelInfo* info, int minor_release)
      : api_(api), info_(info), minor_release_(minor_release) {}

  std::string name() const {
    return read_string(api_, [this](char* text, std::size_t* size) {
      return abi::KernelInfoGetNodeName(api_, info_, text, size);
    });
  }

  // The attribute: std::int64_t, bool, float, std::string, a std::vector of std::int64_t, float or
  // std::string, or Constant<T>. Throws where the node has none, or one of another type.
  template <typename T>
  T attribute(const char* key) const {
    std::optional<T> found = find<T>(key);
    if (!found) fail("attribute \"", key, "\" is missing; expected ", name_of<T>());
    return *std::move(found);
  }
  template <typename T>
  T attribute(const char* key, T otherwise) const {
    return find<T>(key).value_or(std::move(otherwise));
  }

  // The same, where the node has it. ONNX Runtime shows one of another type as an absent one, or as an empty
  // list.
  template <typename T>
  std::optional<T> find(const char* key) const {
    std::optional<T> found = read<T>(key);
    if (!found || is_empty_list(*found)) refuse_another<T>(key);
    return found;
  }

  // Throws where the node has an attribute of this name that is no T.
  template <typename T>
  void refuse_another(const char* key) const {
    const auto refuse = [key](const char* what) {
      fail("attribute \"", key, "\" is ", what, "; expected ", name_of<T>());
    };
    std::int64_t integer = 0;
    float fraction = 0;
    std::size_t size = 0;
    constexpr bool kOfInts = std::is_same_v<T, std::int64_t> || std::is_same_v<T, bool>;
    if (!kOfInts && present(api_, abi::GetAttributeInt(api_, info_, key, &integer))) refuse("an integer");
    if (!std::is_same_v<T, float> && present(api_, abi::GetAttributeFloat(api_, info_, key, &fraction)))
      refuse("a float");
    if (!std::is_same_v<T, std::string>) {
      present(api_, abi::GetAttributeString(api_, info_, key, nullptr, &size));
      if (size != 0) refuse("a string");
    }
    if (present(api_, abi::GetAttributeInts(api_, info_, key, nullptr, &size)) && size != 0)
      refuse("a list of integers");
    if (present(api_, abi::GetAttributeFloats(api_, info_, key, nullptr, &size)) && size != 0)
      refuse("a list of floats");
    if (!std::is_same_v<T, std::vector<std::string>> && minor_release_ >= 25) {
      const auto list = texts(key);
      if (list && !list->empty()) refuse("a list of strings");
    }
    if (tensor_type(key) != 0) refuse("a tensor of another type");
  }

 private:
  template <typename T>
  static bool is_empty_list(const T&) {
    return false;
  }
  template <typename T>
  static bool is_empty_list(const std::vector<T>& list) {
    return list.empty();
  }

  // ONNX's number of the elements of an attribute that is a tensor; 0 where it is none.
  int tensor_type(const char* key) const {
    abi::Allocator* allocator = nullptr;
    abi::Value* value = nullptr;
    check(api_, abi::GetDefaultAllocator(api_, &allocator));
    if (!present(api_, abi::GetAttributeTensor(api_, info_, key, allocator, &value))) return 0;
    const int type = detail::type_and_shape(api_, value).type;
    abi::ReleaseValue(api_, value);
    return type;
  }

  template <typename T>
  std::optional<T> read(const char* key) const {
    if constexpr (std::is_same_v<T, std::int64_t> || std::is_same_v<T, bool>) {
      std::int64_t value = 0;
      if (!present(api_, abi::GetAttributeInt(api_, info_, key, &value))) return std::nullopt;
      return static_cast<T>(value);
    } else if constexpr (std::is_same_v<T, float>) {
      float value = 0;
      if (!present(api_, abi::GetAttributeFloat(api_, info_, key, &value))) return std::nullopt;
      return value;
    } else if constexpr (std::is_same_v<T, std::string>) {
      std::size_t size = 0;
      if (!present(api_, abi::GetAttributeString(api_, info_, key, nullptr, &size)) && size == 0)
        return std::nullopt;
      return read_string(
          api_, [&](char* out, std::size_t* n) { return abi::GetAttributeString(api_, info_, key, out, n); });
    } else if constexpr (std::is_same_v<T, std::vector<std::int64_t>>) {
      return numbers<std::int64_t>(key, abi::GetAttributeInts);
    } else if constexpr (std::is_same_v<T, std::vector<float>>) {
      return numbers<float>(key, abi::GetAttributeFloats);
    } else if constexpr (std::is_same_v<T, std::vector<std::string>>) {
      return texts(key);
    } else {
      static_assert(
          detail::IsConstant<T>::value,
          "node.attribute reads std::int64_t, bool, float, std::string, a std::vector of std::int64_t, "
          "float or std::string, and Constant<T>; a default of std::int64_t{1}, 1.0f, std::string(\"a\")");
      if constexpr (detail::IsConstant<T>::value) return tensor<T>(key);
      return std::nullopt;
    }
  }

 public:
  std::size_t input_count() const {
    std::size_t count = 0;
    check(api_, abi::KernelInfoGetInputCount(api_, info_, &count));
    return count;
  }

  // Whether the node has an input there: an optional one may be left out.
  bool has_input(std::size_t index) const {
    abi::TypeInfo* type = nullptr;
    if (index >= input_count() ||
        !present(api_, abi::KernelInfoGetInputTypeInfo(api_, info_, index, &type)) || type == nullptr)
      return false;
    abi::ReleaseTypeInfo(api_, type);
    return true;
  }

  // Input `index` where the model has it as a constant; it is valid as long as the kernel, and its data are
  // on the provider's device. Throws where its elements are no T.
  template <typename T>
  std::optional<Input<T>> constant(std::size_t index) const {
    int is_constant = 0;
    const abi::Value* value = nullptr;
    if (index >= input_count()) return std::nullopt;
    if (!present(api_, abi::KernelInfoGetConstantInput(api_, info_, index, &is_constant, &value)))
      return std::nullopt;
    if (!is_constant || value == nullptr) return std::nullopt;
    const int type = detail::type_and_shape(api_, value).type;
    if (!std::is_same_v<T, Any> && type != element_type<T>)
      fail("input ", index, " is of element type ", type, "; expected ", element_type<T>);
    Input<T> input(api_, value);
    input.shape();  // asked for now: several runs may read it at once
    if constexpr (!std::is_same_v<T, std::string>)
      if (type != element_type<std::string>) input.data();
    return input;
  }

  const abi::Api* api() const { return api_; }
  const abi::KernelInfo* info() const { return info_; }
  int minor_release() const { return minor_release_; }  // of ONNX Runtime: 32 for 1.32

 private:
  template <typename Number, typename Slot>
  std::optional<std::vector<Number>> numbers(const char* key, const Slot& slot) const {
    std::size_t size = 0;
    if (!present(api_, slot(api_, info_, key, nullptr, &size))) return std::nullopt;
    std::vector<Number> values(size);
    if (size) check(api_, slot(api_, info_, key, values.data(), &size));
    return values;
  }

  std::optional<std::vector<std::string>> texts(const char* key) const {
    if (minor_release_ < 25)
      fail("attribute \"", key,
           "\" is a list of strings, which an operator can read from ONNX Runtime 1.25 on");
    abi::Allocator* allocator = nullptr;
    char** each = nullptr;
    std::size_t size = 0;
    check(api_, abi::GetDefaultAllocator(api_, &allocator));
    if (!present(api_, abi::GetAttributeStrings(api_, info_, key, allocator, &each, &size)))
      return std::nullopt;
    std::vector<std::string> list(each, each + size);
    for (std::size_t i = 0; i < size; ++i) present(api_, abi::AllocatorFree(api_, allocator, each[i]));
    if (each != nullptr) present(api_, abi::AllocatorFree(api_, allocator, each));
    return list;
  }

  template <typename Tensor>
  std::optional<Tensor> tensor(const char* key) const {
    using Element = typename decltype(Tensor::data)::value_type;
    abi::Allocator* allocator = nullptr;
    abi::Value* value = nullptr;
    check(api_, abi::GetDefaultAllocator(api_, &allocator));
    if (!present(api_, abi::GetAttributeTensor(api_, info_, key, allocator, &value))) return std::nullopt;
    auto release = [this](abi::Value* each) { abi::ReleaseValue(api_, each); };
    const std::unique_ptr<abi::Value, decltype(release)> owned(value, release);
    if (detail::type_and_shape(api_, value).type != element_type<Element>) return std::nullopt;
    const Input<Element> view(api_, value);
    if constexpr (std::is_same_v<Element, std::string>) {
      Tensor texts{view.shape(), {}};
      for (std::size_t i = 0; i < view.size(); ++i) texts.data.push_back(view.at(i));
      return texts;
    } else {
      return Tensor{view.shape(), std::vector<Element>(view.begin(), view.end())};
    }
  }

  template <typename T>
  static const char* name_of() {
    if constexpr (std::is_same_v<T, std::int64_t> || std::is_same_v<T, bool>) return "an integer";
    if constexpr (std::is_same_v<T, float>) return "a float";
    if constexpr (std::is_same_v<T, std::string>) return "a string";
    if constexpr (std::is_same_v<T, std::vector<std::int64_t>>) return "a list of integers";
    if constexpr (std::is_same_v<T, std::vector<float>>) return "a list of floats";
    if constexpr (std::is_same_v<T, std::vector<std::string>>) return "a list of strings";
    return "a tensor";
  }

  const abi::Api* api_;
  const abi::KernelInfo* info_;
  int minor_release_;
};

}  // namespace ort_ops
