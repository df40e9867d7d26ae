#!/usr/bin/env bash
# Every test: set-up, the whole suite with gcc (dev), the whole suite with clang under ASan and UBSan
# (asan), and each fuzz target for FUZZ_SECONDS (20). What was tested before with exactly the same
# programs and files is not run again; the screen says so. FULL=1 runs everything.
set -uo pipefail
cd "$(dirname "$0")/.."

fuzz_seconds=${FUZZ_SECONDS:-20}
full=${FULL:-0}
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

scripts/setup.sh --clients --cuda || give_up "scripts/setup.sh"
scripts/demo.sh --fetch-only || echo "NOTE: SmolLM2 could not be fetched; the tests that need it are skipped"

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

# What the result of a fuzz target depends on: the program, its seeds, how long it runs.
digest_of_fuzzer() {
  { sha256sum "build/asan/fuzz/$1"
    git ls-files -coz --exclude-standard "fuzz/seeds/${1%_fuzz}" | sort -z | xargs -0r sha256sum
    echo "$fuzz_seconds"
  } | sha256sum | cut -d' ' -f1
}

suite() {
  local preset=$1 out counts
  step "$preset: ctest"
  out=$(scripts/run_suite.py "$preset" $([[ $full == 1 ]] && echo --all))
  grep -v '^counts: ' <<<"$out"
  read -r _ counts < <(grep '^counts: ' <<<"$out" || echo "counts: 0 1 0")
  # shellcheck disable=SC2086
  set -- $counts
  passed=$((passed + $1)) failed=$((failed + $2)) skipped=$((skipped + $3))
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

cuda() {
  if [[ ! -x build/nvcc/nvidia/cu13/bin/nvcc && ! -x /usr/local/cuda/bin/nvcc ]] && ! command -v nvcc >/dev/null; then
    echo "NOTE: no CUDA compiler is here: the backend for NVIDIA GPUs is not compiled"
    skipped=$((skipped + 1))
    return
  fi
  build cuda
  passed=$((passed + 1))
  [[ -e /dev/nvidia0 ]] || return
  step "cuda: on this machine's GPU"
  local program
  for program in "test_backend --gtest_filter=*cuda*" "test_model --gtest_filter=*on_a_gpu*"; do
    # shellcheck disable=SC2086
    if quietly build/cuda-tests.log build/cuda/tests/$program; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
  done
}

build dev
suite dev
cuda
build asan
suite asan
fuzz
finish
