// A weight in a GPU's memory: the tiles of the CPU (tile_layout.h), packed by the host's threads.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "backend/cpu/packed_weight.h"
#include "backend/cpu/weight_stream.h"
#include "backend/cuda/cuda_kernels.h"
#include "backend/cuda/device.h"
#include "backend/weight_plan.h"
#include "base/thread_pool.h"

namespace bise::gpu {

// `segments` have tiles, all of them; their `data` is the device's.
struct GpuWeight : PackedWeight {
  // Of each segment: [rows] factors, then [rows] divisors; empty where all are 1.
  std::vector<Buffer> factors;

  const float* times(size_t segment) const { return static_cast<const float*>(factors[segment].data()); }
  const float* over(size_t segment) const {
    return times(segment) == nullptr ? nullptr : times(segment) + segments[segment].rows;
  }
  TiledRows tiled_rows(size_t segment) const {
    const WeightSegment& s = segments[segment];
    return {s.data, s.tile_bytes, s.tiles->integer, s.tiles->floats, s.tiles->ints,
            s.rows, columns,      times(segment),   over(segment)};
  }
};

// Segments as the GPU has them: a format without tiles is decoded into float32, which says what it is.
std::vector<WeightSegment> plan_gpu_segments(std::span<const WeightView> parts);
uint64_t gpu_weight_bytes(std::span<const WeightSegment> segments);

// Brings weights to the GPU: read ahead of their use, packed by the host's threads into pinned memory, and copied from
// there. The host never holds more of them than the ring and that.
class GpuWeightLoader {
 public:
  GpuWeightLoader(ThreadPool& pool, Stream stream) : pool_(pool), stream_(stream) {}

  // All homes are memory. Without a plan, and for what is in no file, weights come from their views.
  Result<void> plan(const WeightPlan& plan);
  Result<Weight> pack(std::span<const WeightView> parts);

 private:
  // Rows [first, first + rows) of a segment of `packed`; `source` has their codes.
  Result<void> place(GpuWeight& packed, size_t segment, const WeightSegment& source, int64_t first, int64_t rows);

  ThreadPool& pool_;
  Stream stream_;
  std::unique_ptr<WeightStream> load_;        // gone once all is loaded
  std::vector<std::optional<size_t>> index_;  // of each planned weight in the stream
  size_t next_ = 0;                           // of the planned weights
  Buffer staging_;
};

}  // namespace bise::gpu
