// AMX as a scope in which the tile registers are configured. A test compiles it against an emulation of the instructions.
#pragma once

#ifndef BISE_EMULATED_AVX512
#include <immintrin.h>
#endif
#include <stdint.h>

namespace simd {

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
