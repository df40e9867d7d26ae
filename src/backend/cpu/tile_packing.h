// From a weight as its file has it to a tile (tile_layout.h draws them), and one row back.
#pragma once

#include <optional>
#include <span>

#include "backend/cpu/pack_kernels.h"
#include "backend/cpu/tile_layout.h"
#include "base/error.h"
#include "tensor/weight_view.h"

namespace bise {

struct TileFormat {
  bool integer = false;
  FloatTile floats;  // when not integer
  IntTile ints;      // when integer

  bool operator==(const TileFormat&) const = default;
  uint64_t tile_bytes(int64_t columns) const;
};

// The tile layout of a format, or nothing when it has no fast kernel.
std::optional<TileFormat> tile_format_of(const WeightView& weight);
// The products of a row, as the kernel gives them, are multiplied by `times` and divided by `over`.
struct RowFactor {
  float times = 1.0f, over = 1.0f;
  bool operator==(const RowFactor&) const = default;
};
RowFactor row_factor(const WeightView& weight, int64_t row);

// Columns that are packed at a time: a piece of a tile that stays in the nearest cache.
constexpr int64_t kPackColumns = 256;
struct PlacedRow {
  const WeightView* view;
  int64_t row;
};
// Writes columns [first, end) of up to 16 rows into the lanes of a tile of zeros. `first` is a multiple
// of kPackColumns; the weights have the layout `format`.
void pack_rows(std::span<const PlacedRow> rows, const TileFormat& format, int64_t first, int64_t end,
               uint8_t* tile);
// The same by a table of the caller's: all of them write the same bytes.
void pack_rows_with(PackRows pack, std::span<const PlacedRow> rows, const TileFormat& format, int64_t first,
                    int64_t end, uint8_t* tile);
// The weights of one lane, as the format's decoder gives them. `factor`: the row's row_factor().
void unpack_lane(const TileFormat& format, const uint8_t* tile, int lane, RowFactor factor,
                 std::span<float> out);

}  // namespace bise
