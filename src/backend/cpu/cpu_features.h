// What the processor can do, as a value; names of the instruction-set levels.
#pragma once

#include <string>
#include <vector>

namespace bise {

enum class IsaLevel { scalar, avx2, avx512, avx512_bf16, amx };

struct CpuFeatures {
  bool avx2 = false;        // with FMA and F16C
  bool avx512 = false;      // F, BW, VL, DQ and VNNI
  bool avx512_bf16 = false;  // beside the others
  // TILE, BF16 and INT8 beside AVX512-BF16, and the system lets this process have the tiles.
  bool amx = false;
  bool supports(IsaLevel level) const;
  IsaLevel best() const;
};

// Asks Linux for the tile registers, where there are any: they are given on request only.
CpuFeatures detect_cpu_features();
const char* isa_name(IsaLevel level);
// All levels this program was built with, lowest first.
std::vector<IsaLevel> built_isa_levels();

}  // namespace bise
