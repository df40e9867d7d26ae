// What makes the CUDA backend. Without CUDA no_cuda.cpp supplies it: which of the two
// is linked is the build's choice, and no shared code asks.
#pragma once

#include <memory>

#include "backend/backend.h"

namespace bise {

bool is_built_with_cuda();
Result<std::unique_ptr<Backend>> create_cuda_backend(const BackendOptions& options);

}  // namespace bise
