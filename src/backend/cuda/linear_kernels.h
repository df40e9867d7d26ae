// The two halves of launch_linear: each is a file of its own, for its many kernels.
#pragma once

#include "backend/cuda/linear_plan.h"

namespace bise::gpu {

bool launch_linear_int(Queue& queue, LinearKernelArgs args, const LinearPlan& plan);
bool launch_linear_float(Queue& queue, LinearKernelArgs args, const LinearPlan& plan);

}  // namespace bise::gpu
