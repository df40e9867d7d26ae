#include "backend/cuda/attention.cuh"
#include "backend/cuda/attention_kernels.h"

namespace bise::gpu {

void launch_attend_int8(Queue& queue, const AttendArgs& args) { launch_attend<KernelKv::int8>(queue, args); }

}  // namespace bise::gpu
