// launch_attention's part for each type of the cache: a file each, for their many kernels.
#pragma once

#include "backend/cuda/cuda_kernels.h"

namespace bise::gpu {

void launch_attend_bf16(Queue& queue, const AttendArgs& args);
void launch_attend_f16(Queue& queue, const AttendArgs& args);
void launch_attend_f32(Queue& queue, const AttendArgs& args);
void launch_attend_fp8(Queue& queue, const AttendArgs& args);
void launch_attend_int8(Queue& queue, const AttendArgs& args);
void launch_attend_int4(Queue& queue, const AttendArgs& args);

}  // namespace bise::gpu
