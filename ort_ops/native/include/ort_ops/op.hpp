// Operators for ONNX Runtime in C++: a struct for each, and a list of them.
//
//   #include <ort_ops/op.hpp>
//
//   template <typename T>
//   struct Scale {
//     static constexpr const char* name = "Scale";
//     float factor;
//
//     explicit Scale(const ort_ops::Node& node) : factor(node.attribute("factor", 1.0f)) {}
//
//     static void infer(ort_ops::Shapes& shapes) { shapes.output(0, shapes.input(0)); }
//     void compute(ort_ops::Input<T> x, ort_ops::Output<T> y) const {
//       T* to = y.allocate(x.shape());
//       for (T each : x) *to++ = factor * each;
//     }
//   };
//
//   ORT_OPS_LIBRARY("mydomain", Scale<float>, Scale<double>)
//
// Compiled as a shared library, with this directory as its only include path and nothing linked, it is taken
// by every ONNX Runtime from 1.17 on: SessionOptions.register_custom_ops_library(path), in whatever language.
//
// What compute takes says what the operator has, in this order of ONNX's: Input<T>, HostInput<T> (always on
// the CPU), std::optional<Input<T>>, Inputs<T> (the last), Output<T>, OptionalOutput<T>, Outputs<T> (the
// last); and const Context& wherever it is wanted. It is const: several runs may be in it at once. What it
// throws, or the constructor, is an error of the session's or of the run's, with the node's name; fail("x is
// ", x.shape(), ...) writes one. Besides `name` a struct may have:
//
//   static constexpr const char* domain    instead of the library's
//   static constexpr const char* provider  "CUDAExecutionProvider"; the CPU's where there is none
//   static constexpr int since_version     the first version of the domain that has it; 1
//   static void infer(Shapes&)             output shapes, and types where they are Any
//
// Several structs of one name are one operator for several element types; they have the same inputs, outputs,
// attributes and since_version. The first that fits a node runs it.
#pragma once

#include <cstddef>
#include <exception>
#include <string>
#include <string_view>
#include <type_traits>

#include "ort_ops/context.hpp"
#include "ort_ops/library.hpp"
#include "ort_ops/node.hpp"
#include "ort_ops/packed.hpp"
#include "ort_ops/shapes.hpp"
#include "ort_ops/signature.hpp"
#include "ort_ops/tensor.hpp"

namespace ort_ops::detail {

// What a struct may have besides its name.
template <typename Op, typename = void>
struct Provider {
  static constexpr const char* value = nullptr;  // the CPU's
};
template <typename Op>
struct Provider<Op, std::void_t<decltype(Op::provider)>> {
  static constexpr const char* value = Op::provider;
};
template <typename Op, typename = void>
struct Domain {
  static constexpr const char* value = nullptr;
};
template <typename Op>
struct Domain<Op, std::void_t<decltype(Op::domain)>> {
  static constexpr const char* value = Op::domain;
};
template <typename Op, typename = void>
struct SinceVersion {
  static constexpr int value = 1;
};
template <typename Op>
struct SinceVersion<Op, std::void_t<decltype(Op::since_version)>> {
  static constexpr int value = Op::since_version;
};
template <typename Op, typename = void>
struct Infers : std::false_type {};
template <typename Op>
struct Infers<Op, std::void_t<decltype(&Op::infer)>> : std::true_type {};

// A kernel: the operator's struct as it was made for one node.
template <typename Op>
struct Kernel {
  const abi::Api* api;
  int minor_release;
  Op op;

  static Op make(const Node& node) {
    if constexpr (std::is_constructible_v<Op, const Node&>)
      return Op(node);
    else
      return Op();
  }
};

template <typename Op>
struct Callbacks {
  using Signature = typename SignatureOf<Op, decltype(&Op::compute)>::type;
  static constexpr bool kOnCuda =
      Provider<Op>::value != nullptr && std::string_view(Provider<Op>::value) == "CUDAExecutionProvider";

  static ElementTypes types() {
    ElementTypes types;
    for (const Formal& formal : Signature::formals) {
      const bool required = formal.characteristic == abi::kRequired;
      if (formal.role == Role::kInput) types.inputs.push_back(formal.type);
      if (formal.role == Role::kInput && !required) types.optional_inputs = true;
      if (formal.role == Role::kInput && formal.characteristic == abi::kVariadic)
        types.variadic_inputs = true;
      if (formal.role == Role::kOutput) types.outputs.push_back(formal.type);
      if (formal.role == Role::kOutput && required) ++types.required_outputs;
    }
    return types;
  }

  // "(x, x?, x...) -> (x) from version 1 on"
  static std::string form() {
    const auto list = [](Role role) {
      std::string text;
      for (const Formal& formal : Signature::formals)
        if (formal.role == role) {
          text += text.empty() ? "x" : ", x";
          if (formal.characteristic == abi::kOptional) text += "?";
          if (formal.characteristic == abi::kVariadic) text += "...";
        }
      return "(" + text + ")";
    };
    return list(Role::kInput) + " -> " + list(Role::kOutput) + " from version " +
           std::to_string(SinceVersion<Op>::value) + " on";
  }

  static abi::CustomOp table() {
    abi::CustomOp to = {};
    to.version = abi::kApiVersion;
    to.GetName = [](const abi::CustomOp*) -> const char* { return Op::name; };
    to.GetExecutionProviderType = [](const abi::CustomOp*) { return Provider<Op>::value; };
    to.GetInputType = [](const abi::CustomOp*, std::size_t i) { return input(i).type; };
    to.GetInputTypeCount = [](const abi::CustomOp*) { return Signature::count(Role::kInput); };
    to.GetOutputType = [](const abi::CustomOp*, std::size_t i) { return output(i).type; };
    to.GetOutputTypeCount = [](const abi::CustomOp*) { return Signature::count(Role::kOutput); };
    to.KernelDestroy = [](void* kernel) { delete static_cast<Kernel<Op>*>(kernel); };
    to.GetInputCharacteristic = [](const abi::CustomOp*, std::size_t i) { return input(i).characteristic; };
    to.GetOutputCharacteristic = [](const abi::CustomOp*, std::size_t i) { return output(i).characteristic; };
    to.GetInputMemoryType = [](const abi::CustomOp*, std::size_t i) -> int {
      return input(i).memory == Memory::kHost ? abi::kCpuInput : abi::kDefaultMemory;
    };
    to.GetVariadicInputMinArity = [](const abi::CustomOp*) { return 0; };
    to.GetVariadicInputHomogeneity = [](const abi::CustomOp*) {
      return input(Signature::count(Role::kInput) - 1).type == 0 ? 0 : 1;
    };
    to.GetVariadicOutputMinArity = [](const abi::CustomOp*) { return 1; };
    to.GetVariadicOutputHomogeneity = [](const abi::CustomOp*) {
      return output(Signature::count(Role::kOutput) - 1).type == 0 ? 0 : 1;
    };
    to.CreateKernelV2 = create;
    to.KernelComputeV2 = compute;
    if constexpr (Infers<Op>::value) to.InferOutputShapeFn = infer;
    // Asked for where a session begins to be made, before anything of its model.
    to.GetStartVersion = [](const abi::CustomOp* self) {
      Registration::of(self).infer_error->forget();
      return SinceVersion<Op>::value;
    };
    to.GetEndVersion = [](const abi::CustomOp*) { return 0x7fffffff; };
    return to;
  }

 private:
  static constexpr Formal input(std::size_t i) { return Signature::nth(Role::kInput, i); }
  static constexpr Formal output(std::size_t i) { return Signature::nth(Role::kOutput, i); }

  static abi::Status* create(const abi::CustomOp* self, const abi::Api* api, const abi::KernelInfo* info,
                             void** out) noexcept {
    const Registration& registration = Registration::of(self);
    const Node node(api, info, registration.minor_release);
    // Of a run that fails ONNX Runtime says the node, of a kernel that can't be made it doesn't.
    const auto named = [&] { return registration.name + " node \"" + node.name() + "\""; };
    const auto where = [&] { return named() + ": "; };
    // ONNX Runtime doesn't say whose shapes an infer function is asked for.
    const auto either = [&] { return named() + ", or another node of this operator: "; };
    if (abi::Status* failed = guarded(api, [&] { registration.infer_error->raise(); }, either)) return failed;
    return guarded(
        api, [&] { *out = new Kernel<Op>{api, registration.minor_release, Kernel<Op>::make(node)}; }, where);
  }

  static abi::Status* compute(void* instance, abi::KernelContext* context) noexcept {
    const auto& kernel = *static_cast<const Kernel<Op>*>(instance);
    return guarded(kernel.api, [&] {
      const Context ours(kernel.api, context, kernel.minor_release, kOnCuda);
      Signature::run(kernel.op, kernel.api, kernel.minor_release, context, ours);
    });
  }

  // ONNX Runtime would drop a status from here without a word: it is kept until the kernel is made.
  static abi::Status* infer(const abi::CustomOp* self, abi::ShapeInferContext* context) noexcept {
    const Registration& registration = Registration::of(self);
    try {
      Shapes shapes(registration.api, context, registration.overloads, registration.minor_release);
      Op::infer(shapes);
    } catch (const std::exception& error) {
      registration.infer_error->keep(registration.name, detail::what_of(error));
    } catch (...) {
      registration.infer_error->keep(registration.name, "an exception that is no std::exception");
    }
    return nullptr;
  }
};

template <typename Op>
Entry entry_of(const char* library_domain) {
  const char* domain = Domain<Op>::value == nullptr ? library_domain : Domain<Op>::value;
  if (std::string_view(domain) == "ai.onnx") domain = "";  // ONNX's own, by its other name
  return Entry{domain, Op::name, Callbacks<Op>::form(), Callbacks<Op>::types(), Callbacks<Op>::table()};
}

}  // namespace ort_ops::detail

// Defines the function by which ONNX Runtime takes a library, with these operators in this domain.
#define ORT_OPS_LIBRARY(library_domain, ...)                                                          \
  ORT_OPS_EXPORT ort_ops::abi::Status* RegisterCustomOps(ort_ops::abi::SessionOptions* options,       \
                                                         const ort_ops::abi::ApiBase* base) {         \
    static const char here = 0;                                                                       \
    static const auto& library = *ort_ops::detail::Library::make<__VA_ARGS__>(library_domain, &here); \
    return library.add_to(options, base);                                                             \
  }
