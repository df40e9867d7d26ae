// The CPU's Backend: splits each op over a thread pool and calls the kernel table of the instruction
// set chosen at construction.
#pragma once

#include <memory>

#include "backend/backend.h"
#include "backend/cpu/cpu_features.h"
#include "backend/cpu/cpu_kernels.h"

namespace bise {

// The table of a level that this processor has.
const CpuKernels& cpu_kernels(IsaLevel level);

// Error: an ISA that is unknown, or that this processor lacks.
Result<std::unique_ptr<Backend>> create_cpu_backend(const BackendOptions& options);

// With a kernel table of the caller's: tests run emulated instruction sets through it.
std::unique_ptr<Backend> create_cpu_backend_with(const CpuKernels& kernels, const BackendOptions& options);

}  // namespace bise
