# Structured output stands on the llguidance library, a Rust crate. Where cargo 1.87 or newer is and the
# crate can be had, it is built once for all presets and linked; else a stub is, which refuses such
# requests by name.
set(BISE_STRUCTURED AUTO CACHE STRING "structured output: AUTO, ON (an error without cargo) or OFF")
set(BISE_LLGUIDANCE OFF)
if(NOT BISE_STRUCTURED STREQUAL OFF)
  find_program(CARGO cargo HINTS $ENV{HOME}/.cargo/bin)
  if(CARGO)
    execute_process(COMMAND ${CARGO} --version OUTPUT_VARIABLE cargo_version ERROR_QUIET)
    string(REGEX MATCH "[0-9]+\\.[0-9]+" cargo_version "${cargo_version}")
    if(cargo_version VERSION_GREATER_EQUAL 1.87)
      execute_process(COMMAND ${CARGO} fetch --locked --quiet
        --manifest-path ${CMAKE_SOURCE_DIR}/third_party/llguidance/Cargo.toml
        RESULT_VARIABLE cargo_failed ERROR_VARIABLE cargo_message)
      if(NOT cargo_failed)
        set(BISE_LLGUIDANCE ON)
      else()
        message(STATUS "structured output: the llguidance crate cannot be had: ${cargo_message}")
      endif()
    else()
      message(STATUS "structured output: cargo ${cargo_version} is older than 1.87")
    endif()
  endif()
  if(BISE_STRUCTURED STREQUAL ON AND NOT BISE_LLGUIDANCE)
    message(FATAL_ERROR "BISE_STRUCTURED=ON needs cargo 1.87 or newer and the llguidance crate")
  endif()
endif()

if(BISE_LLGUIDANCE)
  set(crate ${CMAKE_SOURCE_DIR}/third_party/llguidance)
  set(target_folder ${CMAKE_SOURCE_DIR}/build/llguidance)
  set(library ${target_folder}/release/libbise_llguidance.a)
  add_custom_command(OUTPUT ${library}
    COMMAND ${CMAKE_COMMAND} -E env CARGO_TARGET_DIR=${target_folder} ${CARGO} build --release --locked --quiet
      --manifest-path ${crate}/Cargo.toml
    COMMAND ${CMAKE_COMMAND} -E touch ${library}
    DEPENDS ${crate}/Cargo.toml ${crate}/Cargo.lock ${crate}/src/lib.rs
    COMMENT "Building llguidance with cargo" VERBATIM)
  add_custom_target(llguidance_build DEPENDS ${library})
  add_library(llguidance STATIC IMPORTED GLOBAL)
  set_target_properties(llguidance PROPERTIES IMPORTED_LOCATION ${library}
    INTERFACE_INCLUDE_DIRECTORIES ${crate} INTERFACE_LINK_LIBRARIES "dl;m")
  add_dependencies(llguidance llguidance_build)
  message(STATUS "structured output: llguidance, built by ${CARGO}")
else()
  message(STATUS "structured output: not in this build")
endif()
