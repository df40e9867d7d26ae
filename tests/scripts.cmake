# Tests that are scripts: the layer check, the reference outputs of tests/golden asked of the built
# program, the examples of the documents, the demo model. They need Python's standard library alone.
find_package(Python3 REQUIRED COMPONENTS Interpreter)

function(bise_script_test name)
  add_test(NAME ${name} COMMAND Python3::Interpreter ${ARGN} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(${name} PROPERTIES TIMEOUT 900 ENVIRONMENT "PYTHONDONTWRITEBYTECODE=1")
endfunction()

bise_script_test(layers.every_folder_includes_only_from_below ${CMAKE_SOURCE_DIR}/scripts/check_layers.py)
bise_script_test(layers.the_check_finds_what_it_forbids ${CMAKE_SOURCE_DIR}/scripts/check_layers.py --self-test)

if(NOT TARGET bise)
  return()
endif()

# The five tokenizer files are made once from the one that is kept, compressed.
set(chat_golden ${CMAKE_CURRENT_SOURCE_DIR}/golden/chat)
set(tekken_folder ${CMAKE_BINARY_DIR}/tests/tekken)
bise_script_test(golden_chat.tokenizer_files_are_made
  ${chat_golden}/make.py tekken ${tekken_folder} ${chat_golden}/tekken.json.gz)
set_tests_properties(golden_chat.tokenizer_files_are_made PROPERTIES FIXTURES_SETUP tekken_files)
foreach(kind tokenize encode parse)
  bise_script_test(golden_chat.${kind}_answers_as_the_reference ${chat_golden}/check.py
    --tekken ${tekken_folder} --${kind} "$<TARGET_FILE:bise> probe ${kind} {tekken}")
  set_tests_properties(golden_chat.${kind}_answers_as_the_reference PROPERTIES FIXTURES_REQUIRED tekken_files)
endforeach()
bise_script_test(golden_chat.lenient_encode_follows_the_rules_for_servers ${chat_golden}/check.py
  --tekken ${tekken_folder} --lenient --encode "$<TARGET_FILE:bise> probe encode {tekken}")
set_tests_properties(golden_chat.lenient_encode_follows_the_rules_for_servers PROPERTIES
  FIXTURES_REQUIRED tekken_files)

set(model_golden ${CMAKE_CURRENT_SOURCE_DIR}/golden/model)
set(engine "${Python3_EXECUTABLE} ${CMAKE_SOURCE_DIR}/python/engine_for_check.py $<TARGET_FILE:bise> {model} {prompt} {dtype} --threads 1")
foreach(variant medium ministral devstral2 small31 smalltext)
  bise_script_test(golden_model.${variant}_agrees_with_transformers ${model_golden}/check.py
    ${model_golden}/ckpt ${engine} --only ${variant}/)
endforeach()
bise_script_test(golden_model.the_scalar_kernels_agree_with_transformers ${model_golden}/check.py
  ${model_golden}/ckpt "${engine} --isa scalar" --only ministral/,short)

set(documents README.md docs/CLI.md docs/HACKING.md)
bise_script_test(documents.examples_print_what_the_documents_say
  ${CMAKE_SOURCE_DIR}/scripts/check_examples.py $<TARGET_FILE_DIR:bise> ${documents})
# Needs the demo model in the local store; skipped, and said to be, where it is not.
bise_script_test(demo.examples_print_what_the_documents_say
  ${CMAKE_SOURCE_DIR}/scripts/check_examples.py $<TARGET_FILE_DIR:bise> --demo ${documents})
set_tests_properties(demo.examples_print_what_the_documents_say PROPERTIES
  LABELS demo SKIP_RETURN_CODE 77)
