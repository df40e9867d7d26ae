// Panels and attention of AMX: what the table `amx` has beside or instead of the functions of `avx512`. Everything compiled with
// its flags lives in an unnamed namespace (see isa_avx512.cpp).
#include <stdint.h>
#include <string.h>

#include "backend/cpu/cpu_kernels.h"
#include "backend/cpu/panel_kernels.h"

#define simd simd_amx
#include "backend/cpu/simd_avx512.h"
#include "backend/cpu/simd_bf16.h"
#include "backend/cpu/simd_amx.h"
#undef simd

namespace bise {
namespace {

using namespace simd_amx;
#include "backend/cpu/tile_codes.inl"
#include "backend/cpu/panel.inl"
#include "backend/cpu/panel_amx.inl"
#include "backend/cpu/attention.inl"
#include "backend/cpu/attention_steps.inl"
#include "backend/cpu/attention_int8.inl"
#include "backend/cpu/attention_bf16.inl"
#include "backend/cpu/attention_amx.inl"

}  // namespace

// Sixteen rows cost as one: float formats, whose other kernels take 16 cycles per row and step of a tile, gain early; integer
// formats take 7 and must pay for decoding (about 100).
const PanelKernels kAmxPanels = {8, 16, true, round_run, float_panel, int_panel, multiply, nullptr, peak_bf16, peak_matrix_int8};
void attend_on_amx(const AttendBlocks& blocks) { attend_amx(blocks); }

}  // namespace bise
