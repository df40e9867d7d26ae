// Panels and attention of AVX512-BF16: what the table `avx512_bf16` has beside or instead of the functions of `avx512`. Everything compiled with its
// flags lives in an unnamed namespace (see isa_avx512.cpp).
#include <stdint.h>
#include <string.h>

#include "backend/cpu/cpu_kernels.h"
#include "backend/cpu/panel_kernels.h"

#define simd simd_avx512_bf16
#include "backend/cpu/simd_avx512.h"
#include "backend/cpu/simd_bf16.h"
#undef simd

namespace bise {
namespace {

using namespace simd_avx512_bf16;
#include "backend/cpu/tile_codes.inl"
#include "backend/cpu/panel.inl"
#include "backend/cpu/panel_dot.inl"
#include "backend/cpu/attention.inl"
#include "backend/cpu/attention_steps.inl"
#include "backend/cpu/attention_int8.inl"
#include "backend/cpu/attention_bf16.inl"

}  // namespace

// From one row on, so that a row has the same bits in any company. Integer tiles stay with the products in 8 bits, which are
// twice as many an instruction.
const PanelKernels kBf16Panels = {1, kNoPanels, false, round_run, float_panel, nullptr, multiply, multiply_e4m3, peak_bf16, nullptr};
void attend_in_bf16(const AttendBlocks& blocks) { attend_bf16(blocks); }

}  // namespace bise
