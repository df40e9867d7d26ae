#include "backend/cpu/packed_weight.h"

#include <algorithm>

#include "tensor/group_codes.h"
#include "tensor/weight_format.h"

namespace bise {
namespace {

// The view and the row in it of row `row` of a segment.
PlacedRow find_row(const WeightSegment& segment, int64_t row) {
  for (const WeightView& view : segment.views) {
    if (row < view.rows) return {&view, row};
    row -= view.rows;
  }
  CHECK(false);
}

}  // namespace

std::vector<WeightSegment> plan_segments(std::span<const WeightView> parts, bool tiled) {
  std::vector<WeightSegment> segments;
  int64_t row = 0;
  for (const WeightView& view : parts) {
    std::optional<TileFormat> tiles = tiled ? tile_format_of(view) : std::nullopt;
    if (segments.empty() || segments.back().activation_scale != view.activation_scale ||
        segments.back().tiles != tiles) {
      WeightSegment segment;
      segment.first_row = row;
      segment.activation_scale = view.activation_scale;
      segment.tiles = tiles;
      if (tiles) segment.tile_bytes = tiles->tile_bytes(view.columns);
      segments.push_back(std::move(segment));
    }
    WeightSegment& segment = segments.back();
    segment.rows += view.rows;
    segment.views.push_back(view);
    if (tiles) {
      for (int64_t r = 0; r < view.rows; ++r) segment.row_factors.push_back(row_factor(view, r));
    }
    row += view.rows;
  }
  for (WeightSegment& s : segments) {
    if (std::ranges::all_of(s.row_factors, [](RowFactor f) { return f == RowFactor(); })) s.row_factors.clear();
  }
  return segments;
}

Result<void> pack_tile(const WeightSegment& segment, int64_t columns, int64_t tile, uint8_t* out) {
  const int64_t first_row = tile * kTileRows;
  const int lanes = static_cast<int>(std::min<int64_t>(kTileRows, segment.rows - first_row));
  PlacedRow placed[kTileRows];
  for (int lane = 0; lane < lanes; ++lane) {  // the rest of the last tile stays zero
    placed[lane] = find_row(segment, first_row + lane);
    TRY(check_codes(*placed[lane].view, placed[lane].row));
  }
  for (int64_t k = 0; k < columns; k += kPackColumns) {
    pack_rows({placed, static_cast<size_t>(lanes)}, *segment.tiles, k, std::min(columns, k + kPackColumns), out);
  }
  return {};
}

Result<void> check_stored_row(const WeightSegment& segment, int64_t row) {
  const PlacedRow placed = find_row(segment, row);
  return check_codes(*placed.view, placed.row);
}

void unpack_row(const PackedWeight& weight, int64_t row, std::span<float> out) {
  const WeightSegment* segment = &weight.segments.front();
  for (const WeightSegment& s : weight.segments) {
    if (row >= s.first_row) segment = &s;
  }
  const int64_t within = row - segment->first_row;
  if (!segment->tiles) {
    PlacedRow placed = find_row(*segment, within);
    decode_row(*placed.view, placed.row, out);
    return;
  }
  const uint8_t* tile = segment->data + static_cast<uint64_t>(within / kTileRows) * segment->tile_bytes;
  const RowFactor factor = segment->row_factors.empty() ? RowFactor() : segment->row_factors[static_cast<size_t>(within)];
  unpack_lane(*segment->tiles, tile, static_cast<int>(within % kTileRows), factor, out);
}

}  // namespace bise
