#pragma once

#include <memory>

#include "backend/backend.h"

namespace bise {

// The backend on device 0 (cuda/device.h).
Result<std::unique_ptr<Backend>> make_cuda_backend(const BackendOptions& options);

}  // namespace bise
