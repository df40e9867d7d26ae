#!/usr/bin/env bash
# Formats the sources in place; with --check only says which files would change.
set -euo pipefail
cd "$(dirname "$0")/.."
mode=(-i)
[[ ${1:-} == --check ]] && mode=(--dry-run --Werror)
find src tests fuzz bench -name '*.h' -o -name '*.cpp' -o -name '*.inl' | sort |
  xargs clang-format-14 "${mode[@]}"
