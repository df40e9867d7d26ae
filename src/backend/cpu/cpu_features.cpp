#include "backend/cpu/cpu_features.h"

namespace bise {

CpuFeatures detect_cpu_features() {
  CpuFeatures f;
#if defined(__x86_64__)
  // These builtins also ask the operating system whether it saves the wide registers.
  // Clang 14's does not know f16c: its bit is read here, and AVX2 vouches for the registers.
  unsigned a = 1, b = 0, c = 0, d = 0;
  __asm__("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
  f.avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && ((c >> 29) & 1);
  f.avx512 = f.avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
             __builtin_cpu_supports("avx512vnni");
  a = 7;
  c = 0;
  __asm__("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
  f.amx_bf16 = (d >> 22) & 1;
  f.amx_int8 = (d >> 25) & 1;
  a = 7;
  c = 1;
  __asm__("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
  f.avx512_bf16 = f.avx512 && ((a >> 5) & 1);
#endif
  return f;
}

bool CpuFeatures::supports(IsaLevel level) const {
  switch (level) {
    case IsaLevel::scalar: return true;
    case IsaLevel::avx2: return avx2;
    case IsaLevel::avx512: break;
  }
  return avx512;
}
IsaLevel CpuFeatures::best() const {
  return avx512 ? IsaLevel::avx512 : avx2 ? IsaLevel::avx2 : IsaLevel::scalar;
}

const char* isa_name(IsaLevel level) {
  switch (level) {
    case IsaLevel::scalar: return "scalar";
    case IsaLevel::avx2: return "avx2";
    case IsaLevel::avx512: break;
  }
  return "avx512";
}

std::vector<IsaLevel> built_isa_levels() {
#if defined(__x86_64__)
  return {IsaLevel::scalar, IsaLevel::avx2, IsaLevel::avx512};
#else
  return {IsaLevel::scalar};
#endif
}

}  // namespace bise
