#include "backend/cuda/gpu_weight.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "tensor/weight_format.h"

namespace bise::gpu {
namespace {

constexpr uint64_t kStagingBytes = 16 << 20;

// Tile `tile` of a segment whose format has none, in float32.
Result<void> decode_tile(const WeightSegment& s, const FloatTile& format, int64_t columns, int64_t tile, uint8_t* out) {
  std::vector<float> row(static_cast<size_t>(columns));
  for (int lane = 0; lane < kTileRows && tile * kTileRows + lane < s.rows; ++lane) {
    const int64_t at = tile * kTileRows + lane;
    TRY(check_stored_row(s, at));
    int64_t within = at;
    const WeightView* view = s.views.data();
    while (within >= view->rows) within -= (view++)->rows;
    decode_row(*view, within, row);
    for (int64_t k = 0; k < columns; ++k) {
      uint8_t* to = out + column_start(format, k) + 4 * element_of(FloatCodes::f32, lane, k);
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

Result<void> GpuWeightLoader::plan(const WeightPlan& plan) {
  load_.reset();
  next_ = 0;
  index_.assign(plan.weights.size(), std::nullopt);
  if (!plan.direct) return {};
  std::vector<WeightStream::Source> sources;
  for (size_t i = 0; i < plan.weights.size(); ++i) {
    CHECK(plan.weights[i].home == WeightHome::memory);
    std::vector<WeightSegment> segments = plan_segments(plan.weights[i].parts, true);
    if (!std::ranges::all_of(segments, has_stored_rows) || !lies_in_files(plan.files, plan.weights[i].parts)) continue;
    index_[i] = sources.size();
    sources.push_back({std::move(segments), plan.weights[i].pass});
  }
  if (sources.empty()) return {};
  load_ = TRY(WeightStream::open(plan, std::move(sources), WeightStream::Order::once, /*skip_stored=*/false));
  load_->start();
  return {};
}

Result<void> GpuWeightLoader::place(GpuWeight& packed, size_t segment, const WeightSegment& source, int64_t first,
                                    int64_t rows) {
  const WeightSegment& to = packed.segments[segment];
  if (staging_.bytes() < std::max(kStagingBytes, to.tile_bytes)) {
    staging_ = TRY(allocate_pinned(std::max(kStagingBytes, to.tile_bytes), "weights on their way to the GPU"));
  }
  auto* host = static_cast<uint8_t*>(staging_.data());
  const auto step = static_cast<int64_t>(staging_.bytes() / to.tile_bytes);
  const int64_t end = (first + rows + kTileRows - 1) / kTileRows;
  for (int64_t tile = first / kTileRows; tile < end; tile += step) {
    const int64_t count = std::min(step, end - tile);
    std::vector<std::optional<Error>> failed(static_cast<size_t>(pool_.num_threads()));
    pool_.parallel_for(count, 1, [&](int64_t from, int64_t until, int worker) {
      for (int64_t i = from; i < until; ++i) {
        uint8_t* out = host + static_cast<uint64_t>(i) * to.tile_bytes;
        std::memset(out, 0, to.tile_bytes);
        auto done = source.tiles ? pack_tile(source, packed.columns, tile + i, out)
                                 : decode_tile(source, to.tiles->floats, packed.columns, tile + i, out);
        if (!done) failed[static_cast<size_t>(worker)] = std::move(done).error();
      }
    });
    for (std::optional<Error>& error : failed) {
      if (error) return std::move(*error);
    }
    copy_to_device(stream_, const_cast<uint8_t*>(to.data) + static_cast<uint64_t>(tile) * to.tile_bytes, host,
                   static_cast<uint64_t>(count) * to.tile_bytes);
    TRY(synchronize(stream_));  // the staging memory is filled again
  }
  return {};
}

Result<Weight> GpuWeightLoader::pack(std::span<const WeightView> parts) {
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
  const auto* device = static_cast<const uint8_t*>(packed->buffer.data());
  for (WeightSegment& s : packed->segments) {
    s.data = device;
    device += static_cast<uint64_t>(s.num_tiles()) * s.tile_bytes;
  }

  const std::optional<size_t> index = load_ && next_ < index_.size() ? index_[next_] : std::nullopt;
  if (index) {
    TRY(load_->each_piece(*index, [&](size_t i, const WeightSegment& source, int64_t first, int64_t rows) {
      return place(*packed, i, source, first, rows);
    }));
  } else {
    for (size_t i = 0; i < stored.size(); ++i) TRY(place(*packed, i, stored[i], 0, stored[i].rows));
  }
  if (++next_ >= index_.size()) {
    load_.reset();
    staging_ = Buffer();
  }

  for (size_t i = 0; i < packed->segments.size(); ++i) {
    WeightSegment& s = packed->segments[i];
    if (!stored[i].tiles) {
      for (const WeightView& view : s.views) weight.decoded_bytes += view.codes.size();
    }
    std::vector<float> factors;
    for (const RowFactor& f : s.row_factors) factors.push_back(f.times);
    for (const RowFactor& f : s.row_factors) factors.push_back(f.over);
    Buffer& to = packed->factors.emplace_back();
    if (!factors.empty()) {
      to = TRY(allocate_device(factors.size() * sizeof(float), "scales of rows"));
      copy_to_device(stream_, to.data(), factors.data(), factors.size() * sizeof(float));
      TRY(synchronize(stream_));
    }
    s.views.clear();  // the file is not needed again
    s.row_factors.clear();
  }
  weight.storage = std::move(packed);
  return weight;
}

}  // namespace bise::gpu
