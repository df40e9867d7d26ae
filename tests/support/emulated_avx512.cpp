#include "support/emulated_avx512.h"

#include "support/emulated_instructions.h"

#define simd simd_emulated_avx512
#include "backend/cpu/simd_avx512.h"
#undef simd

namespace bise {
namespace {

using namespace simd_emulated_avx512;
#include "backend/cpu/tile_codes.inl"
#include "backend/cpu/linear_float.inl"
#include "backend/cpu/linear_int.inl"
#include "backend/cpu/elementwise.inl"
#include "backend/cpu/attention.inl"
#include "backend/cpu/peak.inl"

}  // namespace

const CpuKernels kEmulatedAvx512Kernels = {
    "avx512 (emulated)",
    linear_float,
    linear_int,
    dot,
    quantize_run,
    rms_norm,
    gated_activation,
    rope,
    attend,
    {logit_peaks, logit_exp_sums},
    peak,
    read_lines,
};

}  // namespace bise
