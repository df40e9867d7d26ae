#include "backend/cpu/cpu_backend.h"
#include "backend/create_cuda_backend.h"

namespace bise {

Result<std::unique_ptr<Backend>> create_backend(const std::string& name, const BackendOptions& options) {
  if (name == "auto" || name == "cpu") return create_cpu_backend(options);
  if (name == "cuda") return create_cuda_backend(options);
  return Error(ErrorCode::invalid_argument,
               "--backend: found \"" + name + "\", expected auto, cpu or cuda");
}

}  // namespace bise
