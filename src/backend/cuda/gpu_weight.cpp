#include "backend/cuda/gpu_weight.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "tensor/weight_format.h"

namespace bise::gpu {
namespace {

constexpr uint64_t kStagingBytes = 16 << 20;

// Tile `tile` of a segment whose format has none, in float32.
Result<void> decode_tile(const WeightSegment& s, int64_t columns, int64_t tile, uint8_t* out) {
  std::vector<float> row(static_cast<size_t>(columns));
  for (int lane = 0; lane < kTileRows && tile * kTileRows + lane < s.rows; ++lane) {
    const int64_t at = tile * kTileRows + lane;
    TRY(check_stored_row(s, at));
    int64_t within = at;
    const WeightView* view = s.views.data();
    while (within >= view->rows) within -= (view++)->rows;
    decode_row(*view, within, row);
    for (int64_t k = 0; k < columns; ++k) {
      uint8_t* to = out + column_start(s.tiles->floats, k) + 4 * element_of(FloatCodes::f32, lane, k);
      std::memcpy(to, &row[static_cast<size_t>(k)], 4);
    }
  }
  return {};
}

}  // namespace

std::vector<WeightSegment> plan_gpu_segments(std::span<const WeightView> parts) {
  std::vector<WeightSegment> segments = plan_segments(parts, true);
  for (WeightSegment& s : segments) {
    if (s.tiles) continue;
    s.tiles = TileFormat{false, {FloatCodes::f32}, {}};
    s.tile_bytes = s.tiles->tile_bytes(parts[0].columns);
  }
  return segments;
}

uint64_t gpu_weight_bytes(std::span<const WeightSegment> segments) {
  uint64_t bytes = 0;
  for (const WeightSegment& s : segments) bytes += static_cast<uint64_t>(s.num_tiles()) * s.tile_bytes;
  return bytes;
}

Result<Weight> pack_gpu_weight(std::span<const WeightView> parts, ThreadPool& pool, Stream stream) {
  const std::vector<WeightSegment> stored = plan_segments(parts, true);  // which of them have tiles of their own
  auto packed = std::make_unique<GpuWeight>();
  packed->columns = parts[0].columns;
  packed->segments = plan_gpu_segments(parts);
  Weight weight;
  weight.name = parts[0].name;
  weight.format = parts[0].format;
  weight.columns = parts[0].columns;
  for (const WeightView& part : parts) weight.rows += part.rows;
  weight.bytes = gpu_weight_bytes(packed->segments);
  packed->buffer = TRY(allocate_device(weight.bytes, ("the weight " + weight.name).c_str()));

  uint64_t largest = 0;
  for (const WeightSegment& s : packed->segments) largest = std::max(largest, s.tile_bytes);
  const Buffer staging = TRY(allocate_pinned(std::max(kStagingBytes, largest), "weights on their way to the GPU"));
  auto* host = static_cast<uint8_t*>(staging.data());
  auto* device = static_cast<uint8_t*>(packed->buffer.data());
  for (size_t i = 0; i < packed->segments.size(); ++i) {
    WeightSegment& s = packed->segments[i];
    s.data = device;
    const int64_t step = static_cast<int64_t>(staging.bytes() / s.tile_bytes);
    for (int64_t first = 0; first < s.num_tiles(); first += step) {
      const int64_t count = std::min(step, s.num_tiles() - first);
      const uint64_t bytes = static_cast<uint64_t>(count) * s.tile_bytes;
      std::vector<std::optional<Error>> failed(static_cast<size_t>(pool.num_threads()));
      pool.parallel_for(count, 1, [&](int64_t begin, int64_t end, int worker) {
        for (int64_t tile = begin; tile < end; ++tile) {
          uint8_t* to = host + static_cast<uint64_t>(tile) * s.tile_bytes;
          std::memset(to, 0, s.tile_bytes);
          auto done = stored[i].tiles ? pack_tile(s, packed->columns, first + tile, to)
                                      : decode_tile(s, packed->columns, first + tile, to);
          if (!done) failed[static_cast<size_t>(worker)] = std::move(done).error();
        }
      });
      for (std::optional<Error>& error : failed) {
        if (error) return std::move(*error);
      }
      copy_to_device(stream, device, host, bytes);
      TRY(synchronize(stream));  // the staging memory is filled again
      device += bytes;
    }
    if (!stored[i].tiles) {
      for (const WeightView& view : s.views) weight.decoded_bytes += view.codes.size();
    }
    std::vector<float> factors;
    for (const RowFactor& f : s.row_factors) factors.push_back(f.times);
    for (const RowFactor& f : s.row_factors) factors.push_back(f.over);
    Buffer& to = packed->factors.emplace_back();
    if (!factors.empty()) {
      to = TRY(allocate_device(factors.size() * sizeof(float), "scales of rows"));
      copy_to_device(stream, to.data(), factors.data(), factors.size() * sizeof(float));
      TRY(synchronize(stream));
    }
    s.views.clear();  // the file is not needed again
    s.row_factors.clear();
  }
  weight.storage = std::move(packed);
  return weight;
}

}  // namespace bise::gpu
