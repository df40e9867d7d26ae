// The AVX-512 kernel table over emulated instructions: slow, right, and there on every machine, so
// that the code of simd_avx512.h is held to the other instruction sets where no processor has it.
#pragma once

#include "backend/cpu/cpu_kernels.h"

namespace bise {

extern const CpuKernels kEmulatedAvx512Kernels;

}  // namespace bise
