#include "backend/cuda/attention.cuh"
#include "backend/cuda/attention_kernels.h"

namespace bise::gpu {

void launch_attend_fp8(Queue& queue, const AttendArgs& args) { launch_attend<KernelKv::fp8>(queue, args); }

}  // namespace bise::gpu
