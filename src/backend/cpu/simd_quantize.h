// Inputs in 8 bits, four blocks at once, in vectors of 32 bytes: what AVX2 and AVX-512 do alike (the scalar twin is in
// simd_scalar.h). Included by simd_avx2.h and simd_avx512.h behind simd_e4m3.h.
#pragma once

#include <stdint.h>

#include "backend/cpu/run_layout.h"

namespace simd {

// Of each of four vectors the largest lane: lane i is of vector i.
inline __m128i largest_lanes(const __m256i (&v)[4]) {
  const auto larger = [](__m256i a, __m256i b) { return _mm256_max_epi32(a, b); };
  const __m256i first = larger(_mm256_unpacklo_epi32(v[0], v[1]), _mm256_unpackhi_epi32(v[0], v[1]));
  const __m256i second = larger(_mm256_unpacklo_epi32(v[2], v[3]), _mm256_unpackhi_epi32(v[2], v[3]));
  const __m256i four = larger(_mm256_unpacklo_epi64(first, second), _mm256_unpackhi_epi64(first, second));
  return _mm_max_epi32(_mm256_castsi256_si128(four), _mm256_extracti128_si256(four, 1));
}
inline __m128i folded_words(__m256i a) {
  return _mm_add_epi16(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
}
inline __m256i lane_everywhere(__m128i four, int lane) {
  return _mm256_permutevar8x32_epi32(_mm256_castsi128_si256(four), _mm256_set1_epi32(lane));
}

// 32 columns as 8-bit codes: dwords are quads 0, 2, 4, 6, 1, 3, 5, 7. None where `fault` is set.
inline __m256i block_codes(const float* x, __m256 inverse, __m256i fault) {
  const auto eight = [&](int i) { return _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8 * i), inverse)); };
  const __m256i low = _mm256_packs_epi32(eight(0), eight(1)), high = _mm256_packs_epi32(eight(2), eight(3));
  return _mm256_andnot_si256(fault, _mm256_packs_epi16(low, high));
}

// The record (run_layout.h) of four blocks, 32 floats behind each of x[0] to x[3].
inline void quantize_four(const float* const* x, uint8_t* record) {
  const __m256i magnitude = _mm256_set1_epi32(0x7FFFFFFF);
  __m256i largest[4];
  for (int i = 0; i < 4; ++i) {
    // Of floats without sign the order is that of their bits; infinity and NaN come last.
    largest[i] = _mm256_and_si256(load_256(x[i]), magnitude);
    for (int j = 8; j < bise::kBlock; j += 8)
      largest[i] = _mm256_max_epi32(largest[i], _mm256_and_si256(load_256(x[i] + j), magnitude));
  }
  const __m128i bits = largest_lanes(largest), fault = _mm_cmpgt_epi32(bits, _mm_set1_epi32(0x7F7FFFFF));
  const __m128 amax = _mm_castsi128_ps(bits), top = _mm_set1_ps(127.0f);
  const __m128 scale = _mm_or_ps(_mm_div_ps(amax, top), _mm_castsi128_ps(fault));
  const __m128i divides = _mm_cmpgt_epi32(bits, _mm_set1_epi32(0x03FFFFFF));  // below 2^-119 the quotient may overflow
  const __m128i inverse = _mm_and_si128(_mm_castps_si128(_mm_div_ps(top, amax)), divides);

  __m256i codes[4];
  for (int i = 0; i < 4; ++i)
    codes[i] = block_codes(x[i], _mm256_castsi256_ps(lane_everywhere(inverse, i)), lane_everywhere(fault, i));
  const __m256i low[2] = {_mm256_unpacklo_epi32(codes[0], codes[1]), _mm256_unpacklo_epi32(codes[2], codes[3])};
  const __m256i high[2] = {_mm256_unpackhi_epi32(codes[0], codes[1]), _mm256_unpackhi_epi32(codes[2], codes[3])};
  const __m256i quads[4] = {_mm256_unpacklo_epi64(low[0], low[1]), _mm256_unpackhi_epi64(low[0], low[1]),
                            _mm256_unpacklo_epi64(high[0], high[1]), _mm256_unpackhi_epi64(high[0], high[1])};
  const __m256i ones = _mm256_set1_epi8(1);
  const auto half_sums = [&](int i) {
    return folded_words(
        _mm256_add_epi16(_mm256_maddubs_epi16(ones, quads[i]), _mm256_maddubs_epi16(ones, quads[i + 1])));
  };
  const __m128i first = half_sums(0), second = half_sums(2), whole = _mm_add_epi16(first, second);
  const __m128 sums = _mm_cvtepi32_ps(_mm_madd_epi16(whole, _mm_set1_epi16(1)));

  for (int i = 0; i < 4; ++i) _mm256_storeu_si256(reinterpret_cast<__m256i*>(record + 32 * i), quads[i]);
  _mm_storeu_ps(reinterpret_cast<float*>(record + 4 * bise::kRunScales), scale);
  _mm_storeu_ps(reinterpret_cast<float*>(record + 4 * bise::kRunScaledSums), _mm_mul_ps(scale, sums));
  __m128i* const pairs = reinterpret_cast<__m128i*>(record + 4 * bise::kRunPairSums);
  _mm_storeu_si128(pairs, first);
  _mm_storeu_si128(pairs + 1, second);
  _mm_storeu_si128(pairs + 2, whole);
}

}  // namespace simd
