// What the processor can do, as a value; names of the instruction-set levels.
#pragma once

#include <string>
#include <vector>

namespace bise {

enum class IsaLevel { scalar, avx2, avx512 };

struct CpuFeatures {
  bool avx2 = false;        // with FMA and F16C
  bool avx512 = false;      // F, BW, VL, DQ and VNNI
  bool avx512_bf16 = false;
  bool amx_int8 = false, amx_bf16 = false;
  bool supports(IsaLevel level) const;
  IsaLevel best() const;
};

CpuFeatures detect_cpu_features();
const char* isa_name(IsaLevel level);
// All levels this program was built with, lowest first.
std::vector<IsaLevel> built_isa_levels();

}  // namespace bise
