# The translation units with ISA flags: one per instruction set, and only these.
file(GLOB isa_sources CONFIGURE_DEPENDS src/backend/cpu/*.cpp)
target_sources(bise_backend PRIVATE ${isa_sources})
# The kernels' loops over tokens and lanes have constant counts and must be unrolled, or their sums live
# in memory. GCC does that at -O3, and then two of its passes reorder the sums so that all products of a
# block are alive at once: without them no sum is spilled (prefill 4 times as fast).
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  set(kernel_flags $<$<NOT:$<CONFIG:Debug>>:-O3> -fno-tree-reassoc -fno-tree-ter)
endif()
# No kernel throws; cleaning up for one that might would refer to a symbol that all files share.
set(avx2_flags ${kernel_flags} -fno-exceptions -mavx2 -mfma -mf16c)
set(avx512_flags ${avx2_flags} -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # GCC 12's own AVX-512 header leaves its undefined vectors uninitialised (PR 105593).
  list(APPEND avx512_flags -Wno-uninitialized)
endif()
set(bf16_flags ${avx512_flags} -mavx512bf16 -mavx512vbmi)
set(amx_flags ${bf16_flags} -mamx-tile -mamx-bf16 -mamx-int8)
# isa_scalar.cpp has the flags of everybody else: its unrolling of 16 lanes everywhere cost more than a
# minute of compiling, for a table that stands in where there is no AVX2.
set_source_files_properties(src/backend/cpu/isa_avx2.cpp PROPERTIES COMPILE_OPTIONS "${avx2_flags}")
set_source_files_properties(src/backend/cpu/isa_avx512.cpp PROPERTIES COMPILE_OPTIONS "${avx512_flags}")
set_source_files_properties(src/backend/cpu/isa_avx512_bf16.cpp PROPERTIES COMPILE_OPTIONS "${bf16_flags}")
set_source_files_properties(src/backend/cpu/isa_amx.cpp PROPERTIES COMPILE_OPTIONS "${amx_flags}")
set_source_files_properties(src/backend/cpu/isa_pack_avx2.cpp PROPERTIES COMPILE_OPTIONS "$<$<NOT:$<CONFIG:Debug>>:-O3>;-mavx2;-mbmi2")
# Vectors of 32 bytes are passed between functions of one file only: how is nobody's concern.
set_source_files_properties(src/backend/cpu/isa_pack_scalar.cpp PROPERTIES COMPILE_OPTIONS "-Wno-psabi")
