// clang-format off
/* A model with MYLINEAR in it, run from C on ONNX Runtime's C ABI alone: no header of ONNX Runtime's, nothing
 * linked but the loader of shared libraries.
 *
 *   cc run_linear.c -o run_linear -ldl
 *   ./run_linear libonnxruntime.so libmylinear_ort.so linear.onnx 1.5 -2  0.25 4
 *
 * prints what the model gives for each pair of numbers, one answer a line. Its input is float64 of shape
 * (batch, 2), as that of the file which `mylinear train` and `mylinear export` make. Where both libraries are:
 *
 *   python -c 'import pathlib, onnxruntime as o; print(*pathlib.Path(o.__file__).parent.glob("capi/libonnxruntime.so*"))'
 *   python -c 'import mylinear; print(mylinear.get_library_path())'
 */
// clang-format on
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* ONNX Runtime's functions are a table of pointers, which is only ever added to; these are the places in it.
 */
enum {
  GET_ERROR_MESSAGE = 2,
  CREATE_ENV = 3,
  CREATE_SESSION = 7,
  RUN = 9,
  CREATE_SESSION_OPTIONS = 10,
  CREATE_TENSOR_WITH_DATA = 49,
  GET_TENSOR_DATA = 51,
  GET_TENSOR_ELEMENTS = 64,
  GET_TENSOR_TYPE_AND_SHAPE = 65,
  CREATE_MEMORY_INFO = 68,
  GET_DEFAULT_ALLOCATOR = 78,
  ALLOCATOR_FREE = 76,
  GET_INPUT_NAME = 36,
  GET_OUTPUT_NAME = 37,
  REGISTER_CUSTOM_OPS_LIBRARY = 228,
};
enum { WARNING = 2, DEVICE_ALLOCATOR = 0, DEFAULT_MEMORY = 0, DOUBLE = 11, API_VERSION = 17 };

typedef void* Handle; /* of whatever ONNX Runtime owns */
typedef Handle (*Function)();

static Function* api;

/* Ends the program with what ONNX Runtime says, where it says something. */
static void check(Handle status, const char* what) {
  if (status == NULL) return;
  const char* (*message)(Handle) = (const char* (*)(Handle))api[GET_ERROR_MESSAGE];
  fprintf(stderr, "%s: %s\n", what, message(status));
  exit(1);
}

static Function* get_api(const char* path) {
  struct Base {
    void* (*get_api)(uint32_t);
    const char* (*version)(void);
  };
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  const struct Base* (*get_base)(void) = NULL;
  if (library != NULL) *(void**)&get_base = dlsym(library, "OrtGetApiBase");
  if (get_base == NULL) {
    fprintf(stderr, "%s is no ONNX Runtime: %s\n", path, dlerror());
    exit(1);
  }
  Function* table = (Function*)get_base()->get_api(API_VERSION);
  if (table == NULL) {
    fprintf(stderr, "ONNX Runtime %s is older than 1.17\n", get_base()->version());
    exit(1);
  }
  return table;
}

int main(int count, char** arguments) {
  const int given = count - 4; /* numbers */
  if (given < 2 || given % 2 != 0) {
    fprintf(stderr, "usage: %s LIBONNXRUNTIME LIBMYLINEAR_ORT MODEL (NUMBER NUMBER)...\n", arguments[0]);
    return 2;
  }
  api = get_api(arguments[1]);
  const int64_t shape[2] = {given / 2, 2};
  const size_t bytes = sizeof(double) * (size_t)given;
  double* numbers = malloc(bytes);
  if (numbers == NULL) return 1;
  for (int i = 0; i < given; ++i) numbers[i] = strtod(arguments[4 + i], NULL);

  Handle env, options, session, memory, x, y = NULL, allocator, info;
  check(((Handle (*)(int, const char*, Handle*))api[CREATE_ENV])(WARNING, "run_linear", &env), "environment");
  check(((Handle (*)(Handle*))api[CREATE_SESSION_OPTIONS])(&options), "options");
  check(((Handle (*)(Handle, const char*))api[REGISTER_CUSTOM_OPS_LIBRARY])(options, arguments[2]),
        arguments[2]);
  check(((Handle (*)(Handle, const char*, Handle, Handle*))api[CREATE_SESSION])(env, arguments[3], options,
                                                                                &session),
        arguments[3]);

  char *input, *output;
  check(((Handle (*)(Handle*))api[GET_DEFAULT_ALLOCATOR])(&allocator), "allocator");
  check(((Handle (*)(Handle, size_t, Handle, char**))api[GET_INPUT_NAME])(session, 0, allocator, &input),
        "input");
  check(((Handle (*)(Handle, size_t, Handle, char**))api[GET_OUTPUT_NAME])(session, 0, allocator, &output),
        "output");

  check(((Handle (*)(const char*, int, int, int, Handle*))api[CREATE_MEMORY_INFO])("Cpu", DEVICE_ALLOCATOR, 0,
                                                                                   DEFAULT_MEMORY, &memory),
        "memory");
  check(
      ((Handle (*)(Handle, void*, size_t, const int64_t*, size_t, int, Handle*))api[CREATE_TENSOR_WITH_DATA])(
          memory, numbers, bytes, shape, 2, DOUBLE, &x),
      "tensor");
  check(((Handle (*)(Handle, Handle, const char* const*, const Handle*, size_t, const char* const*, size_t,
                     Handle*))api[RUN])(session, NULL, (const char* const*)&input, &x, 1,
                                        (const char* const*)&output, 1, &y),
        "run");

  double* answer;
  size_t elements;
  check(((Handle (*)(Handle, Handle*))api[GET_TENSOR_TYPE_AND_SHAPE])(y, &info), "shape");
  check(((Handle (*)(Handle, size_t*))api[GET_TENSOR_ELEMENTS])(info, &elements), "elements");
  check(((Handle (*)(Handle, void**))api[GET_TENSOR_DATA])(y, (void**)&answer), "answer");
  for (size_t i = 0; i < elements; ++i) printf("%.17g\n", answer[i]);
  free(numbers);
  return 0; /* what ONNX Runtime holds goes with the process */
}
