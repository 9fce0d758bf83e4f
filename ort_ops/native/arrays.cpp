// Views of ONNX Runtime's buffers as arrays, and results copied back into them.
#include <nanobind/ndarray.h>

#include <algorithm>
#include <cstring>

#include "kernel.hpp"

#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#define NPY_TARGET_VERSION NPY_1_25_API_VERSION
#include <numpy/arrayobject.h>

namespace ort_ops {
namespace {

// Above this size the copy of a result is worth letting other Python threads run meanwhile.
constexpr std::size_t kReleaseGilBytes = 1 << 20;

PyArray_Descr* dtype_of(int element_type) {
  const auto& dtypes = hooks().dtypes;
  const auto index = static_cast<std::size_t>(element_type);
  if (index >= dtypes.size() || !dtypes[index].is_valid() || dtypes[index].is_none())
    throw Error("a tensor of ONNX element type " + std::to_string(element_type) +
                " can't be given to a Python kernel");
  return reinterpret_cast<PyArray_Descr*>(dtypes[index].ptr());
}

// An array over `data`, or over new memory of its own where that is null.
nb::object wrap(PyArray_Descr* dtype, const std::vector<std::int64_t>& dims, void* data, int flags) {
  static_assert(sizeof(npy_intp) == sizeof(std::int64_t));
  Py_INCREF(reinterpret_cast<PyObject*>(dtype));  // PyArray_NewFromDescr takes a reference over
  return nb::steal(PyArray_NewFromDescr(&PyArray_Type, dtype, static_cast<int>(dims.size()),
                                        reinterpret_cast<const npy_intp*>(dims.data()), nullptr, data, flags,
                                        nullptr));
}

[[noreturn]] void reject(const Call& call, nb::handle result) {
  nb::list types;
  const std::vector<Expected>& wanted = call.kernel.expected;
  for (std::size_t i = 0; i < call.kernel.op->outputs.size(); ++i)
    types.append(i < wanted.size() ? wanted[i].type : 0);
  call_python(hooks().reject, result, types);
  throw Error("the kernel's result was refused");  // not reached: reject raises
}

constexpr int kUint8 = 2;
constexpr int kString = 8;

// Two elements a byte: uint4, int4, float4e2m1.
bool is_packed(int element_type) { return element_type >= 21 && element_type <= 23; }

// A view of memory that holds a reference to the run's owner for as long as anything refers to it.
nb::object owned_view(const Call& call, const TypeAndShape& type, void* data, int flags) {
  nb::object array = wrap(dtype_of(type.type), type.shape, data, flags);
  if (!array.is_valid()) throw nb::python_error();
  Py_INCREF(call.owner.ptr());
  if (PyArray_SetBaseObject(reinterpret_cast<PyArrayObject*>(array.ptr()), call.owner.ptr()) < 0)
    throw nb::python_error();
  return array;
}

nb::object shape_of(const TypeAndShape& type) {
  nb::list dims;
  for (std::int64_t dim : type.shape) dims.append(dim);
  return nb::tuple(dims);
}

nb::object unpacked(const abi::Api* api, const abi::Value* value, const TypeAndShape& type) {
  std::int64_t count = 1;
  for (std::int64_t dim : type.shape) count *= dim;
  nb::object raw = wrap(dtype_of(kUint8), {(count + 1) / 2}, nullptr, 0);
  if (!raw.is_valid()) throw nb::python_error();
  auto* bytes = reinterpret_cast<PyArrayObject*>(raw.ptr());
  if (count != 0)
    std::memcpy(PyArray_DATA(bytes), data_of(api, value), static_cast<std::size_t>(PyArray_NBYTES(bytes)));
  return call_python(hooks().unpack, raw, shape_of(type), nb::cast(type.type));
}

// New memory with every bit set: NaN in all floating-point types but float8's fnuz kinds, -1 in integers.
nb::object poisoned(const TypeAndShape& type) {
  nb::object array = wrap(dtype_of(type.type), type.shape, nullptr, 0);
  if (!array.is_valid()) throw nb::python_error();
  auto* to = reinterpret_cast<PyArrayObject*>(array.ptr());
  if (PyArray_NBYTES(to) != 0)
    std::memset(PyArray_DATA(to), PyArray_ISBOOL(to) ? 1 : 0xff,
                static_cast<std::size_t>(PyArray_NBYTES(to)));
  return array;
}

bool same_type(const PyArrayObject* array, PyArray_Descr* dtype) {
  PyArray_Descr* given = PyArray_DESCR(array);
  return given->type_num == dtype->type_num || PyArray_EquivTypes(given, dtype);
}

// Whether some elements of an array stand for nothing (numpy.ma), which a tensor can't say.
bool hides_elements(nb::handle array) {
  return !PyArray_CheckExact(array.ptr()) && call_python(hooks().hides, array).is(nb::bool_(true));
}

// An item of a result as an array, which hides nothing. Python of a subclass may run here, and change any
// array: what the items are is looked at behind all of these.
PyArrayObject* as_array(const Call& call, nb::handle result, nb::handle item, nb::object& keep) {
  PyObject* array = item.ptr();
  if (!PyArray_Check(array) && PyArray_CheckScalar(array)) {  // np.float32(1): what np.sum returns
    keep = nb::steal(or_hang([&] { return PyArray_FromScalar(array, nullptr); }));
    if (!keep.is_valid()) throw nb::python_error();
    array = keep.ptr();
  }
  if (!PyArray_Check(array) || hides_elements(array)) reject(call, result);
  return reinterpret_cast<PyArrayObject*>(array);
}

std::size_t count_of(const std::vector<std::int64_t>& dims) {
  std::size_t count = 1;
  for (std::int64_t dim : dims) count *= static_cast<std::size_t>(dim);
  return count;
}

// The buffer has the size that the array had when it was allocated.
void refuse_changed(npy_intp size, std::size_t expected) {
  if (static_cast<std::size_t>(size) != expected)
    throw BadResult{"returned an array that changed its size while it was copied; return one that stays"};
}

void copy_strings(const Call& call, PyArrayObject* source, std::size_t count, abi::Value* value) {
  const Held held(nb::steal(or_hang([&]() -> PyObject* {
    return PyArray_FROM_OTF(reinterpret_cast<PyObject*>(source), NPY_OBJECT, NPY_ARRAY_CARRAY_RO);
  })));
  const nb::object& texts = held.get();
  if (!texts.is_valid()) throw nb::python_error();
  auto* array = reinterpret_cast<PyArrayObject*>(texts.ptr());
  refuse_changed(PyArray_SIZE(array), count);
  write_strings(call.kernel.api, static_cast<PyObject* const*>(PyArray_DATA(array)), count, value);
}

void copy_packed(const Call& call, PyArrayObject* source, int type, std::size_t count, abi::Value* value) {
  nb::object packed =
      call_python(hooks().pack, nb::handle(reinterpret_cast<PyObject*>(source)), nb::cast(type));
  auto* bytes = reinterpret_cast<PyArrayObject*>(packed.ptr());
  refuse_changed(PyArray_NBYTES(bytes), (count + 1) / 2);
  if (count != 0) std::memcpy(data_of(call.kernel.api, value), PyArray_DATA(bytes), (count + 1) / 2);
}

void copy_into(const Call& call, PyArrayObject* source, PyArray_Descr* dtype,
               const std::vector<std::int64_t>& shape, abi::Value* value) {
  void* data = data_of(call.kernel.api, value);
  if (!PyArray_IS_C_CONTIGUOUS(source) || !PyArray_ISNOTSWAPPED(source)) {
    nb::object target = wrap(dtype, shape, data, NPY_ARRAY_CARRAY);
    auto* to = reinterpret_cast<PyArrayObject*>(target.ptr());
    if (to == nullptr || or_hang([&] { return PyArray_CopyInto(to, source); }) != 0) throw nb::python_error();
    return;
  }
  const std::size_t bytes = count_of(shape) * static_cast<std::size_t>(PyDataType_ELSIZE(dtype));
  refuse_changed(PyArray_NBYTES(source), bytes);
  // By memmove: who binds an output to an input's memory gets it right.
  if (bytes >= kReleaseGilBytes) {
    const ReleaseGil release;
    std::memmove(data, PyArray_DATA(source), bytes);
  } else if (bytes != 0) {
    std::memmove(data, PyArray_DATA(source), bytes);
  }
}

// Between the look at an array's dtype and shape and the copy of its numbers no Python runs.
void store_one(const Call& call, nb::handle result, PyArrayObject* array, std::size_t index) {
  const int type = call.kernel.expected[index].type;
  const bool text = type == kString && PyArray_DESCR(array)->kind == 'U';
  if (!text && !same_type(array, dtype_of(type))) reject(call, result);
  const npy_intp* dims = PyArray_DIMS(array);
  const std::vector<std::int64_t> shape(dims, dims + PyArray_NDIM(array));
  abi::Value* value = call.allocate(index, shape);
  if (value == nullptr) return;
  if (type == kString)
    copy_strings(call, array, count_of(shape), value);
  else if (is_packed(type))
    copy_packed(call, array, type, count_of(shape), value);
  else
    copy_into(call, array, dtype_of(type), shape, value);
}

// The memory that an array's elements are in.
struct Span {
  const char* start = nullptr;
  const char* stop = nullptr;
  bool meets(const Span& other) const { return start < other.stop && other.start < stop; }
};

Span span_of(PyArrayObject* array) {
  const char* data = PyArray_BYTES(array);
  Span span{data, data + PyArray_ITEMSIZE(array)};
  for (int axis = 0; axis < PyArray_NDIM(array); ++axis) {
    const npy_intp size = PyArray_DIM(array, axis);
    if (size == 0) return {};
    const npy_intp reach = (size - 1) * PyArray_STRIDE(array, axis);
    (reach < 0 ? span.start : span.stop) += reach;
  }
  return span;
}

Span span_of(const Call& call, const abi::Value* value) {
  if (value == nullptr) return {};
  const TypeAndShape type = type_and_shape(call.kernel.api, value);
  if (type.type == kString || is_packed(type.type)) return {};
  const char* data = static_cast<const char*>(data_of(call.kernel.api, value));
  return {data,
          data + count_of(type.shape) * static_cast<std::size_t>(PyDataType_ELSIZE(dtype_of(type.type)))};
}

// An output may be bound to the memory of an input: a result that is a view of that is copied before another
// result is put there.
void keep_apart(const Call& call, nb::handle result, std::vector<PyArrayObject*>& arrays,
                std::vector<nb::object>& keep) {
  std::vector<Span> inputs;
  for (std::size_t i = 0; i < call.input_count(); ++i) inputs.push_back(span_of(call, call.input(i)));
  for (std::size_t i = 0; i < arrays.size(); ++i) {
    const Span span = arrays[i] == nullptr ? Span{} : span_of(arrays[i]);
    const auto meets = [&](const Span& other) { return span.meets(other); };
    if (std::none_of(inputs.begin(), inputs.end(), meets)) continue;
    for (std::size_t j = 0; j < arrays.size(); ++j) {
      const int type = call.kernel.expected[j].type;
      if (j == i || arrays[j] == nullptr || type == kString || is_packed(type)) continue;
      if (!same_type(arrays[j], dtype_of(type))) reject(call, result);
      const npy_intp* dims = PyArray_DIMS(arrays[j]);
      if (!meets(span_of(call, call.allocate(j, {dims, dims + PyArray_NDIM(arrays[j])})))) continue;
      keep[i] =
          nb::steal(PyArray_FromArray(arrays[i], nullptr, NPY_ARRAY_ENSUREARRAY | NPY_ARRAY_ENSURECOPY));
      if (!keep[i].is_valid()) throw nb::python_error();
      arrays[i] = reinterpret_cast<PyArrayObject*>(keep[i].ptr());
      break;
    }
  }
}

}  // namespace

void import_numpy() {
  if (_import_array() < 0) throw nb::python_error();
}

std::uintptr_t address(nb::handle array) {
  if (!PyArray_Check(array.ptr())) throw nb::type_error("expected a NumPy array");
  return reinterpret_cast<std::uintptr_t>(PyArray_DATA(reinterpret_cast<PyArrayObject*>(array.ptr())));
}

nb::object numpy_copy(const abi::Api* api, const abi::Value* value) {
  const TypeAndShape type = type_and_shape(api, value);
  PyArray_Descr* dtype = dtype_of(type.type);
  if (is_packed(type.type)) return unpacked(api, value, type);
  nb::object array = wrap(dtype, type.shape, nullptr, 0);  // memory of its own
  if (!array.is_valid()) throw nb::python_error();
  auto* to = reinterpret_cast<PyArrayObject*>(array.ptr());
  if (type.type == kString)
    read_strings(api, value, static_cast<std::size_t>(PyArray_SIZE(to)),
                 static_cast<PyObject**>(PyArray_DATA(to)));
  else if (PyArray_NBYTES(to) != 0)
    std::memcpy(PyArray_DATA(to), data_of(api, value), static_cast<std::size_t>(PyArray_NBYTES(to)));
  PyArray_CLEARFLAGS(to, NPY_ARRAY_WRITEABLE);
  return array;
}

nb::object numpy_constant(const abi::Api* api, const abi::Value* value) {
  nb::object copy = numpy_copy(api, value);
  auto* array = reinterpret_cast<PyArrayObject*>(copy.ptr());
  if (PyArray_DESCR(array)->kind == 'O') return copy;  // of texts there are no bytes
  // The owner of an array's memory may make it writeable; of bytes it isn't.
  nb::object bytes = nb::steal(PyBytes_FromStringAndSize(static_cast<const char*>(PyArray_DATA(array)),
                                                         static_cast<Py_ssize_t>(PyArray_NBYTES(array))));
  if (!bytes.is_valid()) throw nb::python_error();
  const npy_intp* dims = PyArray_DIMS(array);
  nb::object constant = wrap(PyArray_DESCR(array), {dims, dims + PyArray_NDIM(array)},
                             PyBytes_AsString(bytes.ptr()), NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_ALIGNED);
  if (!constant.is_valid()) throw nb::python_error();
  if (PyArray_SetBaseObject(reinterpret_cast<PyArrayObject*>(constant.ptr()), bytes.release().ptr()) < 0)
    throw nb::python_error();
  return constant;
}

nb::object numpy_view(const Call& call, const abi::Value* value) {
  const abi::Api* api = call.kernel.api;
  const TypeAndShape type = type_and_shape(api, value);
  if (type.type == kString || is_packed(type.type) || hooks().debug) return numpy_copy(api, value);
  return owned_view(call, type, data_of(api, value), NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_ALIGNED);
}

nb::object numpy_output(const Call& call, std::size_t index, const std::vector<std::int64_t>& shape) {
  const TypeAndShape type{call.kernel.expected.at(index).type, shape};
  if (type.type == 0) return nb::none();  // left out by the node
  if (type.type == kString || is_packed(type.type))
    throw BadResult{"out= can't be had for strings and 4-bit types; return an array instead"};
  if (hooks().debug) return poisoned(type);
  abi::Value* value = call.allocate(index, shape);
  if (value == nullptr) return nb::none();
  return owned_view(call, type, data_of(call.kernel.api, value), NPY_ARRAY_CARRAY);
}

void store_numpy(const Call& call, nb::handle result) {
  const std::size_t declared = call.kernel.op->outputs.size();
  if (declared == 1) {
    nb::object keep;
    store_one(call, result, as_array(call, result, result, keep), 0);
    return;
  }
  const bool fits = declared == 0 ? result.is_none()
                                  : PyTuple_Check(result.ptr()) &&  // a subclass may lie about its length
                                        static_cast<std::size_t>(PyTuple_Size(result.ptr())) == declared;
  if (!fits) reject(call, result);
  const std::size_t count = call.kernel.expected.size();  // a node may leave trailing outputs out,
  std::vector<nb::object> keep(count);
  std::vector<PyArrayObject*> arrays(count, nullptr);
  for (std::size_t i = 0; i < count; ++i)
    if (call.kernel.expected[i].type != 0)  // or one in between
      arrays[i] = as_array(call, result,
                           nb::handle(PyTuple_GetItem(result.ptr(), static_cast<Py_ssize_t>(i))), keep[i]);
  keep_apart(call, result, arrays, keep);
  for (std::size_t i = 0; i < count; ++i)
    if (arrays[i] != nullptr) store_one(call, result, arrays[i], i);
}

nb::object dlpack_view(const Call& call, const abi::Value* value) {
  const TypeAndShape type = type_and_shape(call.kernel.api, value);
  const PyArray_Descr* dtype = dtype_of(type.type);
  nb::dlpack::dtype code{};
  switch (dtype->kind) {
    case 'b':
      code.code = static_cast<std::uint8_t>(nb::dlpack::dtype_code::Bool);
      break;
    case 'i':
      code.code = static_cast<std::uint8_t>(nb::dlpack::dtype_code::Int);
      break;
    case 'u':
      code.code = static_cast<std::uint8_t>(nb::dlpack::dtype_code::UInt);
      break;
    case 'f':
      code.code = static_cast<std::uint8_t>(nb::dlpack::dtype_code::Float);
      break;
    default:
      code.code = static_cast<std::uint8_t>(nb::dlpack::dtype_code::Bfloat);
      break;
  }
  if (code.code == static_cast<std::uint8_t>(nb::dlpack::dtype_code::Bfloat) && type.type != 16)
    throw Error("a tensor of ONNX element type " + std::to_string(type.type) +
                " has no DLPack form; use array=\"numpy\"");
  code.bits = static_cast<std::uint8_t>(8 * PyDataType_ELSIZE(dtype));
  code.lanes = 1;

  const abi::Api* api = call.kernel.api;
  const abi::MemoryInfo* memory = nullptr;
  int device = 0, id = 0;
  check(api, abi::GetTensorMemoryInfo(api, value, &memory));
  abi::MemoryInfoGetDeviceType(api, memory, &device);
  check(api, abi::MemoryInfoGetId(api, memory, &id));
  const std::vector<std::size_t> dims(type.shape.begin(), type.shape.end());
  return nb::cast(
      nb::ndarray<nb::array_api>(data_of(api, value), dims.size(), dims.data(), call.owner, nullptr, code,
                                 device == 1 ? nb::device::cuda::value : nb::device::cpu::value, id));
}

}  // namespace ort_ops
