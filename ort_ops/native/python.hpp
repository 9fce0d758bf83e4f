// Python, entered from threads that it may take down.
//
// While the interpreter goes down, CPython before 3.14 ends any other thread that asks for the GIL by
// pthread_exit. That unwinds the stack, and the first noexcept function on it (ours, ONNX Runtime's)
// turns it into std::terminate, which would take the exit code of a finished program with it. So every
// entry into Python goes through `or_hang`: such a thread sleeps until the process is gone, as CPython
// 3.14 itself has it.
#pragma once

#include <nanobind/nanobind.h>

#include <chrono>
#include <thread>
#include <utility>

namespace ort_ops {

namespace nb = nanobind;

// Calls a function of Python's C API. Those throw nothing, so whatever unwinds is the end of the thread.
template <typename Function>
auto or_hang(const Function& function) noexcept -> decltype(function()) {
  try {
    return function();
  } catch (...) {
    for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
  }
}

// Calls a Python object; throws nb::python_error.
template <typename... Arguments>
nb::object call_python(nb::handle function, const Arguments&... arguments) {
  nb::object result = nb::steal(or_hang([&] {
    return PyObject_CallFunctionObjArgs(function.ptr(), arguments.ptr()..., static_cast<PyObject*>(nullptr));
  }));
  if (!result.is_valid()) throw nb::python_error();
  return result;
}

// Holds an object that Python code may go with: its own finalizer, or those of what it holds.
class Held {
 public:
  Held() = default;
  Held(nb::object object) : object_(std::move(object)) {}
  Held(Held&&) = default;
  Held& operator=(Held&& other) {
    std::swap(object_, other.object_);
    return *this;
  }
  ~Held() {
    or_hang([object = object_.release().ptr()] { Py_XDECREF(object); });
  }
  const nb::object& get() const { return object_; }

 private:
  nb::object object_;
};

// Text that may not be UTF-8: what isn't becomes U+FFFD.
inline nb::object to_text(const char* text, std::size_t size) {
  nb::object decoded = nb::steal(PyUnicode_DecodeUTF8(text, static_cast<Py_ssize_t>(size), "replace"));
  if (!decoded.is_valid()) throw nb::python_error();
  return decoded;
}

class HoldGil {
 public:
  HoldGil() : state_(or_hang([] { return PyGILState_Ensure(); })) {}
  ~HoldGil() {  // the thread's own variables may go, and finalizers with them
    or_hang([this] { PyGILState_Release(state_); });
  }
  HoldGil(const HoldGil&) = delete;
  HoldGil& operator=(const HoldGil&) = delete;

 private:
  PyGILState_STATE state_;
};

class ReleaseGil {
 public:
  ReleaseGil() : thread_(or_hang([] { return PyEval_SaveThread(); })) {}
  ~ReleaseGil() {
    or_hang([this] { PyEval_RestoreThread(thread_); });
  }
  ReleaseGil(const ReleaseGil&) = delete;
  ReleaseGil& operator=(const ReleaseGil&) = delete;

 private:
  PyThreadState* thread_;
};

}  // namespace ort_ops
