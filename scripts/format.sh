#!/usr/bin/env bash
# Formats the lines of C++ changed since a commit (HEAD unless said) in place; with --check shows what would change and
# exits with 1. Lines that nobody touches keep the form their author gave them: tables of one-line operations are
# aligned by hand.   scripts/format.sh [--check] [COMMIT]
set -euo pipefail
cd "$(dirname "$0")/.."
check=false
[[ ${1:-} == --check ]] && check=true && shift
since=$(git rev-parse --verify --quiet "${1:-HEAD}^{commit}") || { echo "format.sh: no commit '${1:-HEAD}'" >&2; exit 2; }
changed() { git diff -U0 --no-color "$since" -- '*.h' '*.cpp' '*.inl' '*.cu' '*.cuh'; }
if $check; then
  difference=$(changed | clang-format-diff-14 -p1 -regex '.*\.(h|cpp|inl|cuh?)')
  [[ -z $difference ]] || { echo "$difference"; exit 1; }
else
  changed | clang-format-diff-14 -p1 -regex '.*\.(h|cpp|inl|cuh?)' -i
fi
