# -DBISE_CUDA=ON: the backend for NVIDIA GPUs, compiled by the machine's nvcc, or by the one that
# scripts/setup.sh --cuda has put into build/nvcc. BISE_CUDA_ARCHITECTURES picks some of the chips.
set(BISE_CUDA_ARCHITECTURES "80;86;89;90;100;120" CACHE STRING "compute capabilities to compile for")
find_program(NVCC nvcc HINTS ${CMAKE_SOURCE_DIR}/build/nvcc/nvidia/cu13/bin /usr/local/cuda/bin)
if(NOT NVCC)
  message(FATAL_ERROR "BISE_CUDA=ON: no nvcc is here; run scripts/setup.sh --cuda, or install the CUDA toolkit")
endif()
cmake_path(GET NVCC PARENT_PATH nvcc_folder)
cmake_path(GET nvcc_folder PARENT_PATH cuda_root)
find_library(CUDART_STATIC cudart_static HINTS ${cuda_root}/lib ${cuda_root}/lib64 REQUIRED)

# CMake 3.25 does not know that today's nvcc speaks C++20, so its own language CUDA cannot be used.
set(nvcc_flags -std=c++20 -O3 --expt-relaxed-constexpr)  # the layouts' functions are the host's: constexpr lets the GPU have them
foreach(architecture ${BISE_CUDA_ARCHITECTURES})
  list(APPEND nvcc_flags -gencode=arch=compute_${architecture},code=sm_${architecture})
endforeach()
file(GLOB cuda_kernels CONFIGURE_DEPENDS src/backend/cuda/*.cu)
foreach(source ${cuda_kernels})
  cmake_path(GET source STEM name)
  set(object ${CMAKE_BINARY_DIR}/cuda/${name}.o)
  add_custom_command(OUTPUT ${object} DEPENDS ${source} DEPFILE ${object}.d COMMENT "nvcc ${name}.cu" VERBATIM
    COMMAND ${NVCC} ${nvcc_flags} -I${CMAKE_SOURCE_DIR}/src -MD -MF ${object}.d -MT ${object} -c ${source} -o ${object})
  list(APPEND cuda_objects ${object})
endforeach()
file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/cuda)
file(GLOB cuda_sources CONFIGURE_DEPENDS src/backend/cuda/*.cpp)
target_sources(bise_backend PRIVATE ${cuda_sources} ${cuda_objects})
target_link_libraries(bise_backend PUBLIC ${CUDART_STATIC} rt ${CMAKE_DL_LIBS})
