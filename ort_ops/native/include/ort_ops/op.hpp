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
// Several structs of one name are one operator for several element types; they have the same inputs, outputs
// and attributes. The first that fits a node runs it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "ort_ops/context.hpp"
#include "ort_ops/library.hpp"
#include "ort_ops/node.hpp"
#include "ort_ops/packed.hpp"
#include "ort_ops/shapes.hpp"
#include "ort_ops/tensor.hpp"

namespace ort_ops::detail {

enum class Role { kInput, kOutput, kContext };

// What a parameter of compute declares.
struct Formal {
  Role role;
  int type;
  int characteristic;
  Memory memory;
};

template <typename Parameter>
struct Declares {
  static_assert(sizeof(Parameter) == 0,
                "compute takes Input<T>, std::optional<Input<T>>, Inputs<T>, Output<T>, OptionalOutput<T>, "
                "Outputs<T> and const Context&");
};
template <typename T, Memory kMemory>
struct Declares<Input<T, kMemory>> {
  static constexpr Formal value{Role::kInput, element_type<T>, abi::kRequired, kMemory};
};
template <typename T, Memory kMemory>
struct Declares<std::optional<Input<T, kMemory>>> {
  static constexpr Formal value{Role::kInput, element_type<T>, abi::kOptional, kMemory};
};
template <typename T>
struct Declares<std::vector<Input<T>>> {
  static constexpr Formal value{Role::kInput, element_type<T>, abi::kVariadic, Memory::kDevice};
};
template <typename T>
struct Declares<Output<T>> {
  static constexpr Formal value{Role::kOutput, element_type<T>, abi::kRequired, Memory::kDevice};
};
template <typename T>
struct Declares<OptionalOutput<T>> {
  static constexpr Formal value{Role::kOutput, element_type<T>, abi::kOptional, Memory::kDevice};
};
template <typename T>
struct Declares<std::vector<Output<T>>> {
  static constexpr Formal value{Role::kOutput, element_type<T>, abi::kVariadic, Memory::kDevice};
};
template <>
struct Declares<Context> {
  static constexpr Formal value{Role::kContext, 0, abi::kRequired, Memory::kDevice};
};

// The run of one node, from which compute's arguments are made.
struct Call {
  const abi::Api* api;
  abi::KernelContext* context;
  const Context& ours;
  std::size_t input_count, output_count;

  Call(const abi::Api* a, abi::KernelContext* c, const Context& o) : api(a), context(c), ours(o) {
    check(api, abi::GetInputCount(api, context, &input_count));
    check(api, abi::GetOutputCount(api, context, &output_count));
  }
  const abi::Value* input(std::size_t index) const {
    const abi::Value* value = nullptr;
    if (index < input_count) check(api, abi::GetInput(api, context, index, &value));
    return value;
  }
};

template <typename Parameter>
struct Make;
template <typename T, Memory kMemory>
struct Make<Input<T, kMemory>> {
  static Input<T, kMemory> from(const Call& call, std::size_t index) {
    const abi::Value* value = call.input(index);
    if (value == nullptr) fail("input ", index, " is absent; expected a tensor");
    return Input<T, kMemory>(call.api, value);
  }
};
template <typename T, Memory kMemory>
struct Make<std::optional<Input<T, kMemory>>> {
  static std::optional<Input<T, kMemory>> from(const Call& call, std::size_t index) {
    const abi::Value* value = call.input(index);
    if (value == nullptr) return std::nullopt;
    return Input<T, kMemory>(call.api, value);
  }
};
template <typename T>
struct Make<std::vector<Input<T>>> {
  static std::vector<Input<T>> from(const Call& call, std::size_t index) {
    std::vector<Input<T>> rest;
    for (; index < call.input_count; ++index) rest.push_back(Make<Input<T>>::from(call, index));
    return rest;
  }
};
template <typename T>
struct Make<Output<T>> {
  static Output<T> from(const Call& call, std::size_t index) {
    return Output<T>(call.api, call.context, index);
  }
};
template <typename T>
struct Make<OptionalOutput<T>> {
  static OptionalOutput<T> from(const Call& call, std::size_t index) {
    return OptionalOutput<T>(call.api, index < call.output_count ? call.context : nullptr, index);
  }
};
template <typename T>
struct Make<std::vector<Output<T>>> {
  static std::vector<Output<T>> from(const Call& call, std::size_t index) {
    std::vector<Output<T>> rest;
    for (; index < call.output_count; ++index) rest.emplace_back(call.api, call.context, index);
    return rest;
  }
};
template <>
struct Make<Context> {
  static const Context& from(const Call& call, std::size_t) { return call.ours; }
};

template <typename Op, typename... Parameters>
struct Signature {
  static constexpr std::array<Formal, sizeof...(Parameters)> formals{
      Declares<std::remove_cv_t<std::remove_reference_t<Parameters>>>::value...};

  // The place among the inputs, or the outputs, of the formal at `index` in the signature.
  static constexpr std::size_t place(std::size_t index) {
    std::size_t place = 0;
    for (std::size_t i = 0; i < index; ++i) place += formals[i].role == formals[index].role ? 1 : 0;
    return place;
  }
  static constexpr std::size_t count(Role role) {
    std::size_t count = 0;
    for (const Formal& formal : formals) count += formal.role == role ? 1 : 0;
    return count;
  }
  static constexpr Formal nth(Role role, std::size_t wanted) {
    for (std::size_t i = 0; i < formals.size(); ++i)
      if (formals[i].role == role && place(i) == wanted) return formals[i];
    return formals[0];
  }

  static void run(const Op& op, const Call& call) {
    run(op, call, std::make_index_sequence<sizeof...(Parameters)>());
  }

 private:
  template <std::size_t... kIndex>
  static void run(const Op& op, const Call& call, std::index_sequence<kIndex...>) {
    op.compute(Make<std::remove_cv_t<std::remove_reference_t<Parameters>>>::from(call, place(kIndex))...);
  }
};

template <typename Op, typename Method>
struct SignatureOf {
  static_assert(sizeof(Op) == 0, "compute is a const method that returns void");
};
template <typename Op, typename Base, typename... Parameters>
struct SignatureOf<Op, void (Base::*)(Parameters...) const> {
  using type = Signature<Op, Parameters...>;
};

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
  static constexpr bool kOnCuda = Provider<Op>::value != nullptr;

  static ElementTypes types() {
    ElementTypes types;
    for (const Formal& formal : Signature::formals) {
      if (formal.role == Role::kInput) types.inputs.push_back(formal.type);
      if (formal.role == Role::kOutput) types.outputs.push_back(formal.type);
    }
    return types;
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
    to.GetStartVersion = [](const abi::CustomOp*) { return SinceVersion<Op>::value; };
    to.GetEndVersion = [](const abi::CustomOp*) { return 0x7fffffff; };
    return to;
  }

 private:
  static constexpr Formal input(std::size_t i) { return Signature::nth(Role::kInput, i); }
  static constexpr Formal output(std::size_t i) { return Signature::nth(Role::kOutput, i); }

  static abi::Status* create(const abi::CustomOp* self, const abi::Api* api, const abi::KernelInfo* info,
                             void** out) noexcept {
    const Registration& registration = Registration::of(self);
    return guarded(api, [&] {
      registration.raise_infer_error();
      const Node node(api, info, registration.minor_release);
      *out = new Kernel<Op>{api, Kernel<Op>::make(node)};
    });
  }

  static abi::Status* compute(void* instance, abi::KernelContext* context) noexcept {
    const auto& kernel = *static_cast<const Kernel<Op>*>(instance);
    return guarded(kernel.api, [&] {
      const Context ours(kernel.api, context, kOnCuda);
      Signature::run(kernel.op, Call(kernel.api, context, ours));
    });
  }

  // ONNX Runtime would drop a status from here without a word: it is kept until the kernel is made.
  static abi::Status* infer(const abi::CustomOp* self, abi::ShapeInferContext* context) noexcept {
    const Registration& registration = Registration::of(self);
    try {
      Shapes shapes(registration.api, context, registration.overloads);
      Op::infer(shapes);
    } catch (const std::exception& error) {
      registration.keep_infer_error(error.what());
    } catch (...) {
      registration.keep_infer_error("an exception that is no std::exception");
    }
    return nullptr;
  }
};

template <typename Op>
Entry entry_of(const char* library_domain) {
  const char* domain = Domain<Op>::value == nullptr ? library_domain : Domain<Op>::value;
  return Entry{domain, Op::name, Callbacks<Op>::types(), Callbacks<Op>::table()};
}

}  // namespace ort_ops::detail

// Defines the function by which ONNX Runtime takes a library, with these operators in this domain.
#define ORT_OPS_LIBRARY(library_domain, ...)                                                    \
  ORT_OPS_EXPORT ort_ops::abi::Status* RegisterCustomOps(ort_ops::abi::SessionOptions* options, \
                                                         const ort_ops::abi::ApiBase* base) {   \
    static const auto& library = *ort_ops::detail::Library::make<__VA_ARGS__>(library_domain);  \
    return library.add_to(options, base);                                                       \
  }
