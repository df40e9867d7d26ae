// The vector vocabulary (see simd_scalar.h) for AVX2 with FMA and F16C: 16 lanes are two registers.
#pragma once

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#include "backend/cpu/simd_e4m3.h"
#include "backend/cpu/simd_quantize.h"

namespace simd {

constexpr bool kFewTokenKernels = true;
constexpr bool kRunsOnly = false;
constexpr int64_t kCodesAhead = 2048;
constexpr bool kNarrowSums = true;  // D has 16 bits a product

struct F { __m256 lo, hi; };
struct I { __m256i lo, hi; };
struct B { __m256i lo, hi; };
struct D { __m256i lo, hi; };  // int16 pairs
struct H { __m256i lo, hi; };

inline __m128i load_64(const void* p) { return _mm_loadl_epi64(static_cast<const __m128i*>(p)); }

inline F f_set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline F f_load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void f_store(float* p, F a) { _mm256_storeu_ps(p, a.lo); _mm256_storeu_ps(p + 8, a.hi); }
inline F f_add(F a, F b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
inline F f_sub(F a, F b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
inline F f_mul(F a, F b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
inline F f_div(F a, F b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
inline F f_fma(F a, F b, F c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
inline F f_max(F a, F b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
inline F f_min(F a, F b) { return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }
inline bool f_any_above(F a, F b) {
  return _mm256_movemask_ps(_mm256_or_ps(_mm256_cmp_ps(a.lo, b.lo, _CMP_GT_OQ), _mm256_cmp_ps(a.hi, b.hi, _CMP_GT_OQ))) != 0;
}
inline F f_round(F a) {
  constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(a.lo, kNearest), _mm256_round_ps(a.hi, kNearest)};
}
inline I i_from_f(F a) { return {_mm256_cvttps_epi32(a.lo), _mm256_cvttps_epi32(a.hi)}; }
inline F f_exp2i(I a) {
  __m256i bias = _mm256_set1_epi32(127);
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(a.lo, bias), 23)),
          _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(a.hi, bias), 23))};
}
inline F f_from_bf16(const uint16_t* p) {
  auto half = [](const uint16_t* q) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load_128(q)), 16));
  };
  return {half(p), half(p + 8)};
}
inline F f_from_f16(const uint16_t* p) {
  return {_mm256_cvtph_ps(load_128(p)), _mm256_cvtph_ps(load_128(p + 8))};
}
inline F f_from_e4m3_256th(const uint8_t* p) {
  const __m256i halves = halves_from_e4m3(p);
  return {_mm256_cvtph_ps(_mm256_castsi256_si128(halves)),
          _mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1))};
}
inline F f_from_e8m0(const uint8_t* p) {
  auto half = [](const uint8_t* q) {
    __m256i bits = _mm256_slli_epi32(_mm256_cvtepu8_epi32(load_64(q)), 23);
    return _mm256_castsi256_ps(_mm256_max_epi32(bits, _mm256_set1_epi32(0x00400000)));
  };
  return {half(p), half(p + 8)};
}
inline void f_two_from_words(__m256i lo, __m256i hi, F* even, F* odd) {
  const __m256i upper = _mm256_set1_epi32(static_cast<int32_t>(0xFFFF0000));
  *even = {_mm256_castsi256_ps(_mm256_slli_epi32(lo, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(hi, 16))};
  *odd = {_mm256_castsi256_ps(_mm256_and_si256(lo, upper)), _mm256_castsi256_ps(_mm256_and_si256(hi, upper))};
}
inline void f_two_from_bf16(const uint8_t* p, F* even, F* odd) {
  f_two_from_words(load_256(p), load_256(p + 32), even, odd);
}
inline void f_two_from_e4m3(const uint8_t* p, F* even, F* odd) {
  const Words words = words_from_e4m3(p);
  f_two_from_words(words.lo, words.hi, even, odd);
}
inline void f_two_from_normal_e4m3(const uint8_t* p, F* even, F* odd) {
  const Words words = words_from_normal_e4m3(p);
  f_two_from_words(words.lo, words.hi, even, odd);
}
inline void words_from_e4m3(const uint8_t* p, int16_t* to) {
  const Words words = words_from_e4m3(p);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), words.lo);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 16), words.hi);
}
inline void words_from_normal_e4m3(const uint8_t* p, int16_t* to) {
  const Words words = words_from_normal_e4m3(p);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), words.lo);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 16), words.hi);
}
inline F f_from_i(I a) { return {_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)}; }

inline I i_zero() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
inline I i_set1(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
inline I i_add(I a, I b) { return {_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)}; }
inline I i_sub(I a, I b) { return {_mm256_sub_epi32(a.lo, b.lo), _mm256_sub_epi32(a.hi, b.hi)}; }
inline I i_mul(I a, I b) {
  return {_mm256_mullo_epi32(a.lo, b.lo), _mm256_mullo_epi32(a.hi, b.hi)};
}
inline I i_from_u8(const uint8_t* p) {
  return {_mm256_cvtepu8_epi32(load_64(p)), _mm256_cvtepu8_epi32(load_64(p + 8))};
}
inline I i_from_i8(const uint8_t* p) {
  return {_mm256_cvtepi8_epi32(load_64(p)), _mm256_cvtepi8_epi32(load_64(p + 8))};
}

inline I i_low_nibbles(const uint8_t* p) {
  __m256i mask = _mm256_set1_epi32(15);
  return {_mm256_and_si256(_mm256_cvtepu8_epi32(load_64(p)), mask),
          _mm256_and_si256(_mm256_cvtepu8_epi32(load_64(p + 8)), mask)};
}
inline I i_high_nibbles(const uint8_t* p) {
  return {_mm256_srli_epi32(_mm256_cvtepu8_epi32(load_64(p)), 4),
          _mm256_srli_epi32(_mm256_cvtepu8_epi32(load_64(p + 8)), 4)};
}

inline B b_load(const uint8_t* p) { return {load_256(p), load_256(p + 32)}; }
inline void b_store(uint8_t* p, B a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a.lo);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 32), a.hi);
}
inline B b_or(B a, B b) { return {_mm256_or_si256(a.lo, b.lo), _mm256_or_si256(a.hi, b.hi)}; }
template <int kFrom, int kMask, int kTo>
inline B b_bits(B a) {
  __m256i mask = _mm256_set1_epi8(static_cast<char>(kMask << kTo));
  auto move = [&](__m256i x) {
    if constexpr (kFrom < kTo) x = _mm256_slli_epi16(x, kTo - kFrom);
    else if constexpr (kFrom > kTo) x = _mm256_srli_epi16(x, kFrom - kTo);
    return _mm256_and_si256(x, mask);
  };
  return {move(a.lo), move(a.hi)};
}
inline B b_table(B a, const uint8_t* table) {
  __m256i t = _mm256_broadcastsi128_si256(load_128(table));
  return {_mm256_shuffle_epi8(t, a.lo), _mm256_shuffle_epi8(t, a.hi)};
}

inline D d_start(int32_t pair, int offset) {
  const __m256i v = _mm256_mullo_epi16(_mm256_set1_epi32(pair), _mm256_set1_epi16(static_cast<int16_t>(-offset)));
  return {v, v};
}
inline D d_mul(B codes, int32_t quad) {
  const __m256i x = _mm256_set1_epi32(quad);
  return {_mm256_maddubs_epi16(codes.lo, x), _mm256_maddubs_epi16(codes.hi, x)};
}
inline D d_mac(D sum, B codes, int32_t quad) {
  const D product = d_mul(codes, quad);
  return {_mm256_add_epi16(sum.lo, product.lo), _mm256_add_epi16(sum.hi, product.hi)};
}
inline I d_flush(D sum) {
  __m256i ones = _mm256_set1_epi16(1);
  return {_mm256_madd_epi16(sum.lo, ones), _mm256_madd_epi16(sum.hi, ones)};
}
using S = H;  // a factor for either sum of a lane
// The bytes of rows 0 to 7 and 8 to 15 in both words of their lanes: in the lower bytes, or in the upper ones.
template <bool kUpper>
inline H spread_bytes(__m128i bytes) {
  constexpr char kNone = static_cast<char>(0x80);
  auto places = [](int first) {
    auto four = [&](int row) {
      const char r = static_cast<char>(row);
      return kUpper ? _mm_setr_epi8(kNone, r, kNone, r, kNone, static_cast<char>(r + 1), kNone, static_cast<char>(r + 1), kNone,
                                    static_cast<char>(r + 2), kNone, static_cast<char>(r + 2), kNone, static_cast<char>(r + 3), kNone, static_cast<char>(r + 3))
                    : _mm_setr_epi8(r, kNone, r, kNone, static_cast<char>(r + 1), kNone, static_cast<char>(r + 1), kNone,
                                    static_cast<char>(r + 2), kNone, static_cast<char>(r + 2), kNone, static_cast<char>(r + 3), kNone, static_cast<char>(r + 3), kNone);
    };
    return _mm256_set_m128i(four(first + 4), four(first));
  };
  const __m256i both = _mm256_broadcastsi128_si256(bytes);
  return {_mm256_shuffle_epi8(both, places(0)), _mm256_shuffle_epi8(both, places(8))};
}
inline S s_from_i8(const uint8_t* p) {
  const H upper = spread_bytes<true>(load_128(p));
  return {_mm256_srai_epi16(upper.lo, 8), _mm256_srai_epi16(upper.hi, 8)};
}
inline S s_low_nibbles(const uint8_t* p) { return spread_bytes<false>(_mm_and_si128(load_128(p), _mm_set1_epi8(15))); }
inline H h_pairs_high_nibbles(const uint8_t* p) {
  return spread_bytes<false>(_mm_and_si128(_mm_srli_epi16(load_128(p), 4), _mm_set1_epi8(15)));
}
inline I d_flush_scaled(D sum, S scale) { return {_mm256_madd_epi16(sum.lo, scale.lo), _mm256_madd_epi16(sum.hi, scale.hi)}; }
inline I i_start(int32_t pair, int offset) {
  const __m256i v = _mm256_madd_epi16(_mm256_set1_epi32(pair), _mm256_set1_epi16(static_cast<int16_t>(-offset)));
  return {v, v};
}
inline I i_signed_start(int32_t) { return i_zero(); }
inline B b_signed(B codes) { return codes; }
// Signed codes: |w| times x with w's sign. |-128| is 128 as an unsigned byte, and x is never -128, so
// the pair 2 * 128 * 127 fits int16.
inline I i_mac_signed(I sum, B codes, int32_t quad) {
  __m256i x = _mm256_set1_epi32(quad), ones = _mm256_set1_epi16(1);
  auto product = [&](__m256i w) {
    return _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w)), ones);
  };
  return {_mm256_add_epi32(sum.lo, product(codes.lo)), _mm256_add_epi32(sum.hi, product(codes.hi))};
}

inline H h_load(const int16_t* p) { return {load_256(p), load_256(p + 16)}; }
inline void h_store(int16_t* p, H a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a.lo);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 16), a.hi);
}
inline H h_from_i8(const uint8_t* p) {
  return {_mm256_cvtepi8_epi16(load_128(p)), _mm256_cvtepi8_epi16(load_128(p + 16))};
}
inline void h_two_from_u4(const uint8_t* p, H* low, H* high) {
  const __m256i nibble = _mm256_set1_epi16(15), eight = _mm256_set1_epi16(8);
  auto two = [&](const uint8_t* q, __m256i* a, __m256i* b) {
    const __m256i words = _mm256_cvtepu8_epi16(load_128(q));
    *a = _mm256_sub_epi16(_mm256_and_si256(words, nibble), eight);
    *b = _mm256_sub_epi16(_mm256_srli_epi16(words, 4), eight);
  };
  two(p, &low->lo, &high->lo);
  two(p + 16, &low->hi, &high->hi);
}
inline H h_pairs_from_i8(const uint8_t* p) {
  auto half = [](const uint8_t* q) {
    const __m256i x = _mm256_cvtepi8_epi32(load_64(q));
    return _mm256_blend_epi16(x, _mm256_slli_epi32(x, 16), 0xAA);
  };
  return {half(p), half(p + 8)};
}
inline H h_set1(int32_t pair) { return {_mm256_set1_epi32(pair), _mm256_set1_epi32(pair)}; }
inline H h_mul(H a, H b) { return {_mm256_mullo_epi16(a.lo, b.lo), _mm256_mullo_epi16(a.hi, b.hi)}; }
inline I i_mac_pairs(I sum, H a, int32_t pair) {
  const __m256i x = _mm256_set1_epi32(pair);
  return {_mm256_add_epi32(sum.lo, _mm256_madd_epi16(a.lo, x)), _mm256_add_epi32(sum.hi, _mm256_madd_epi16(a.hi, x))};
}
inline void i_store_i16(int16_t* p, I a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(_mm256_packs_epi32(a.lo, a.hi), 0xD8));
}

inline float f_reduce_add(F a) {
  __m256 eight = _mm256_add_ps(a.lo, a.hi);
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
inline float f_reduce_max(F a) {
  __m256 eight = _mm256_max_ps(a.lo, a.hi);
  __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}
inline int32_t i_reduce_add(I a) {
  __m256i eight = _mm256_add_epi32(a.lo, a.hi);
  __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  __m128i two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
  return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 1)));
}
inline void f_store_bf16(uint16_t* p, F a) {
  auto half = [](__m256 x) {
    __m256i u = _mm256_castps_si256(x);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    __m256i rounded = _mm256_srli_epi32(
        _mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7FFF)), odd), 16);
    __m256i quiet = _mm256_or_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(0x40));
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    return _mm256_blendv_epi8(rounded, quiet, nan);
  };
  __m256i words = _mm256_permute4x64_epi64(_mm256_packus_epi32(half(a.lo), half(a.hi)), 0xD8);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), words);
}
inline void f_store_f16(uint16_t* p, F a) {
  constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT;
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(a.lo, kNearest));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8), _mm256_cvtps_ph(a.hi, kNearest));
}

}  // namespace simd
