#!/usr/bin/env bash
# One client against the program:  run.sh python|javascript BISE
# Exit status 77 where its packages are not installed (scripts/setup.sh --clients).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$here/../..
packages=$root/build/clients
model=$root/tests/golden/model/ckpt/medium/hf-bf16
demo=${BISE_HOME:-${XDG_DATA_HOME:-$HOME/.local/share}/bise}/models/demo
skip() {
  echo "skipped: the client's packages are not in build/clients; scripts/setup.sh --clients puts them there"
  exit 77
}
case $1 in
  python)
    "$packages/venv/bin/python" -c "import openai" 2>/dev/null || skip
    compgen -G "$demo/*.gguf" >/dev/null && with_demo=(demo) || with_demo=()
    exec "$packages/venv/bin/python" "$here/openai_test.py" "$2" "$model" "${with_demo[@]}" ;;
  javascript)
    PATH=$PATH:$packages/venv/bin
    [[ -d $packages/node_modules/openai ]] && command -v node >/dev/null || skip
    exec python3 "$here/run_js.py" "$2" "$model" "$packages" ;;
esac
