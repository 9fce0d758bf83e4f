// One run of a node: the stream, memory for the time of it, loops in ONNX Runtime's threads, and built-in
// operators to be invoked.
#pragma once

#include <cstddef>
#include <exception>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "ort_ops/node.hpp"
#include "ort_ops/tensor.hpp"

namespace ort_ops {

// Memory of ONNX Runtime's that is given back where this ends.
template <typename T>
class Scratch {
  static_assert(std::is_trivially_copyable_v<T>, "scratch is memory alone: nothing is constructed in it");

 public:
  // Takes the allocator; `allocate` (bytes, data) is asked for memory that it takes back.
  template <typename Allocate>
  Scratch(const abi::Api* api, abi::Allocator* allocator, std::size_t count, const Allocate& allocate)
      : allocator_(allocator, Release{api}), count_(count) {
    if (count == 0) return;
    if (count > static_cast<std::size_t>(-1) / sizeof(T)) throw std::bad_alloc();
    void* data = nullptr;
    check(api, allocate(count * sizeof(T), &data));
    data_ = static_cast<T*>(data);
  }
  Scratch(Scratch&& other) noexcept
      : allocator_(std::move(other.allocator_)),
        count_(other.count_),
        data_(std::exchange(other.data_, nullptr)) {}
  Scratch& operator=(Scratch&&) = delete;
  ~Scratch() {
    const abi::Api* api = allocator_.get_deleter().api;
    if (data_ != nullptr) present(api, abi::AllocatorFree(api, allocator_.get(), data_));
  }

  T* data() const { return data_; }
  std::size_t size() const { return count_; }
  T& operator[](std::size_t i) const { return data_[i]; }

 private:
  struct Release {
    const abi::Api* api;
    void operator()(abi::Allocator* allocator) const { abi::ReleaseAllocator(api, allocator); }
  };
  std::unique_ptr<abi::Allocator, Release> allocator_;
  std::size_t count_;
  T* data_ = nullptr;
};

// A tensor over memory that somebody else keeps.
class Wrapped {
 public:
  Wrapped(const abi::Api* api, abi::Value* value) : value_(value, Release{api}) {}
  abi::Value* value() const { return value_.get(); }

 private:
  struct Release {
    const abi::Api* api;
    void operator()(abi::Value* value) const { abi::ReleaseValue(api, value); }
  };
  std::unique_ptr<abi::Value, Release> value_;
};

namespace detail {
struct ReleaseMemoryInfo {
  const abi::Api* api;
  void operator()(abi::MemoryInfo* info) const { abi::ReleaseMemoryInfo(api, info); }
};
using MemoryInfo = std::unique_ptr<abi::MemoryInfo, ReleaseMemoryInfo>;

inline MemoryInfo memory_info(const abi::Api* api, const char* name, int device) {
  constexpr int kArena = 1, kDefault = 0;
  abi::MemoryInfo* info = nullptr;
  check(api, abi::CreateMemoryInfo(api, name, kArena, device, kDefault, &info));
  return MemoryInfo(info, ReleaseMemoryInfo{api});
}
}  // namespace detail

class Context {
 public:
  // minor_release: of ONNX Runtime, 32 for 1.32.
  Context(const abi::Api* api, abi::KernelContext* context, int minor_release, bool on_cuda)
      : api_(api), context_(context), minor_release_(minor_release), on_cuda_(on_cuda) {}

  // Another for the same run: for one of several threads.
  Context(const Context& other) : Context(other.api_, other.context_, other.minor_release_, other.on_cuda_) {}
  Context& operator=(const Context&) = delete;

  // The CUDA stream (cudaStream_t) on which everything has to be launched; null on the CPU.
  void* stream() const {
    void* stream = nullptr;
    if (on_cuda_) check(api_, abi::GetGpuComputeStream(api_, context_, &stream));
    return stream;
  }

  // Memory of the provider's device for `count` elements, until the Scratch ends. To be asked for in the
  // thread that compute runs in, as wrap is.
  template <typename T>
  Scratch<T> scratch(std::size_t count) const {
    abi::Allocator* allocator = nullptr;
    check(api_, abi::GetContextAllocator(api_, context_, memory(), &allocator));
    return Scratch<T>(api_, allocator, count, [&](std::size_t bytes, void** data) {
      // On a GPU it is given back while kernels on the stream may still use it: so it is the stream's, and no
      // other run is given it before they are through. Releases before 1.18 have no such memory.
      if (on_cuda_ && minor_release_ >= 18)
        return abi::GetScratchBuffer(api_, context_, memory(), bytes, data);
      return abi::AllocatorAlloc(api_, allocator, bytes, data);
    });
  }

  // A tensor over memory of the provider's device, to be handed to a built-in operator.
  template <typename T>
  Wrapped wrap(T* data, const Shape& shape) const {
    abi::Value* value = nullptr;
    auto* bytes = const_cast<std::remove_const_t<T>*>(data);
    check(api_, abi::CreateTensorWithData(api_, memory(), bytes, count_of(shape) * sizeof(T), shape.data(),
                                          shape.size(), element_type<std::remove_const_t<T>>, &value));
    return Wrapped(api_, value);
  }

  // Calls body(0) to body(count - 1) in ONNX Runtime's threads, and returns when all have ended. What one of
  // them throws is thrown here. Inputs are asked for their shape and data before, not in several threads.
  template <typename Body>
  void parallel_for(std::size_t count, const Body& body) const {
    struct Shared {
      const Body& body;
      std::mutex mutex;
      std::exception_ptr error;
    } shared{body, {}, nullptr};
    auto run = [](void* data, std::size_t i) {
      auto& each = *static_cast<Shared*>(data);
      try {
        each.body(i);
      } catch (...) {
        const std::lock_guard<std::mutex> lock(each.mutex);
        if (!each.error) each.error = std::current_exception();
      }
    };
    constexpr std::size_t kAsManyAsThereAreThreads = 0;
    check(api_, abi::ParallelFor(api_, context_, run, count, kAsManyAsThereAreThreads, &shared));
    if (shared.error) std::rethrow_exception(shared.error);
  }

  const abi::Api* api() const { return api_; }
  abi::KernelContext* context() const { return context_; }

 private:
  const abi::MemoryInfo* memory() const {
    if (!memory_)
      memory_ = on_cuda_ ? detail::memory_info(api_, "Cuda", device()) : detail::memory_info(api_, "Cpu", 0);
    return memory_.get();
  }

  // The number of the GPU that the first input on one is on.
  int device() const {
    std::size_t count = 0;
    check(api_, abi::GetInputCount(api_, context_, &count));
    for (std::size_t i = 0; i < count; ++i) {
      const abi::Value* value = nullptr;
      const abi::MemoryInfo* info = nullptr;
      check(api_, abi::GetInput(api_, context_, i, &value));
      if (value == nullptr || !present(api_, abi::GetTensorMemoryInfo(api_, value, &info))) continue;
      int kind = 0, id = 0;
      abi::MemoryInfoGetDeviceType(api_, info, &kind);
      check(api_, abi::MemoryInfoGetId(api_, info, &id));
      if (kind == 1) return id;
    }
    return 0;
  }

  const abi::Api* api_;
  abi::KernelContext* context_;
  int minor_release_;
  bool on_cuda_;
  mutable detail::MemoryInfo memory_{nullptr, {nullptr}};
};

// An operator of ONNX Runtime's own, on the provider of the node that it is made for.
//
//   gemm(node, "Gemm", 13, {{"T", element_type<float>}}, {{"transB", 1}, {"alpha", 1.0f}, ...}, 3, 1)
//   gemm(context, {x.value(), weight.value(), bias.value()}, {y.value()})
//
// Every attribute has to be given, those with a default included. Throws where the provider has no such
// kernel.
class BuiltIn {
 public:
  struct Type {
    const char* name;  // of the type constraint in the operator's schema
    int type;
  };
  struct Attribute {
    const char* name;
    std::variant<std::int64_t, float, std::string> value;
    Attribute(const char* key, int number) : name(key), value(static_cast<std::int64_t>(number)) {}
    Attribute(const char* key, std::int64_t number) : name(key), value(number) {}
    Attribute(const char* key, float number) : name(key), value(number) {}
    Attribute(const char* key, std::string text) : name(key), value(std::move(text)) {}
  };

  BuiltIn(const Node& node, const char* name, int since_version, std::initializer_list<Type> types,
          std::initializer_list<Attribute> attributes, int inputs, int outputs)
      : api_(node.api()) {
    std::vector<const char*> names;
    std::vector<int> numbers;
    for (const Type& each : types) {
      names.push_back(each.name);
      numbers.push_back(each.type);
    }
    Attributes made(api_);
    for (const Attribute& each : attributes) made.add(each);
    check(api_, abi::CreateOp(api_, node.info(), name, "", since_version, names.data(), numbers.data(),
                              static_cast<int>(names.size()), made.each.data(),
                              static_cast<int>(made.each.size()), inputs, outputs, &op_));
  }
  BuiltIn(BuiltIn&& other) noexcept : api_(other.api_), op_(std::exchange(other.op_, nullptr)) {}
  BuiltIn& operator=(BuiltIn&&) = delete;
  ~BuiltIn() {
    if (op_ != nullptr) abi::ReleaseOp(api_, op_);
  }

  // Runs it; an input may be null where the operator lets it be absent. Outputs are allocated before, of the
  // shapes that the operator gives: ONNX Runtime writes into them unseen.
  void operator()(const Context& context, std::initializer_list<const abi::Value*> inputs,
                  std::initializer_list<abi::Value*> outputs) const {
    for (const abi::Value* output : outputs)
      if (output == nullptr) fail("an output of a built-in operator is null; expected allocate before");
    check(api_, abi::InvokeOp(api_, context.context(), op_, inputs.begin(), static_cast<int>(inputs.size()),
                              outputs.begin(), static_cast<int>(outputs.size())));
  }

 private:
  struct Attributes {
    explicit Attributes(const abi::Api* a) : api(a) {}
    Attributes(const Attributes&) = delete;
    ~Attributes() {
      for (abi::OpAttr* attribute : each) abi::ReleaseOpAttr(api, attribute);
    }
    void add(const Attribute& from) {
      abi::OpAttr* made = nullptr;
      if (const auto* number = std::get_if<std::int64_t>(&from.value))
        check(api, abi::CreateOpAttr(api, from.name, number, 1, abi::kInt, &made));
      else if (const auto* fraction = std::get_if<float>(&from.value))
        check(api, abi::CreateOpAttr(api, from.name, fraction, 1, abi::kFloat, &made));
      else {
        const auto& text = std::get<std::string>(from.value);
        check(api, abi::CreateOpAttr(api, from.name, text.data(), static_cast<int>(text.size()), abi::kString,
                                     &made));
      }
      each.push_back(made);
    }
    const abi::Api* api;
    std::vector<abi::OpAttr*> each;
  };

  const abi::Api* api_;
  abi::Op* op_ = nullptr;
};

}  // namespace ort_ops
