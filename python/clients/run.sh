#!/usr/bin/env bash
# One client against the program:  run.sh python|javascript BISE
# Exit status 77 where its packages are not installed (scripts/setup.sh --clients).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$here/../..
packages=$root/build/clients
model=$root/tests/golden/model/ckpt/medium/hf-bf16
demo=${BISE_HOME:-${XDG_DATA_HOME:-$HOME/.local/share}/bise}/models/demo
case $1 in
  python)
    [[ -x $packages/venv/bin/python ]] || exit 77
    compgen -G "$demo/*.gguf" >/dev/null && with_demo=(demo) || with_demo=()
    exec "$packages/venv/bin/python" "$here/openai_test.py" "$2" "$model" "${with_demo[@]}" ;;
  javascript)
    [[ -d $packages/node_modules/openai ]] && command -v node >/dev/null || exit 77
    exec python3 "$here/run_js.py" "$2" "$model" "$packages" ;;
esac
