// A node's attributes as Python values: read once, when the kernel is made.
#include <algorithm>
#include <cstring>
#include <memory>

#include "kernel.hpp"

namespace ort_ops {
namespace {

using abi::Api;

template <typename T, typename Slot>
nb::object read_numbers(const Api* api, const abi::KernelInfo* info, const char* name, const Slot& slot) {
  std::size_t size = 0;
  if (!present(api, slot(api, info, name, nullptr, &size))) return nb::none();
  std::vector<T> values(size);
  if (size) check(api, slot(api, info, name, values.data(), &size));
  nb::list list;
  for (T value : values) list.append(value);
  return list;
}

nb::object read_bools(const Api* api, const abi::KernelInfo* info, const char* name) {
  const nb::object integers = read_numbers<std::int64_t>(api, info, name, abi::GetAttributeInts);
  if (integers.is_none()) return integers;
  nb::list list;
  for (nb::handle integer : integers) list.append(nb::cast<std::int64_t>(integer) != 0);
  return list;
}

// Bytes that are no UTF-8 become lone surrogates, as in os.fsdecode.
nb::object decode(const char* text, std::size_t size) {
  nb::object decoded =
      nb::steal(PyUnicode_DecodeUTF8(text, static_cast<Py_ssize_t>(size), "surrogateescape"));
  if (!decoded.is_valid()) throw nb::python_error();
  return decoded;
}

nb::object read_text(const Api* api, const abi::KernelInfo* info, const char* name, bool as_bytes) {
  std::size_t size = 0;
  if (!present(api, abi::GetAttributeString(api, info, name, nullptr, &size)) && size == 0) return nb::none();
  const std::string text = read_string(
      api, [&](char* out, std::size_t* n) { return abi::GetAttributeString(api, info, name, out, n); });
  return as_bytes ? nb::object(nb::bytes(text.data(), text.size())) : decode(text.data(), text.size());
}

nb::object read_texts(const Api* api, const abi::KernelInfo* info, const char* name) {
  abi::Allocator* allocator = nullptr;
  char** texts = nullptr;
  std::size_t size = 0;
  check(api, abi::GetDefaultAllocator(api, &allocator));
  if (!present(api, abi::GetAttributeStrings(api, info, name, allocator, &texts, &size))) return nb::none();
  nb::list list;
  for (std::size_t i = 0; i < size; ++i) {
    list.append(decode(texts[i], std::strlen(texts[i])));
    present(api, abi::AllocatorFree(api, allocator, texts[i]));
  }
  if (texts != nullptr) present(api, abi::AllocatorFree(api, allocator, texts));
  return list;
}

nb::object read_tensor(const Api* api, const abi::KernelInfo* info, const char* name) {
  abi::Allocator* allocator = nullptr;
  abi::Value* value = nullptr;
  check(api, abi::GetDefaultAllocator(api, &allocator));
  if (!present(api, abi::GetAttributeTensor(api, info, name, allocator, &value))) return nb::none();
  auto release = [api](abi::Value* tensor) { abi::ReleaseValue(api, tensor); };
  const std::unique_ptr<abi::Value, decltype(release)> owned(value, release);
  return numpy_copy(api, owned.get());
}

// The attribute as the node has it, or none.
nb::object read_attribute(const Api* api, const abi::KernelInfo* info, const Attribute& attribute) {
  const char* name = attribute.name.c_str();
  std::int64_t integer = 0;
  float number = 0;
  switch (attribute.type) {
    case abi::kInt:
      return present(api, abi::GetAttributeInt(api, info, name, &integer)) ? nb::cast(integer) : nb::none();
    case abi::kBool:
      return present(api, abi::GetAttributeInt(api, info, name, &integer)) ? nb::cast(integer != 0)
                                                                           : nb::none();
    case abi::kFloat:
      return present(api, abi::GetAttributeFloat(api, info, name, &number)) ? nb::cast(number) : nb::none();
    case abi::kInts:
      return read_numbers<std::int64_t>(api, info, name, abi::GetAttributeInts);
    case abi::kBools:
      return read_bools(api, info, name);
    case abi::kFloats:
      return read_numbers<float>(api, info, name, abi::GetAttributeFloats);
    case abi::kStrings:
      return read_texts(api, info, name);
    case abi::kTensor:
      return read_tensor(api, info, name);
    default:
      return read_text(api, info, name, attribute.type == abi::kBytes);
  }
}

bool is_empty_list(const nb::object& value) {
  return PyList_Check(value.ptr()) && PyList_Size(value.ptr()) == 0;
}

// What ONNX stores an attribute of one of our types as.
int stored_as(int type) {
  switch (type) {
    case abi::kBool:
      return abi::kInt;
    case abi::kBools:
      return abi::kInts;
    case abi::kBytes:
      return abi::kString;
    default:
      return type;
  }
}

// ONNX Runtime shows an attribute of another type as an absent one, or as an empty list.
bool in_another_type(const Api* api, const abi::KernelInfo* info, const Attribute& attribute) {
  constexpr int kTypes[] = {abi::kInt, abi::kFloat, abi::kInts, abi::kFloats, abi::kString};
  return std::any_of(std::begin(kTypes), std::end(kTypes), [&](int type) {
    if (type == stored_as(attribute.type)) return false;
    const nb::object value = read_attribute(api, info, {attribute.name, type, false});
    return !value.is_none() && !is_empty_list(value);
  });
}

}  // namespace

void read_attributes(Kernel& kernel, const abi::KernelInfo* info, int minor_release) {
  nb::list names;
  for (const Attribute& attribute : kernel.op->attributes) {
    if (attribute.type == abi::kStrings && minor_release < 25)
      throw Error(
          kernel.op->name + ": attribute \"" + attribute.name +
          "\" is a list of strings, which an operator can read from ONNX Runtime 1.25 on; this is 1." +
          std::to_string(minor_release));
    nb::object value = read_attribute(kernel.api, info, attribute);
    if ((value.is_none() || is_empty_list(value)) && in_another_type(kernel.api, info, attribute))
      throw Error(kernel.op->name + " node \"" + kernel.node + "\" has attribute \"" + attribute.name +
                  "\" in another type than " + kernel.op->kernel_name +
                  " declares; expected what the kernel's signature says");
    if (value.is_none()) {
      if (!attribute.required) continue;  // the kernel's own default serves
      throw Error(kernel.op->name + " node \"" + kernel.node + "\" has no attribute \"" + attribute.name +
                  "\"; expected one, since " + kernel.op->kernel_name + " gives it no default");
    }
    names.append(nb::str(attribute.name.c_str()));
    kernel.kwvalues.push_back(std::move(value));
  }
  if (kernel.op->takes_out) names.append(nb::str("out"));  // whose value comes with each run
  if (nb::len(names) != 0) kernel.kwnames = nb::tuple(names);
}

}  // namespace ort_ops
