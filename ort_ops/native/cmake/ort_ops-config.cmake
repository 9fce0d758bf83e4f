# Libraries of custom operators for ONNX Runtime, on <ort_ops/op.hpp>.
#
#   find_package(ort_ops CONFIG REQUIRED)      # -Dort_ops_DIR="$(python -c 'import ort_ops; print(ort_ops.get_cmake_dir())')"
#   ort_ops_add_library(myops relu6.cpp norm.cpp)
#
# makes libmyops.so (.dylib, .dll), which links nothing and which every ONNX Runtime from 1.17 on takes. Sources
# in CUDA (.cu) are compiled where the project's LANGUAGES have it.

if(NOT TARGET ort_ops::headers)
  add_library(ort_ops::headers INTERFACE IMPORTED)
  get_filename_component(_ort_ops_include "${CMAKE_CURRENT_LIST_DIR}/../include" ABSOLUTE)
  set_target_properties(ort_ops::headers PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${_ort_ops_include}")
  target_compile_features(ort_ops::headers INTERFACE cxx_std_17)
  # The headers ask where the library is, to name it in messages.
  target_link_libraries(ort_ops::headers INTERFACE ${CMAKE_DL_LIBS})
  unset(_ort_ops_include)
endif()

# A shared library that shows RegisterCustomOps and nothing else.
function(ort_ops_add_library name)
  add_library(${name} SHARED ${ARGN})
  target_link_libraries(${name} PRIVATE ort_ops::headers)
  set_target_properties(${name} PROPERTIES
    CXX_VISIBILITY_PRESET hidden
    CUDA_VISIBILITY_PRESET hidden
    VISIBILITY_INLINES_HIDDEN ON
    POSITION_INDEPENDENT_CODE ON)
endfunction()
