#include "backend/cuda/attention.cuh"
#include "backend/cuda/attention_kernels.h"

namespace bise::gpu {

void launch_attend_bf16(Queue& queue, const AttendArgs& args) { launch_attend<KernelKv::bf16>(queue, args); }

}  // namespace bise::gpu
