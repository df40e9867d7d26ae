#include "backend/cpu/weight_stream.h"

#include <algorithm>
#include <functional>
#include <numeric>

#include "tensor/weight_format.h"

namespace bise {
namespace {

constexpr uint64_t kMaxPieceBytes = uint64_t{16} << 20;
constexpr uint64_t kMaxRequestBytes = uint64_t{4} << 20;

// Rows that pieces are cut at: whole tiles and whole interleaved heads.
int64_t quantum_of(const WeightSegment& segment) {
  int64_t rows = kTileRows;
  for (const WeightView& view : segment.views) {
    if (view.order.interleaved_head > 0) rows = std::lcm(rows, view.order.interleaved_head);
  }
  return rows;
}

}  // namespace

uint64_t stored_row_bytes(const WeightView& view) {
  return view.codes.size() / static_cast<uint64_t>(std::max<int64_t>(view.rows, 1));
}

bool has_stored_rows(const WeightSegment& segment) {
  return std::ranges::none_of(segment.views, [](const WeightView& view) {
    return view.format == FormatId::gptq || view.format == FormatId::awq;
  });
}

FileRange locate(std::span<const StoredFile> files, Bytes part) {
  const std::optional<FileRange> found = find_in_files(files, part);
  CHECK(found);  // what streams comes from the files of the plan
  return *found;
}

StoredRows stored_rows(const WeightView& view, int64_t first, int64_t count) {
  const int64_t head = std::max<int64_t>(view.order.interleaved_head, 1);
  const int64_t begin = first / head * head;
  const int64_t end = std::min((first + count + head - 1) / head * head, view.rows);
  return {begin, end - begin};
}

std::vector<WeightStream::Piece> WeightStream::cut(std::span<const WeightSegment> segments,
                                                   uint64_t piece_bytes, bool skip_stored,
                                                   std::vector<ReadItem>* items,
                                                   const std::function<FileRange(Bytes)>& place) {
  std::vector<Piece> pieces;
  for (size_t i = 0; i < segments.size(); ++i) {
    const WeightSegment& segment = segments[i];
    if (skip_stored && !segment.tiles) continue;
    const int64_t quantum = quantum_of(segment);
    const int64_t quanta = static_cast<int64_t>(
        piece_bytes / std::max<uint64_t>(stored_row_bytes(segment.views[0]) * static_cast<uint64_t>(quantum), 1));
    const bool by_rows = has_stored_rows(segment);
    const int64_t step = by_rows ? quantum * std::max<int64_t>(quanta, 1) : segment.rows;
    for (int64_t first = 0; first < segment.rows; first += step) {
      Piece piece{i, first, std::min(step, segment.rows - first), {}};
      ReadItem item;
      int64_t base = 0;  // of the view, in the segment
      for (size_t v = 0; v < segment.views.size(); ++v) {
        const WeightView& view = segment.views[v];
        const int64_t begin = std::max(first - base, int64_t{0});
        const int64_t end = std::min(first + piece.rows - base, view.rows);
        base += view.rows;
        if (begin >= end) continue;
        const StoredRows rows = stored_rows(view, begin, end - begin);
        const uint64_t row_bytes = stored_row_bytes(view);
        if (row_bytes == 0) continue;
        if (!by_rows) {
          item.ranges.push_back(place(view.codes));
          piece.ranges.push_back({v, 0});
          continue;
        }
        item.ranges.push_back(place(view.codes.subspan(static_cast<uint64_t>(rows.first) * row_bytes,
                                                        static_cast<uint64_t>(rows.count) * row_bytes)));
        piece.ranges.push_back({v, rows.first});
      }
      pieces.push_back(std::move(piece));
      items->push_back(std::move(item));
    }
  }
  return pieces;
}

uint64_t WeightStream::piece_bytes(const WeightPlan& plan) {
  // Several pieces in the ring at once: one in use, the others on their way.
  return std::min(kMaxPieceBytes, plan.ring_bytes / 6);
}

uint64_t WeightStream::smallest_piece(std::span<const WeightSegment> segments) {
  std::vector<ReadItem> items;
  // An offset that is aligned as badly as can be.
  cut(segments, 1, false, &items, [](Bytes bytes) { return FileRange{0, kDirectAlignment - 1, bytes.size()}; });
  uint64_t most = 0;
  for (const ReadItem& item : items) most = std::max(most, ReadAhead::ring_bytes_of(item));
  return most;
}

Result<std::unique_ptr<WeightStream>> WeightStream::open(const WeightPlan& plan,
                                                         std::vector<Source> weights, Order order,
                                                         bool skip_stored) {
  auto stream = std::make_unique<WeightStream>();
  std::vector<std::string> paths;
  for (const StoredFile& file : plan.files) paths.push_back(file.path);
  auto place = [&](Bytes part) { return locate(plan.files, part); };
  std::vector<ReadItem> items;
  size_t first_of_pass_0 = kNoItem;
  for (const Source& weight : weights) {
    stream->first_item_.push_back(items.size());
    if (weight.pass == 0 && first_of_pass_0 == kNoItem) first_of_pass_0 = items.size();
    stream->pieces_.push_back(cut(weight.segments, piece_bytes(plan), skip_stored, &items, place));
  }
  for (size_t i = 0; i < items.size(); ++i) items[i].next = i + 1;
  if (!items.empty()) items.back().next = kNoItem;
  if (order == Order::cyclic) {
    for (size_t w = 0; w < weights.size(); ++w) {
      const bool ends_pass = w + 1 == weights.size() || weights[w + 1].pass != weights[w].pass;
      const size_t end = w + 1 == weights.size() ? items.size() : stream->first_item_[w + 1];
      if (ends_pass && end > 0) items[end - 1].next = first_of_pass_0;
    }
  }
  stream->weights_ = std::move(weights);
  if (items.empty()) return stream;
  ReadAheadOptions options;
  options.ring_bytes = plan.ring_bytes;
  options.request_bytes = kMaxRequestBytes;
  options.read = plan.read;
  stream->ahead_ = TRY(ReadAhead::create(paths, std::move(items), options, plan.log));
  return stream;
}

void WeightStream::start() {
  if (ahead_) ahead_->start(0);
}

Result<void> WeightStream::each_piece(size_t weight, const Body& body) {
  for (size_t i = 0; i < pieces_[weight].size(); ++i) {
    const Piece& piece = pieces_[weight][i];
    WeightSegment& segment = weights_[weight].segments[piece.segment];
    auto addresses = ahead_->acquire(first_item_[weight] + i);
    if (!addresses) return std::move(addresses).error().with_context("tensor " + segment.views[0].name);
    for (size_t r = 0; r < piece.ranges.size(); ++r) {
      // The view begins where its first row would lie if the whole of it were in the ring: rows keep
      // their numbers. Only rows of the piece are read through it.
      WeightView& view = segment.views[piece.ranges[r].view];
      const uintptr_t begin = reinterpret_cast<uintptr_t>((*addresses)[r]) -
                              static_cast<uint64_t>(piece.ranges[r].first_stored_row) * stored_row_bytes(view);
      view.codes = {reinterpret_cast<const std::byte*>(begin), view.codes.size()};
    }
    auto done = body(piece.segment, segment, piece.first, piece.rows);
    ahead_->release();
    TRY(std::move(done));
  }
  return {};
}

}  // namespace bise
