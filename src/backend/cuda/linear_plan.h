// How a product is shared out over a GPU: which blocks, which part of the columns each, what waits in shared memory.
#pragma once

#include <cstdint>

#include "backend/cuda/cuda_kernels.h"

namespace bise::gpu {

constexpr int kRanges = 8;        // of a weight's columns: a sum is that of theirs, in their order
constexpr int kWarpTiles = 2;     // tiles of 16 rows that a warp holds
constexpr int kLinearTiles = 16;  // and a block
// Blocks that registers let stand on a multiprocessor.
constexpr int blocks_at_once(int n_tiles) { return n_tiles <= 2 ? 2 : 1; }

// The blocks of a product. Splits: blocks that share the ranges of the same rows and tokens, so that few rows and
// tokens keep the whole GPU reading.
struct LinearPlan {
  int32_t n_tiles = 1;  // 8 tokens each, of a block
  int64_t row_blocks = 0, token_blocks = 0;
  int32_t splits = 1;

  // What splits leave behind and how they count themselves; the counters must be zero before the first launch.
  uint64_t partial_bytes() const {
    if (splits == 1) return 0;
    return static_cast<uint64_t>(row_blocks * token_blocks) * kRanges * kLinearTiles * 16 * 8 * sizeof(float) *
           static_cast<uint64_t>(n_tiles);
  }
  uint64_t arrival_bytes() const {
    return splits == 1 ? 0 : static_cast<uint64_t>(row_blocks * token_blocks) * sizeof(uint32_t);
  }
};
LinearPlan plan_linear(int64_t rows, int64_t tokens, int32_t num_multiprocessors);

// A tile's columns in units: 32 of an integer format, 16 of a float one. Each group of units has a header in front.
struct TileUnits {
  int32_t count = 0;
  int32_t per_group = 0;  // 0: no headers
  int32_t header_bytes = 0, unit_bytes = 0;
  int32_t tile_bytes = 0;  // the last unit may be cut
  int32_t in_256_columns = 0;

  constexpr int32_t start(int32_t unit) const {
    return unit * unit_bytes + (per_group == 0 ? 0 : (unit / per_group + 1) * header_bytes);
  }
  // Of units that are copied together: from the header of the first, if it begins a group.
  constexpr int32_t span_begin(int32_t unit) const {
    return start(unit) - (per_group != 0 && unit % per_group == 0 ? header_bytes : 0);
  }
  constexpr int32_t span_end(int32_t unit) const {
    const int32_t end = start(unit) + unit_bytes;
    return end < tile_bytes ? end : tile_bytes;
  }
  constexpr int32_t most_headers(int32_t units) const {
    return per_group == 0 ? 0 : (units + per_group - 1) / per_group;
  }
  bool operator==(const TileUnits&) const = default;
};

struct LinearKernelArgs {
  LinearArgs a;
  TileUnits units;
  int32_t num_tiles = 0, row_blocks = 0, splits = 1;
  int32_t stages = 0, stage_bytes = 0, tile_stage_bytes = 0;
  bool needs_sums = false;  // of the inputs
  float* partials = nullptr;
  uint32_t* arrivals = nullptr;

  // Whole stages, and whole groups of up to 256 columns.
  constexpr int32_t range_begin(int range) const {
    const auto begin = static_cast<int32_t>(int64_t{units.count} * range / kRanges);
    return range == kRanges ? begin : begin / units.in_256_columns * units.in_256_columns;
  }
  bool operator==(const LinearKernelArgs&) const = default;
};

}  // namespace bise::gpu
