// The limits of this processor, measured: what every rate is told beside.
#pragma once

#include "backend/backend.h"
#include "backend/cpu/cpu_kernels.h"
#include "base/thread_pool.h"

namespace bise {

// The best of several rounds, each with all threads of the pool, over about `seconds`.
MatrixPeak measure_cpu_peak(const CpuKernels& kernels, ThreadPool& pool, double seconds);

}  // namespace bise
