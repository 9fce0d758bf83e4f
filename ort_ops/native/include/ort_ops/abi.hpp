// The part of ONNX Runtime's C ABI that custom operators need, declared anew.
//
// ONNX Runtime publishes its API as a table of function pointers that is only ever appended to: a slot,
// once released, keeps its index and signature for good. So a slot is named here by its index, and
// nothing has to be linked and no header of ONNX Runtime's is needed. All slots below are in every
// release from 1.17 on (API version 17) unless the comment beside one says otherwise.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ort_ops::abi {

// The API version that we ask for and that our operators declare. 16 would drop shape inference, and
// releases before the newest crash on a version that they don't know.
inline constexpr std::uint32_t kApiVersion = 17;

// Opaque types, owned by ONNX Runtime.
struct Allocator;
struct CustomOpDomain;
struct Env;
struct KernelContext;
struct KernelInfo;
struct MemoryInfo;
struct Op;  // a built-in operator, to be invoked from a custom one
struct OpAttr;
struct RunOptions;
struct Session;
struct SessionOptions;
struct ShapeInferContext;
struct Status;
struct TensorInfo;  // OrtTensorTypeAndShapeInfo
struct TypeInfo;
struct Value;

struct ApiBase {
  const void* (*GetApi)(std::uint32_t version);  // null when the runtime is older than `version`
  const char* (*GetVersionString)();
};

using Api = void (*const)();  // the first entry of the table

enum ErrorCode : int {
  kFail = 1,
  kInvalidArgument = 2,
  kNotImplemented = 9,
  // 11 (EP_FAIL) is never returned: the Python session would fall back to the CPU and run again.
};

enum Characteristic : int { kRequired = 0, kOptional = 1, kVariadic = 2 };
enum MemoryType : int { kCpuInput = -2, kDefaultMemory = 0 };
enum AttributeType : int {
  kUndefinedAttribute = 0,
  kInt = 1,
  kInts = 2,
  kFloat = 3,
  kFloats = 4,
  kString = 5,
  kStrings = 6,
  kTensor = 8,
  // Ours, for what an ONNX attribute stands for in Python.
  kBool = 100,   // of INT
  kBools = 101,  // of INTS
  kBytes = 102,  // of STRING
};

// The struct by which an operator is handed over. It has to stay where it is for as long as any session
// that saw it. Entries are in the order of the ABI; a null entry means "not provided".
struct CustomOp {
  std::uint32_t version;
  void* (*CreateKernel)(const CustomOp*, const Api*, const KernelInfo*);
  const char* (*GetName)(const CustomOp*);
  const char* (*GetExecutionProviderType)(const CustomOp*);
  int (*GetInputType)(const CustomOp*, std::size_t);
  std::size_t (*GetInputTypeCount)(const CustomOp*);
  int (*GetOutputType)(const CustomOp*, std::size_t);
  std::size_t (*GetOutputTypeCount)(const CustomOp*);
  void (*KernelCompute)(void*, KernelContext*);
  void (*KernelDestroy)(void*);
  int (*GetInputCharacteristic)(const CustomOp*, std::size_t);
  int (*GetOutputCharacteristic)(const CustomOp*, std::size_t);
  int (*GetInputMemoryType)(const CustomOp*, std::size_t);
  int (*GetVariadicInputMinArity)(const CustomOp*);
  int (*GetVariadicInputHomogeneity)(const CustomOp*);
  int (*GetVariadicOutputMinArity)(const CustomOp*);
  int (*GetVariadicOutputHomogeneity)(const CustomOp*);
  Status* (*CreateKernelV2)(const CustomOp*, const Api*, const KernelInfo*, void** kernel);
  Status* (*KernelComputeV2)(void* kernel, KernelContext*);
  Status* (*InferOutputShapeFn)(const CustomOp*, ShapeInferContext*);
  int (*GetStartVersion)(const CustomOp*);
  int (*GetEndVersion)(const CustomOp*);
  std::size_t (*GetMayInplace)(int**, int**);
  void (*ReleaseMayInplace)(int*, int*);
  std::size_t (*GetAliasMap)(int**, int**);
  void (*ReleaseAliasMap)(int*, int*);
};
static_assert(sizeof(void*) != 8 || sizeof(CustomOp) == 26 * 8, "26 entries of 8 bytes, version padded");

// One slot of the table: its index and its signature.
template <std::size_t Index, typename Signature>
struct Slot;

template <std::size_t Index, typename Result, typename... Args>
struct Slot<Index, Result(Args...)> {
  Result operator()(const Api* api, Args... args) const {
    return reinterpret_cast<Result (*)(Args...)>(api[Index])(args...);
  }
};

// Functions that return a Status* give null on success; a status belongs to whoever received it.
inline constexpr Slot<0, Status*(int code, const char* text)> CreateStatus;
inline constexpr Slot<2, const char*(const Status*)> GetErrorMessage;
inline constexpr Slot<93, void(Status*)> ReleaseStatus;

inline constexpr Slot<26, Status*(const char* domain, CustomOpDomain**)> CreateCustomOpDomain;
inline constexpr Slot<27, Status*(CustomOpDomain*, const CustomOp*)> CustomOpDomainAdd;
inline constexpr Slot<28, Status*(SessionOptions*, CustomOpDomain*)> AddCustomOpDomain;
inline constexpr Slot<130, Status*(SessionOptions*, const char* key, const char* value)> AddConfigEntry;
inline constexpr Slot<237, Status*(const SessionOptions*, const char* key, int* has)> HasConfigEntry;
inline constexpr Slot<238, Status*(const SessionOptions*, const char* key, char* value, std::size_t* size)>
    GetConfigEntry;

inline constexpr Slot<3, Status*(int log_level, const char* log_id, Env**)> CreateEnv;
inline constexpr Slot<92, void(Env*)> ReleaseEnv;
inline constexpr Slot<10, Status*(SessionOptions**)> CreateSessionOptions;
inline constexpr Slot<22, Status*(SessionOptions*, int level)> SetSessionLogSeverityLevel;
inline constexpr Slot<24, Status*(SessionOptions*, int threads)> SetIntraOpNumThreads;
inline constexpr Slot<100, void(SessionOptions*)> ReleaseSessionOptions;
inline constexpr Slot<8, Status*(const Env*, const void* model, std::size_t length, const SessionOptions*,
                                 Session**)>
    CreateSessionFromArray;
inline constexpr Slot<9, Status*(Session*, const RunOptions*, const char* const* input_names,
                                 const Value* const* inputs, std::size_t input_count,
                                 const char* const* output_names, std::size_t output_count, Value** outputs)>
    Run;
inline constexpr Slot<95, void(Session*)> ReleaseSession;

inline constexpr Slot<49, Status*(const MemoryInfo*, void* data, std::size_t bytes, const std::int64_t* dims,
                                  std::size_t rank, int type, Value**)>
    CreateTensorWithData;
inline constexpr Slot<68,
                      Status*(const char* name, int allocator_type, int id, int memory_type, MemoryInfo**)>
    CreateMemoryInfo;
inline constexpr Slot<94, void(MemoryInfo*)> ReleaseMemoryInfo;
inline constexpr Slot<75, Status*(Allocator*, std::size_t bytes, void**)> AllocatorAlloc;
inline constexpr Slot<51, Status*(Value*, void** data)> GetTensorMutableData;
inline constexpr Slot<65, Status*(const Value*, TensorInfo**)> GetTensorTypeAndShape;
// Since release 1.24: the value's own dimensions, where the one above makes an object.
inline constexpr Slot<414, Status*(const Value*, int* type, const std::int64_t** dims, std::size_t* rank)>
    GetTensorTypeAndDims;
inline constexpr Slot<127, Status*(const Value*, std::size_t index, std::size_t* length)>
    GetStringElementLength;
inline constexpr Slot<128, Status*(const Value*, std::size_t length, std::size_t index, void* text)>
    GetStringElement;
inline constexpr Slot<252, Status*(Value*, std::size_t index, std::size_t length, char** buffer)>
    GetStringElementBuffer;
inline constexpr Slot<96, void(Value*)> ReleaseValue;
inline constexpr Slot<76, Status*(Allocator*, void*)> AllocatorFree;
inline constexpr Slot<132, void(Allocator*)> ReleaseAllocator;  // not of the default one
inline constexpr Slot<78, Status*(Allocator**)> GetDefaultAllocator;
inline constexpr Slot<194, Status*(const Value*, const MemoryInfo**)> GetTensorMemoryInfo;
inline constexpr Slot<72, Status*(const MemoryInfo*, int* id)> MemoryInfoGetId;
inline constexpr Slot<225, void(const MemoryInfo*, int* device_type)> MemoryInfoGetDeviceType;

inline constexpr Slot<55, Status*(const TypeInfo*, const TensorInfo**)> CastTypeInfoToTensorInfo;
inline constexpr Slot<57, Status*(TensorInfo**)> CreateTensorInfo;
inline constexpr Slot<58, Status*(TensorInfo*, int type)> SetTensorElementType;
inline constexpr Slot<59, Status*(TensorInfo*, const std::int64_t* dims, std::size_t rank)> SetDimensions;
inline constexpr Slot<60, Status*(const TensorInfo*, int* type)> GetTensorElementType;
inline constexpr Slot<61, Status*(const TensorInfo*, std::size_t* rank)> GetDimensionsCount;
inline constexpr Slot<62, Status*(const TensorInfo*, std::int64_t* dims, std::size_t rank)> GetDimensions;
inline constexpr Slot<63, Status*(const TensorInfo*, const char** names, std::size_t rank)>
    GetSymbolicDimensions;
inline constexpr Slot<271, Status*(TensorInfo*, const char** names, std::size_t rank)> SetSymbolicDimensions;
inline constexpr Slot<98, void(TypeInfo*)> ReleaseTypeInfo;
inline constexpr Slot<99, void(TensorInfo*)> ReleaseTensorInfo;

inline constexpr Slot<85, Status*(const KernelInfo*, const char* name, float*)> GetAttributeFloat;
inline constexpr Slot<86, Status*(const KernelInfo*, const char* name, std::int64_t*)> GetAttributeInt;
inline constexpr Slot<87, Status*(const KernelInfo*, const char* name, char*, std::size_t*)>
    GetAttributeString;
inline constexpr Slot<162, Status*(const KernelInfo*, const char* name, float*, std::size_t*)>
    GetAttributeFloats;
inline constexpr Slot<163, Status*(const KernelInfo*, const char* name, std::int64_t*, std::size_t*)>
    GetAttributeInts;
inline constexpr Slot<236, Status*(const KernelInfo*, const char* name, Allocator*, Value**)>
    GetAttributeTensor;
// Since release 1.25. The list and each text in it belong to the caller, who frees them by the allocator.
inline constexpr Slot<417, Status*(const KernelInfo*, const char* name, Allocator*, char***, std::size_t*)>
    GetAttributeStrings;
inline constexpr Slot<230, Status*(const KernelInfo*, std::size_t*)> KernelInfoGetInputCount;
inline constexpr Slot<231, Status*(const KernelInfo*, std::size_t*)> KernelInfoGetOutputCount;
inline constexpr Slot<234, Status*(const KernelInfo*, std::size_t, TypeInfo**)> KernelInfoGetInputTypeInfo;
inline constexpr Slot<235, Status*(const KernelInfo*, std::size_t, TypeInfo**)> KernelInfoGetOutputTypeInfo;
inline constexpr Slot<249, Status*(const KernelInfo*, std::size_t, int* constant, const Value**)>
    KernelInfoGetConstantInput;
inline constexpr Slot<217, Status*(const KernelInfo*, KernelInfo**)> CopyKernelInfo;
inline constexpr Slot<218, void(KernelInfo*)> ReleaseKernelInfo;
inline constexpr Slot<211, Status*(const char* name, const void* data, int length, int type, OpAttr**)>
    CreateOpAttr;
inline constexpr Slot<212, void(OpAttr*)> ReleaseOpAttr;
inline constexpr Slot<213, Status*(const KernelInfo*, const char* name, const char* domain, int version,
                                   const char** type_names, const int* types, int type_count,
                                   const OpAttr* const* attributes, int attribute_count, int input_count,
                                   int output_count, Op**)>
    CreateOp;
inline constexpr Slot<214, Status*(const KernelContext*, const Op*, const Value* const* inputs,
                                   int input_count, Value* const* outputs, int output_count)>
    InvokeOp;
inline constexpr Slot<215, void(Op*)> ReleaseOp;
inline constexpr Slot<244, Status*(const KernelInfo*, char*, std::size_t*)> KernelInfoGetNodeName;

inline constexpr Slot<88, Status*(const KernelContext*, std::size_t*)> GetInputCount;
inline constexpr Slot<89, Status*(const KernelContext*, std::size_t*)> GetOutputCount;
inline constexpr Slot<90, Status*(const KernelContext*, std::size_t, const Value**)> GetInput;
inline constexpr Slot<91, Status*(KernelContext*, std::size_t, const std::int64_t* dims, std::size_t rank,
                                  Value**)>
    GetOutput;
// Since release 1.18; up to 1.22 it crashes on the CPU. It gives memory of the stream of the run, which its
// allocator takes back.
inline constexpr Slot<277, Status*(const KernelContext*, const MemoryInfo*, std::size_t bytes, void**)>
    GetScratchBuffer;
// The allocator belongs to whoever asked.
inline constexpr Slot<253, Status*(const KernelContext*, const MemoryInfo*, Allocator**)> GetContextAllocator;
inline constexpr Slot<274, Status*(const KernelContext*, void (*body)(void*, std::size_t), std::size_t count,
                                   std::size_t batches, void* data)>
    ParallelFor;
inline constexpr Slot<193, Status*(const KernelContext*, void** stream)> GetGpuComputeStream;

inline constexpr Slot<267, Status*(const ShapeInferContext*, std::size_t*)> ShapeInferGetInputCount;
inline constexpr Slot<268, Status*(const ShapeInferContext*, std::size_t, TensorInfo**)>
    ShapeInferGetInputTypeShape;
inline constexpr Slot<269, Status*(const ShapeInferContext*, const char* name, const OpAttr**)>
    ShapeInferGetAttribute;
inline constexpr Slot<270, Status*(const ShapeInferContext*, std::size_t, const TensorInfo*)>
    ShapeInferSetOutputTypeShape;
inline constexpr Slot<272, Status*(const OpAttr*, int type, void* data, std::size_t length, std::size_t* out)>
    ReadOpAttr;

}  // namespace ort_ops::abi
