// A kernel's life: made for a node, run, destroyed. No exception leaves these functions.
#include "kernel.hpp"

#include <algorithm>
#include <memory>

namespace ort_ops {
namespace {

using abi::Api;

constexpr const char* kNoPython = "the Python interpreter has been shut down";

template <typename Get>
std::string read_string(const Api* api, Get get) {
  std::size_t size = 0;
  if (abi::Status* status = get(nullptr, &size)) abi::ReleaseStatus(api, status);  // says the size
  std::string text(size, '\0');
  if (size == 0) return text;
  check(api, get(text.data(), &size));
  text.resize(size - 1);  // without the terminating NUL
  return text;
}

// A status that only says "this attribute is not there".
bool present(const Api* api, abi::Status* status) {
  if (status == nullptr) return true;
  abi::ReleaseStatus(api, status);
  return false;
}

template <typename T, typename Slot>
nb::object read_list(const Api* api, const abi::KernelInfo* info, const char* name, const Slot& slot) {
  std::size_t size = 0;
  if (!present(api, slot(api, info, name, nullptr, &size))) return nb::none();
  std::vector<T> values(size);
  if (size) check(api, slot(api, info, name, values.data(), &size));
  nb::list list;
  for (T value : values) list.append(value);
  return list;
}

// The attribute as the node has it, or none.
nb::object read_attribute(const Api* api, const abi::KernelInfo* info, const Attribute& attribute) {
  const char* name = attribute.name.c_str();
  std::int64_t integer = 0;
  float number = 0;
  std::size_t size = 0;
  switch (attribute.type) {
    case abi::kInt:
      return present(api, abi::GetAttributeInt(api, info, name, &integer)) ? nb::cast(integer) : nb::none();
    case abi::kBool:
      return present(api, abi::GetAttributeInt(api, info, name, &integer)) ? nb::cast(integer != 0)
                                                                           : nb::none();
    case abi::kFloat:
      return present(api, abi::GetAttributeFloat(api, info, name, &number)) ? nb::cast(number) : nb::none();
    case abi::kInts:
      return read_list<std::int64_t>(api, info, name, abi::GetAttributeInts);
    case abi::kFloats:
      return read_list<float>(api, info, name, abi::GetAttributeFloats);
    default:
      if (!present(api, abi::GetAttributeString(api, info, name, nullptr, &size)) && size == 0)
        return nb::none();
      const std::string text = read_string(
          api, [&](char* out, std::size_t* n) { return abi::GetAttributeString(api, info, name, out, n); });
      return nb::steal(  // bytes that are no UTF-8 become lone surrogates, as in os.fsdecode
          PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "surrogateescape"));
  }
}

bool is_empty_list(const nb::object& value) {
  return PyList_Check(value.ptr()) && PyList_GET_SIZE(value.ptr()) == 0;
}

// ONNX Runtime shows an attribute of another type as an absent one, or as an empty list.
bool in_another_type(const Api* api, const abi::KernelInfo* info, const Attribute& attribute) {
  constexpr int kTypes[] = {abi::kInt, abi::kFloat, abi::kInts, abi::kFloats, abi::kString};
  return std::any_of(std::begin(kTypes), std::end(kTypes), [&](int type) {
    if (type == attribute.type) return false;
    const nb::object value = read_attribute(api, info, {attribute.name, type, false});
    return !value.is_none() && !is_empty_list(value);
  });
}

void read_attributes(Kernel& kernel, const abi::KernelInfo* info) {
  nb::list names;
  for (const Attribute& attribute : kernel.op->attributes) {
    nb::object value = read_attribute(kernel.api, info, attribute);
    if ((value.is_none() || is_empty_list(value)) && in_another_type(kernel.api, info, attribute))
      throw OrtError{kernel.op->name + " node \"" + kernel.node + "\" has attribute \"" + attribute.name +
                     "\" in another type than " + kernel.op->kernel_name +
                     " declares; expected what the kernel's signature says"};
    if (value.is_none()) {
      if (!attribute.required) continue;  // the kernel's own default serves
      throw OrtError{kernel.op->name + " node \"" + kernel.node + "\" has no attribute \"" + attribute.name +
                     "\"; expected one, since " + kernel.op->kernel_name + " gives it no default"};
    }
    names.append(nb::str(attribute.name.c_str()));
    kernel.kwvalues.push_back(std::move(value));
  }
  if (!kernel.kwvalues.empty()) kernel.kwnames = nb::tuple(names);
}

struct NamedDims {
  int type = 0;
  std::vector<std::int64_t> sizes;
  std::vector<std::string> names;
};

template <typename Slot>
NamedDims named_dims(const Api* api, const abi::KernelInfo* info, std::size_t index, const Slot& slot) {
  NamedDims dims;
  abi::TypeInfo* raw = nullptr;
  if (!present(api, slot(api, info, index, &raw)) || raw == nullptr) return dims;  // an absent input
  auto release = [api](abi::TypeInfo* type) { abi::ReleaseTypeInfo(api, type); };
  const std::unique_ptr<abi::TypeInfo, decltype(release)> type(raw, release);
  const abi::TensorInfo* tensor = nullptr;
  check(api, abi::CastTypeInfoToTensorInfo(api, type.get(), &tensor));
  if (tensor == nullptr) return dims;
  std::size_t rank = 0;
  check(api, abi::GetTensorElementType(api, tensor, &dims.type));
  check(api, abi::GetDimensionsCount(api, tensor, &rank));
  if (rank == 0) return dims;
  dims.sizes.resize(rank);
  check(api, abi::GetDimensions(api, tensor, dims.sizes.data(), rank));
  std::vector<const char*> names(rank, nullptr);
  check(api, abi::GetSymbolicDimensions(api, tensor, names.data(), rank));
  for (const char* name : names) dims.names.emplace_back(name == nullptr ? "" : name);
  return dims;
}

// Where an output's symbolic dimension is also an input's, its size is known once the inputs are there.
void bind_symbol(const std::vector<NamedDims>& inputs, const std::string& name, Expected::Dim& dim) {
  for (std::size_t i = 0; i < inputs.size(); ++i)
    for (std::size_t axis = 0; axis < inputs[i].names.size(); ++axis)
      if (inputs[i].sizes[axis] < 0 && inputs[i].names[axis] == name) {
        dim.input = static_cast<int>(i);
        dim.axis = static_cast<int>(axis);
        return;
      }
}

void read_expected(Kernel& kernel, const abi::KernelInfo* info) {
  const Api* api = kernel.api;
  std::size_t input_count = 0, output_count = 0;
  check(api, abi::KernelInfoGetInputCount(api, info, &input_count));
  check(api, abi::KernelInfoGetOutputCount(api, info, &output_count));
  std::vector<NamedDims> inputs;
  for (std::size_t i = 0; i < input_count; ++i)
    inputs.push_back(named_dims(api, info, i, abi::KernelInfoGetInputTypeInfo));
  kernel.expected.resize(output_count);
  for (std::size_t i = 0; i < output_count; ++i) {
    const NamedDims dims = named_dims(api, info, i, abi::KernelInfoGetOutputTypeInfo);
    Expected& expected = kernel.expected[i];
    expected.type = dims.type;
    expected.known = !dims.sizes.empty();
    expected.dims.resize(dims.sizes.size());
    for (std::size_t axis = 0; axis < dims.sizes.size(); ++axis) {
      expected.dims[axis].size = dims.sizes[axis];
      if (dims.sizes[axis] < 0 && !dims.names[axis].empty())
        bind_symbol(inputs, dims.names[axis], expected.dims[axis]);
    }
  }
}

std::string to_text(const std::vector<std::int64_t>& shape) {
  std::string text = "(";
  for (std::size_t i = 0; i < shape.size(); ++i)
    text += (i ? ", " : "") + (shape[i] < 0 ? std::string("any") : std::to_string(shape[i]));
  return text + (shape.size() == 1 ? ",)" : ")");
}

// Calls the kernel's function with views of the inputs, absent ones as None.
nb::object call_with_arrays(const Call& call) {
  const Kernel& kernel = call.kernel;
  const std::size_t given = call.input_count();
  const std::size_t positional = std::max(given, kernel.op->inputs.size());
  std::vector<nb::object> views;
  views.reserve(positional);
  std::vector<PyObject*> arguments;
  arguments.reserve(1 + positional + kernel.kwvalues.size());
  arguments.push_back(nullptr);  // room that the vectorcall protocol may use
  for (std::size_t i = 0; i < positional; ++i) {
    const abi::Value* value = i < given ? call.input(i) : nullptr;
    if (value == nullptr && i < kernel.op->inputs.size() &&
        kernel.op->inputs[i].characteristic == abi::kVariadic)
      break;
    views.push_back(value == nullptr ? nb::none() : numpy_view(call, value));
    arguments.push_back(views.back().ptr());
  }
  const std::size_t count = arguments.size() - 1;
  for (const nb::object& value : kernel.kwvalues) arguments.push_back(value.ptr());
  nb::object result = nb::steal(or_hang([&] {
    return PyObject_Vectorcall(kernel.op->function.ptr(), arguments.data() + 1,
                               count | PY_VECTORCALL_ARGUMENTS_OFFSET, kernel.kwnames.ptr());
  }));
  if (!result.is_valid()) throw nb::python_error();
  return result;
}

// Hands the kernel the Call itself, which belongs to Python from here on.
void run_by_call(const Call& call) {
  nb::object handed = nb::cast(call, nb::rv_policy::copy);
  struct End {  // whatever happens, a Call that was kept is no longer usable
    Call& call;
    ~End() { call.over = true; }
  } end{nb::cast<Call&>(handed)};
  call_python(call.kernel.op->function, handed);
}

abi::Status* run_or_fail(const Kernel& kernel, abi::KernelContext* context, nb::handle owner) {
  try {
    const Call call(kernel, context, owner);
    if (kernel.op->by_call)
      run_by_call(call);
    else
      store_numpy(call, call_with_arrays(call));
    return nullptr;
  } catch (nb::python_error& error) {
    error.restore();
  } catch (const BadResult& error) {
    PyErr_SetString(hooks().result_error.ptr(), error.text.c_str());
  } catch (const OrtError& error) {
    PyErr_SetString(PyExc_RuntimeError, error.text.c_str());
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
  return python_failure(kernel.api, kernel.node, kernel.op->kernel_name, kernel.owned);
}

// A view that outlives its run would read freed memory: it is found by the reference it holds.
abi::Status* refuse_kept_views(const Kernel& kernel, nb::handle owner, abi::Status* status) {
  if (Py_REFCNT(owner.ptr()) == 1) return status;
  or_hang([] { return PyGC_Collect(); });
  if (Py_REFCNT(owner.ptr()) == 1) return status;
  try {
    const std::string text = status == nullptr ? "" : abi::GetErrorMessage(kernel.api, status);
    if (status != nullptr) abi::ReleaseStatus(kernel.api, status);
    status = nullptr;
    call_python(hooks().discard,
                nb::str(text.data(), text.size()));  // raises where nothing has failed so far
    return abi::CreateStatus(kernel.api, abi::kFail, text.c_str());
  } catch (nb::python_error& error) {
    error.restore();
    return python_failure(kernel.api, kernel.node, kernel.op->kernel_name, kernel.owned);
  } catch (const std::exception& error) {
    return abi::CreateStatus(kernel.api, abi::kFail, error.what());
  }
}

}  // namespace

TensorType type_and_shape(const Api* api, const abi::Value* value) {
  TensorType result;
  abi::TensorInfo* info = nullptr;
  check(api, abi::GetTensorTypeAndShape(api, value, &info));
  std::size_t rank = 0;
  abi::Status* status = abi::GetTensorElementType(api, info, &result.type);
  if (status == nullptr) status = abi::GetDimensionsCount(api, info, &rank);
  if (status == nullptr) {
    result.dims.resize(rank);
    status = abi::GetDimensions(api, info, result.dims.data(), rank);
  }
  abi::ReleaseTensorInfo(api, info);
  check(api, status);
  return result;
}

void* data_of(const Api* api, const abi::Value* value) {
  void* data = nullptr;
  check(api, abi::GetTensorMutableData(api, const_cast<abi::Value*>(value), &data));
  return data;
}

std::size_t Call::input_count() const {
  std::size_t count = 0;
  check(kernel.api, abi::GetInputCount(kernel.api, context, &count));
  return count;
}

const abi::Value* Call::input(std::size_t index) const {
  const abi::Value* value = nullptr;
  check(kernel.api, abi::GetInput(kernel.api, context, index, &value));
  return value;
}

abi::Value* Call::allocate(std::size_t index, const std::vector<std::int64_t>& shape) const {
  const Expected& expected = kernel.expected.at(index);
  if (expected.known) {
    std::vector<std::int64_t> wanted(expected.dims.size());
    bool fits = shape.size() == wanted.size();
    for (std::size_t axis = 0; axis < wanted.size(); ++axis) {
      const Expected::Dim& dim = expected.dims[axis];
      wanted[axis] = dim.size;
      if (dim.input >= 0)
        wanted[axis] =
            type_and_shape(kernel.api, input(dim.input)).dims.at(static_cast<std::size_t>(dim.axis));
      fits = fits && (wanted[axis] < 0 || wanted[axis] == shape[axis]);
    }
    if (!fits)
      throw BadResult{"output " + std::to_string(index) + " has shape " + to_text(shape) +
                      " but the model says " + to_text(wanted) + "; return an array of that shape"};
  }
  abi::Value* value = nullptr;
  check(kernel.api, abi::GetOutput(kernel.api, context, index, shape.data(), shape.size(), &value));
  return value;
}

abi::Status* create_kernel(const abi::CustomOp* custom, const Api* api, const abi::KernelInfo* info,
                           void** out) noexcept {
  const Op& op = op_of(custom);
  if (!Py_IsInitialized()) return abi::CreateStatus(api, abi::kFail, kNoPython);
  const HoldGil gil;
  try {
    auto kernel = std::make_unique<Kernel>();
    kernel->op = &op;
    kernel->api = api;
    kernel->owned = !logs().empty();
    kernel->node = read_string(api, [&](char* text, std::size_t* size) {
      return abi::KernelInfoGetNodeName(api, info, text, size);
    });
    read_attributes(*kernel, info);
    read_expected(*kernel, info);
    if (kernel->owned)
      logs().back().kernels.push_back({op.domain, op.name, kernel->node, op.provider, op.kernel_name});
    *out = kernel.release();
    return nullptr;
  } catch (const OrtError& error) {
    return abi::CreateStatus(api, abi::kInvalidArgument, error.text.c_str());
  } catch (const std::exception& error) {
    return abi::CreateStatus(api, abi::kFail, error.what());
  }
}

abi::Status* compute_kernel(void* instance, abi::KernelContext* context) noexcept {
  const Kernel& kernel = *static_cast<const Kernel*>(instance);
  if (!Py_IsInitialized()) return abi::CreateStatus(kernel.api, abi::kFail, kNoPython);
  const HoldGil gil;
  nb::object owner = nb::steal(PyCapsule_New(instance, "ort_ops.buffers", nullptr));
  if (!owner.is_valid()) return python_failure(kernel.api, kernel.node, kernel.op->kernel_name, kernel.owned);
  return refuse_kept_views(kernel, owner, run_or_fail(kernel, context, owner));
}

void destroy_kernel(void* instance) noexcept {
  if (!Py_IsInitialized()) return;  // its Python objects went down with the interpreter
  const HoldGil gil;
  delete static_cast<Kernel*>(instance);
}

}  // namespace ort_ops
