// The vector vocabulary (see simd_scalar.h) for AVX-512 F, BW, VL, DQ and VNNI: 16 lanes are one
// register. A test compiles this file against an emulation of the instructions, so that it is held to
// the scalar twin on every machine; that test has included its own intrinsics before.
#pragma once

#ifndef BISE_EMULATED_AVX512
#include <immintrin.h>
#endif
#include <stdint.h>
#include <string.h>

#include "backend/cpu/simd_e4m3.h"
#include "backend/cpu/simd_quantize.h"

namespace simd {

constexpr bool kFewTokenKernels = true;
constexpr bool kRunsOnly = true;
constexpr int64_t kCodesAhead = 6144;
constexpr bool kNarrowSums = false;

struct F { __m512 v; };
struct I { __m512i v; };
struct B { __m512i v; };
struct D { __m512i v; };  // int32: VNNI adds four products at once
struct H { __m512i v; };


inline F f_set1(float x) { return {_mm512_set1_ps(x)}; }
inline F f_load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline void f_store(float* p, F a) { _mm512_storeu_ps(p, a.v); }
inline F f_add(F a, F b) { return {_mm512_add_ps(a.v, b.v)}; }
inline F f_sub(F a, F b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline F f_mul(F a, F b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline F f_div(F a, F b) { return {_mm512_div_ps(a.v, b.v)}; }
inline F f_fma(F a, F b, F c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline F f_max(F a, F b) { return {_mm512_max_ps(a.v, b.v)}; }
inline F f_min(F a, F b) { return {_mm512_min_ps(a.v, b.v)}; }
inline bool f_any_above(F a, F b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ) != 0; }
inline F f_round(F a) { return {_mm512_roundscale_ps(a.v, 0)}; }
inline I i_from_f(F a) { return {_mm512_cvttps_epi32(a.v)}; }
inline F f_exp2i(I a) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(a.v, _mm512_set1_epi32(127)), 23))};
}
inline F f_from_bf16(const uint16_t* p) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(load_256(p)), 16))};
}
inline F f_from_f16(const uint16_t* p) { return {_mm512_cvtph_ps(load_256(p))}; }
inline F f_from_e4m3_256th(const uint8_t* p) {
  return {_mm512_cvtph_ps(halves_from_e4m3(p))};
}
inline F f_from_e8m0(const uint8_t* p) {
  __m512i bits = _mm512_slli_epi32(_mm512_cvtepu8_epi32(load_128(p)), 23);
  return {_mm512_castsi512_ps(_mm512_max_epi32(bits, _mm512_set1_epi32(0x00400000)))};
}
inline void f_two_from_words(__m512i words, F* even, F* odd) {
  even->v = _mm512_castsi512_ps(_mm512_slli_epi32(words, 16));
  odd->v = _mm512_castsi512_ps(_mm512_and_si512(words, _mm512_set1_epi32(static_cast<int32_t>(0xFFFF0000))));
}
inline void f_two_from_bf16(const uint8_t* p, F* even, F* odd) {
  f_two_from_words(_mm512_loadu_si512(p), even, odd);
}
inline __m512i joined(Words words) { return _mm512_inserti64x4(_mm512_castsi256_si512(words.lo), words.hi, 1); }
inline void f_two_from_e4m3(const uint8_t* p, F* even, F* odd) { f_two_from_words(joined(words_from_e4m3(p)), even, odd); }
inline void f_two_from_normal_e4m3(const uint8_t* p, F* even, F* odd) {
  f_two_from_words(joined(words_from_normal_e4m3(p)), even, odd);
}
inline void words_from_e4m3(const uint8_t* p, int16_t* to) { _mm512_storeu_si512(to, joined(words_from_e4m3(p))); }
inline void words_from_normal_e4m3(const uint8_t* p, int16_t* to) {
  _mm512_storeu_si512(to, joined(words_from_normal_e4m3(p)));
}
inline F f_from_i(I a) { return {_mm512_cvtepi32_ps(a.v)}; }

inline I i_zero() { return {_mm512_setzero_si512()}; }
inline I i_set1(int32_t x) { return {_mm512_set1_epi32(x)}; }
inline I i_add(I a, I b) { return {_mm512_add_epi32(a.v, b.v)}; }
inline I i_sub(I a, I b) { return {_mm512_sub_epi32(a.v, b.v)}; }
inline I i_mul(I a, I b) { return {_mm512_mullo_epi32(a.v, b.v)}; }
inline I i_from_u8(const uint8_t* p) { return {_mm512_cvtepu8_epi32(load_128(p))}; }
inline I i_from_i8(const uint8_t* p) { return {_mm512_cvtepi8_epi32(load_128(p))}; }

inline I i_low_nibbles(const uint8_t* p) {
  return {_mm512_and_si512(_mm512_cvtepu8_epi32(load_128(p)), _mm512_set1_epi32(15))};
}
inline I i_high_nibbles(const uint8_t* p) { return {_mm512_srli_epi32(_mm512_cvtepu8_epi32(load_128(p)), 4)}; }

inline B b_load(const uint8_t* p) { return {_mm512_loadu_si512(p)}; }
inline void b_store(uint8_t* p, B a) { _mm512_storeu_si512(p, a.v); }
inline B b_or(B a, B b) { return {_mm512_or_si512(a.v, b.v)}; }
template <int kFrom, int kMask, int kTo>
inline B b_bits(B a) {
  __m512i x = a.v;
  if constexpr (kFrom < kTo) x = _mm512_slli_epi16(x, kTo - kFrom);
  else if constexpr (kFrom > kTo) x = _mm512_srli_epi16(x, kFrom - kTo);
  return {_mm512_and_si512(x, _mm512_set1_epi8(static_cast<char>(kMask << kTo)))};
}
inline B b_table(B a, const uint8_t* table) {
  return {_mm512_shuffle_epi8(_mm512_broadcast_i32x4(load_128(table)), a.v)};
}

inline I i_start(int32_t pair, int offset) {
  return {_mm512_dpwssd_epi32(_mm512_setzero_si512(), _mm512_set1_epi32(pair), _mm512_set1_epi16(static_cast<int16_t>(-offset)))};
}
inline D d_start(int32_t pair, int offset) { return {i_start(pair, offset).v}; }
inline D d_mac(D sum, B codes, int32_t quad) {
  return {_mm512_dpbusd_epi32(sum.v, codes.v, _mm512_set1_epi32(quad))};
}
inline D d_mul(B codes, int32_t quad) { return d_mac({_mm512_setzero_si512()}, codes, quad); }
inline I d_flush(D sum) { return {sum.v}; }
using S = I;  // a factor of narrow sums
inline S s_from_i8(const uint8_t* p) { return i_from_i8(p); }
inline S s_low_nibbles(const uint8_t* p) { return i_low_nibbles(p); }
inline I d_flush_scaled(D sum, S scale) { return i_mul(d_flush(sum), scale); }
// Signed codes: plus 128 they are unsigned, and the sum begins at -128 times the sum of the inputs.
inline I i_signed_start(int32_t pair) { return i_start(pair, 128); }
inline B b_signed(B codes) { return {_mm512_xor_si512(codes.v, _mm512_set1_epi8(-128))}; }
inline I i_mac_signed(I sum, B codes, int32_t quad) { return {d_mac({sum.v}, codes, quad).v}; }

inline H h_load(const int16_t* p) { return {_mm512_loadu_si512(p)}; }
inline void h_store(int16_t* p, H a) { _mm512_storeu_si512(p, a.v); }
inline H h_from_i8(const uint8_t* p) { return {_mm512_cvtepi8_epi16(load_256(p))}; }
inline void h_two_from_u4(const uint8_t* p, H* low, H* high) {
  // A byte and zero: the bytes of each 16 are in the lower halves of their words.
  const __m512i words = _mm512_and_si512(_mm512_cvtepi8_epi16(load_256(p)), _mm512_set1_epi16(0xFF));
  const __m512i eight = _mm512_set1_epi16(8);
  low->v = _mm512_sub_epi16(_mm512_and_si512(words, _mm512_set1_epi16(15)), eight);
  high->v = _mm512_sub_epi16(_mm512_srli_epi16(words, 4), eight);
}
inline H h_pairs_from_i8(const uint8_t* p) {
  const __m512i x = _mm512_cvtepi8_epi32(load_128(p));
  return {_mm512_or_si512(_mm512_and_si512(x, _mm512_set1_epi32(0xFFFF)), _mm512_slli_epi32(x, 16))};
}
inline H h_pairs_high_nibbles(const uint8_t* p) {
  const __m512i x = i_high_nibbles(p).v;
  return {_mm512_or_si512(x, _mm512_slli_epi32(x, 16))};
}
inline H h_set1(int32_t pair) { return {_mm512_set1_epi32(pair)}; }
inline H h_mul(H a, H b) { return {_mm512_mullo_epi16(a.v, b.v)}; }
inline I i_mac_pairs(I sum, H a, int32_t pair) { return {_mm512_dpwssd_epi32(sum.v, a.v, _mm512_set1_epi32(pair))}; }
inline void i_store_i16(int16_t* p, I a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(a.v));
}

inline float f_reduce_add(F a) {
  __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
inline float f_reduce_max(F a) {
  __m256 eight = _mm256_max_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}
inline int32_t i_reduce_add(I a) {
  __m256i eight = _mm256_add_epi32(_mm512_castsi512_si256(a.v), _mm512_extracti64x4_epi64(a.v, 1));
  __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  __m128i two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
  return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 1)));
}
inline void i_store_i8(int8_t* p, I a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(a.v));
}
inline void f_store_bf16(uint16_t* p, F a) {
  __m512i u = _mm512_castps_si512(a.v);
  __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
  __m512i rounded = _mm512_srli_epi32(
      _mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7FFF)), odd), 16);
  __m512i quiet = _mm512_or_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(0x40));
  __m512i words = _mm512_mask_mov_epi32(rounded, _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q), quiet);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(words));
}
inline void f_store_f16(uint16_t* p, F a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

}  // namespace simd
