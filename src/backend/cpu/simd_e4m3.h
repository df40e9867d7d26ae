// E4M3 codes in vectors of 32 bytes: what AVX2 and AVX-512 do alike. Included by simd_avx2.h and
// simd_avx512.h behind their intrinsics.
#pragma once

#include <stdint.h>

namespace simd {

inline __m256i load_256(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
inline __m128i load_128(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }

// 16 codes at the places of float16: 2^-8 of their values, subnormals included. The sign extension of a
// code moved up by 7 has its sign twice: the lower one is cleared.
inline __m256i halves_from_e4m3(const uint8_t* p) {
  return _mm256_and_si256(_mm256_slli_epi16(_mm256_cvtepi8_epi16(load_128(p)), 7),
                          _mm256_set1_epi16(static_cast<int16_t>(0xBFFF)));
}

// E4M3 as BF16, byte by byte. From magnitude 16 (exponent 2) on, the low byte is the code's low nibble
// moved up and the high byte follows from the high nibble. Below, tables give what is missing.
alignas(16) constexpr uint8_t kE4m3High[16] = {0x00, 0x3D, 0x3E, 0x3F, 0x40, 0x41, 0x42, 0x43,
                                               0x80, 0xBD, 0xBE, 0xBF, 0xC0, 0xC1, 0xC2, 0xC3};
alignas(16) constexpr uint8_t kE4m3SmallHigh[16] = {0x00, 0x3B, 0x3B, 0x3B, 0x3C, 0x3C, 0x3C, 0x3C,
                                                    0x3C, 0x3C, 0x3C, 0x3C, 0x3C, 0x3C, 0x3C, 0x3C};
alignas(16) constexpr uint8_t kE4m3SmallLow[16] = {0x00, 0x10, 0xA0, 0xF0, 0x40, 0x70, 0x20, 0x10,
                                                   0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00};
// 32 codes; the words come as the in-lane interleaving of the bytes has them.
struct Words {
  __m256i lo, hi;
};
inline Words words_from_e4m3(const uint8_t* p) {
  auto table = [](const uint8_t* t) { return _mm256_broadcastsi128_si256(load_128(t)); };
  const __m256i codes = load_256(p);
  // Bit 7 of the index is set from magnitude 16 on, and the shuffle then gives 0.
  const __m256i small = _mm256_add_epi8(_mm256_and_si256(codes, _mm256_set1_epi8(0x7F)), _mm256_set1_epi8(0x70));
  const __m256i nibble = _mm256_and_si256(_mm256_srli_epi16(codes, 4), _mm256_set1_epi8(15));
  const __m256i high = _mm256_or_si256(_mm256_shuffle_epi8(table(kE4m3High), nibble),
                                       _mm256_shuffle_epi8(table(kE4m3SmallHigh), small));
  const __m256i low = _mm256_xor_si256(
      _mm256_and_si256(_mm256_slli_epi16(codes, 4), _mm256_set1_epi8(static_cast<char>(0xF0))),
      _mm256_shuffle_epi8(table(kE4m3SmallLow), small));
  return {_mm256_unpacklo_epi8(low, high), _mm256_unpackhi_epi8(low, high)};
}

}  // namespace simd
