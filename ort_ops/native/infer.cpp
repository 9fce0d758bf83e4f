// Output types and shapes while a session is made: asks the kernel's `infer` function.
#include <set>

#include "kernel.hpp"

namespace ort_ops {
namespace {

using abi::Api;

// (element type, dims): a dim is an int, a str, or None where it is unknown; dims is None where there are
// none, since ONNX Runtime shows a scalar and an unknown rank alike.
nb::object to_python(int type, const std::optional<Dims>& dims) {
  if (!dims) return nb::make_tuple(type, nb::none());
  nb::list each;
  for (const Dim& dim : *dims) {
    if (dim.known())
      each.append(dim.size);
    else if (!dim.symbol.empty())
      each.append(nb::str(dim.symbol.c_str()));
    else
      each.append(nb::none());
  }
  return nb::make_tuple(type, nb::tuple(each));
}

nb::list read_inputs(const Shapes& shapes) {
  nb::list inputs;
  for (std::size_t i = 0; i < shapes.input_count(); ++i)
    inputs.append(to_python(shapes.type(i), shapes.input(i)));
  return inputs;
}

std::optional<Dims> from_python(nb::handle dims) {
  if (dims.is_none()) return std::nullopt;
  Dims found;
  for (nb::handle dim : dims) {
    if (PyLong_Check(dim.ptr()))
      found.emplace_back(nb::cast<std::int64_t>(dim));
    else
      found.emplace_back(nb::isinstance<nb::str>(dim) ? nb::cast<std::string>(dim) : std::string());
  }
  return found;
}

std::string summary_of(const nb::python_error& error) {
  const nb::object text = nb::steal(PyObject_Str(error.value().ptr()));
  if (!text.is_valid()) PyErr_Clear();
  return nb::cast<std::string>(error.type().attr("__name__")) + ": " +
         (text.is_valid() ? nb::cast<std::string>(text) : "");
}

// Operators, by domain and name, of which some `infer` function raised for a session of plain onnxruntime. Of
// an operator on several providers ONNX Runtime asks one, and may make the kernel of another.
std::set<std::pair<std::string, std::string>>& once_failed() {
  static auto& names = *new std::set<std::pair<std::string, std::string>>();
  return names;
}

}  // namespace

void refuse_failed_infer(const Kernel& kernel,
                         const std::vector<std::pair<int, std::optional<Dims>>>& inputs) {
  const Op& op = *kernel.op;
  if (op.infer.is_none() || once_failed().count({op.domain, op.name}) == 0) return;
  nb::list given;
  for (const auto& [type, dims] : inputs) given.append(to_python(type, dims));
  try {
    call_python(op.infer, given, attributes_of(kernel));
  } catch (const nb::python_error& error) {
    throw Error(op.kernel_name + "'s infer function failed: " + summary_of(error));
  }
}

abi::Status* infer_output_shapes(const abi::CustomOp* custom, abi::ShapeInferContext* context) noexcept {
  const Op& op = op_of(custom);
  const Api* api = registration_of(custom).api;
  if (!Py_IsInitialized()) return nullptr;
  const HoldGil gil;
  try {
    ElementTypes types;
    for (const Formal& input : op.inputs) types.inputs.push_back(input.type);
    for (const Formal& output : op.outputs) types.outputs.push_back(output.type);
    types.variadic_inputs = !op.inputs.empty() && op.inputs.back().characteristic == abi::kVariadic;
    Shapes shapes(api, context, op.told, registration_of(custom).minor_release, types);
    if (!shapes.fits(types.inputs)) return nullptr;  // of overloads ONNX Runtime asks the first alone
    std::size_t index = 0;
    for (nb::handle output : call_python(op.infer, read_inputs(shapes), inferred_attributes(op, shapes))) {
      if (!output.is_none()) shapes.output(index, from_python(output[1]), nb::cast<int>(output[0]));
      ++index;
    }
  } catch (nb::python_error& error) {
    // ONNX Runtime would drop a status from here without a word; the session that is being made asks.
    if (!logs().empty())
      logs().back().errors.push_back(nb::borrow(error.value()));
    else
      once_failed().insert({op.domain, op.name});
  } catch (const Error& error) {
    if (!logs().empty())
      logs().back().errors.push_back(nb::borrow(PyExc_RuntimeError)((op.name + ": " + error.what()).c_str()));
  } catch (const std::exception&) {
    return nullptr;  // out of memory: the shape stays unknown
  }
  return nullptr;
}

namespace {

// The shapes that `infer` gives for these inputs: numbers alone, since the inputs' are.
std::vector<std::vector<std::int64_t>> ask_infer(const Call& call) {
  const std::size_t count = call.input_count();
  nb::list inputs;
  for (std::size_t i = 0; i < count; ++i) {
    const abi::Value* value = call.input(i);
    const TypeAndShape type = value == nullptr ? TypeAndShape() : type_and_shape(call.kernel.api, value);
    nb::list dims;
    for (std::int64_t dim : type.shape) dims.append(dim);
    inputs.append(nb::make_tuple(type.type, nb::tuple(dims)));
  }
  std::vector<std::vector<std::int64_t>> shapes;
  for (nb::handle output : call_python(call.kernel.op->infer, inputs, attributes_of(call.kernel))) {
    std::vector<std::int64_t> shape;
    if (output.is_none() || nb::object(output[1]).is_none())
      throw BadResult{"the infer function gives no shape for given inputs; with out= it has to"};
    for (nb::handle dim : nb::object(output[1])) {
      if (!PyLong_Check(dim.ptr()))
        throw BadResult{
            "the infer function gives no number for a dimension of given inputs; with out= it has to"};
      shape.push_back(nb::cast<std::int64_t>(dim));
    }
    shapes.push_back(std::move(shape));
  }
  if (shapes.size() != call.kernel.op->outputs.size())
    throw BadResult{"the infer function gives no shapes for given inputs; with out= it has to"};
  return shapes;
}

// What the answer depends on, in a row of numbers.
std::vector<std::int64_t> signature_of(const Call& call) {
  std::vector<std::int64_t> row;
  const std::size_t count = call.input_count();
  for (std::size_t i = 0; i < count; ++i) {
    const abi::Value* value = call.input(i);
    const TypeAndShape type = value == nullptr ? TypeAndShape() : type_and_shape(call.kernel.api, value);
    row.push_back(type.type);
    row.push_back(static_cast<std::int64_t>(type.shape.size()));
    row.insert(row.end(), type.shape.begin(), type.shape.end());
  }
  return row;
}

}  // namespace

std::vector<std::vector<std::int64_t>> output_shapes(const Call& call) {
  const Kernel& kernel = call.kernel;
  if (!kernel.op->infer.is_none()) {
    std::vector<std::int64_t> asked = signature_of(call);
    if (kernel.answered.empty() || asked != kernel.asked) {
      kernel.answered = ask_infer(call);
      kernel.asked = std::move(asked);
    }
    return kernel.answered;
  }
  std::vector<std::vector<std::int64_t>> shapes;
  for (std::size_t i = 0; i < kernel.expected.size(); ++i) {
    shapes.push_back(call.wanted_shape(i));
    // A scalar's looks like one that the model says nothing of.
    bool open = kernel.expected[i].type != 0 && !kernel.expected[i].known;
    for (std::int64_t dim : shapes.back()) open = open || dim < 0;
    if (open)
      throw BadResult{"takes out=, but the model leaves the shape of output " + std::to_string(i) +
                      " open; give the kernel an infer function"};
  }
  return shapes;
}

}  // namespace ort_ops
