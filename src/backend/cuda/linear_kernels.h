// The two halves of launch_linear: each is a file of its own, for its many kernels.
#pragma once

#include "backend/cuda/cuda_kernels.h"

namespace bise::gpu {

bool launch_linear_int(Queue& queue, const LinearArgs& args);
bool launch_linear_float(Queue& queue, const LinearArgs& args);

}  // namespace bise::gpu
