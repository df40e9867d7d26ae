// The kernel table of one instruction set. Everything compiled with its flags lives in an unnamed
// namespace, so that no inline function of this file can become the copy the linker keeps for the
// whole program (scripts/check_isa_symbols.sh asserts it).
#include <stdint.h>
#include <string.h>

#include "backend/cpu/cpu_kernels.h"
#include "backend/cpu/panel_kernels.h"

#define simd simd_avx512
#include "backend/cpu/simd_avx512.h"
#undef simd

namespace bise {
namespace {

using namespace simd_avx512;
#include "backend/cpu/tile_codes.inl"
#include "backend/cpu/linear_float.inl"
#include "backend/cpu/linear_int.inl"
#include "backend/cpu/elementwise.inl"
#include "backend/cpu/attention.inl"
#include "backend/cpu/peak.inl"

constexpr CpuKernels kTable = {
    "avx512", linear_float,     linear_int, dot,    quantize_run,
    rms_norm, gated_activation, rope,       attend, {logit_peaks, logit_exp_sums},
    peak,     read_lines,
};
constexpr CpuKernels with_bf16(const char* name, const PanelKernels& panels, void (*attend)(const AttendBlocks&)) {
  CpuKernels table = kTable;
  table.name = name;
  table.panels = &panels;
  table.attend = attend;
  table.narrow_attention = true;
  table.common = &kAvx512Kernels;
  return table;
}

}  // namespace

const CpuKernels kAvx512Kernels = kTable;
const CpuKernels kAvx512Bf16Kernels = with_bf16("avx512_bf16", kBf16Panels, attend_in_bf16);
const CpuKernels kAmxKernels = with_bf16("amx", kAmxPanels, attend_on_amx);

}  // namespace bise
