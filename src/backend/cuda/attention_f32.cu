#include "backend/cuda/attention.cuh"
#include "backend/cuda/attention_kernels.h"

namespace bise::gpu {

void launch_attend_f32(Queue& queue, const AttendArgs& args) { launch_attend<KernelKv::f32>(queue, args); }

}  // namespace bise::gpu
