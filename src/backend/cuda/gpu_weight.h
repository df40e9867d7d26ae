// A weight in a GPU's memory: the tiles of the CPU (tile_layout.h), packed by the host's threads.
#pragma once

#include <span>
#include <vector>

#include "backend/cpu/packed_weight.h"
#include "backend/cuda/device.h"
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
};

// Segments as the GPU has them: a format without tiles is decoded into float32, which says what it is.
std::vector<WeightSegment> plan_gpu_segments(std::span<const WeightView> parts);
uint64_t gpu_weight_bytes(std::span<const WeightSegment> segments);
Result<Weight> pack_gpu_weight(std::span<const WeightView> parts, ThreadPool& pool, Stream stream);

}  // namespace bise::gpu
