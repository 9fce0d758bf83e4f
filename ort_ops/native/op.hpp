// What the bridge knows of an operator: one Op for each name, element types and execution provider.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "ort_ops/library.hpp"
#include "ort_ops/tensor.hpp"
#include "python.hpp"

namespace ort_ops {

// An input or output as the operator declares it. Element type 0 means any.
struct Formal {
  int type;
  int characteristic;
};

struct Attribute {
  std::string name;
  int type;       // abi::AttributeType
  bool required;  // without a default in the kernel's signature
  bool inferred;  // `infer` is given it, too
};

// An operator with one combination of element types on one execution provider.
struct Op {
  std::string domain;
  std::string name;
  std::string provider;
  std::string kernel_name;                        // where the kernel's code is, for messages
  std::map<std::string, std::string> node_names;  // and that of single nodes, where each has its own
  std::vector<Formal> inputs;
  std::vector<Formal> outputs;
  std::vector<Attribute> attributes;
  nb::object function;  // numpy arrays in, numpy arrays out; or, if `by_call`, takes a Call
  nb::object infer;     // (inputs, attributes) -> outputs, or None
  std::size_t told;     // of so many outputs, which each node has, ONNX Runtime is told by `infer`
  bool by_call;
  bool takes_out;  // fills the buffers of its outputs by itself

  const std::string& name_for(const std::string& node) const {
    const auto found = node_names.find(node);
    return found == node_names.end() ? kernel_name : found->second;
  }
};

// An operator as one ONNX Runtime sees it. Never destroyed, and nor is its Op: sessions keep the address,
// and nobody says when the last of them is gone.
struct Registration {
  abi::CustomOp callbacks;  // first, so that the pointer ONNX Runtime hands back is the Registration's
  const Op* op;
  const abi::Api* api;
  int minor_release;  // of ONNX Runtime: 32 for 1.32
};

inline const Registration& registration_of(const abi::CustomOp* op) {
  return *reinterpret_cast<const Registration*>(op);
}
inline const Op& op_of(const abi::CustomOp* op) { return *registration_of(op).op; }

// The functions on the Python side that the bridge calls, set once when the package is imported.
// Leaked on purpose: sessions may outlive the interpreter.
struct Hooks {
  nb::object fail;                 // (exception, node, kernel_name, owned) -> text for ONNX Runtime
  nb::object collect;              // () takes what is left in cycles
  nb::object discard;              // (text of the failure) when a view of an input was kept
  nb::object hides;                // (array) -> whether some elements of it stand for nothing
  nb::object reject;               // (result, element types of the outputs) -> raises what is wrong with it
  nb::object select;               // (wanted, registered) -> ([(domain, [Op])], registered)
  nb::object result_error;         // the class for a result that is not what the model says
  nb::object pack;                 // (array, element type) -> the bytes of a 4-bit tensor
  nb::object unpack;               // (bytes, shape, element type) -> array
  bool debug = false;              // copy inputs, and poison what a kernel is given to fill
  std::vector<nb::object> dtypes;  // NumPy dtype by ONNX element type
};
Hooks& hooks();

// What happened while a session was made, kept for the thread that makes it.
struct KernelMade {
  std::string domain, op, node, provider, kernel;
};
struct Log {
  std::vector<KernelMade> kernels;
  std::vector<nb::object> errors;  // raised by infer functions; ONNX Runtime would drop them
};
std::vector<Log>& logs();  // a stack: a kernel may make a session of its own

abi::Status* infer_output_shapes(const abi::CustomOp* op, abi::ShapeInferContext* context) noexcept;

// A kernel's result that the model doesn't admit.
struct BadResult {
  std::string text;
};
// The Python error that is set, handed to hooks().fail, as a status. Needs the GIL.
abi::Status* python_failure(const abi::Api* api, const std::string& node, const std::string& kernel,
                            bool owned) noexcept;

}  // namespace ort_ops
