#include "backend/create_cuda_backend.h"

namespace bise {

bool is_built_with_cuda() { return false; }

Result<std::unique_ptr<Backend>> create_cuda_backend(const BackendOptions&) {
  return Error(
      ErrorCode::unsupported,
      "--backend cuda: this program was built without CUDA (cmake -DBISE_CUDA=ON builds it in); --backend cpu runs here");
}

}  // namespace bise
