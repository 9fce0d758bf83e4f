// A kernel's life: made for a node, run, destroyed. No exception leaves these functions.
#include "kernel.hpp"

#include <algorithm>
#include <memory>
#include <utility>

namespace ort_ops {
namespace {

using abi::Api;

constexpr const char* kNoPython = "the Python interpreter has been shut down";

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

std::pair<int, std::optional<Dims>> shape_of(const NamedDims& input) {
  if (input.sizes.empty()) return {input.type, std::nullopt};
  Dims dims;
  for (std::size_t axis = 0; axis < input.sizes.size(); ++axis) {
    if (input.sizes[axis] < 0)
      dims.emplace_back(input.names[axis]);
    else
      dims.emplace_back(input.sizes[axis]);
  }
  return {input.type, dims};
}

void read_expected(Kernel& kernel, const abi::KernelInfo* info) {
  const Api* api = kernel.api;
  std::size_t input_count = 0, output_count = 0;
  check(api, abi::KernelInfoGetInputCount(api, info, &input_count));
  check(api, abi::KernelInfoGetOutputCount(api, info, &output_count));
  std::vector<NamedDims> inputs;
  for (std::size_t i = 0; i < input_count; ++i)
    inputs.push_back(named_dims(api, info, i, abi::KernelInfoGetInputTypeInfo));
  if (!kernel.owned) {
    std::vector<std::pair<int, std::optional<Dims>>> shapes;
    for (const NamedDims& input : inputs) shapes.push_back(shape_of(input));
    refuse_failed_infer(kernel, shapes);
  }
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

// The buffers of the outputs as arrays to be filled: one, or a tuple of them.
nb::object make_out(const Call& call) {
  const std::vector<std::vector<std::int64_t>> shapes = output_shapes(call);
  if (call.kernel.op->outputs.size() == 1) return numpy_output(call, 0, shapes.at(0));
  nb::list outputs;
  for (std::size_t i = 0; i < shapes.size(); ++i)  // a node may leave trailing ones out
    outputs.append(i < call.kernel.expected.size() ? numpy_output(call, i, shapes[i]) : nb::none());
  return nb::tuple(outputs);
}

// Calls the kernel's function with views of the inputs, absent ones as None, and stores what it returns.
void run_with_arrays(const Call& call) {
  const Kernel& kernel = call.kernel;
  const std::size_t given = call.input_count();
  const std::size_t positional = std::max(given, kernel.op->inputs.size());
  std::vector<Held> views;
  views.reserve(positional);
  std::vector<PyObject*> arguments;
  arguments.reserve(1 + positional + kernel.kwvalues.size());
  arguments.push_back(nullptr);  // room that the vectorcall protocol may use
  for (std::size_t i = 0; i < positional; ++i) {
    const abi::Value* value = i < given ? call.input(i) : nullptr;
    if (value == nullptr && i < kernel.op->inputs.size() &&
        kernel.op->inputs[i].characteristic == abi::kVariadic)
      break;
    views.emplace_back(value == nullptr ? nb::none() : numpy_view(call, value));
    arguments.push_back(views.back().get().ptr());
  }
  const std::size_t count = arguments.size() - 1;
  std::vector<Held> lists;
  for (const nb::object& value : kernel.kwvalues) {
    const bool list = PyList_Check(value.ptr());
    if (list) lists.emplace_back(attribute_value(value));
    arguments.push_back(list ? lists.back().get().ptr() : value.ptr());
  }
  Held out;
  if (kernel.op->takes_out) {
    out = make_out(call);
    arguments.push_back(out.get().ptr());
  }
  const Held held(nb::steal(or_hang([&] {
    return PyObject_Vectorcall(kernel.op->function.ptr(), arguments.data() + 1,
                               count | PY_VECTORCALL_ARGUMENTS_OFFSET, kernel.kwnames.ptr());
  })));
  const nb::object& result = held.get();
  if (!result.is_valid()) throw nb::python_error();
  if (!kernel.op->takes_out)
    store_numpy(call, result);
  else if (!result.is_none() && !result.is(out.get()))
    throw BadResult{"returned a result though it is given out=; expected it to fill out, and None"};
  else if (hooks().debug)
    store_numpy(call, out.get());  // which was memory of its own
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
      run_with_arrays(call);
    return nullptr;
  } catch (nb::python_error& error) {
    error.restore();
  } catch (const BadResult& error) {
    PyErr_SetString(hooks().result_error.ptr(), error.text.c_str());
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
  return python_failure(kernel.api, kernel.node, kernel.op->name_for(kernel.node), kernel.owned);
}

// Whether nothing but its maker refers to an object. Python 3.14 keeps flags above the low 32 bits, where the
// stable ABI of 3.12 looks for the count, too.
bool is_alone(nb::handle object) { return static_cast<std::uint32_t>(Py_REFCNT(object.ptr())) == 1; }

// A view that outlives its run would read freed memory: it is found by the reference it holds.
abi::Status* refuse_kept_views(const Kernel& kernel, nb::handle owner, abi::Status* status) {
  if (is_alone(owner)) return status;
  std::string text;
  try {
    call_python(hooks().collect);
    if (is_alone(owner)) return status;
    if (status != nullptr) text = abi::GetErrorMessage(kernel.api, status);
    call_python(hooks().discard,
                to_text(text.data(), text.size()));  // raises where nothing has failed so far
    return status;
  } catch (nb::python_error& error) {
    error.restore();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
  if (status != nullptr) abi::ReleaseStatus(kernel.api, status);
  return python_failure(kernel.api, kernel.node, kernel.op->name_for(kernel.node), kernel.owned);
}

}  // namespace

nb::object attribute_value(const nb::object& value) {
  if (!PyList_Check(value.ptr())) return value;
  nb::object copy = nb::steal(PyList_GetSlice(value.ptr(), 0, PyList_Size(value.ptr())));
  if (!copy.is_valid()) throw nb::python_error();
  return copy;
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

std::vector<std::int64_t> Call::wanted_shape(std::size_t index) const {
  std::vector<std::int64_t> wanted;
  for (const Expected::Dim& dim : kernel.expected.at(index).dims)
    wanted.push_back(dim.input < 0
                         ? dim.size
                         : detail::type_and_shape(kernel.api, input(static_cast<std::size_t>(dim.input)))
                               .shape.at(static_cast<std::size_t>(dim.axis)));
  return wanted;
}

abi::Value* Call::allocate(std::size_t index, const std::vector<std::int64_t>& shape) const {
  if (kernel.expected.at(index).known) {
    const std::vector<std::int64_t> wanted = wanted_shape(index);
    bool fits = shape.size() == wanted.size();
    for (std::size_t axis = 0; fits && axis < wanted.size(); ++axis)
      fits = wanted[axis] < 0 || wanted[axis] == shape[axis];
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
    const Registration& registration = registration_of(custom);
    kernel->node = read_string(api, [&](char* text, std::size_t* size) {
      return abi::KernelInfoGetNodeName(api, info, text, size);
    });
    if (kernel->node.find('\0') != std::string::npos)
      throw Error(op.name +
                  ": a node's name has a NUL character in it, at which ONNX Runtime would cut off " +
                  "what it says of a failure; give the node another name");
    read_attributes(*kernel, info, registration.minor_release);
    read_expected(*kernel, info);
    if (kernel->owned)
      logs().back().kernels.push_back(
          {op.domain, op.name, kernel->node, op.provider, op.name_for(kernel->node)});
    *out = kernel.release();
    return nullptr;
  } catch (const Error& error) {
    return abi::CreateStatus(api, abi::kInvalidArgument, error.what());
  } catch (const std::exception& error) {
    return abi::CreateStatus(api, abi::kFail, error.what());
  }
}

abi::Status* compute_kernel(void* instance, abi::KernelContext* context) noexcept {
  const Kernel& kernel = *static_cast<const Kernel*>(instance);
  if (!Py_IsInitialized()) return abi::CreateStatus(kernel.api, abi::kFail, kNoPython);
  const HoldGil gil;
  nb::object owner = nb::steal(PyCapsule_New(instance, "ort_ops.buffers", nullptr));
  if (!owner.is_valid())
    return python_failure(kernel.api, kernel.node, kernel.op->name_for(kernel.node), kernel.owned);
  return refuse_kept_views(kernel, owner, run_or_fail(kernel, context, owner));
}

void destroy_kernel(void* instance) noexcept {
  if (!Py_IsInitialized()) return;  // its Python objects went down with the interpreter
  const HoldGil gil;
  delete static_cast<Kernel*>(instance);
}

}  // namespace ort_ops
