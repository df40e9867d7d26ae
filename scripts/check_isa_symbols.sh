#!/usr/bin/env bash
# check_isa_symbols.sh OBJECT_DIR: the objects of src/backend/cpu/isa_*.cpp define nothing that the
# linker may choose for the whole program (weak symbols: W, V, u) outside their own namespaces. A
# weak function of a shared header, compiled with AVX-512 flags and kept by the linker, would stop the
# program on every processor without them.
# check_isa_symbols.sh --self-test: an object with such a symbol is found. CXX names the compiler.
set -euo pipefail

# Prints the weak symbols of an object that stand outside simd_scalar::, simd_avx2::, simd_avx512::,
# simd_avx512_bf16:: and simd_amx::
# (GCC's and clang's mangled names begin with the namespace, also those of lambdas and variables).
# Type information is data, the same under all flags: it may be shared. UBSan adds some.
strangers() {
  nm --defined-only "$1" | awk '$(NF - 1) ~ /^[WVu]$/ { print $NF }' |
    grep -vE '^_ZT[IS]|^_Z(Z|GV)*N[VKO]*(11simd_scalar|9simd_avx2|11simd_avx512|16simd_avx512_bf16|8simd_amx)' || true
}

if [[ ${1:-} == --self-test ]]; then
  folder=$(mktemp -d)
  trap 'rm -rf "$folder"' EXIT
  for namespace in shared simd_avx2; do
    echo "namespace $namespace { inline int one() { return 1; } } int (*keep)() = $namespace::one;" >"$folder/$namespace.cpp"
    "${CXX:-c++}" -O0 -c "$folder/$namespace.cpp" -o "$folder/$namespace.o"
  done
  [[ $(strangers "$folder/shared.o") == _ZN6shared3oneEv ]] || { echo "a shared weak symbol was not found" >&2; exit 1; }
  [[ -z $(strangers "$folder/simd_avx2.o") ]] || { echo "a weak symbol of an own namespace was refused" >&2; exit 1; }
  echo "ok: a weak symbol outside the namespaces is found"
  exit 0
fi

folder=${1:?"usage: check_isa_symbols.sh OBJECT_DIR | --self-test"}
objects=$(find "$folder" -name 'isa_*.o' | sort)
[[ -n $objects ]] || { echo "$folder: no isa_*.o below it; build the backend first" >&2; exit 1; }
status=0
for object in $objects; do
  found=$(strangers "$object")
  if [[ -n $found ]]; then
    echo "$object defines weak symbols outside its namespace:" >&2
    c++filt <<<"$found" | sed 's/^/  /' >&2
    status=1
  fi
done
[[ $status -eq 0 ]] && echo "ok: $(wc -l <<<"$objects") objects"
exit "$status"
