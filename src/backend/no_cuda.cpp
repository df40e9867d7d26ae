#include "backend/create_cuda_backend.h"

namespace bise {

Result<std::unique_ptr<Backend>> create_cuda_backend(const BackendOptions&) {
  return Error(ErrorCode::unsupported,
               "--backend cuda: this program was built without CUDA; --backend cpu runs here");
}

}  // namespace bise
