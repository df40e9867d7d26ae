#include "support/emulated_amx.h"

#include <cmath>

#include "backend/cpu/panel_kernels.h"
#include "base/error.h"
#include "support/emulated_avx512.h"
#include "support/emulated_instructions.h"

// Eight tile registers of one thread, as the manual's pseudocode has them.
namespace bise {
namespace {
namespace emulated {

struct TileConfig {
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
};
struct Tile {
  alignas(64) uint8_t bytes[16][64];
};
thread_local TileConfig config;
thread_local Tile tiles[8];

inline void tile_loadconfig(const void* from) {
  memcpy(&config, from, sizeof(config));
  CHECK(config.palette == 1 && config.start_row == 0);
  for (int i = 0; i < 16; ++i) CHECK(i < 8 ? config.rows[i] <= 16 && config.row_bytes[i] <= 64 : config.rows[i] == 0);
  memset(tiles, 0, sizeof(tiles));
}
inline void tile_release() { config.palette = 0; }
inline Tile& tile(int t) {
  CHECK(config.palette == 1 && config.rows[t] > 0 && config.row_bytes[t] > 0);
  return tiles[t];
}
inline void tile_zero(int t) { memset(&tile(t), 0, sizeof(Tile)); }
inline void tile_loadd(int t, const void* base, int64_t stride) {
  tile_zero(t);
  for (int r = 0; r < config.rows[t]; ++r) {
    memcpy(tiles[t].bytes[r], static_cast<const char*>(base) + r * stride, config.row_bytes[t]);
  }
}
inline void tile_stored(int t, void* base, int64_t stride) {
  const Tile& from = tile(t);
  for (int r = 0; r < config.rows[t]; ++r) {
    memcpy(static_cast<char*>(base) + r * stride, from.bytes[r], config.row_bytes[t]);
  }
}
// #UD of the products.
inline void check_shapes(int sums, int a, int b) {
  tile(sums), tile(a), tile(b);
  CHECK(sums != a && sums != b && a != b);
  CHECK(config.rows[sums] == config.rows[a] && config.row_bytes[a] / 4 == config.rows[b] &&
        config.row_bytes[sums] == config.row_bytes[b] && config.row_bytes[a] % 4 == 0);
}
// Subnormal inputs and results are zeros.
inline float flushed(float x) { return std::fabs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x; }
inline void to_floats(const uint8_t* words, float* even, float* odd) {
  for (int i = 0; i < 16; ++i) {
    uint16_t pair[2];
    memcpy(pair, words + 4 * i, 4);
    even[i] = flushed(bf16_to_f32(pair[0]));
    odd[i] = flushed(bf16_to_f32(pair[1]));
  }
}
// Even and odd columns are summed apart by fused steps, from zero; then together, then to the tile. The
// product of two BF16 is a float32, so that a step rounds once also where it is written as two.
inline void tile_dpbf16ps(int sums, int a, int b) {
  check_shapes(sums, a, b);
  float w_even[16][16], w_odd[16][16];
  for (int k = 0; k < 16; ++k) to_floats(tiles[b].bytes[k], w_even[k], w_odd[k]);
  for (int m = 0; m < config.rows[sums]; ++m) {
    float x_even[16], x_odd[16], even[16] = {}, odd[16] = {}, c[16];
    to_floats(tiles[a].bytes[m], x_even, x_odd);
    for (int k = 0; k < config.row_bytes[a] / 4; ++k) {
      for (int n = 0; n < 16; ++n) {
        even[n] = flushed(even[n] + x_even[k] * w_even[k][n]);
        odd[n] = flushed(odd[n] + x_odd[k] * w_odd[k][n]);
      }
    }
    memcpy(c, tiles[sums].bytes[m], 64);
    for (int n = 0; n < 16; ++n) c[n] = flushed(c[n] + flushed(even[n] + odd[n]));
    memcpy(tiles[sums].bytes[m], c, config.row_bytes[sums]);
  }
}
inline void tile_dpbssd(int sums, int a, int b) {
  check_shapes(sums, a, b);
  for (int m = 0; m < config.rows[sums]; ++m) {
    uint32_t c[16];
    memcpy(c, tiles[sums].bytes[m], 64);
    for (int k = 0; k < config.row_bytes[a]; ++k) {
      for (int n = 0; n < 16; ++n) {
        const int product = static_cast<int8_t>(tiles[a].bytes[m][k]) * static_cast<int8_t>(tiles[b].bytes[k / 4][4 * n + k % 4]);
        c[n] += static_cast<uint32_t>(product);
      }
    }
    memcpy(tiles[sums].bytes[m], c, config.row_bytes[sums]);
  }
}

// Of AVX512-BF16; subnormals become zeros.
inline __m512i cvtne2ps_pbh(__m512 high, __m512 low) {
  float x[32];
  uint16_t words[32];
  memcpy(x, &low, 64);
  memcpy(x + 16, &high, 64);
  for (int i = 0; i < 32; ++i) words[i] = f32_to_bf16(flushed(x[i]));
  __m512i result;
  memcpy(&result, words, 64);
  return result;
}
// The odd columns first; each step is fused.
inline __m512 dpbf16_ps(__m512 sums, __m512i a, __m512i b) {
  uint8_t x[64], y[64];
  float sum[16], x_even[16], x_odd[16], y_even[16], y_odd[16];
  memcpy(x, &a, 64);
  memcpy(y, &b, 64);
  memcpy(sum, &sums, 64);
  to_floats(x, x_even, x_odd);
  to_floats(y, y_even, y_odd);
  for (int i = 0; i < 16; ++i) {
    sum[i] = flushed(__builtin_fmaf(x_odd[i], y_odd[i], flushed(sum[i])));
    sum[i] = flushed(__builtin_fmaf(x_even[i], y_even[i], sum[i]));
  }
  memcpy(&sums, sum, 64);
  return sums;
}
inline __m512i permutexvar_epi16(__m512i order, __m512i a) {
  uint16_t at[32], from[32], to[32];
  memcpy(at, &order, 64);
  memcpy(from, &a, 64);
  for (int i = 0; i < 32; ++i) to[i] = from[at[i] % 32];
  memcpy(&a, to, 64);
  return a;
}

inline __m512i permutexvar_epi8(__m512i order, __m512i a) {
  uint8_t at[64], from[64], to[64];
  memcpy(at, &order, 64);
  memcpy(from, &a, 64);
  for (int i = 0; i < 64; ++i) to[i] = from[at[i] % 64];
  memcpy(&a, to, 64);
  return a;
}
inline __m512i permutex2var_epi8(__m512i a, __m512i order, __m512i b) {
  uint8_t at[64], from[128], to[64];
  memcpy(at, &order, 64);
  memcpy(from, &a, 64);
  memcpy(from + 64, &b, 64);
  for (int i = 0; i < 64; ++i) to[i] = from[at[i] % 128];
  memcpy(&a, to, 64);
  return a;
}

inline __m512i srai_epi32(__m512i a, int count) {
  int32_t lanes[16];
  memcpy(lanes, &a, 64);
  for (int32_t& lane : lanes) lane >>= count;
  memcpy(&a, lanes, 64);
  return a;
}

}  // namespace emulated
}  // namespace

bool emulated_tiles_are_configured() { return emulated::config.palette != 0; }

}  // namespace bise

#define _tile_loadconfig(from) ::bise::emulated::tile_loadconfig(from)
#define _tile_release() ::bise::emulated::tile_release()
#define _tile_zero(t) ::bise::emulated::tile_zero(t)
#define _tile_loadd(t, base, stride) ::bise::emulated::tile_loadd(t, base, stride)
#define _tile_stored(t, base, stride) ::bise::emulated::tile_stored(t, base, stride)
#define _tile_dpbf16ps(sums, a, b) ::bise::emulated::tile_dpbf16ps(sums, a, b)
#define _tile_dpbssd(sums, a, b) ::bise::emulated::tile_dpbssd(sums, a, b)
#define _mm512_cvtne2ps_pbh(high, low) ::bise::emulated::cvtne2ps_pbh(high, low)
#undef __m512bh
#define __m512bh __m512i
#undef _mm512_dpbf16_ps
#define _mm512_dpbf16_ps(sums, a, b) ::bise::emulated::dpbf16_ps(sums, a, b)
#define _mm512_srai_epi32(a, count) ::bise::emulated::srai_epi32(a, count)
#undef _mm512_permutexvar_epi16
#define _mm512_permutexvar_epi16(order, a) ::bise::emulated::permutexvar_epi16(order, a)

#undef _mm512_permutexvar_epi8
#define _mm512_permutexvar_epi8(order, a) ::bise::emulated::permutexvar_epi8(order, a)
#undef _mm512_permutex2var_epi8
#define _mm512_permutex2var_epi8(a, order, b) ::bise::emulated::permutex2var_epi8(a, order, b)

#define simd simd_emulated_amx
#include "backend/cpu/simd_avx512.h"
#include "backend/cpu/simd_bf16.h"
#include "backend/cpu/simd_amx.h"
#undef simd

namespace bise {
namespace {

using namespace simd_emulated_amx;
#include "backend/cpu/tile_codes.inl"
#include "backend/cpu/panel.inl"
namespace dots {
#include "backend/cpu/panel_dot.inl"
constexpr PanelKernels kPanels = {1, kNoPanels, false, round_run, float_panel, nullptr, multiply, multiply_e4m3, peak_bf16, nullptr};
}  // namespace dots
#include "backend/cpu/panel_amx.inl"
#include "backend/cpu/attention.inl"
#include "backend/cpu/attention_steps.inl"
#include "backend/cpu/attention_int8.inl"
#include "backend/cpu/attention_bf16.inl"
#include "backend/cpu/attention_amx.inl"
constexpr PanelKernels kPanels = {8, 16, true, round_run, float_panel, int_panel, multiply, nullptr, peak_bf16, peak_matrix_int8};

CpuKernels with_bf16(const char* name, const PanelKernels& panels, void (*attend)(const AttendBlocks&)) {
  CpuKernels kernels = kEmulatedAvx512Kernels;
  kernels.name = name;
  kernels.panels = &panels;
  kernels.attend = attend;
  kernels.narrow_attention = true;
  kernels.common = &kEmulatedAvx512Kernels;
  return kernels;
}

}  // namespace

const CpuKernels kEmulatedBf16Kernels = with_bf16("avx512_bf16 (emulated)", dots::kPanels, attend_bf16);
const CpuKernels kEmulatedAmxKernels = with_bf16("amx (emulated)", kPanels, attend_amx);

}  // namespace bise
