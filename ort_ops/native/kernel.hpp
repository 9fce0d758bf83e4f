// One node of one session, and the call that runs it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "op.hpp"
#include "ort_ops/shapes.hpp"

namespace ort_ops {

// What the model says of an output. A dimension is a number, or the same as a dimension of an input.
struct Expected {
  struct Dim {
    std::int64_t size = -1;  // -1: not fixed
    int input = -1;          // or the size of dimension `axis` of this input
    int axis = -1;
  };
  int type = 0;        // ONNX element type
  bool known = false;  // of the shape; false: the model says nothing, or it is a scalar's
  std::vector<Dim> dims;
};

struct Kernel {
  const Op* op;
  const abi::Api* api;
  std::string node;
  bool owned;          // the session is an ort_ops.InferenceSession, which raises by itself
  nb::object kwnames;  // a tuple of attribute names, or null where there are none
  std::vector<nb::object> kwvalues;
  std::vector<Expected> expected;
  mutable std::vector<nb::object> kept;  // what has to live as long as the session
  // What `output_shapes` said last, and for which types and shapes of the inputs.
  mutable std::vector<std::int64_t> asked;
  mutable std::vector<std::vector<std::int64_t>> answered;
};

// A run of one node: what the kernel is given and where its results go. Only valid during the run; a kernel
// that is handed the Call may keep it, so `over` is all that may be read of it later.
struct Call {
  Call(const Kernel& k, abi::KernelContext* c, nb::handle o) : kernel(k), context(c), owner(o) {}

  const Kernel& kernel;
  abi::KernelContext* context;
  nb::handle owner;  // every view of a buffer holds a reference to it
  bool over = false;

  std::size_t input_count() const;
  const abi::Value* input(std::size_t index) const;  // null: absent
  // The model's shape of an output with the symbols filled in; -1 where it says nothing.
  std::vector<std::int64_t> wanted_shape(std::size_t index) const;
  // Checks the shape against the model and allocates the output; null where nobody asked for it.
  abi::Value* allocate(std::size_t index, const std::vector<std::int64_t>& shape) const;
};

// The node's attributes as keyword arguments, and as a dict (attributes.cpp).
void read_attributes(Kernel& kernel, const abi::KernelInfo* info, int minor_release);
nb::dict attributes_of(const Kernel& kernel);
// Those that `infer` is given, as far as the node has them, while a session is made.
nb::dict inferred_attributes(const Op& op, const Shapes& shapes);

// An attribute for one run: a list is the kernel's own, which may change it.
nb::object attribute_value(const nb::object& value);

using detail::data_of;
using detail::type_and_shape;
using detail::TypeAndShape;

// NumPy arrays over ONNX Runtime's buffers (arrays.cpp).
void import_numpy();
std::uintptr_t address(nb::handle array);  // of a NumPy array's elements: NumPy's own way takes a microsecond
nb::object numpy_view(const Call& call, const abi::Value* value);
nb::object numpy_copy(const abi::Api* api, const abi::Value* value);
nb::object numpy_constant(const abi::Api* api, const abi::Value* value);  // which nobody can make writeable
nb::object numpy_output(const Call& call, std::size_t index, const std::vector<std::int64_t>& shape);
void store_numpy(const Call& call, nb::handle result);

// The strings of a tensor as Python str, and back (strings.cpp).
void read_strings(const abi::Api* api, const abi::Value* value, std::size_t count, PyObject** items);
void write_strings(const abi::Api* api, PyObject* const* items, std::size_t count, abi::Value* value);

// The shapes of the outputs for the inputs at hand: what `infer` says, or the model (infer.cpp).
std::vector<std::vector<std::int64_t>> output_shapes(const Call& call);

// Throws what `infer` raises for a node's inputs. ONNX Runtime drops that; for a session of plain onnxruntime
// it is said where a kernel is made, if `infer` raised for some session: which one isn't known there.
void refuse_failed_infer(const Kernel& kernel,
                         const std::vector<std::pair<int, std::optional<Dims>>>& inputs);

// Arrays that speak DLPack, for kernels that are handed the Call itself (arrays.cpp).
nb::object dlpack_view(const Call& call, const abi::Value* value);

abi::Status* create_kernel(const abi::CustomOp*, const abi::Api*, const abi::KernelInfo*, void**) noexcept;
abi::Status* compute_kernel(void* kernel, abi::KernelContext*) noexcept;
void destroy_kernel(void* kernel) noexcept;

}  // namespace ort_ops
