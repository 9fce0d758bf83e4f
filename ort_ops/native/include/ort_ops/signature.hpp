// What an operator has, read off the parameters of its compute, and the arguments of a call.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include "ort_ops/context.hpp"
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

// The run of one node, from which compute's arguments are made.
struct Call {
  const abi::Api* api;
  int minor_release;
  abi::KernelContext* context;
  const Context& ours;
  std::size_t input_count, output_count;  // of this node, which may have left optional ones out
  char* made = nullptr;                   // for each output, 1 once it is allocated

  const abi::Value* input(std::size_t index) const {
    const abi::Value* value = nullptr;
    if (index < input_count) check(api, abi::GetInput(api, context, index, &value));
    return value;
  }
};

// What a parameter of compute declares, and how its argument is made; `index` is its place among the inputs,
// or among the outputs.
template <typename P>
struct Parameter {
  static_assert(sizeof(P) == 0,
                "compute takes Input<T>, std::optional<Input<T>>, Inputs<T>, Output<T>, OptionalOutput<T>, "
                "Outputs<T> and const Context&");
};
template <typename T, Memory kMemory>
struct Parameter<Input<T, kMemory>> {
  static constexpr Formal formal{Role::kInput, element_type<T>, abi::kRequired, kMemory};
  static Input<T, kMemory> from(const Call& call, std::size_t index) {
    const abi::Value* value = call.input(index);
    if (value == nullptr) fail("input ", index, " is absent; expected a tensor");
    return Input<T, kMemory>(call.api, value, call.minor_release);
  }
};
template <typename T, Memory kMemory>
struct Parameter<std::optional<Input<T, kMemory>>> {
  static constexpr Formal formal{Role::kInput, element_type<T>, abi::kOptional, kMemory};
  static std::optional<Input<T, kMemory>> from(const Call& call, std::size_t index) {
    const abi::Value* value = call.input(index);
    if (value == nullptr) return std::nullopt;
    return Input<T, kMemory>(call.api, value, call.minor_release);
  }
};
template <typename T>
struct Parameter<std::vector<Input<T>>> {
  static constexpr Formal formal{Role::kInput, element_type<T>, abi::kVariadic, Memory::kDevice};
  static std::vector<Input<T>> from(const Call& call, std::size_t index) {
    std::vector<Input<T>> rest;
    for (; index < call.input_count; ++index) rest.push_back(Parameter<Input<T>>::from(call, index));
    return rest;
  }
};
template <typename T>
struct Parameter<Output<T>> {
  static constexpr Formal formal{Role::kOutput, element_type<T>, abi::kRequired, Memory::kDevice};
  static Output<T> from(const Call& call, std::size_t index) {
    return Output<T>(call.api, call.context, index, call.made + index);
  }
};
template <typename T>
struct Parameter<OptionalOutput<T>> {
  static constexpr Formal formal{Role::kOutput, element_type<T>, abi::kOptional, Memory::kDevice};
  static OptionalOutput<T> from(const Call& call, std::size_t index) {
    return OptionalOutput<T>(call.api, index < call.output_count ? call.context : nullptr, index);
  }
};
template <typename T>
struct Parameter<std::vector<Output<T>>> {
  static constexpr Formal formal{Role::kOutput, element_type<T>, abi::kVariadic, Memory::kDevice};
  static std::vector<Output<T>> from(const Call& call, std::size_t index) {
    std::vector<Output<T>> rest;
    for (; index < call.output_count; ++index)
      rest.emplace_back(call.api, call.context, index, call.made + index);
    return rest;
  }
};
template <>
struct Parameter<Context> {
  static constexpr Formal formal{Role::kContext, 0, abi::kRequired, Memory::kDevice};
  static const Context& from(const Call& call, std::size_t) { return call.ours; }
};

template <typename Op, typename... Parameters>
struct Signature {
  static constexpr std::array<Formal, sizeof...(Parameters)> formals{
      Parameter<std::remove_cv_t<std::remove_reference_t<Parameters>>>::formal...};

  // The place among the inputs, or the outputs, of the formal at `index` in the signature.
  static constexpr std::size_t place(std::size_t index) {
    std::size_t place = 0;
    for (std::size_t i = 0; i < index; ++i) place += formals[i].role == formals[index].role ? 1U : 0U;
    return place;
  }
  static constexpr std::size_t count(Role role) {
    std::size_t count = 0;
    for (const Formal& formal : formals) count += formal.role == role ? 1U : 0U;
    return count;
  }
  static constexpr Formal nth(Role role, std::size_t wanted) {
    for (std::size_t i = 0; i < formals.size(); ++i)
      if (formals[i].role == role && place(i) == wanted) return formals[i];
    return formals[0];
  }

  static constexpr bool has(int characteristic) {
    bool found = false;
    for (const Formal& formal : formals) found = found || formal.characteristic == characteristic;
    return found;
  }

  static constexpr bool many_are_last() {
    bool last = true;
    for (std::size_t i = 0; i < formals.size(); ++i)
      if (formals[i].characteristic == abi::kVariadic) last = last && place(i) + 1 == count(formals[i].role);
    return last;
  }

  static void run(const Op& op, const abi::Api* api, int minor_release, abi::KernelContext* context,
                  const Context& ours) {
    static_assert(many_are_last(), "Inputs<T> are compute's last inputs, Outputs<T> its last outputs");
    static_assert((std::is_convertible_v<std::remove_reference_t<Parameters>&&, Parameters> && ...),
                  "compute takes its arguments by value or by const reference");
    Call call{api, minor_release, context, ours, count(Role::kInput), count(Role::kOutput)};
    if constexpr (has(abi::kOptional) || has(abi::kVariadic)) {
      check(api, abi::GetInputCount(api, context, &call.input_count));
      check(api, abi::GetOutputCount(api, context, &call.output_count));
    }
    std::conditional_t<has(abi::kVariadic), std::vector<char>, std::array<char, count(Role::kOutput)>> made{};
    if constexpr (has(abi::kVariadic)) made.resize(call.output_count);
    call.made = made.data();
    run(op, call, std::make_index_sequence<sizeof...(Parameters)>());
    for (std::size_t i = 0; i < call.output_count; ++i)
      if (!made[i] && output(i).characteristic != abi::kOptional)
        fail("output ", i, " was not allocated; expected allocate, of no elements too");
  }

 private:
  // The formal of a node's output; the last one's are those behind it.
  static constexpr Formal output(std::size_t index) {
    return nth(Role::kOutput, (std::min)(index, count(Role::kOutput) - 1));
  }

  template <std::size_t... kIndex>
  static void run(const Op& op, const Call& call, std::index_sequence<kIndex...>) {
    op.compute(
        Parameter<std::remove_cv_t<std::remove_reference_t<Parameters>>>::from(call, place(kIndex))...);
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
template <typename Op, typename Base, typename... Parameters>
struct SignatureOf<Op, void (Base::*)(Parameters...) const noexcept> {
  using type = Signature<Op, Parameters...>;
};

}  // namespace ort_ops::detail
