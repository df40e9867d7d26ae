// Brings weights to where the plan wants them: packed in memory, streamed, or left in the file's map.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "backend/cpu/packed_weight.h"
#include "backend/cpu/weight_stream.h"
#include "backend/weight_plan.h"
#include "base/thread_pool.h"

namespace bise {

// A weight whose bytes are in its file. `segments` are without tiles, as the file has them.
struct StreamedWeight : PackedWeight {
  std::optional<size_t> index;  // in the stream; none: only single rows are read
};

class WeightLoader {
 public:
  // `tiled`: formats with a kernel are packed into its tiles.
  WeightLoader(ThreadPool& pool, bool tiled) : pool_(pool), tiled_(tiled) {}

  WeightCost cost(std::span<const WeightView> parts) const;
  Result<void> plan(WeightPlan plan);
  Result<Weight> pack(std::span<const WeightView> parts);
  // Of the weights that were packed with the home `streamed`.
  WeightStream& stream() { return *stream_; }
  bool streams() const { return stream_ != nullptr; }
  StreamStats stats() const;
  // One row of a weight in its file, as float32. Error: of the disk.
  Result<void> read_row(const StreamedWeight& table, int64_t row, std::span<float> out) const;

 private:
  Result<Weight> pack_into_memory(std::span<const WeightView> parts, std::optional<size_t> load);
  Result<Weight> leave_in_file(std::span<const WeightView> parts, WeightHome home);
  Result<void> pack_rows(const WeightSegment& segment, int64_t columns, int64_t first, int64_t rows,
                         uint8_t* out);

  void warn_of_placement();

  ThreadPool& pool_;
  bool tiled_;
  bool warned_of_placement_ = false;
  std::optional<WeightPlan> plan_;
  std::vector<DirectFile> files_;       // of the plan, for single rows
  size_t next_ = 0;                     // of the plan's weights
  std::vector<std::optional<size_t>> place_;  // of each planned weight in its stream
  std::vector<Buffer> side_;            // copies of the side parts of streamed weights
  std::unique_ptr<WeightStream> load_;  // of the weights for memory; gone once they are loaded
  std::unique_ptr<WeightStream> stream_;
};

}  // namespace bise
