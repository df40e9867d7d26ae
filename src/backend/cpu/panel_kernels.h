// Products of several rows in BF16, by AMX or AVX512-BF16: the layouts of panels, and the functions of a table.
//
// Columns go in steps of 32. A step of 16 rows is one tile register, 1 KiB of BF16:
//   rows of x  element 32 i + k: row i, column k of the step; zeros behind the last column, anything behind the last row
//   weights    element 32 p + 2 r + j: row r of a tile (tile_layout.h), column 2 p + j of the step:
//              what an unscaled BF16 tile of whole steps has in memory as it is
// A panel is [runs of 16 rows][steps]. Sums of a run of x and a tile are float32 [16 of x][16 of weights].
//
// The arithmetic: x and weights are rounded to BF16 (to nearest, ties to even; half a unit is 2^-8 of the
// value) and what is below 2^-126 counts as zero; products are exact, sums float32. A weight is computed in
// float32 before it is rounded. Every sum runs along the columns in one fixed order: a row of y has the
// same bits in any company, but not those of the other kernels of a table.
#pragma once

#include <stdint.h>

#include "backend/cpu/tile_layout.h"

namespace bise {

constexpr int64_t kStepColumns = 32;
constexpr int64_t kStepElements = kTileRows * kStepColumns;
constexpr int64_t kStepBytes = 2 * kStepElements;
constexpr int64_t kTileSums = kTileRows * kTileRows;
[[gnu::always_inline]] constexpr int64_t steps_of(int64_t columns) { return (columns + kStepColumns - 1) / kStepColumns; }

struct PanelProduct {
  const uint16_t* x = nullptr;  // run i at x + i * x_stride
  int64_t x_stride = 0, runs = 0;
  int last_rows = kTileRows;  // of the last run: sums of more than these are not read
  const uint16_t* weights = nullptr;  // tile i at weights + i * weights_stride
  int64_t weights_stride = 0, tiles = 0;
  int64_t steps = 0;
  float* sums = nullptr;  // of tile i and run j at sums + i * sums_stride + j * kTileSums, aligned to 64
  int64_t sums_stride = 0;
  bool add = false;  // to what `sums` holds; else to zero
  bool weights_pass = false;       // from memory, once: what lies behind each step of them is asked for (`prefetch`)
  const uint8_t* codes = nullptr;  // of multiply_e4m3, instead of weights: tile i at codes + i * codes_stride
  int64_t codes_stride = 0;
  // What is wanted next, and asked for meanwhile: bytes [0, ahead_bytes) of tile i at ahead + i * ahead_stride.
  const uint8_t* ahead = nullptr;
  int64_t ahead_stride = 0, ahead_bytes = 0;
};

constexpr int64_t kNoPanels = INT64_MAX;
constexpr int kCodeRows = 8;
struct PanelKernels {
  // Fewest rows of x that are multiplied this way, by tiles of floats and of integers.
  int64_t float_rows, int_rows;
  bool rounds_weights;  // whether this is also for F16 and F32, whose weights lose bits
  // One run of x: up to 16 rows.
  void (*round_run)(const float* x, int64_t stride, int rows, int64_t columns, uint16_t* out);
  // Steps [first, first + steps) of one tile.
  void (*float_panel)(const FloatTile& layout, const uint8_t* tile, int64_t columns, int64_t first,
                      int64_t steps, uint16_t* out);
  // The same; null where int_rows is kNoPanels.
  void (*int_panel)(const IntTile& layout, const uint8_t* tile, int64_t columns, int64_t first,
                    int64_t steps, uint16_t* out);
  void (*multiply)(const PanelProduct& product);
  // The same bits without a panel: E4M3 tiles of whole steps without scales, one run of at most kCodeRows rows, all columns at once
  // (`add` and `ahead` are not read). Null where there is none.
  void (*multiply_e4m3)(const PanelProduct& product);
  // As CpuKernels::peak, of the matrix unit.
  double (*peak_bf16)(int64_t steps, float* sink);
  double (*peak_int8)(int64_t steps, float* sink);  // null where it has no such products
};

#if defined(__x86_64__)
extern const PanelKernels kBf16Panels;  // isa_avx512_bf16.cpp
extern const PanelKernels kAmxPanels;   // isa_amx.cpp
#endif

}  // namespace bise
