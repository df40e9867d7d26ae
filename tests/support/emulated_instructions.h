// SIMDe stands in for <immintrin.h> under the names of the real intrinsics. Files that include it are
// compiled without instruction-set flags: with them the compiler's own header would claim the names.
#pragma once

#define SIMDE_ENABLE_NATIVE_ALIASES
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpedantic"
#include <simde/x86/avx512.h>
#pragma GCC diagnostic pop

#include <stdint.h>
#include <string.h>

#include "base/float_types.h"

// What SIMDe 0.7.4 lacks, lane by lane, its fused multiply-add, which rounds twice, and its conversion of NaN, which is
// undefined.
namespace bise {
namespace {
namespace emulated {

template <class To, class From, int kLanes, class Vector, class Convert>
Vector convert(const void* from, Convert one) {
  From in[kLanes];
  To out[kLanes];
  memcpy(in, from, sizeof(in));
  for (int i = 0; i < kLanes; ++i) out[i] = one(in[i]);
  static_assert(sizeof(out) == sizeof(Vector));
  Vector result;
  memcpy(&result, out, sizeof(result));
  return result;
}
template <class To, class From>
To cast(From x) {
  return static_cast<To>(x);
}

inline __m512 fmadd_ps(__m512 a, __m512 b, __m512 c) {
  float x[16], y[16], z[16];
  memcpy(x, &a, 64);
  memcpy(y, &b, 64);
  memcpy(z, &c, 64);
  for (int i = 0; i < 16; ++i) x[i] = __builtin_fmaf(x[i], y[i], z[i]);
  memcpy(&a, x, 64);
  return a;
}
inline __m256 extractf32x8_ps(__m512 a, int half) {
  __m256 result;
  memcpy(&result, reinterpret_cast<const char*>(&a) + 32 * half, 32);
  return result;
}
inline __m512 cvtepi32_ps(__m512i a) { return convert<float, int32_t, 16, __m512>(&a, cast<float, int32_t>); }
// Out of range and NaN give the "integer indefinite" of the instruction.
inline int32_t int_of(float x) { return x >= -0x1p31f && x < 0x1p31f ? static_cast<int32_t>(x) : INT32_MIN; }
inline __m512i cvttps_epi32(__m512 a) { return convert<int32_t, float, 16, __m512i>(&a, int_of); }
inline __m256i cvtps_epi32(__m256 a) {
  return convert<int32_t, float, 8, __m256i>(&a, [](float x) { return int_of(__builtin_rintf(x)); });
}
inline __m512i cvtepu8_epi32(__m128i a) { return convert<int32_t, uint8_t, 16, __m512i>(&a, cast<int32_t, uint8_t>); }
inline __m512i cvtepi8_epi32(__m128i a) { return convert<int32_t, int8_t, 16, __m512i>(&a, cast<int32_t, int8_t>); }
inline __m512i cvtepu16_epi32(__m256i a) {
  return convert<int32_t, uint16_t, 16, __m512i>(&a, cast<int32_t, uint16_t>);
}
inline __m128i cvtepi32_epi8(__m512i a) { return convert<uint8_t, uint32_t, 16, __m128i>(&a, cast<uint8_t, uint32_t>); }
inline __m256i cvtepi32_epi16(__m512i a) {
  return convert<uint16_t, uint32_t, 16, __m256i>(&a, cast<uint16_t, uint32_t>);
}
inline __m512 cvtph_ps(__m256i a) { return convert<float, uint16_t, 16, __m512>(&a, f16_to_f32); }
inline __m256i cvtps_ph(__m512 a, int) { return convert<uint16_t, float, 16, __m256i>(&a, f32_to_f16); }

}  // namespace emulated
}  // namespace
}  // namespace bise

#ifndef _MM_FROUND_NO_EXC
#define _MM_FROUND_NO_EXC SIMDE_MM_FROUND_NO_EXC
#endif
#undef _mm512_fmadd_ps
#define _mm512_fmadd_ps(a, b, c) ::bise::emulated::fmadd_ps(a, b, c)
#define _mm512_extractf32x8_ps(a, half) ::bise::emulated::extractf32x8_ps(a, half)
#define _mm512_cvtepi32_ps(a) ::bise::emulated::cvtepi32_ps(a)
#define _mm512_cvttps_epi32(a) ::bise::emulated::cvttps_epi32(a)
#undef _mm256_cvtps_epi32
#define _mm256_cvtps_epi32(a) ::bise::emulated::cvtps_epi32(a)
#define _mm512_cvtepu8_epi32(a) ::bise::emulated::cvtepu8_epi32(a)
#define _mm512_cvtepi8_epi32(a) ::bise::emulated::cvtepi8_epi32(a)
#define _mm512_cvtepu16_epi32(a) ::bise::emulated::cvtepu16_epi32(a)
#define _mm512_cvtepi32_epi8(a) ::bise::emulated::cvtepi32_epi8(a)
#define _mm512_cvtepi32_epi16(a) ::bise::emulated::cvtepi32_epi16(a)
#define _mm512_cvtph_ps(a) ::bise::emulated::cvtph_ps(a)
#define _mm512_cvtps_ph(a, rounding) ::bise::emulated::cvtps_ph(a, rounding)

#define BISE_EMULATED_AVX512
