// Weights read piece by piece, in the order of use, ahead of their use. A piece is a run of rows of one
// segment (whole tiles of it); its views are as in packed_weight.h, with their codes in the ring.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "backend/cpu/packed_weight.h"
#include "backend/weight_plan.h"
#include "base/read_ahead.h"

namespace bise {

// Rows [first, first + count) of a view's `codes`, as stored.
struct StoredRows {
  int64_t first = 0, count = 0;
};
// The stored rows that hold rows [first, first + count) of the matrix: more where heads are interleaved
// and the range cuts one.
StoredRows stored_rows(const WeightView& view, int64_t first, int64_t count);
uint64_t stored_row_bytes(const WeightView& view);
// Whether rows are runs of bytes in the file. GPTQ and AWQ store the transposed matrix: it is read whole.
bool has_stored_rows(const WeightSegment& segment);

// find_in_files() of bytes that must be in a file.
FileRange locate(std::span<const StoredFile> files, Bytes part);

class WeightStream {
 public:
  struct Source {
    std::vector<WeightSegment> segments;
    int pass = 0;
  };
  enum class Order { once, cyclic };
  // Bytes of the file that are handed over at once.
  static uint64_t piece_bytes(const WeightPlan& plan);
  // Least bytes of a ring for one piece of these segments.
  static uint64_t smallest_piece(std::span<const WeightSegment> segments);

  // Weights are read in the order given. `plan` has files, ring and log. `skip_stored`: segments
  // without tiles are left out.
  static Result<std::unique_ptr<WeightStream>> open(const WeightPlan& plan, std::vector<Source> weights,
                                                    Order order, bool skip_stored);

  void start();  // reading, from the first weight on
  // Calls body(index of the segment, segment, first row, rows) for the pieces of a weight. The codes of
  // these rows, no others, may be read. Error: of the disk, or the first of body.
  using Body = std::function<Result<void>(size_t, const WeightSegment&, int64_t, int64_t)>;
  Result<void> each_piece(size_t weight, const Body& body);
  // The segments of a weight; only rows that each_piece() hands over have codes.
  const std::vector<WeightSegment>& segments(size_t weight) const { return weights_[weight].segments; }
  size_t num_weights() const { return weights_.size(); }
  ReadStats stats() const { return ahead_ ? ahead_->stats() : ReadStats(); }

 private:
  struct Range {
    size_t view;
    int64_t first_stored_row;
  };
  struct Piece {
    size_t segment = 0;
    int64_t first = 0, rows = 0;
    std::vector<Range> ranges;  // as those of the ReadItem
  };
  static std::vector<Piece> cut(std::span<const WeightSegment> segments, uint64_t piece_bytes,
                                bool skip_stored, std::vector<ReadItem>* items,
                                const std::function<FileRange(Bytes)>& place);

  std::vector<Source> weights_;
  std::vector<std::vector<Piece>> pieces_;  // [weight]
  std::vector<size_t> first_item_;          // [weight]
  std::unique_ptr<ReadAhead> ahead_;        // null: nothing to read
};

}  // namespace bise
