#include "backend/create_cuda_backend.h"

#include "backend/cuda/cuda_backend.h"

namespace bise {

bool is_built_with_cuda() { return true; }

Result<std::unique_ptr<Backend>> create_cuda_backend(const BackendOptions& options) {
  return make_cuda_backend(options);
}

}  // namespace bise
