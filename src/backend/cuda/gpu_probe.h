// The read bandwidth of a GPU's memory.
#pragma once

#include <memory>

#include "backend/backend.h"
#include "backend/cuda/device.h"

namespace bise::gpu {

std::unique_ptr<ReadProbe> probe_gpu_reads(Stream stream, int32_t num_multiprocessors);

}  // namespace bise::gpu
