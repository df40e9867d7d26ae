#!/usr/bin/env bash
# Installs what building and testing need, from Debian's own packages. Says what it installs; says
# nothing when all is there. Needs root or sudo only when something is missing.
set -euo pipefail

packages=(
  g++ clang-14 libclang-rt-14-dev llvm-14 clang-format-14 cmake ninja-build ccache  # compilers and build
  nlohmann-json3-dev libcli11-dev libspdlog-dev libedit-dev liburing-dev             # the program
  libjpeg62-turbo-dev libpng-dev libwebp-dev libgif-dev                              # pictures
  libgtest-dev libbenchmark-dev libsimde-dev                                         # tests and benchmarks
  git python3 python3-pip ca-certificates                                            # scripts, the demo model
)

if ! command -v dpkg-query >/dev/null; then
  echo "setup: this is not a Debian system; install the equivalents of: ${packages[*]}" >&2
  exit 1
fi
installed=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' "${packages[@]}" 2>/dev/null || true)
missing=()
for package in "${packages[@]}"; do
  grep -qx "$package installed" <<<"$installed" || missing+=("$package")
done
[[ ${#missing[@]} -eq 0 ]] && exit 0

as_root=()
if [[ $(id -u) -ne 0 ]]; then
  if ! command -v sudo >/dev/null; then
    echo "setup: these packages are missing and neither root nor sudo is here to install them: ${missing[*]}" >&2
    exit 1
  fi
  as_root=(sudo)
fi
echo "setup: installing ${missing[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
quietly() {
  if ! "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive "$@" </dev/null >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo "setup: failed: $*" >&2
    exit 1
  fi
}
quietly apt-get update
quietly apt-get install -y --no-install-recommends "${missing[@]}"
echo "setup: done"
