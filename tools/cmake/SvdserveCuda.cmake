# Whether the CUDA backend is built, and how its kernels are compiled. Sets
# SVDSERVE_CUDA_ENABLED; with it come CUDA, CUDAToolkit and svdserve_cuda_library.
set(SVDSERVE_CUDA_ENABLED OFF)
if(SVDSERVE_CUDA STREQUAL "OFF")
  return()
endif()

if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
  find_program(SVDSERVE_NVCC nvcc HINTS $ENV{CUDA_HOME}/bin /usr/local/cuda/bin)
  if(SVDSERVE_NVCC)
    set(CMAKE_CUDA_COMPILER ${SVDSERVE_NVCC})
  elseif(SVDSERVE_CUDA STREQUAL "AUTO")
    message(STATUS "No nvcc: building for the CPU only")
    return()
  else()
    message(FATAL_ERROR "SVDSERVE_CUDA=ON, but there is no nvcc")
  endif()
endif()
# Before enable_language(), which would choose one of its own.
set(CMAKE_CUDA_ARCHITECTURES ${SVDSERVE_CUDA_ARCHITECTURES})
enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_EXTENSIONS OFF)
# CMake 3.25 does not know that nvcc has C++20.
set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
set(SVDSERVE_CUDA_ENABLED ON)

# svdserve_cuda_library(NAME SRCS ... [HOPPER ...]): kernels. Each file's
# compilation fails where tools/check_ptxas.py finds that ptxas spilled or
# serialised something. HOPPER's files are compiled for sm_90a alone, whatever
# the architectures: no other has wgmma.
function(svdserve_cuda_library name)
  cmake_parse_arguments(ARG "" "" "SRCS;HOPPER" ${ARGN})
  add_library(${name} STATIC ${ARG_SRCS})
  svdserve_cuda_options(${name})
  if(ARG_HOPPER)
    add_library(${name}_hopper OBJECT ${ARG_HOPPER})
    svdserve_cuda_options(${name}_hopper)
    set_target_properties(${name}_hopper PROPERTIES CUDA_ARCHITECTURES 90a-real)
    target_sources(${name} PRIVATE $<TARGET_OBJECTS:${name}_hopper>)
  endif()
endfunction()

function(svdserve_cuda_options name)
  target_include_directories(${name} PUBLIC ${PROJECT_SOURCE_DIR})
  target_link_libraries(${name} PUBLIC CUDA::cudart_static)
  target_compile_options(${name} PRIVATE -Xptxas=-v -Xcompiler=-Wall,-Wextra)
  set(launcher python3 ${PROJECT_SOURCE_DIR}/tools/check_ptxas.py)
  if(CCACHE)
    list(APPEND launcher ${CCACHE})
  endif()
  set_target_properties(${name} PROPERTIES CUDA_COMPILER_LAUNCHER "${launcher}")
endfunction()
