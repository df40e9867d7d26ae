// What panels need beside the vocabulary of simd_avx512.h: AVX512-BF16 and VBMI. A test compiles it against an emulation of
// the instructions.
#pragma once

#ifndef BISE_EMULATED_AVX512
#include <immintrin.h>
#endif
#include <stdint.h>

#include "backend/cpu/tile_layout.h"

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
// Bytes in pairs, 16 of each of two, as 16 lanes of four.
inline B b_quads(const uint8_t* pairs) {
  return {_mm512_permutexvar_epi16(_mm512_loadu_si512(kInterleave), _mm512_loadu_si512(pairs))};
}
// sum + products of four unsigned bytes with four signed ones of each lane.
inline I i_mac_weights(I sum, B values, int32_t quad) { return {_mm512_dpbusd_epi32(sum.v, _mm512_set1_epi32(quad), values.v)}; }
// E4M3 as BF16, byte by byte: a table for each byte of the 128 magnitudes, subnormals included.
struct E4m3Bytes {
  uint8_t low[128], high[128];
};
constexpr E4m3Bytes e4m3_bytes() {
  constexpr int kSubnormals[8] = {0x0000, 0x3B00, 0x3B80, 0x3BC0, 0x3C00, 0x3C20, 0x3C40, 0x3C60};  // c * 2^-9
  E4m3Bytes bytes = {};
  for (int c = 0; c < 128; ++c) {
    const int word = c < 8 ? kSubnormals[c] : ((c >> 3) + 120) << 7 | (c & 7) << 4;
    bytes.low[c] = static_cast<uint8_t>(word & 255);
    bytes.high[c] = static_cast<uint8_t>(word >> 8);
  }
  return bytes;
}
alignas(64) constexpr E4m3Bytes kE4m3Bytes = e4m3_bytes();
// Where the codes of four columns must lie for the interleaving within lanes to give pairs: a quarter of the first two columns
// and a quarter of the last two in every lane.
struct ByteOrder {
  uint8_t from[64];
};
constexpr ByteOrder e4m3_order() {
  ByteOrder order = {};
  for (int i = 0; i < 64; ++i) {
    const int lane = i / 16 * 4 + i % 8 / 2, half = i % 16 / 8, column = i % 2;
    order.from[i] = static_cast<uint8_t>(32 * half + bise::element_of(bise::FloatCodes::e4m3, lane, column));
  }
  return order;
}
alignas(64) constexpr ByteOrder kE4m3Order = e4m3_order();

// Four columns of 16 codes as two vectors of pairs.
struct PairsOfE4m3 {
  __m512i order = _mm512_load_si512(kE4m3Order.from);
  __m512i low = _mm512_load_si512(kE4m3Bytes.low), low_64 = _mm512_load_si512(kE4m3Bytes.low + 64);
  __m512i high = _mm512_load_si512(kE4m3Bytes.high), high_64 = _mm512_load_si512(kE4m3Bytes.high + 64);

  void operator()(const uint8_t* codes, __m512i* first, __m512i* second) const {
    const __m512i c = _mm512_permutexvar_epi8(order, _mm512_loadu_si512(codes));
    const __m512i sign = _mm512_and_si512(c, _mm512_set1_epi8(-128));
    const __m512i l = _mm512_permutex2var_epi8(low, c, low_64);
    const __m512i h = _mm512_or_si512(_mm512_permutex2var_epi8(high, c, high_64), sign);
    *first = _mm512_unpacklo_epi8(l, h);
    *second = _mm512_unpackhi_epi8(l, h);
  }
};
// The same to memory, `columns` of them, a multiple of four.
inline void pairs_from_e4m3(const uint8_t* codes, int64_t columns, void* to) {
  const PairsOfE4m3 pairs_of;
  auto* p = static_cast<uint8_t*>(to);
  for (int64_t k = 0; k < columns; k += 4, codes += 64, p += 128) {
    __m512i first, second;
    pairs_of(codes, &first, &second);
    _mm512_storeu_si512(p, first);
    _mm512_storeu_si512(p + 64, second);
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
inline F f_dot_bf16(F sum, __m512i pairs, const uint16_t* x) {
  int32_t two;
  memcpy(&two, x, sizeof(two));
  return {_mm512_dpbf16_ps(sum.v, (__m512bh)pairs, (__m512bh)_mm512_set1_epi32(two))};
}
inline F f_dot_bf16(F sum, const uint16_t* pairs, const uint16_t* x) { return f_dot_bf16(sum, _mm512_loadu_si512(pairs), x); }

}  // namespace simd
