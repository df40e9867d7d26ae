#include "backend/cpu/weight_loader.h"

#include <algorithm>
#include <cstring>

#include "backend/cpu/cpu_memory.h"
#include "base/file.h"
#include "tensor/weight_format.h"

namespace bise {
namespace {

Result<void> check_columns(std::span<const WeightView> parts) {
  CHECK(!parts.empty());
  for (const WeightView& part : parts) {
    if (part.columns != parts[0].columns) {
      return Error(ErrorCode::corrupt, "tensor " + part.name + ": " + std::to_string(part.columns) +
                                           " columns beside " + std::to_string(parts[0].columns));
    }
  }
  return {};
}

uint64_t codes_bytes(const WeightSegment& segment) {
  uint64_t bytes = 0;
  for (const WeightView& view : segment.views) bytes += round_up(view.codes.size(), 64);
  return bytes;
}
uint64_t side_bytes(const WeightSegment& segment) {
  uint64_t bytes = 0;
  for (const WeightView& view : segment.views) {
    view.each_side_part([&](Bytes part) { bytes += round_up(part.size(), 64); });
  }
  return bytes;
}

// The pages of bytes that were read out of a map. What was put together in memory is no page of a file.
void give_back(std::span<const StoredFile> files, Bytes part) {
  if (!part.empty() && find_in_files(files, part)) give_back_pages(part);
}

// The side parts of all views, out of the files' maps into memory of their own.
Result<Buffer> copy_side_parts(std::span<const StoredFile> files, std::vector<WeightSegment>& segments) {
  uint64_t total = 0;
  for (const WeightSegment& segment : segments) total += side_bytes(segment);
  Buffer buffer = TRY(allocate_host(total, "the scales of a weight"));
  auto* at = static_cast<std::byte*>(buffer.data());
  for (WeightSegment& segment : segments) {
    for (WeightView& view : segment.views) {
      view.each_side_part([&](Bytes& part) {
        if (part.empty()) return;
        std::memcpy(at, part.data(), part.size());
        give_back(files, part);
        part = {at, part.size()};
        at += round_up(part.size(), 64);
      });
    }
  }
  return buffer;
}

// Runs body(i) for i in [0, count) on all threads.
template <class Body>
Result<void> first_failure(ThreadPool& pool, int64_t count, Body body) {
  std::vector<std::optional<Error>> failed(static_cast<size_t>(pool.num_threads()));
  pool.parallel_for(count, 4, [&](int64_t begin, int64_t end, int worker) {
    for (int64_t i = begin; i < end; ++i) {
      Result<void> done = body(i);
      if (!done) failed[static_cast<size_t>(worker)] = std::move(done).error();
    }
  });
  for (std::optional<Error>& error : failed) {
    if (error) return std::move(*error);
  }
  return {};
}

// body(view, offset, bytes) of each view: where among its codes rows [first, first + rows) of the segment lie.
template <class Body>
void each_stored_part(const WeightSegment& segment, int64_t first, int64_t rows, Body body) {
  int64_t base = 0;
  for (const WeightView& view : segment.views) {
    const int64_t from = std::max(first - base, int64_t{0}), end = std::min(first + rows - base, view.rows);
    base += view.rows;
    if (from >= end) {
      body(view, 0, 0);
      continue;
    }
    const StoredRows stored = stored_rows(view, from, end - from);
    const uint64_t row = stored_row_bytes(view);
    body(view, static_cast<uint64_t>(stored.first) * row, static_cast<uint64_t>(stored.count) * row);
  }
}

// Rows of a segment, whole tiles, that are packed out of the file's map before their pages go: a head of 0.9 GB
// must not lie in memory twice.
int64_t mapped_rows(const WeightSegment& segment, uint64_t piece_bytes) {
  const uint64_t row = std::max<uint64_t>(stored_row_bytes(segment.views[0]), 1);
  return std::max<int64_t>(static_cast<int64_t>(piece_bytes / row) / kTileRows, 1) * kTileRows;
}
void give_back_rows(std::span<const StoredFile> files, const WeightSegment& segment, int64_t first, int64_t rows) {
  each_stored_part(segment, first, rows, [&](const WeightView& view, uint64_t offset, uint64_t bytes) {
    give_back(files, view.codes.subspan(offset, bytes));
  });
}

Weight weight_of(std::span<const WeightView> parts) {
  Weight weight;
  weight.name = parts[0].name;
  weight.format = parts[0].format;
  weight.columns = parts[0].columns;
  for (const WeightView& part : parts) weight.rows += part.rows;
  return weight;
}

}  // namespace

WeightCost WeightLoader::cost(std::span<const WeightView> parts) const {
  const std::vector<WeightSegment> segments = plan_segments(parts, tiled_);
  WeightCost cost;
  cost.piece_bytes = WeightStream::smallest_piece(segments);
  for (const WeightSegment& s : segments) {
    cost.memory_bytes += s.tiles ? static_cast<uint64_t>(s.num_tiles()) * s.tile_bytes
                                 : codes_bytes(s) + side_bytes(s);
    cost.memory_bytes += s.row_factors.size() * sizeof(RowFactor);
    for (const WeightView& view : s.views) cost.stored_bytes += view.codes.size();
    cost.side_bytes += side_bytes(s) + s.row_factors.size() * sizeof(RowFactor);
  }
  return cost;
}

Result<void> WeightLoader::plan(WeightPlan plan) {
  load_.reset();
  stream_.reset();
  next_ = 0;
  place_.assign(plan.weights.size(), std::nullopt);
  side_.clear();
  std::vector<WeightStream::Source> loaded, streamed;
  for (size_t i = 0; i < plan.weights.size(); ++i) {
    const PlannedWeight& weight = plan.weights[i];
    if (weight.home == WeightHome::in_file) continue;
    TRY(check_columns(weight.parts));
    std::vector<WeightSegment> segments = plan_segments(weight.parts, tiled_);
    auto& sources = weight.home == WeightHome::memory ? loaded : streamed;
    if (weight.home == WeightHome::streamed) {
      side_.push_back(TRY(copy_side_parts(plan.files, segments)));
    } else if (!std::ranges::all_of(segments, has_stored_rows) || !lies_in_files(plan.files, weight.parts)) {
      continue;  // its rows are no runs of bytes of a file: packed out of memory
    }
    place_[i] = sources.size();
    sources.push_back({std::move(segments), weight.pass});
  }
  if (!streamed.empty()) {
    stream_ = TRY(WeightStream::open(plan, std::move(streamed), WeightStream::Order::cyclic, false));
  }
  if (plan.direct && !loaded.empty()) {
    load_ = TRY(WeightStream::open(plan, std::move(loaded), WeightStream::Order::once, !plan.bounded));
    load_->start();
  } else if (stream_) {
    stream_->start();
  }
  files_.clear();
  for (const StoredFile& file : plan.files) files_.push_back(TRY(DirectFile::open(file.path)));
  plan_ = std::move(plan);
  return {};
}

Result<Weight> WeightLoader::pack(std::span<const WeightView> parts) {
  TRY(check_columns(parts));
  if (!plan_ || next_ == plan_->weights.size()) return pack_into_memory(parts, std::nullopt);
  const PlannedWeight& planned = plan_->weights[next_];
  CHECK(planned.parts.size() == parts.size() && planned.parts[0].codes.data() == parts[0].codes.data());
  if (planned.home != WeightHome::memory) {
    auto weight = leave_in_file(parts, planned.home);
    ++next_;
    return weight;
  }
  auto weight = pack_into_memory(parts, load_ ? place_[next_] : std::nullopt);
  ++next_;
  bool more = false;
  for (size_t i = next_; i < plan_->weights.size(); ++i) {
    more = more || plan_->weights[i].home == WeightHome::memory;
  }
  if (!more && load_) {  // the ring's memory goes; from now on the disk reads for the first step
    load_.reset();
    if (stream_) stream_->start();
  }
  return weight;
}

// Tiles of rows [first, first + rows) of a segment, which begins at `out`.
Result<void> WeightLoader::pack_rows(const WeightSegment& s, int64_t columns, int64_t first, int64_t rows,
                                     uint8_t* out) {
  const int64_t first_tile = first / kTileRows, tiles = (rows + kTileRows - 1) / kTileRows;
  return first_failure(pool_, tiles, [&](int64_t i) {
    return pack_tile(s, columns, first_tile + i, out + static_cast<uint64_t>(first_tile + i) * s.tile_bytes);
  });
}

Result<Weight> WeightLoader::pack_into_memory(std::span<const WeightView> parts, std::optional<size_t> load) {
  const bool copies = plan_ && plan_->bounded;  // what has no tiles
  auto packed = std::make_unique<PackedWeight>();
  packed->columns = parts[0].columns;
  packed->segments = plan_segments(parts, tiled_);
  Weight weight = weight_of(parts);
  uint64_t total = 0;
  for (const WeightSegment& s : packed->segments) {
    if (s.tiles) total += static_cast<uint64_t>(s.num_tiles()) * s.tile_bytes;
    else if (copies) total += codes_bytes(s) + side_bytes(s);
    else for (const WeightView& view : s.views) weight.bytes += view.codes.size();
  }
  for (const WeightSegment& s : packed->segments) {
    if (tiled_ && !s.tiles) weight.decoded_bytes += codes_bytes(s);
  }
  weight.is_mapped = total == 0;
  weight.bytes += total;
  packed->buffer = TRY(allocate_host(total, ("the weight " + weight.name).c_str()));

  // Where each segment's tiles, or the copies of its views, begin.
  std::vector<uint8_t*> begin;
  auto* at = static_cast<uint8_t*>(packed->buffer.data());
  for (WeightSegment& s : packed->segments) {
    begin.push_back(at);
    s.data = s.tiles ? at : nullptr;
    if (s.tiles && !place_by_parts(at, s.num_tiles(), s.tile_bytes, pool_)) warn_of_placement();
    if (s.tiles) at += static_cast<uint64_t>(s.num_tiles()) * s.tile_bytes;
    else if (copies) at += codes_bytes(s) + side_bytes(s);
  }
  auto place = [&](size_t i, const WeightSegment& s, int64_t first, int64_t rows) -> Result<void> {
    if (s.tiles) return pack_rows(s, packed->columns, first, rows, begin[i]);
    uint8_t* to = begin[i];
    each_stored_part(s, first, rows, [&](const WeightView& view, uint64_t offset, uint64_t bytes) {
      if (bytes > 0) std::memcpy(to + offset, view.codes.data() + offset, bytes);
      to += round_up(view.codes.size(), 64);
    });
    return {};
  };
  if (load) {
    TRY(load_->each_piece(*load, place));
  } else {
    for (size_t i = 0; i < packed->segments.size(); ++i) {
      const WeightSegment& s = packed->segments[i];
      if (!s.tiles && !copies) continue;
      const int64_t step = plan_ && has_stored_rows(s) ? mapped_rows(s, WeightStream::piece_bytes(*plan_)) : s.rows;
      for (int64_t first = 0; first < s.rows; first += step) {
        const int64_t rows = std::min(step, s.rows - first);
        TRY(place(i, s, first, rows));
        if (step < s.rows) give_back_rows(plan_->files, s, first, rows);
      }
    }
  }

  for (size_t i = 0; i < packed->segments.size(); ++i) {
    WeightSegment& s = packed->segments[i];
    if (s.tiles) {
      s.views.clear();  // the file is not needed again
      continue;
    }
    if (copies) {
      auto* to = reinterpret_cast<std::byte*>(begin[i]);
      for (WeightView& view : s.views) {
        view.codes = {to, view.codes.size()};
        to += round_up(view.codes.size(), 64);
      }
      for (WeightView& view : s.views) {
        view.each_side_part([&](Bytes& part) {
          if (part.empty()) return;
          std::memcpy(to, part.data(), part.size());
          give_back(plan_->files, part);
          part = {to, part.size()};
          to += round_up(part.size(), 64);
        });
      }
    }
    TRY(first_failure(pool_, s.rows, [&](int64_t row) { return check_stored_row(s, row); }));
  }
  weight.storage = std::move(packed);
  return weight;
}

void WeightLoader::warn_of_placement() {
  if (warned_of_placement_) return;
  warned_of_placement_ = true;
  if (plan_) plan_->log.warning("memory cannot be placed on this machine's " + std::to_string(pool_.groups().size()) +
                                " memory nodes, so that half of the reads or more go to another; in a container --cap-add SYS_NICE allows it");
}

Result<Weight> WeightLoader::leave_in_file(std::span<const WeightView> parts, WeightHome home) {
  Weight weight = weight_of(parts);
  auto storage = std::make_unique<StreamedWeight>();
  storage->columns = parts[0].columns;
  storage->segments = plan_segments(parts, /*tiled=*/false);
  for (const WeightView& view : parts) {
    weight.bytes += view.codes.size();
    view.each_side_part([&](Bytes part) { weight.bytes += part.size(); });
  }
  weight.is_streamed = true;
  if (home == WeightHome::streamed) storage->index = *place_[next_];
  weight.storage = std::move(storage);
  return weight;
}

StreamStats WeightLoader::stats() const {
  if (!stream_) return {};
  const ReadStats stats = stream_->stats();
  return {stats.bytes, stats.seconds, stats.waited_seconds};
}

Result<void> WeightLoader::read_row(const StreamedWeight& table, int64_t row, std::span<float> out) const {
  for (const WeightSegment& s : table.segments) {
    for (const WeightView& view : s.views) {
      if (row >= view.rows) {
        row -= view.rows;
        continue;
      }
      if (!has_stored_rows(s)) {
        decode_row(view, row, out);
        return {};
      }
      const uint64_t row_bytes = stored_row_bytes(view), offset = static_cast<uint64_t>(view.stored_row(row)) * row_bytes;
      const FileRange range = locate(plan_->files, view.codes.subspan(offset, row_bytes));
      std::vector<std::byte> bytes(row_bytes);
      TRY(read_bytes(files_[range.file], plan_->read, range.offset, range.bytes, bytes.data())
              .with_context("tensor " + view.name));
      WeightView here = view;  // begins where its first row would lie, as in WeightStream
      here.codes = {reinterpret_cast<const std::byte*>(reinterpret_cast<uintptr_t>(bytes.data()) - offset),
                    view.codes.size()};
      decode_row(here, row, out);
      return {};
    }
  }
  CHECK(false);  // ids are checked above
}

}  // namespace bise
