#!/usr/bin/env bash
# One client against the program:  run.sh python|javascript|lm_eval|vibe BISE
# Exit status 77 where its packages are not installed (scripts/setup.sh --clients; --all-clients for lm_eval and vibe).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$here/../..
packages=$root/build/clients
model=$root/tests/golden/model/ckpt/medium/hf-bf16
smollm2=$("$root/scripts/store_folder.sh")/models/smollm2
skip() {
  echo "skipped: the client's packages are not in build/clients; scripts/setup.sh ${1:---clients} puts them there"
  exit 77
}
case $1 in
  python)
    "$packages/venv/bin/python" -c "import openai" 2>/dev/null || skip
    compgen -G "$smollm2/*.gguf" >/dev/null && with_smollm2=(smollm2) || with_smollm2=()
    exec "$packages/venv/bin/python" "$here/openai_test.py" "$2" "$model" "${with_smollm2[@]}" ;;
  javascript)
    PATH=$PATH:$packages/venv/bin
    [[ -d $packages/node_modules/openai ]] && command -v node >/dev/null || skip
    exec python3 "$here/run_js.py" "$2" "$model" "$packages" ;;
  lm_eval)
    [[ -x $packages/lm_eval/bin/lm_eval ]] || skip --all-clients
    compgen -G "$smollm2/*.gguf" >/dev/null || { echo "skipped: without SmolLM2 (scripts/demo.sh --fetch-only)"; exit 77; }
    exec python3 "$here/lm_eval_test.py" "$2" "$packages/lm_eval/bin/lm_eval" smollm2 ;;
  vibe)
    [[ -x $packages/vibe/bin/vibe ]] || skip "--all-clients (with a Python of 3.12 or newer)"
    exec python3 "$here/vibe_test.py" "$2" "$packages/vibe/bin/vibe" "$model" ;;
esac
