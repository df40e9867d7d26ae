// The kernel table of one instruction set. Everything compiled with its flags lives in an unnamed
// namespace, so that no inline function of this file can become the copy the linker keeps for the
// whole program (scripts/check_isa_symbols.sh asserts it).
#include <stdint.h>
#include <string.h>

#include "backend/cpu/cpu_kernels.h"

#define simd simd_avx2
#include "backend/cpu/simd_avx2.h"
#undef simd

namespace bise {
namespace {

using namespace simd_avx2;
#include "backend/cpu/tile_codes.inl"
#include "backend/cpu/linear_float.inl"
#include "backend/cpu/linear_int.inl"
#include "backend/cpu/elementwise.inl"
#include "backend/cpu/attention.inl"
#include "backend/cpu/peak.inl"

}  // namespace

const CpuKernels kAvx2Kernels = {
    "avx2",   linear_float,     linear_int, dot,    quantize_run,
    rms_norm, gated_activation, rope,       attend, {logit_peaks, logit_exp_sums},
    peak,     read_lines,
};

}  // namespace bise
