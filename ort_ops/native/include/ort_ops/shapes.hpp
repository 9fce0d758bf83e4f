// Output types and shapes while a session is made, from those of the inputs.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <iterator>
#include <memory>
#include <optional>
#include <ostream>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "ort_ops/status.hpp"

namespace ort_ops {

// The size of one dimension: a number, a symbol that the model has for it, or neither.
struct Dim {
  std::int64_t size = -1;
  std::string symbol;

  Dim() = default;
  Dim(std::int64_t number) : size(number) {}          // NOLINT: a number is a size
  Dim(std::string name) : symbol(std::move(name)) {}  // NOLINT: and a name a symbol
  bool known() const { return size >= 0; }
  friend bool operator==(const Dim& a, const Dim& b) { return a.size == b.size && a.symbol == b.symbol; }
};

// A class of its own, with no constructor from a count: in templates clang takes std::vector<Dim>{3} for
// three dimensions.
struct Dims : std::vector<Dim> {
  Dims() = default;
  Dims(std::initializer_list<Dim> each) : std::vector<Dim>(each) {}
  template <typename From, typename = typename std::iterator_traits<From>::iterator_category>
  Dims(From first, From last) : std::vector<Dim>(first, last) {}
};
inline std::ostream& operator<<(std::ostream& to, const Dims& dims) {
  to << '(';
  for (std::size_t i = 0; i < dims.size(); ++i) {
    const Dim& dim = dims[i];
    to << (i ? ", " : "")
       << (dim.known()          ? std::to_string(dim.size)
           : dim.symbol.empty() ? "any"
                                : dim.symbol);
  }
  return to << (dims.size() == 1 ? ",)" : ")");
}

// What a struct declares; 0 is Any. A node may leave out outputs behind the required ones.
struct ElementTypes {
  std::vector<int> inputs, outputs;
  std::size_t required_outputs = 0;
  bool optional_inputs = false;
  bool variadic_inputs = false;

  // Whether ONNX Runtime finds the type of an output of Any by itself: that of the one input of Any.
  bool any_is_found() const { return !variadic_inputs && std::count(inputs.begin(), inputs.end(), 0) == 1; }
};

class Shapes {
 public:
  // Of `there` outputs it is known that the node has them. Of others ONNX Runtime says from 1.30 on that
  // there is none; up to 1.27 it ends the process.
  Shapes(const abi::Api* api, abi::ShapeInferContext* context, std::size_t there, int minor_release,
         const ElementTypes& types)
      : api_(api),
        context_(context),
        there_(there),
        says_what_is_none_(minor_release >= 30),
        any_is_found_(types.any_is_found()),
        output_types_(types.outputs) {}
  Shapes(const abi::Api* api, abi::ShapeInferContext* context, const std::vector<ElementTypes>& overloads,
         int minor_release)
      : Shapes(api, context, overloads.front().required_outputs, minor_release, overloads.front()) {
    for (const ElementTypes& each : overloads)
      if (fits(each.inputs)) {
        any_is_found_ = each.any_is_found();
        output_types_ = each.outputs;
        break;
      }
  }

  std::size_t input_count() const {
    std::size_t count = 0;
    check(api_, abi::ShapeInferGetInputCount(api_, context_, &count));
    return count;
  }

  // The dimensions of an input; none where they are not known, or the input is a scalar or absent, which
  // ONNX Runtime shows alike.
  std::optional<Dims> input(std::size_t index) const {
    abi::TensorInfo* info = input_info(index);
    std::size_t rank = 0;
    if (info == nullptr) return std::nullopt;
    check(api_, abi::GetDimensionsCount(api_, info, &rank));
    if (rank == 0) return std::nullopt;
    std::vector<std::int64_t> sizes(rank);
    std::vector<const char*> names(rank, nullptr);
    check(api_, abi::GetDimensions(api_, info, sizes.data(), rank));
    check(api_, abi::GetSymbolicDimensions(api_, info, names.data(), rank));
    Dims dims;
    for (std::size_t i = 0; i < rank; ++i) {
      dims.emplace_back(sizes[i]);
      if (sizes[i] < 0 && names[i] != nullptr) dims[i].symbol = names[i];
    }
    return dims;
  }

  // ONNX's number of an input's element type; 0 where it is absent.
  int type(std::size_t index) const {
    abi::TensorInfo* info = input_info(index);
    int type = 0;
    if (info != nullptr) check(api_, abi::GetTensorElementType(api_, info, &type));
    return type;
  }

  // Whether the inputs are of these element types, as far as both are known; the last one's are those behind
  // it.
  bool fits(const std::vector<int>& inputs) const {
    for (std::size_t i = 0; i < input_count() && !inputs.empty(); ++i) {
      const int own = type(i), wanted = inputs[(std::min)(i, inputs.size() - 1)];
      if (own != 0 && wanted != 0 && own != wanted) return false;
    }
    return true;
  }

  // The attribute, where the node has it: std::int64_t, bool, float, std::string, a std::vector of
  // std::int64_t or float. One of another type reads as 0 or as nothing, ONNX Runtime doesn't say; the
  // constructor, by Node, refuses it.
  template <typename T>
  T attribute(const char* key, T otherwise) const {
    return find<T>(key).value_or(std::move(otherwise));
  }
  template <typename T>
  std::optional<T> find(const char* key) const {
    const abi::OpAttr* found = nullptr;
    if (!present(api_, abi::ShapeInferGetAttribute(api_, context_, key, &found)) || found == nullptr)
      return std::nullopt;
    if constexpr (std::is_same_v<T, std::int64_t>)
      return read_one<T>(found, abi::kInt);
    else if constexpr (std::is_same_v<T, bool>)
      return read_one<std::int64_t>(found, abi::kInt) != 0;
    else if constexpr (std::is_same_v<T, float>)
      return read_one<T>(found, abi::kFloat);
    else if constexpr (std::is_same_v<T, std::vector<std::int64_t>>)
      return read_list<T>(found, abi::kInts);
    else if constexpr (std::is_same_v<T, std::vector<float>>)
      return read_list<T>(found, abi::kFloats);
    else {
      static_assert(std::is_same_v<T, std::string>,
                    "shapes.attribute reads std::int64_t, bool, float, "
                    "std::string, std::vector of std::int64_t or float");
      return read_list<T>(found, abi::kString);
    }
  }

  // Says what an output is, as far as it is known, and its element type where that is Any; nothing of one
  // that the node leaves out, and of optional ones nothing before ONNX Runtime 1.30. Of structs of one name
  // ONNX Runtime asks the first: what is said has to hold for all of their element types.
  void output(std::size_t index, const std::optional<Dims>& dims, int type = 0) {
    if (index >= there_ && !says_what_is_none_) return;
    const bool declared = index < output_types_.size() && output_types_[index] != 0;
    const int own = declared ? output_types_[index] : type;
    if (!dims && (declared || any_is_found_ || own == 0)) return;
    if (!dims)  // ONNX Runtime would take it for a scalar
      fail("output ", index, " has a type that is computed, and dimensions that are not known; ",
           "expected its rank at least, or a declared type");
    abi::TensorInfo* info = nullptr;
    check(api_, abi::CreateTensorInfo(api_, &info));
    auto release = [this](abi::TensorInfo* each) { abi::ReleaseTensorInfo(api_, each); };
    const std::unique_ptr<abi::TensorInfo, decltype(release)> owned(info, release);
    if (own != 0) check(api_, abi::SetTensorElementType(api_, info, own));
    if (dims) set_dims(info, *dims);
    abi::Status* status = abi::ShapeInferSetOutputTypeShape(api_, context_, index, info);
    if (index < there_)
      check(api_, status);
    else
      present(api_, status);
  }

 private:
  void set_dims(abi::TensorInfo* info, const Dims& dims) const {
    std::vector<std::int64_t> sizes;
    std::vector<const char*> names;
    for (const Dim& dim : dims) {
      sizes.push_back(dim.size);
      names.push_back(dim.symbol.c_str());
    }
    check(api_, abi::SetDimensions(api_, info, sizes.data(), sizes.size()));
    check(api_, abi::SetSymbolicDimensions(api_, info, names.data(), names.size()));
  }

  abi::TensorInfo* input_info(std::size_t index) const {
    abi::TensorInfo* info = nullptr;  // the context's own
    if (index < input_count()) check(api_, abi::ShapeInferGetInputTypeShape(api_, context_, index, &info));
    return info;
  }

  template <typename T>
  T read_one(const abi::OpAttr* attribute, int type) const {
    std::size_t size = 0;
    T value{};
    check(api_, abi::ReadOpAttr(api_, attribute, type, &value, sizeof value, &size));
    return value;
  }

  // A list of numbers, or a text, which says its size in bytes when it is given no room.
  template <typename List>
  List read_list(const abi::OpAttr* attribute, int type) const {
    std::size_t bytes = 0;
    typename List::value_type none{};
    present(api_, abi::ReadOpAttr(api_, attribute, type, &none, 0, &bytes));
    List list(bytes / sizeof none, none);
    check(api_, abi::ReadOpAttr(api_, attribute, type, list.data(), bytes, &bytes));
    if constexpr (std::is_same_v<List, std::string>) list.resize(list.find_last_not_of('\0') + 1);
    return list;
  }

  const abi::Api* api_;
  abi::ShapeInferContext* context_;
  std::size_t there_;
  bool says_what_is_none_, any_is_found_;
  std::vector<int> output_types_;
};

}  // namespace ort_ops
