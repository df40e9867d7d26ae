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
inline I i_load(const void* p) { return {_mm512_loadu_si512(p)}; }
inline void i_store(void* p, I a) { _mm512_storeu_si512(p, a.v); }
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

// 2^x for -126 <= x <= 0 as exp2_of, with a relative error of 1.0e-4: enough for weights of 8 bits.
inline F f_exp2_rough(F x) {
  const __m512 n = _mm512_roundscale_ps(x.v, 0), r = _mm512_sub_ps(x.v, n);
  __m512 p = _mm512_fmadd_ps(_mm512_set1_ps(0x1.c2a216p-5f), r, _mm512_set1_ps(0x1.f00c4ep-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.62f5fap-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  return {_mm512_scalef_ps(p, n)};
}
// The bits as an integer, as a number.
inline F f_bits(F a) { return {_mm512_cvtepi32_ps(_mm512_castps_si512(a.v))}; }
// The lanes in groups of four, in another order.
template <int kOrder>
inline __m512 f_groups(__m512 a) {
  return _mm512_castsi512_ps(_mm512_shuffle_i32x4(_mm512_castps_si512(a), _mm512_castps_si512(a), kOrder));
}
// The largest of the 32 numbers of each of 4 rows; in each group of four lanes.
inline F f_peaks_of_4(const float* rows) {
  __m512 t[4];
  for (int i = 0; i < 4; ++i) t[i] = _mm512_max_ps(_mm512_loadu_ps(rows + 32 * i), _mm512_loadu_ps(rows + 32 * i + 16));
  const __m512 ab = _mm512_max_ps(_mm512_unpacklo_ps(t[0], t[1]), _mm512_unpackhi_ps(t[0], t[1]));
  const __m512 cd = _mm512_max_ps(_mm512_unpacklo_ps(t[2], t[3]), _mm512_unpackhi_ps(t[2], t[3]));
  const __m512d x = _mm512_castps_pd(ab), y = _mm512_castps_pd(cd);
  __m512 u = _mm512_max_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(x, y)), _mm512_castpd_ps(_mm512_unpackhi_pd(x, y)));
  u = _mm512_max_ps(u, f_groups<0x4E>(u));
  return {_mm512_max_ps(u, f_groups<0xB1>(u))};
}
// Lane i: the largest of the 32 numbers of row i < count; of the others -3e38.
inline F f_row_peaks(const float* rows, int count) {
  __m512 peaks = _mm512_set1_ps(-3.0e38f);
  for (int i = 0; i < count; i += 4) {
    peaks = _mm512_mask_mov_ps(peaks, static_cast<uint16_t>(0xF << i & (0xFFFF >> (16 - count))),
                               f_peaks_of_4(rows + 32 * i).v);
  }
  return {peaks};
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
