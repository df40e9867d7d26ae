# Warnings are errors; sanitizers by BISE_SANITIZE. Contraction of a*b+c is off, so that the plain
# loops give the same bits on every compiler and ISA; kernels that want FMA ask for it by name.
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG -g1")
add_compile_options(-Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual -Werror
  -ffp-contract=off -fno-math-errno -fvisibility=hidden)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # GCC 12 reports false positives of these in optional and in inlined standard headers (PR 105562).
  add_compile_options(-Wno-maybe-uninitialized -Wno-stringop-overflow -Wno-array-bounds)
endif()
if(BISE_SANITIZE)
  add_compile_options(-fsanitize=${BISE_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${BISE_SANITIZE})
endif()
# Half of a sanitized build is the optimiser at work on templates whose speed no test needs.
function(bise_quick_to_build target)
  if(BISE_QUICK_BUILD)
    target_compile_options(${target} PRIVATE -O0)
  endif()
endfunction()
find_program(CCACHE ccache)
if(CCACHE)
  # Without these ccache leaves alone what is compiled with a precompiled header.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros ${CCACHE})
endif()
