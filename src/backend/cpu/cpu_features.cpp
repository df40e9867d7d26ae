#include "backend/cpu/cpu_features.h"

#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace bise {
namespace {

#if defined(__x86_64__)
// XCR0 has the bits of the tiles' configuration and data.
bool system_saves_tiles() {
  unsigned low = 0, high = 0;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (low >> 17 & 3) == 3;
}

// The 8 KiB of tile data are not part of a thread's state until the process has asked for them; without
// that the first instruction on a tile kills it. Kernels before 5.16 do not know the request.
bool may_use_tiles() {
#if defined(__linux__)
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return ::syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}
#endif

}  // namespace

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
  const bool has_xgetbv = (c >> 27) & 1;
  a = 7;
  c = 0;
  __asm__("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
  constexpr unsigned kAmx = 1u << 22 | 1u << 24 | 1u << 25;  // BF16, TILE, INT8
  const bool has_amx = (d & kAmx) == kAmx, has_vbmi = (c >> 1) & 1;
  a = 7;
  c = 1;
  __asm__("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
  f.avx512_bf16 = f.avx512 && has_vbmi && ((a >> 5) & 1);
  f.amx = f.avx512_bf16 && has_amx && has_xgetbv && system_saves_tiles() && may_use_tiles();
#endif
  return f;
}

bool CpuFeatures::supports(IsaLevel level) const {
  switch (level) {
    case IsaLevel::scalar: return true;
    case IsaLevel::avx2: return avx2;
    case IsaLevel::avx512: return avx512;
    case IsaLevel::avx512_bf16: return avx512_bf16;
    case IsaLevel::amx: break;
  }
  return amx;
}
IsaLevel CpuFeatures::best() const {
  for (IsaLevel level : {IsaLevel::amx, IsaLevel::avx512_bf16, IsaLevel::avx512, IsaLevel::avx2}) {
    if (supports(level)) return level;
  }
  return IsaLevel::scalar;
}

const char* isa_name(IsaLevel level) {
  switch (level) {
    case IsaLevel::scalar: return "scalar";
    case IsaLevel::avx2: return "avx2";
    case IsaLevel::avx512: return "avx512";
    case IsaLevel::avx512_bf16: return "avx512_bf16";
    case IsaLevel::amx: break;
  }
  return "amx";
}

std::vector<IsaLevel> built_isa_levels() {
#if defined(__x86_64__)
  return {IsaLevel::scalar, IsaLevel::avx2, IsaLevel::avx512, IsaLevel::avx512_bf16, IsaLevel::amx};
#else
  return {IsaLevel::scalar};
#endif
}

}  // namespace bise
