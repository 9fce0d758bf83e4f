// Tensors of strings: NumPy arrays of Python str, any length, NUL included.
//
// ONNX Runtime keeps bytes. What is not UTF-8 goes through Python as lone surrogates ("surrogateescape") and
// comes out as the same bytes.
#include <cstring>

#include "kernel.hpp"

namespace ort_ops {
namespace {

constexpr const char* kErrors = "surrogateescape";

nb::object read_one(const abi::Api* api, const abi::Value* value, std::size_t index, std::string& bytes) {
  std::size_t size = 0;
  check(api, abi::GetStringElementLength(api, value, index, &size));
  bytes.resize(size);
  check(api, abi::GetStringElement(api, value, size, index, bytes.data()));
  nb::object text = nb::steal(PyUnicode_DecodeUTF8(bytes.data(), static_cast<Py_ssize_t>(size), kErrors));
  if (!text.is_valid()) throw nb::python_error();
  return text;
}

void write_one(const abi::Api* api, abi::Value* value, std::size_t index, nb::handle text) {
  if (!text.is_valid()) text = Py_None;  // so NumPy reads what it hasn't filled
  if (!PyUnicode_Check(text.ptr()))
    throw BadResult{"returned an object array with a " + nb::cast<std::string>(text.type().attr("__name__")) +
                    " in it; expected strings alone"};
  nb::object bytes = nb::steal(PyUnicode_AsEncodedString(text.ptr(), "utf-8", kErrors));
  if (!bytes.is_valid()) throw nb::python_error();
  const auto size = static_cast<std::size_t>(PyBytes_Size(bytes.ptr()));
  char* buffer = nullptr;
  check(api, abi::GetStringElementBuffer(api, value, index, size, &buffer));
  if (size != 0) std::memcpy(buffer, PyBytes_AsString(bytes.ptr()), size);
}

}  // namespace

void read_strings(const abi::Api* api, const abi::Value* value, std::size_t count, PyObject** items) {
  std::string bytes;
  for (std::size_t i = 0; i < count; ++i) {
    PyObject* before = items[i];  // NumPy fills a new array of objects with None or null
    items[i] = read_one(api, value, i, bytes).release().ptr();
    Py_XDECREF(before);
  }
}

void write_strings(const abi::Api* api, PyObject* const* items, std::size_t count, abi::Value* value) {
  for (std::size_t i = 0; i < count; ++i) write_one(api, value, i, items[i]);
}

}  // namespace ort_ops
