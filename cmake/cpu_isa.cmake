# One translation unit per instruction set: the only place with ISA flags.
file(GLOB isa_sources CONFIGURE_DEPENDS src/backend/cpu/*.cpp)
target_sources(bise_backend PRIVATE ${isa_sources})
set_source_files_properties(src/backend/cpu/isa_avx2.cpp PROPERTIES COMPILE_OPTIONS "-mavx2;-mfma;-mf16c;-O3")
set_source_files_properties(src/backend/cpu/isa_avx512.cpp PROPERTIES
  COMPILE_OPTIONS "-mavx512f;-mavx512bw;-mavx512vl;-mavx512dq;-mavx512vnni;-mavx2;-mfma;-mf16c;-O3")
