// A node's attributes as Python values: read when the kernel is made, and before, for `infer`.
#include <memory>
#include <type_traits>

#include "kernel.hpp"
#include "ort_ops/node.hpp"

namespace ort_ops {
namespace {

using abi::Api;

template <typename T>
nb::object to_python(const std::optional<T>& value) {
  return value ? nb::cast(*value) : nb::none();
}

template <typename T>
nb::object to_list(const std::optional<std::vector<T>>& values) {
  if (!values) return nb::none();
  nb::list list;
  for (T value : *values) list.append(value);
  return list;
}

template <typename Source>
nb::object read_bools(const Source& node, const char* name) {
  const auto integers = node.template find<std::vector<std::int64_t>>(name);
  if (!integers) return nb::none();
  nb::list list;
  for (std::int64_t integer : *integers) list.append(integer != 0);
  return list;
}

// Bytes that are no UTF-8 become lone surrogates, as in os.fsdecode.
nb::object decode(const std::string& text) {
  nb::object decoded =
      nb::steal(PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "surrogateescape"));
  if (!decoded.is_valid()) throw nb::python_error();
  return decoded;
}

template <typename Source>
nb::object read_text(const Source& node, const char* name, bool as_bytes) {
  const auto text = node.template find<std::string>(name);
  if (!text) return nb::none();
  return as_bytes ? nb::object(nb::bytes(text->data(), text->size())) : decode(*text);
}

nb::object read_texts(const Node& node, const char* name) {
  const auto texts = node.find<std::vector<std::string>>(name);
  if (!texts) return nb::none();
  nb::list list;
  for (const std::string& text : *texts) list.append(decode(text));
  return list;
}

nb::object read_tensor(const Node& node, const char* name) {
  const Api* api = node.api();
  abi::Allocator* allocator = nullptr;
  abi::Value* value = nullptr;
  check(api, abi::GetDefaultAllocator(api, &allocator));
  abi::Status* status = abi::GetAttributeTensor(api, node.info(), name, allocator, &value);
  const bool mute = status != nullptr && *abi::GetErrorMessage(api, status) == '\0';
  if (!present(api, status)) {
    if (mute)  // of an attribute that isn't there it says so
      fail("attribute \"", name,
           "\" is a tensor of a type that ONNX Runtime hasn't (complex numbers); expected another");
    node.refuse_another<Constant<Any>>(name);
    return nb::none();
  }
  auto release = [api](abi::Value* tensor) { abi::ReleaseValue(api, tensor); };
  const std::unique_ptr<abi::Value, decltype(release)> owned(value, release);
  return numpy_constant(api, owned.get());
}

// The attribute as the node has it, or none. Source: a Node, or Shapes, which ONNX Runtime shows no lists of
// strings and no tensors.
template <typename Source>
nb::object read_attribute(const Source& node, const Attribute& attribute) {
  const char* name = attribute.name.c_str();
  if constexpr (std::is_same_v<Source, Node>) {
    if (attribute.type == abi::kStrings) return read_texts(node, name);
    if (attribute.type == abi::kTensor) return read_tensor(node, name);
  }
  switch (attribute.type) {
    case abi::kInt:
      return to_python(node.template find<std::int64_t>(name));
    case abi::kBool:
      return to_python(node.template find<bool>(name));
    case abi::kFloat:
      return to_python(node.template find<float>(name));
    case abi::kInts:
      return to_list(node.template find<std::vector<std::int64_t>>(name));
    case abi::kBools:
      return read_bools(node, name);
    case abi::kFloats:
      return to_list(node.template find<std::vector<float>>(name));
    default:
      return read_text(node, name, attribute.type == abi::kBytes);
  }
}

}  // namespace

nb::dict attributes_of(const Kernel& kernel) {
  nb::dict attributes;
  for (std::size_t i = 0; i < kernel.kwvalues.size(); ++i)
    attributes[kernel.kwnames[i]] = attribute_value(kernel.kwvalues[i]);
  return attributes;
}

nb::dict inferred_attributes(const Op& op, const Shapes& shapes) {
  nb::dict attributes;
  for (const Attribute& attribute : op.attributes) {
    if (!attribute.inferred) continue;
    nb::object value = read_attribute(shapes, attribute);
    if (!value.is_none()) attributes[attribute.name.c_str()] = value;
  }
  return attributes;
}

void read_attributes(Kernel& kernel, const abi::KernelInfo* info, int minor_release) {
  const Node node(kernel.api, info, minor_release);
  nb::list names;
  for (const Attribute& attribute : kernel.op->attributes) {
    if (attribute.type == abi::kStrings && minor_release < 25)
      throw Error(
          kernel.op->name + ": attribute \"" + attribute.name +
          "\" is a list of strings, which an operator can read from ONNX Runtime 1.25 on; this is 1." +
          std::to_string(minor_release));
    nb::object value;
    try {
      value = read_attribute(node, attribute);
    } catch (const Error& error) {  // it is of another type
      throw Error(kernel.op->name + " node \"" + kernel.node + "\": " + error.what() + ", which " +
                  kernel.op->name_for(kernel.node) + " declares");
    }
    if (value.is_none()) {
      if (!attribute.required) continue;  // the kernel's own default serves
      throw Error(kernel.op->name + " node \"" + kernel.node + "\" has no attribute \"" + attribute.name +
                  "\"; expected one, since " + kernel.op->name_for(kernel.node) + " gives it no default");
    }
    names.append(nb::str(attribute.name.c_str()));
    kernel.kwvalues.push_back(std::move(value));
  }
  if (kernel.op->takes_out) names.append(nb::str("out"));  // whose value comes with each run
  if (nb::len(names) != 0) kernel.kwnames = nb::tuple(names);
}

}  // namespace ort_ops
