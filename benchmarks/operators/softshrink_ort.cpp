// examples/cpp_operator/softshrink.cpp once more, in float32, on ONNX Runtime's own C++ headers.
#define ORT_API_MANUAL_INIT
#include <onnxruntime_cxx_api.h>

#if ORT_API_VERSION >= 15
#define CONST_FROM_15 const
#else
#define CONST_FROM_15
#endif

struct SoftshrinkKernel {
#if ORT_API_VERSION >= 15
  SoftshrinkKernel(const OrtApi&, const OrtKernelInfo* info)
      : limit(Ort::ConstKernelInfo(info).GetAttribute<float>("lambd")) {}
#else
  SoftshrinkKernel(const OrtApi& given, const OrtKernelInfo* info)
      : api(given), limit(api.KernelInfoGetAttribute<float>(info, "lambd")) {}
#endif

  void Compute(OrtKernelContext* given) CONST_FROM_15 {
#if ORT_API_VERSION >= 15
    Ort::KernelContext context(given);
    auto input = context.GetInput(0);
    const auto information = input.GetTensorTypeAndShapeInfo();
    const std::vector<int64_t> shape = information.GetShape();
    const size_t count = information.GetElementCount();
    const float* x = input.GetTensorData<float>();
    float* y = context.GetOutput(0, shape).GetTensorMutableData<float>();
#else
    const OrtValue* input = api.KernelContext_GetInput(given, 0);
    OrtTensorTypeAndShapeInfo* information = api.GetTensorTypeAndShape(input);
    const std::vector<int64_t> shape = api.GetTensorShape(information);
    const size_t count = api.GetTensorShapeElementCount(information);
    api.ReleaseTensorTypeAndShapeInfo(information);
    const float* x = api.GetTensorData<float>(input);
    OrtValue* output = api.KernelContext_GetOutput(given, 0, shape.data(), shape.size());
    float* y = api.GetTensorMutableData<float>(output);
#endif
    for (size_t i = 0; i < count; ++i)
      y[i] = x[i] > limit ? x[i] - limit : x[i] < -limit ? x[i] + limit : 0.0f;
  }

#if ORT_API_VERSION < 15
  Ort::CustomOpApi api;
#endif
  float limit;
};

struct Softshrink : Ort::CustomOpBase<Softshrink, SoftshrinkKernel> {
  void* CreateKernel(const OrtApi& api, const OrtKernelInfo* info) const {
    return new SoftshrinkKernel(api, info);
  }
  const char* GetName() const { return "Softshrink"; }
  size_t GetInputTypeCount() const { return 1; }
  ONNXTensorElementDataType GetInputType(size_t) const { return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT; }
  size_t GetOutputTypeCount() const { return 1; }
  ONNXTensorElementDataType GetOutputType(size_t) const { return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT; }
};

extern "C" OrtStatus* RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base) {
  static const Softshrink softshrink;
#if ORT_API_VERSION >= 15
  Ort::InitApi(base->GetApi(ORT_API_VERSION));
#else
  Ort::Global<void>::api_ = base->GetApi(ORT_API_VERSION);
#endif
  try {
    static Ort::CustomOpDomain domain = [] {
      Ort::CustomOpDomain made("example");
      made.Add(const_cast<Softshrink*>(&softshrink));
      return made;
    }();
    return Ort::GetApi().AddCustomOpDomain(options, domain);
  } catch (const std::exception& error) {
    return Ort::GetApi().CreateStatus(ORT_FAIL, error.what());
  }
}
