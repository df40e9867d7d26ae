// What panel.inl needs beside the vocabulary of simd_avx512.h: AVX512-BF16, and AMX as a scope in which
// the tile registers are configured. A test compiles it against an emulation of the instructions.
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

// Eight tiles of 16 rows of 64 bytes, as long as the scope lives. Entering and leaving take some hundred
// cycles, and a thread between products carries no tile state for the system to save.
class TileScope {
 public:
  TileScope() {
    alignas(64) Config config = {};
    config.palette = 1;
    for (int i = 0; i < 8; ++i) {
      config.row_bytes[i] = 64;
      config.rows[i] = 16;
    }
    // GCC 12 tells its optimiser that the instruction reads 8 of these 64 bytes, and deletes the stores
    // to the others. The same line keeps what was stored to panels before from being moved behind it.
    __asm__ volatile("" ::"r"(&config) : "memory");
    _tile_loadconfig(&config);
  }
  ~TileScope() {
    _tile_release();
    __asm__ volatile("" ::: "memory");
  }
  TileScope(const TileScope&) = delete;
  TileScope& operator=(const TileScope&) = delete;

 private:
  struct Config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
  };
  static_assert(sizeof(Config) == 64);
};

}  // namespace simd
