// RegisterCustomOps, by which any ONNX Runtime in this process takes the operators.
#include <cstdlib>
#include <cstring>
#include <map>
#include <tuple>

#include "kernel.hpp"

namespace ort_ops {
namespace {

using abi::Api;

std::size_t count_inputs(const abi::CustomOp* op) { return op_of(op).inputs.size(); }
std::size_t count_outputs(const abi::CustomOp* op) { return op_of(op).outputs.size(); }
int one(const abi::CustomOp*) { return 1; }
int zero(const abi::CustomOp*) { return 0; }

// The callbacks that ONNX Runtime calls for an operator.
abi::CustomOp callbacks_of(const Op& op) {
  abi::CustomOp to = {};
  to.version = abi::kApiVersion;
  to.GetName = [](const abi::CustomOp* self) { return op_of(self).name.c_str(); };
  to.GetExecutionProviderType = [](const abi::CustomOp* self) { return op_of(self).provider.c_str(); };
  to.GetInputType = [](const abi::CustomOp* self, std::size_t i) { return op_of(self).inputs[i].type; };
  to.GetInputTypeCount = count_inputs;
  to.GetOutputType = [](const abi::CustomOp* self, std::size_t i) { return op_of(self).outputs[i].type; };
  to.GetOutputTypeCount = count_outputs;
  to.KernelDestroy = destroy_kernel;
  to.GetInputCharacteristic = [](const abi::CustomOp* self, std::size_t i) {
    return op_of(self).inputs[i].characteristic;
  };
  to.GetOutputCharacteristic = [](const abi::CustomOp* self, std::size_t i) {
    return op_of(self).outputs[i].characteristic;
  };
  to.GetInputMemoryType = [](const abi::CustomOp*, std::size_t) -> int { return abi::kDefaultMemory; };
  to.GetVariadicInputMinArity = zero;
  to.GetVariadicInputHomogeneity = [](const abi::CustomOp* self) {
    return op_of(self).inputs.back().type == 0 ? 0 : 1;
  };
  to.GetVariadicOutputMinArity = one;
  to.GetVariadicOutputHomogeneity = [](const abi::CustomOp* self) {
    return op_of(self).outputs.back().type == 0 ? 0 : 1;
  };
  to.CreateKernelV2 = create_kernel;
  to.KernelComputeV2 = compute_kernel;
  if (op.told != 0 && !op.infer.is_none()) to.InferOutputShapeFn = infer_output_shapes;
  to.GetStartVersion = one;
  to.GetEndVersion = [](const abi::CustomOp*) { return 0x7fffffff; };
  return to;
}

// Domains by runtime, name and content, so that sessions with the same operators share one. Kept for
// good, like the operators in them.
abi::CustomOpDomain* domain_of(const Api* api, int minor_release, const std::string& name,
                               const std::vector<Op*>& ops) {
  static auto& made =
      *new std::map<std::tuple<const Api*, std::string, std::vector<Op*>>, abi::CustomOpDomain*>();
  abi::CustomOpDomain*& domain = made[{api, name, ops}];
  if (domain != nullptr) return domain;
  abi::CustomOpDomain* filled = nullptr;
  check(api, abi::CreateCustomOpDomain(api, name.c_str(), &filled));
  for (const Op* op : ops) {
    auto* registration = new Registration{callbacks_of(*op), op, api, minor_release};
    check(api, abi::CustomOpDomainAdd(api, filled, &registration->callbacks));
  }
  return domain = filled;
}

constexpr const char* kOwner = "Python kernels (ort_ops)";
constexpr const char* kWanted = "ort_ops.ops";
constexpr const char* kRegistered = "ort_ops.registered";

void register_selected(const Api* api, int minor_release, abi::SessionOptions* options) {
  const auto entry_of = [&](const char* key) -> nb::object {
    const std::optional<std::string> text = config_entry(api, options, key);
    return text ? nb::object(nb::str(text->c_str())) : nb::none();
  };
  nb::object registered = entry_of(kRegistered);
  nb::object selected = call_python(hooks().select, entry_of(kWanted), registered);
  // All that may be another's first: what was added stays there though the rest fails.
  for (nb::handle entry : selected[0]) claim_domain(api, options, nb::cast<std::string>(entry[0]), kOwner);
  for (nb::handle entry : selected[0]) {
    std::vector<Op*> ops;
    for (nb::handle op : entry[1]) {
      op.inc_ref();  // never given back: see Op
      ops.push_back(nb::cast<Op*>(op));
    }
    const auto name = nb::cast<std::string>(entry[0]);
    check(api, abi::AddCustomOpDomain(api, options, domain_of(api, minor_release, name, ops)));
  }
  if (!selected[1].equal(registered))
    check(api, abi::AddConfigEntry(api, options, kRegistered, nb::cast<const char*>(selected[1])));
}

abi::Status* register_ops(abi::SessionOptions* options, const abi::ApiBase* base) noexcept {
  abi::Status* too_old = nullptr;
  const Api* api = find_api(base, &too_old);
  if (api == nullptr) return too_old;
  const HoldGil gil;
  try {
    register_selected(api, minor_of(base->GetVersionString()), options);
    return nullptr;
  } catch (nb::python_error& error) {
    error.restore();
    return python_failure(api, "", "", false);
  } catch (const std::exception& error) {
    return abi::CreateStatus(api, abi::kFail, error.what());
  }
}

}  // namespace

Hooks& hooks() {
  static auto& instance = *new Hooks();
  return instance;
}

std::vector<Log>& logs() {
  static thread_local std::vector<Log> stack;
  return stack;
}

abi::Status* python_failure(const Api* api, const std::string& node, const std::string& kernel,
                            bool owned) noexcept {
  try {
    nb::python_error error;  // takes the error that is set
    nb::object text = call_python(hooks().fail, error.value(), to_text(node.data(), node.size()),
                                  nb::cast(kernel), nb::cast(owned));
    // Plain onnxruntime can't raise it; so it is set anew, after the last Python code that could take it.
    if (!owned && error.matches(PyExc_KeyboardInterrupt)) PyErr_SetInterrupt();
    return abi::CreateStatus(api, abi::kFail, nb::cast<const char*>(text));
  } catch (const std::exception& error) {
    PyErr_Clear();
    return abi::CreateStatus(api, abi::kFail, error.what());
  }
}

}  // namespace ort_ops

ORT_OPS_EXPORT ort_ops::abi::Status* RegisterCustomOps(ort_ops::abi::SessionOptions* options,
                                                       const ort_ops::abi::ApiBase* base) {
  return ort_ops::register_ops(options, base);
}
