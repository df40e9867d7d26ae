#!/usr/bin/env bash
# Every test: set-up, the whole suite with gcc (dev), the whole suite with clang under ASan and UBSan
# (asan), and each fuzz target for FUZZ_SECONDS (20). What was tested before with exactly the same
# programs and files is not run again; the screen says so. FULL=1 runs everything.
set -uo pipefail
cd "$(dirname "$0")/.."

fuzz_seconds=${FUZZ_SECONDS:-20}
full=${FULL:-0}
jobs=$(nproc)
passed=0 failed=0 skipped=0
started=$SECONDS

finish() {
  echo
  echo "time: $((SECONDS - started)) s"
  echo "$passed passed, $failed failed, $skipped skipped"
  [[ $failed -eq 0 ]]
  exit
}
give_up() {
  echo "FAILED: $1" >&2
  failed=$((failed + 1))
  finish
}
step() { echo "== $1"; }

scripts/setup.sh --clients || give_up "scripts/setup.sh"
scripts/demo.sh --fetch-only || echo "NOTE: the demo model could not be fetched; the tests that need it are skipped"

# quietly LOG COMMAND…: the output only when it fails.
quietly() {
  local log=$1
  shift
  mkdir -p "$(dirname "$log")"
  if ! "$@" >"$log" 2>&1; then
    tail -n 60 "$log" >&2
    return 1
  fi
}

build() {
  local preset=$1
  step "$preset: build"
  quietly "build/$preset-configure.log" cmake --preset "$preset" || give_up "cmake --preset $preset"
  quietly "build/$preset-build.log" cmake --build --preset "$preset" || give_up "build of $preset"
}

# The digest of what the suite's result depends on: the programs, and the files that tests read.
digest_of_suite() {
  { find "build/$1" -path '*/CMakeFiles' -prune -o -type f -executable -print0 | sort -z | xargs -0 sha256sum
    git ls-files -coz --exclude-standard tests/golden tests/scripts.cmake tests/CMakeLists.txt scripts \
      python docs src README.md | sort -z | xargs -0 sha256sum
    find "${BISE_HOME:-${XDG_DATA_HOME:-$HOME/.local/share}/bise}/models/demo" -type f -printf '%p %s\n' 2>/dev/null
  } | sha256sum | cut -d' ' -f1
}

# The same for one fuzz target: the program, its seeds, how long it runs.
digest_of_fuzzer() {
  { sha256sum "build/asan/fuzz/$1"
    git ls-files -coz --exclude-standard "fuzz/seeds/${1%_fuzz}" | sort -z | xargs -0r sha256sum
    echo "$fuzz_seconds"
  } | sha256sum | cut -d' ' -f1
}

# Adds the numbers of ctest's summary ("97% tests passed, 3 tests failed out of 100").
count() {
  local log=$1 status=$2 summary all bad not_run
  summary=$(grep -E '[0-9]+ tests? failed out of [0-9]+' "$log" | tail -n 1)
  if [[ -z $summary ]]; then
    failed=$((failed + 1))
    return
  fi
  bad=$(sed -E 's/.* ([0-9]+) tests? failed.*/\1/' <<<"$summary")
  all=$(sed -E 's/.*out of ([0-9]+).*/\1/' <<<"$summary")
  not_run=$(grep -cE 'Test +#[0-9]+:.*\*\*\*Skipped' "$log")
  passed=$((passed + all - bad - not_run))
  failed=$((failed + bad))
  skipped=$((skipped + not_run))
  [[ $status -ne 0 && $bad -eq 0 ]] && failed=$((failed + 1))
}

run_ctest() {
  local preset=$1 log=build/$1-ctest.log status=0
  step "$preset: ctest"
  ctest --preset "$preset" -j "$jobs" >"$log" 2>&1 || status=$?
  count "$log" "$status"
  if [[ $status -ne 0 ]]; then
    grep -vE '^ *[0-9]+/[0-9]+ Test .* Passed|^ +Start +[0-9]+:' "$log" | tail -n 300
  else
    grep -E 'Skipped|tests passed|Total Test time' "$log"
  fi
  return "$status"
}

# The suite of a preset; not again when the same programs and files passed before.
suite() {
  local preset=$1 stamp=build/$1-suite.passed now before=$passed
  now=$(digest_of_suite "$preset")
  if [[ $full != 1 && -f $stamp && $(head -n 1 "$stamp") == "$now" ]]; then
    step "$preset: ctest"
    echo "not run again: it passed before with exactly these programs and files (FULL=1 runs it)"
    passed=$((passed + $(tail -n 1 "$stamp")))
    return
  fi
  rm -f "$stamp"
  if run_ctest "$preset"; then printf '%s\n%s\n' "$now" "$((passed - before))" >"$stamp"; fi
}

fuzz() {
  local log=build/fuzz.log status=0 target todo=() ok bad
  for source in fuzz/*_fuzz.cpp; do
    target=$(basename "$source" .cpp)
    if [[ $full != 1 && -f build/$target.passed && $(<"build/$target.passed") == "$(digest_of_fuzzer "$target")" ]]; then
      echo "not run again: $target, the same program with the same seeds passed before (FULL=1 runs it)"
      passed=$((passed + 1))
    else
      todo+=("$target")
    fi
  done
  [[ ${#todo[@]} -eq 0 ]] && return
  step "fuzz: ${#todo[@]} targets, $fuzz_seconds s each, two at a time"
  scripts/fuzz.sh "$fuzz_seconds" "${todo[@]}" >"$log" 2>&1 || status=$?
  cat "$log"
  for target in "${todo[@]}"; do
    rm -f "build/$target.passed"
    grep -q "^  ok    $target:" "$log" && digest_of_fuzzer "$target" >"build/$target.passed"
  done
  ok=$(grep -c '^  ok ' "$log")
  bad=$(grep -c '^  FAIL' "$log")
  [[ $status -ne 0 && $bad -eq 0 ]] && bad=1
  passed=$((passed + ok))
  failed=$((failed + bad))
}

build dev
suite dev
build asan
suite asan
fuzz
finish
