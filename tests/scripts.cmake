# Tests that are scripts: the layer check, the reference outputs of tests/golden asked of the built
# program, the examples of the documents, the demo model. They need Python's standard library alone.
find_package(Python3 REQUIRED COMPONENTS Interpreter)

# The word before the point is the part of the suite it belongs to: scripts/run_suite.py knows which files each part reads.
function(bise_command_test name)
  add_test(NAME ${name} COMMAND ${ARGN} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  string(REGEX REPLACE "[.].*" "" part ${name})
  set_tests_properties(${name} PROPERTIES TIMEOUT 900 ENVIRONMENT "PYTHONDONTWRITEBYTECODE=1" LABELS script_${part})
endfunction()
function(bise_script_test name)
  bise_command_test(${name} Python3::Interpreter ${ARGN})
endfunction()

bise_script_test(layers.every_folder_includes_only_from_below ${CMAKE_SOURCE_DIR}/scripts/check_layers.py)
bise_script_test(layers.the_check_finds_what_it_forbids ${CMAKE_SOURCE_DIR}/scripts/check_layers.py --self-test)

bise_command_test(isa_symbols.nothing_of_a_wide_instruction_set_can_be_shared
  ${CMAKE_SOURCE_DIR}/scripts/check_isa_symbols.sh ${CMAKE_BINARY_DIR}/CMakeFiles/bise_backend.dir)
bise_command_test(isa_symbols.the_check_finds_what_it_forbids
  ${CMAKE_SOURCE_DIR}/scripts/check_isa_symbols.sh --self-test)
set_tests_properties(isa_symbols.the_check_finds_what_it_forbids PROPERTIES
  ENVIRONMENT "CXX=${CMAKE_CXX_COMPILER}")

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
# static32 (quantised activations) is compared where the reference itself shows a distance between two
# evaluations, on the medium checkpoint; elsewhere that measure is 0 and 1e-5 would count as a fault.
# ops_conformance_test holds the same product per linear.
foreach(variant medium ministral devstral2 small31 smalltext)
  set(dtypes float32,bfloat16)
  if(variant STREQUAL medium)
    set(dtypes float32,bfloat16,static32)
  endif()
  # Under sanitizers test_model runs every variant in one process; here one prompt of one shows the way there.
  set(only ${variant}/)
  if(BISE_SANITIZE)
    if(NOT variant STREQUAL medium)
      continue()
    endif()
    set(only ${variant}/,short)
  endif()
  bise_script_test(golden_model.${variant}_agrees_with_transformers ${model_golden}/check.py
    ${model_golden}/ckpt ${engine} --only ${only} --dtypes ${dtypes})
endforeach()
bise_script_test(golden_model.the_scalar_kernels_agree_with_transformers ${model_golden}/check.py
  ${model_golden}/ckpt "${engine} --isa scalar" --only ministral/,short --dtypes float32,bfloat16)

set(documents README.md docs/API.md docs/CLI.md docs/HACKING.md docs/PERFORMANCE.md)
bise_script_test(documents.examples_print_what_the_documents_say
  ${CMAKE_SOURCE_DIR}/scripts/check_examples.py $<TARGET_FILE_DIR:bise> ${documents})
# Needs SmolLM2 in the local store; skipped, and said to be, where it is not.
bise_script_test(smollm2.examples_print_what_the_documents_say
  ${CMAKE_SOURCE_DIR}/scripts/check_examples.py $<TARGET_FILE_DIR:bise> --smollm2 ${documents})
set_tests_properties(smollm2.examples_print_what_the_documents_say PROPERTIES SKIP_RETURN_CODE 77)

bise_script_test(cli.exit_codes_pipes_and_interrupts_are_as_documented
  ${CMAKE_SOURCE_DIR}/tests/app/cli_test.py $<TARGET_FILE:bise> ${CMAKE_CURRENT_SOURCE_DIR}/golden)

# The demo model of our own: what it is trained on and judged by, and its prompts by the program.
set(demo_model ${CMAKE_SOURCE_DIR}/python/demo_model)
bise_script_test(demo_model.the_generated_cases_are_what_they_say ${demo_model}/generator_test.py)
bise_script_test(demo_model.prompts_are_those_of_mistral_common ${demo_model}/check_prompts.py check
  ${CMAKE_CURRENT_SOURCE_DIR}/golden/demo/prompts.json $<TARGET_FILE:bise> ${CMAKE_BINARY_DIR}/tests/demo_model)
# Rendering, batches, optimizer, resuming: wants the packages of python/demo_model/requirements.txt, so it is a target of its own.
set(BISE_TRAINING_PYTHON ${Python3_EXECUTABLE} CACHE STRING "Python with the packages of python/demo_model/requirements.txt")
add_custom_target(demo_model_training_test COMMAND ${BISE_TRAINING_PYTHON} ${demo_model}/training_test.py)
# Many answers: too slow under sanitizers, where cli_test asks a few. All hundred of each task: without --cases 25.
if(NOT BISE_SANITIZE)
  bise_script_test(demo_model.the_shipped_model_answers_as_recorded ${demo_model}/evaluate.py $<TARGET_FILE:bise>
    ${CMAKE_SOURCE_DIR}/models/demo --at-least ${CMAKE_SOURCE_DIR}/models/demo/accuracy.json --cases 25 -- --deterministic)
endif()

# The server over real sockets, and the clients that people use (installed by scripts/setup.sh --clients).
foreach(test answers_and_refuses_over_real_sockets:serve follows_structures:structured bears_strange_bytes_and_signals:wire
    fetches_pictures_by_the_rules:image_fetch draws_and_ends_as_asked:sampling answers_with_the_demo_model:demo_model)
  string(REPLACE ":" ";" test ${test})
  list(GET test 0 sentence)
  list(GET test 1 file)
  bise_script_test(server.${sentence} ${CMAKE_CURRENT_SOURCE_DIR}/server/${file}_test.py $<TARGET_FILE:bise> ${CMAKE_CURRENT_SOURCE_DIR}/golden)
endforeach()
set(schemas ${CMAKE_CURRENT_SOURCE_DIR}/golden/json_schema)
set(every_schema 1)
if(BISE_SANITIZE)
  set(every_schema 4)  # nearly all of the time is in the Rust library, which no sanitizer sees
endif()
bise_script_test(server.structures_let_no_invalid_instance_pass ${schemas}/check.py $<TARGET_FILE:bise> ${tekken_folder}/v13/tekken.json --every ${every_schema})
set_tests_properties(server.structures_let_no_invalid_instance_pass PROPERTIES FIXTURES_REQUIRED tekken_files SKIP_RETURN_CODE 77)
bise_script_test(server.bears_clients_that_behave_badly
  ${CMAKE_CURRENT_SOURCE_DIR}/server/robustness_test.py $<TARGET_FILE:bise> ${CMAKE_CURRENT_SOURCE_DIR}/golden)
bise_script_test(smollm2.examples_of_the_server_print_what_the_documents_say
  ${CMAKE_SOURCE_DIR}/scripts/check_examples.py $<TARGET_FILE_DIR:bise> --serve docs/API.md)
set_tests_properties(smollm2.examples_of_the_server_print_what_the_documents_say PROPERTIES SKIP_RETURN_CODE 77)
# The long ones begin first: with two at a time the last of them would run alone.
set_tests_properties(cli.exit_codes_pipes_and_interrupts_are_as_documented server.structures_let_no_invalid_instance_pass
  PROPERTIES COST 100)
if(NOT BISE_SANITIZE)
  bise_command_test(clients.openai_for_python ${CMAKE_SOURCE_DIR}/python/clients/run.sh python $<TARGET_FILE:bise>)
  bise_command_test(clients.openai_for_javascript ${CMAKE_SOURCE_DIR}/python/clients/run.sh javascript $<TARGET_FILE:bise>)
  set_tests_properties(clients.openai_for_python clients.openai_for_javascript PROPERTIES SKIP_RETURN_CODE 77)
  # The large ones, when asked for: cmake --build --preset dev --target clients_long
  set(run ${CMAKE_SOURCE_DIR}/python/clients/run.sh)
  add_custom_target(clients_long USES_TERMINAL DEPENDS bise
    COMMAND sh -c "${run} lm_eval $<TARGET_FILE:bise> || test $? = 77"
    COMMAND sh -c "${run} vibe $<TARGET_FILE:bise> || test $? = 77" VERBATIM)
endif()
