# The commit is read at configure time; a tarball without git says "unknown".
execute_process(COMMAND git -C ${CMAKE_SOURCE_DIR} rev-parse --short=12 HEAD
  OUTPUT_VARIABLE BISE_COMMIT OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
if(NOT BISE_COMMIT)
  set(BISE_COMMIT unknown)
endif()
set_source_files_properties(src/app/version.cpp PROPERTIES COMPILE_DEFINITIONS
  "BISE_VERSION=\"${PROJECT_VERSION}\";BISE_COMMIT=\"${BISE_COMMIT}\";BISE_COMPILER=\"${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}\";BISE_BUILD_TYPE=\"${CMAKE_BUILD_TYPE}\"")
