// A weight in the CPU's memory. Rows of several checkpoint matrices are stacked into segments of one
// format each. A segment is either packed into tiles (tile_layout.h draws them) or kept as the file
// has it and decoded row by row: for reference precision, and for formats without a fast kernel.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "backend/buffer.h"
#include "backend/cpu/tile_packing.h"
#include "backend/weight.h"
#include "base/error.h"
#include "tensor/weight_view.h"

namespace bise {

struct WeightSegment {
  int64_t first_row = 0;  // in the stacked matrix
  int64_t rows = 0;
  float activation_scale = 0.0f;      // of a statically quantised FP8 matrix, else 0
  std::vector<WeightView> views;      // as stored in the file; not tiled: read at every product
  std::optional<TileFormat> tiles;    // engaged: `data` holds them
  uint64_t tile_bytes = 0;
  const uint8_t* data = nullptr;
  std::vector<RowFactor> row_factors;  // of the kernel's sums; empty: all 1

  int64_t num_tiles() const { return (rows + kTileRows - 1) / kTileRows; }
};

struct PackedWeight : WeightStorage {
  Buffer buffer;
  std::vector<WeightSegment> segments;
  int64_t columns = 0;
};

// Cuts the parts into segments, without packing anything yet. `tiled`: use tiles where a kernel is.
std::vector<WeightSegment> plan_segments(std::span<const WeightView> parts, bool tiled);
// Writes tile number `tile` of a segment to `out` (segment.tile_bytes bytes, zeroed). Error: FP8
// codes that are not numbers.
Result<void> pack_tile(const WeightSegment& segment, int64_t columns, int64_t tile, uint8_t* out);
// Of a segment without tiles: Error when row `row` holds FP8 codes that are not numbers.
Result<void> check_stored_row(const WeightSegment& segment, int64_t row);
// One row of the stacked matrix as float32, exactly as the format's decoder gives it.
void unpack_row(const PackedWeight& weight, int64_t row, std::span<float> out);

}  // namespace bise
