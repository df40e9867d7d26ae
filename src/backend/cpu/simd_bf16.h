// What panels need beside the vocabulary of simd_avx512.h: AVX512-BF16. A test compiles it against an emulation of
// the instructions.
#pragma once

#ifndef BISE_EMULATED_AVX512
#include <immintrin.h>
#endif
#include <stdint.h>

namespace simd {

// 32 values as BF16: `low` in the first 16 words.
inline __m512i words_of(F low, F high) { return (__m512i)_mm512_cvtne2ps_pbh(high.v, low.v); }
inline void f_store_two_bf16(uint16_t* p, F low, F high) { _mm512_storeu_si512(p, words_of(low, high)); }
// Pairs: word 2 r is lane r of `even`, word 2 r + 1 that of `odd`.
alignas(64) constexpr uint16_t kInterleave[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                  8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
inline void f_store_pairs(uint16_t* p, F even, F odd) {
  const __m512i order = _mm512_loadu_si512(kInterleave);
  _mm512_storeu_si512(p, _mm512_permutexvar_epi16(order, words_of(even, odd)));
}
// Eight columns of 16 codes as pairs: simd_e4m3.h in vectors of 64 bytes. The interleaving within lanes leaves the quarters
// of two columns in two vectors.
inline __m512i e4m3_table_512(const uint8_t* t) { return _mm512_broadcast_i32x4(load_128(t)); }
inline void pairs_from_e4m3_bytes(uint16_t* p, __m512i low, __m512i high) {
  const __m512i a = _mm512_unpacklo_epi8(low, high), b = _mm512_unpackhi_epi8(low, high);
  _mm512_storeu_si512(p, _mm512_shuffle_i32x4(a, b, 0x44));
  _mm512_storeu_si512(p + 32, _mm512_shuffle_i32x4(a, b, 0xEE));
}
inline void pairs_from_e4m3(const uint8_t* codes, uint16_t* p) {
  const __m512i first = _mm512_loadu_si512(codes), second = _mm512_loadu_si512(codes + 64);
  const __m512i exponent = _mm512_set1_epi8(0x78);
  const bool normal = (_mm512_test_epi8_mask(first, exponent) & _mm512_test_epi8_mask(second, exponent)) == ~uint64_t{0};
  for (int i = 0; i < 2; ++i, p += 64) {
    const __m512i c = i == 0 ? first : second;
    const __m512i nibble = _mm512_and_si512(_mm512_srli_epi16(c, 4), _mm512_set1_epi8(15));
    __m512i high = _mm512_shuffle_epi8(e4m3_table_512(kE4m3High), nibble);
    __m512i low = _mm512_and_si512(_mm512_slli_epi16(c, 4), _mm512_set1_epi8(static_cast<char>(0xF0)));
    if (!normal) {
      // Bit 7 of the index is set from magnitude 16 on, and the shuffle then gives 0.
      const __m512i small = _mm512_add_epi8(_mm512_and_si512(c, _mm512_set1_epi8(0x7F)), _mm512_set1_epi8(0x70));
      high = _mm512_xor_si512(high, _mm512_shuffle_epi8(e4m3_table_512(kE4m3SmallHigh), small));
      low = _mm512_xor_si512(low, _mm512_shuffle_epi8(e4m3_table_512(kE4m3SmallLow), small));
    }
    pairs_from_e4m3_bytes(p, low, high);
  }
}
// Byte kByte of every 32-bit lane.
template <int kByte, bool kSigned>
inline F f_from_byte(B a) {
  __m512i x = a.v;
  if constexpr (kSigned) {
    if constexpr (kByte < 3) x = _mm512_slli_epi32(x, 24 - 8 * kByte);
    x = _mm512_srai_epi32(x, 24);
  } else {
    if constexpr (kByte > 0) x = _mm512_srli_epi32(x, 8 * kByte);
    if constexpr (kByte < 3) x = _mm512_and_si512(x, _mm512_set1_epi32(255));
  }
  return {_mm512_cvtepi32_ps(x)};
}

// sum + the products of two columns of 16 rows, pair by pair, with two of x, the odd one first. What is below 2^-126 counts as
// zero.
inline F f_dot_bf16(F sum, const uint16_t* pairs, const uint16_t* x) {
  int32_t two;
  memcpy(&two, x, sizeof(two));
  return {_mm512_dpbf16_ps(sum.v, (__m512bh)_mm512_loadu_si512(pairs), (__m512bh)_mm512_set1_epi32(two))};
}

}  // namespace simd
