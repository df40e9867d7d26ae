#!/usr/bin/env bash
# Runs the libFuzzer targets of the asan build, two at a time.
#   scripts/fuzz.sh SECONDS [TARGET…]      every target when none is named
# Starts from fuzz/seeds/NAME and keeps what it finds in build/fuzz/NAME; a crash leaves its input in
# build/fuzz/crashes and makes the exit status 1.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:?usage: scripts/fuzz.sh SECONDS [TARGET…]}
shift
folder=${BISE_FUZZ_BUILD:-build/asan}/fuzz
targets=("$@")
if [[ ${#targets[@]} -eq 0 ]]; then
  for source in fuzz/*_fuzz.cpp; do targets+=("$(basename "$source" .cpp)"); done
fi
mkdir -p build/fuzz/crashes

run_one() {
  local target=$1 name=${1%_fuzz} seeds=()
  mkdir -p "build/fuzz/$name"
  [[ -d fuzz/seeds/$name ]] && seeds=("fuzz/seeds/$name")
  # -timeout: one input may take 10 s under the sanitizers, a sign of more than linear time.
  if "$folder/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=3000 -max_len=65536 \
      -print_final_stats=1 -artifact_prefix="build/fuzz/crashes/$name-" \
      "build/fuzz/$name" "${seeds[@]}" >"build/fuzz/$name.log" 2>&1; then
    awk -v t="$target" '/number_of_executed_units/ {runs=$2} /peak_rss_mb/ {rss=$2}
      END {printf "  ok    %s: %d runs, %d MB\n", t, runs, rss}' "build/fuzz/$name.log"
  else
    echo "  FAIL  $target: see build/fuzz/$name.log"
    tail -n 30 "build/fuzz/$name.log"
    return 1
  fi
}

failed=0 running=0
for target in "${targets[@]}"; do
  if [[ ! -x $folder/$target ]]; then
    echo "fuzz: $folder/$target is not built: cmake --preset asan && cmake --build --preset asan" >&2
    exit 1
  fi
  if [[ $running -ge 2 ]]; then
    wait -n || failed=$((failed + 1))
    running=$((running - 1))
  fi
  run_one "$target" &
  running=$((running + 1))
done
while [[ $running -gt 0 ]]; do
  wait -n || failed=$((failed + 1))
  running=$((running - 1))
done
[[ $failed -eq 0 ]]
