// A built-in operator whose constant inputs are packed once, as a session does for its own nodes.
//
// An operator that is invoked from a custom one (BuiltIn) gets its weights as they lie in memory; ONNX
// Runtime packs them for its kernels only where it makes a session. So this makes one of a single node, in
// memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ort_ops/context.hpp"

namespace ort_ops {

namespace detail {

// ONNX's files are protocol buffers: fields one after another, each a number and a value.
class Message {
 public:
  Message& number(int field, std::uint64_t value) {
    varint(static_cast<std::uint64_t>(field) << 3);
    varint(value);
    return *this;
  }
  Message& bytes(int field, const void* data, std::size_t size) {
    varint(static_cast<std::uint64_t>(field) << 3 | 2);
    varint(size);
    buffer_.append(static_cast<const char*>(data), size);
    return *this;
  }
  Message& text(int field, const std::string& value) { return bytes(field, value.data(), value.size()); }
  Message& message(int field, const Message& value) { return text(field, value.buffer_); }
  Message& fraction(int field, float value) {
    varint(static_cast<std::uint64_t>(field) << 3 | 5);
    buffer_.append(reinterpret_cast<const char*>(&value), sizeof value);
    return *this;
  }
  const std::string& buffer() const { return buffer_; }

 private:
  void varint(std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) buffer_.push_back(static_cast<char>(value | 0x80));
    buffer_.push_back(static_cast<char>(value));
  }
  std::string buffer_;
};

}  // namespace detail

// What a Packed operator is given besides its first input: a constant of its element type, which is copied.
struct PackedConstant {
  const void* data;
  std::size_t bytes;
  Shape shape;
};

class Packed {
 public:
  // Whether it can be made. Up to release 1.22 ONNX Runtime's Python module keeps an environment of its own,
  // and a second one in the process is an error.
  static bool is_there(const Node& node) { return node.minor_release() >= 23; }

  // One input is variable, the first; `constants` are those behind it, in order. All, and the one output, are
  // of element type `type`. It runs in the thread that calls it, and several threads may: see parallel_for.
  Packed(const Node& node, const char* name, int opset, int type,
         const std::vector<BuiltIn::Attribute>& attributes, const std::vector<PackedConstant>& constants)
      : api_(node.api()), env_(nullptr, {node.api()}), session_(nullptr, {node.api()}) {
    const std::string model = one_node(name, opset, type, attributes, constants);
    constexpr int kWarning = 2;
    abi::Env* env = nullptr;
    check(api_, abi::CreateEnv(api_, kWarning, "ort_ops", &env));  // the process's own, counted
    env_.reset(env);
    abi::SessionOptions* made = nullptr;
    check(api_, abi::CreateSessionOptions(api_, &made));
    const std::unique_ptr<abi::SessionOptions, Release> options(made, {api_});
    check(api_, abi::SetIntraOpNumThreads(api_, made, 1));
    abi::Session* session = nullptr;
    check(api_, abi::CreateSessionFromArray(api_, env, model.data(), model.size(), made, &session));
    session_.reset(session);
  }

  // Computes y, whose shape has to be the operator's.
  void operator()(const abi::Value* x, abi::Value* y) const {
    if (x == nullptr || y == nullptr) fail("a tensor of a packed operator is null; expected allocate before");
    const char* in = "x";
    const char* out = "y";
    check(api_, abi::Run(api_, session_.get(), nullptr, &in, &x, 1, &out, 1, &y));
  }

 private:
  struct Release {
    const abi::Api* api;
    void operator()(abi::Env* each) const { abi::ReleaseEnv(api, each); }
    void operator()(abi::Session* each) const { abi::ReleaseSession(api, each); }
    void operator()(abi::SessionOptions* each) const { abi::ReleaseSessionOptions(api, each); }
  };

  static std::string one_node(const char* name, int opset, int type,
                              const std::vector<BuiltIn::Attribute>& attributes,
                              const std::vector<PackedConstant>& constants) {
    detail::Message node, graph;
    node.text(1, "x");
    for (std::size_t i = 0; i < constants.size(); ++i) node.text(1, "c" + std::to_string(i));
    node.text(2, "y").text(4, name);
    for (const BuiltIn::Attribute& each : attributes) {
      detail::Message attribute;
      attribute.text(1, each.name);
      if (const auto* number = std::get_if<std::int64_t>(&each.value))
        attribute.number(3, static_cast<std::uint64_t>(*number)).number(20, 2);
      else if (const auto* fraction = std::get_if<float>(&each.value))
        attribute.fraction(2, *fraction).number(20, 1);
      else
        attribute.text(4, std::get<std::string>(each.value)).number(20, 3);
      node.message(5, attribute);
    }
    graph.message(1, node).text(2, "g");
    for (std::size_t i = 0; i < constants.size(); ++i) {
      detail::Message tensor;
      for (std::int64_t size : constants[i].shape) tensor.number(1, static_cast<std::uint64_t>(size));
      tensor.number(2, static_cast<std::uint64_t>(type)).text(8, "c" + std::to_string(i));
      tensor.bytes(9, constants[i].data, constants[i].bytes);
      graph.message(5, tensor);
    }
    detail::Message tensor_type, value_type, x, y;
    tensor_type.number(1, static_cast<std::uint64_t>(type));
    value_type.message(1, tensor_type);
    graph.message(11, x.text(1, "x").message(2, value_type));
    graph.message(12, y.text(1, "y").message(2, value_type));
    detail::Message imported, model;
    imported.text(1, "").number(2, static_cast<std::uint64_t>(opset));
    return model.number(1, 8).message(8, imported).message(7, graph).buffer();
  }

  const abi::Api* api_;
  std::unique_ptr<abi::Env, Release> env_;
  std::unique_ptr<abi::Session, Release> session_;
};

}  // namespace ort_ops
