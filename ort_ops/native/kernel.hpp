// One node of one session, and the call that runs it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "op.hpp"

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
  // Checks the shape against the model and allocates the output; null where nobody asked for it.
  abi::Value* allocate(std::size_t index, const std::vector<std::int64_t>& shape) const;
};

TensorType type_and_shape(const abi::Api* api, const abi::Value* value);
void* data_of(const abi::Api* api, const abi::Value* value);

// NumPy arrays over ONNX Runtime's buffers (arrays.cpp).
void import_numpy();
nb::object numpy_view(const Call& call, const abi::Value* value);
void store_numpy(const Call& call, nb::handle result);

// Arrays that speak DLPack, for kernels that are handed the Call itself (arrays.cpp).
nb::object dlpack_view(const Call& call, const abi::Value* value);

abi::Status* create_kernel(const abi::CustomOp*, const abi::Api*, const abi::KernelInfo*, void**) noexcept;
abi::Status* compute_kernel(void* kernel, abi::KernelContext*) noexcept;
void destroy_kernel(void* kernel) noexcept;

}  // namespace ort_ops
