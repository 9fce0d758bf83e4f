// The Python side of the bridge: ort_ops._bridge.
#include <nanobind/stl/map.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "kernel.hpp"

namespace ort_ops {
namespace {

std::vector<Formal> formals(const std::vector<std::pair<int, int>>& pairs) {
  std::vector<Formal> result;
  for (const auto& [type, characteristic] : pairs) result.push_back({type, characteristic});
  return result;
}

void make_op(Op* self, const std::string& domain, const std::string& name, const std::string& provider,
             const std::string& kernel_name, const std::vector<std::pair<int, int>>& inputs,
             const std::vector<std::pair<int, int>>& outputs, nb::list attributes, nb::object function,
             nb::object infer, std::size_t told, bool by_call, bool takes_out,
             const std::map<std::string, std::string>& node_names) {
  new (self) Op();
  self->domain = domain;
  self->name = name;
  self->provider = provider;
  self->kernel_name = kernel_name;
  self->inputs = formals(inputs);
  self->outputs = formals(outputs);
  for (nb::handle item : attributes)
    self->attributes.push_back({nb::cast<std::string>(item[0]), nb::cast<int>(item[1]),
                                nb::cast<bool>(item[2]), nb::cast<bool>(item[3])});
  self->function = std::move(function);
  self->infer = std::move(infer);
  self->told = told;
  self->by_call = by_call;
  self->takes_out = takes_out;
  self->node_names = node_names;
}

void set_hooks(nb::object fail, nb::object collect, nb::object discard, nb::object hides, nb::object reject,
               nb::object select, nb::object result_error, nb::object pack, nb::object unpack, bool debug,
               nb::list dtypes) {
  Hooks& to = hooks();
  to.fail = std::move(fail);
  to.collect = std::move(collect);
  to.discard = std::move(discard);
  to.hides = std::move(hides);
  to.reject = std::move(reject);
  to.select = std::move(select);
  to.result_error = std::move(result_error);
  to.pack = std::move(pack);
  to.unpack = std::move(unpack);
  to.debug = debug;
  to.dtypes.clear();
  for (nb::handle dtype : dtypes) to.dtypes.push_back(nb::borrow(dtype));
}

// Calls `make`, which makes a session; returns ([(domain, op, node, provider, kernel)], [exception], what
// `make` raised or None). Ctrl-C can't come between the beginning and the end of a log.
nb::tuple logged(nb::handle make) {
  nb::object failure = nb::none();
  logs().emplace_back();
  try {
    call_python(make);
  } catch (const nb::python_error& error) {
    failure = nb::borrow(error.value());
  }
  const Log log = std::move(logs().back());
  logs().pop_back();
  nb::list kernels, errors;
  for (const KernelMade& made : log.kernels)
    kernels.append(nb::make_tuple(made.domain, made.op, made.node, made.provider, made.kernel));
  for (const nb::object& error : log.errors) errors.append(error);
  return nb::make_tuple(kernels, errors, failure);
}

const Call& live(const Call& call) {
  if (call.over) throw nb::value_error("a Call was used after its kernel had returned");
  return call;
}

std::vector<std::vector<std::int64_t>> call_output_shapes(const Call& call) {
  try {
    return output_shapes(live(call));
  } catch (const BadResult& error) {
    PyErr_SetString(hooks().result_error.ptr(), error.text.c_str());
    throw nb::python_error();
  }
}

nb::list call_inputs(const Call& call) {
  nb::list inputs;
  for (std::size_t i = 0; i < live(call).input_count(); ++i) {
    const abi::Value* value = call.input(i);
    inputs.append(value == nullptr ? nb::none() : dlpack_view(call, value));
  }
  return inputs;
}

nb::object call_output(const Call& call, std::size_t index, const std::vector<std::int64_t>& shape) {
  abi::Value* value = nullptr;
  try {
    value = live(call).allocate(index, shape);
  } catch (const BadResult& error) {
    PyErr_SetString(hooks().result_error.ptr(), error.text.c_str());
    throw nb::python_error();
  }
  return value == nullptr ? nb::none() : dlpack_view(call, value);
}

std::uintptr_t call_stream(const Call& call) {
  void* stream = nullptr;
  check(live(call).kernel.api, abi::GetGpuComputeStream(call.kernel.api, call.context, &stream));
  return reinterpret_cast<std::uintptr_t>(stream);
}

std::string call_node(const Call& call) { return live(call).kernel.node; }

}  // namespace

NB_MODULE(_bridge, m) {
  import_numpy();
  nb::set_leak_warnings(false);  // operators live as long as the process: see Op
  nb::register_exception_translator([](const std::exception_ptr& pointer, void*) {
    try {
      std::rethrow_exception(pointer);
    } catch (const Error& error) {
      PyErr_SetString(PyExc_RuntimeError, error.what());
    }
  });
  nb::class_<Op>(m, "Op").def("__init__", make_op, nb::arg("domain"), nb::arg("name"), nb::arg("provider"),
                              nb::arg("kernel_name"), nb::arg("inputs"), nb::arg("outputs"),
                              nb::arg("attributes"), nb::arg("function"), nb::arg("infer").none(),
                              nb::arg("told"), nb::arg("by_call"), nb::arg("takes_out"),
                              nb::arg("node_names"));
  nb::class_<Call>(m, "Call")
      .def("inputs", call_inputs)
      .def("attributes", [](const Call& call) { return attributes_of(live(call).kernel); })
      .def("output", call_output, nb::arg("index"), nb::arg("shape"))
      .def("output_count", [](const Call& call) { return live(call).kernel.expected.size(); })
      .def("output_shapes", call_output_shapes)
      .def("stream", call_stream)
      .def("keep",
           [](const Call& call, nb::object object) { live(call).kernel.kept.push_back(std::move(object)); })
      .def("node", call_node);
  m.def("set_hooks", set_hooks, nb::arg("fail"), nb::arg("collect"), nb::arg("discard"), nb::arg("hides"),
        nb::arg("reject"), nb::arg("select"), nb::arg("result_error"), nb::arg("pack"), nb::arg("unpack"),
        nb::arg("debug"), nb::arg("dtypes"));
  m.def("address", address, nb::arg("array"));
  m.def("logged", logged, nb::arg("make"));
}

}  // namespace ort_ops
